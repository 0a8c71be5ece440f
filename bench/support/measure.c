// SPDX-License-Identifier: Apache-2.0
// Runs one command with a given LD_PRELOAD and writes what the kernel accounted to it. Small and
// static on purpose: a forked child inherits the peak RSS of its parent's image until exec and the
// kernel keeps that as a floor of ru_maxrss, so measuring from Python would hide small programs.
//   measure RESULT-FILE LD_PRELOAD-VALUE COMMAND [ARGUMENTS]
// The result: "exit signal user_us sys_us wall_us maxrss_kb minor_faults major_faults switches".
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char** environ;

static long long NowMicros(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000ll + now.tv_nsec / 1000;
}

static long long Micros(struct timeval time) { return time.tv_sec * 1000000ll + time.tv_usec; }

int main(int argc, char** argv) {
  if (argc < 4) {
    fprintf(stderr, "measure: usage: measure RESULT-FILE LD_PRELOAD-VALUE COMMAND [ARGUMENTS]\n");
    return 2;
  }
  if (argv[2][0] != '\0') {
    setenv("LD_PRELOAD", argv[2], 1);
  } else {
    unsetenv("LD_PRELOAD");
  }
  const long long start = NowMicros();
  pid_t child;
  const int error = posix_spawnp(&child, argv[3], NULL, NULL, argv + 3, environ);
  if (error != 0) {
    fprintf(stderr, "measure: %s: %s\n", argv[3], strerror(error));
    return 127;
  }
  int status;
  struct rusage usage;
  while (wait4(child, &status, 0, &usage) < 0) {
    if (errno != EINTR) return 1;
  }
  const long long wall = NowMicros() - start;
  FILE* out = fopen(argv[1], "w");
  if (out == NULL) {
    fprintf(stderr, "measure: %s: %s\n", argv[1], strerror(errno));
    return 1;
  }
  fprintf(out, "%d %d %lld %lld %lld %ld %ld %ld %ld\n",
          WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
          Micros(usage.ru_utime), Micros(usage.ru_stime), wall, usage.ru_maxrss, usage.ru_minflt,
          usage.ru_majflt, usage.ru_nvcsw + usage.ru_nivcsw);
  return fclose(out) == 0 ? 0 : 1;
}
