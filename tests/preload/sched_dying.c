// SPDX-License-Identifier: Apache-2.0
// A signal that all threads block, and whose action is the default one, while threads end: it must
// not meet a kernel thread that has just been left by one that did not block it.
// run:
// run: name=one env=GOMAXPROCS=1
// run: name=four env=GOMAXPROCS=4
// timeout: 60
#include <signal.h>

#include "pthreads.h"

enum { kRounds = 400, kThreads = 4 };

static void* Ends(void* arg) { return arg; }

int main(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN);
  for (int i = 0; i < kRounds; i++) {
    CHECK(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
    pthread_t t[kThreads];
    for (int k = 0; k < kThreads; k++) t[k] = Start(Ends, NULL);
    for (int k = 0; k < kThreads; k++) Join(t[k]);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    union sigval v = {.sival_int = i};
    CHECK(sigqueue(getpid(), SIGRTMIN, v) == 0);
    siginfo_t info;
    CHECK(sigwaitinfo(&set, &info) == SIGRTMIN);
    CHECK(info.si_value.sival_int == i);
  }
  return 0;
}
