// SPDX-License-Identifier: Apache-2.0
// Handlers that leave malloc for good by siglongjmp, as shells and interpreters do: nothing may
// hang, no slot be handed out twice, and memory still be found afterwards.
// native: no
// run:
// run: name=thread thread
// run: name=kernel_thread env=UNDERGO=sched=off thread
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/time.h>

#include "check.h"

enum { kSlots = 400 };
static sigjmp_buf back;
static volatile int jumps;
static volatile int armed;

static void Jump(int sig) {
  (void)sig;
  if (!armed) return;
  armed = 0;
  jumps++;
  siglongjmp(back, 1);
}

static void* Storm(void* arg) {
  static unsigned char* volatile p[kSlots];
  static volatile size_t n[kSlots];
  static Random r = {17};
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = Jump;
  CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
  struct itimerval every = {{0, 300}, {0, 300}};
  CHECK_EQ(setitimer(ITIMER_REAL, &every, NULL), 0);
  double end = Seconds() + 2;
  while (Seconds() < end) {
    // The block that a jump interrupts is given up: nobody knows whether the call had its effect.
    if (sigsetjmp(back, 1) == 0) {
      for (int i = 0; i < 500; i++) {
        size_t k = Below(&r, kSlots);
        unsigned char* old = p[k];
        if (old) {
          CHECK_MSG(Verify(old, n[k], k) == n[k], "a block of %zu was handed out twice", n[k]);
          p[k] = NULL;
          armed = 1;
          free(old);
          armed = 0;
        }
        size_t size = 1 + Below(&r, Below(&r, 100) ? 600 : 60000);
        armed = 1;
        unsigned char* fresh = malloc(size);
        armed = 0;
        CHECK(fresh);
        Fill(fresh, size, k);
        n[k] = size;
        p[k] = fresh;
      }
    }
  }
  memset(&every, 0, sizeof every);
  setitimer(ITIMER_REAL, &every, NULL);
  CHECK_MSG(jumps > 3, "only %d jumps", jumps);
  for (int k = 0; k < kSlots; k++) free(p[k]);
  for (int i = 0; i < 100000; i++) free(malloc(1 + (size_t)i % 100000));
  long rss = RssKb();
  CHECK_MSG(rss < 200000, "%ld kB after %d jumps", rss, jumps);
  // A thread that were still in the middle of malloc could not give memory back.
  char* volatile large = malloc(64 << 20);
  memset(large, 1, 64 << 20);
  free(large);
  CHECK_EQ(malloc_trim(0), 1);
  return arg;
}

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "thread") == 0) {
    pthread_t t;
    CHECK_EQ(pthread_create(&t, NULL, Storm, NULL), 0);
    sigset_t alarm;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, &alarm, NULL), 0);
    CHECK_EQ(pthread_join(t, NULL), 0);
  } else {
    Storm(NULL);
  }
  puts("jumps right");
  return 0;
}
