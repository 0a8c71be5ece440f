// SPDX-License-Identifier: Apache-2.0
// Beside another preload that allocates inside mmap, open, read and the like: start-up and the slow
// paths must not fall into it, or must stand it.
// run: preload=recurse
// run: name=forks preload=recurse forks
#include <pthread.h>
#include <sys/wait.h>

#include "check.h"

static void* Work(void* arg) {
  Random r = {(uint64_t)(uintptr_t)arg};
  for (int i = 0; i < 20000; i++) {
    size_t n = 1 + Below(&r, Below(&r, 100) ? 1000 : 500000);
    unsigned char* p = malloc(n);
    CHECK(p);
    p[0] = p[n - 1] = 7;
    free(p);
  }
  return NULL;
}

int main(int argc, char** argv) {
  (void)argv;
  CHECK(dlsym(RTLD_DEFAULT, "RecurseCalls"));
  pthread_t t[3];
  for (size_t i = 0; i < 3; i++) CHECK_EQ(pthread_create(&t[i], NULL, Work, (void*)(i + 1)), 0);
  Work((void*)9);
  for (int i = 0; argc > 1 && i < 20; i++) {
    pid_t pid = fork();
    if (pid == 0) {
      Work((void*)5);
      exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
  puts("side by side");
  return 0;
}
