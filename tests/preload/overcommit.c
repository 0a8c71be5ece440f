// SPDX-License-Identifier: Apache-2.0
// With strict accounting (vm.overcommit_memory = 2) the process starts, gets memory and is refused
// in order. The setting is the whole machine's, so this runs only when it is asked for.
// needs: root overcommit
// run:
#include <sys/wait.h>

#include "check.h"

static void Write(const char* path, const char* text) {
  int fd = open(path, O_WRONLY);
  CHECK(fd >= 0);
  CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
  close(fd);
}

static int Child(void) {
  static void* p[1 << 16];
  size_t n = 0;
  while (n < (1 << 16) && (p[n] = malloc(4 << 20)) != NULL) {
    *(char*)p[n] = 1;
    n++;
  }
  CHECK(n > 8 && errno == ENOMEM);
  for (size_t i = 0; i < n; i++) free(p[i]);
  for (int i = 0; i < 100000; i++) {
    void* q = malloc((size_t)i % 3000);
    CHECK(q);
    free(q);
  }
  puts("accounting right");
  return 0;
}

int main(int argc, char** argv) {
  (void)argv;
  if (argc > 1) return Child();
  const char* path = "/proc/sys/vm/overcommit_memory";
  char old[8] = {0};
  int fd = open(path, O_RDONLY);
  CHECK(fd >= 0 && read(fd, old, sizeof old - 1) > 0);
  close(fd);
  Write(path, "2\n");
  int status = 0;
  pid_t pid = fork();
  if (pid == 0) {
    execl("/proc/self/exe", "overcommit", "child", (char*)NULL);
    _exit(127);
  }
  if (pid > 0) waitpid(pid, &status, 0);
  Write(path, old);
  CHECK(pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  return 0;
}
