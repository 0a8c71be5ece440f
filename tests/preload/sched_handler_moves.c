// SPDX-License-Identifier: Apache-2.0
// Handlers that wait, in threads that allocate: such a thread may go on on another kernel thread,
// but not with a malloc that was interrupted half-way and has the cache of the first one in its
// registers. Two threads would get the same slot.
// native: no
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=four pace=long env=GOMAXPROCS=4
// run: name=preempted env=UNDERGO=stress=preempt
// timeout: 60
#include <stdatomic.h>
#include <unistd.h>

#include "pthreads.h"

enum { kThreads = 3, kSignals = 600, kKept = 16 };
static atomic_int stop, handled;

static void OnSignal(int sig) {
  (void)sig;
  const int saved = errno;
  usleep(30);
  handled++;
  errno = saved;
}
// What it keeps carries its own mark.
static void* Allocates(void* arg) {
  intptr_t* volatile kept[kKept] = {NULL};
  for (unsigned i = 0; !stop; i++) {
    intptr_t* volatile* at = &kept[i % kKept];
    CHECK_MSG(*at == NULL || **at == (intptr_t)arg, "another thread has the same block");
    free(*at);
    *at = malloc(100);
    **at = (intptr_t)arg;
  }
  for (int i = 0; i < kKept; i++) free(kept[i]);
  return arg;
}
static void* Waits(void* arg) {
  while (!stop) usleep(20);
  return arg;
}
static void Handlers(const char* name) {
  (void)name;
  pthread_t t[kThreads], w[kThreads];
  for (intptr_t i = 0; i < kThreads; i++) {
    t[i] = Start(Allocates, (void*)(i + 1));
    w[i] = Start(Waits, NULL);
  }
  for (int i = 0; i < kSignals; i++) {
    CHECK_EQ(pthread_kill(t[i % kThreads], SIGUSR1), 0);
    usleep(200);
  }
  stop = 1;
  for (int i = 0; i < kThreads; i++) Join(t[i]), Join(w[i]);
  CHECK(handled > kSignals / 4);  // some become one
}

int main(int argc, char** argv) {
  struct sigaction act = {.sa_handler = OnSignal, .sa_flags = SA_RESTART};
  CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
  static const Part parts[] = {{"handlers", Handlers}};
  return RUN_PARTS(parts);
}
