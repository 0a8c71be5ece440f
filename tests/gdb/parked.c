// SPDX-License-Identifier: Apache-2.0
// Three threads sleep, the main thread aborts: for tests/gdb/run.sh.
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((noinline)) static void ParkedHere(void) {
  sleep(1000);
  __asm__ volatile("");
}

static void* Sleeper(void* arg) {
  ParkedHere();
  return arg;
}

int main(void) {
  pthread_t t;
  for (int i = 0; i < 3; i++) {
    if (pthread_create(&t, NULL, Sleeper, NULL) != 0) return 1;
  }
  usleep(300 * 1000);
  abort();
}
