// SPDX-License-Identifier: Apache-2.0
// A daemon closes every descriptor, opens others under the same numbers, and works on: the library
// must neither need one of its own nor write into those of the program.
// run: name=close close
// run: name=range range
// run: name=reused reused
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "check.h"

static int keep;

static void Say(const char* text) {
  CHECK(write(keep, text, strlen(text)) == (ssize_t)strlen(text));
}

static void* Work(void* arg) {
  Random r = {(uint64_t)(uintptr_t)arg};
  static __thread unsigned char* p[200];
  static __thread size_t n[200];
  for (int i = 0; i < 8000; i++) {
    size_t k = Below(&r, 200);
    if (p[k] && Verify(p[k], n[k], k) != n[k]) {
      Say("a block was overwritten\n");
      _exit(1);
    }
    free(p[k]);
    n[k] = 1 + Below(&r, Below(&r, 100) ? 900 : 3000000);
    p[k] = malloc(n[k]);
    if (!p[k]) {
      Say("no memory\n");
      _exit(1);
    }
    Fill(p[k], n[k], k);
  }
  for (int k = 0; k < 200; k++) {
    free(p[k]);
    p[k] = NULL;
  }
  return NULL;
}

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "close";
  // Where the runner reads; everything below goes.
  keep = fcntl(1, F_DUPFD, 2000);
  if (keep < 0) keep = fcntl(1, F_DUPFD, 900);
  CHECK(keep >= 0);
  Work((void*)1);
  if (!strcmp(mode, "range"))
    syscall(SYS_close_range, 0, (unsigned)keep - 1, 0);
  else
    for (int fd = 0; fd < keep; fd++) close(fd);
  char names[3][40];
  int files[3];
  if (!strcmp(mode, "reused"))
    // 0, 1 and 2 are files of the program now: not one byte may come into them.
    for (int i = 0; i < 3; i++) {
      snprintf(names[i], sizeof names[i], "/tmp/undergo-test-XXXXXX");
      files[i] = mkstemp(names[i]);
      if (files[i] != i) _exit(3);
      unlink(names[i]);
    }
  pthread_t t[4];
  for (size_t i = 0; i < 4; i++)
    if (pthread_create(&t[i], NULL, Work, (void*)(i + 2))) _exit(4);
  Work((void*)9);
  for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
  malloc_trim(0);
  pid_t pid = fork();
  if (pid == 0) {
    Work((void*)3);
    exit(0);
  }
  int status;
  if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status)) _exit(5);
  if (!strcmp(mode, "reused"))
    for (int i = 0; i < 3; i++) {
      struct stat s;
      if (fstat(files[i], &s) || s.st_size != 0) {
        Say("something was written into the program's file\n");
        _exit(1);
      }
    }
  Say("descriptors right\n");
  return 0;
}
