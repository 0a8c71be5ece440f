// SPDX-License-Identifier: Apache-2.0
// A small program without threads sees neither a thread nor a signal nor a descriptor of the
// library, nor a change of its environment, and may unshare and setns as a single-threaded process.
// run:
#include <sched.h>
#include <signal.h>

#include "check.h"

int main(int argc, char** argv) {
  // Started anew without what the caller left open.
  if (argc == 1) {
    close_range(3, ~0u, 0);
    execl("/proc/self/exe", argv[0], "again", (char*)NULL);
  }
  for (int i = 0; i < 20000; i++) free(malloc((size_t)i % 3000));
  void* p = malloc(1 << 20);
  CHECK(p);
  memset(p, 1, 1 << 20);
  free(p);
  CHECK_EQ(ProcField("/proc/self/status", "Threads"), 1);
  for (int fd = 3; fd < 1024; fd++) CHECK_MSG(fcntl(fd, F_GETFD) < 0, "descriptor %d is open", fd);
  for (int sig = 1; sig <= 64; sig++) {
    struct sigaction action;
    // 32 and 33 are glibc's own.
    if (sig == 32 || sig == 33 || sigaction(sig, NULL, &action)) continue;
    CHECK_MSG(action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN,
              "signal %d has a handler", sig);
  }
  // Handlers installed past the C library show here only.
  char text[4096];
  int fd = open("/proc/self/status", O_RDONLY);
  ssize_t n = read(fd, text, sizeof text - 1);
  CHECK(n > 0);
  text[n] = 0;
  close(fd);
  CHECK_MSG(strstr(text, "SigCgt:\t0000000000000000"), "signals are caught: %.30s",
            strstr(text, "SigCgt"));
  CHECK_MSG(strstr(text, "SigBlk:\t0000000000000000"), "signals are blocked: %.30s",
            strstr(text, "SigBlk"));
  stack_t stack;
  CHECK(sigaltstack(NULL, &stack) == 0 && (stack.ss_flags & SS_DISABLE));
  if (UnderPreload()) CHECK(getenv("LD_PRELOAD") != NULL);
  if (unshare(CLONE_NEWUSER) != 0) CHECK_MSG(errno != EINVAL, "the process is not single-threaded");
  puts("quiet");
  return 0;
}
