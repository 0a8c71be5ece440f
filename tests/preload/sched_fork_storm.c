// SPDX-License-Identifier: Apache-2.0
// fork in signal handlers while threads begin and end: in those that compute, that wait, that are
// in the middle of ending, on the main thread and on others. Children allocate, which a handler's
// may under the library only, and those of a thread at rest go on to use threads.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// run: name=preempted env=UNDERGO=stress=preempt
// timeout: 60
#include <stdatomic.h>
#include <sys/wait.h>

#include "pthreads.h"

enum { kForks = 60, kStanding = 4 };
static atomic_int stop, forks, ready;
static atomic_int raising;  // threads that fork yet, or wait for their child; some are detached
static int allocates;       // also children of a handler anywhere
static pthread_t standing[kStanding];
static __thread int mine;
static __thread int rests;  // the handler interrupts nothing that holds a lock of libc

static void* Returns(void* arg) { return arg; }
static void ChildLives(void) {
  alarm(60);
  const int before = mine;
  if (rests || allocates) {
    char* p = malloc(10000);
    if (p == NULL) _exit(2);
    memset(p, 1, 10000);
    free(p);
  }
  if (rests) {
    void* got = NULL;
    pthread_t t[3];
    for (int i = 0; i < 3; i++)
      if (pthread_create(&t[i], NULL, Returns, &got) != 0) _exit(3);
    for (int i = 0; i < 3; i++)
      if (pthread_join(t[i], &got) != 0 || got != &got) _exit(4);
  }
  _exit(before == mine ? 0 : 5);
}
static void ForkHere(int sig) {
  int saved = errno;
  (void)sig;
  pid_t child = rests ? fork() : _Fork();
  if (child == 0) ChildLives();
  if (child > 0) {
    int status;
    pid_t got;
    while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR) {
    }
    CHECK_MSG(got == child && status == 0, "child %d of %d: status 0x%x", got, child, status);
    forks++;
  } else {
    CHECK_EQ(errno, EAGAIN);
  }
  errno = saved;
}

// Threads that end as soon as they have begun, some with a signal on its way to them.
static pthread_key_t key;
static void OnEnd(void* value) {
  free(value);
  mine = 7;
}
static void* EndsAtOnce(void* arg) {
  mine = 3;
  CHECK_EQ(pthread_setspecific(key, malloc(50)), 0);
  if (arg != NULL) {
    raise(SIGUSR1);
    raising--;
  }
  return NULL;
}
static void* Begins(void* arg) {
  for (unsigned i = 0; !stop; i++) {
    void* raises = i % 16 == 0 ? arg : NULL;
    if (raises != NULL) raising++;
    pthread_t t = Start(EndsAtOnce, raises);
    if (i % 3 == 0) {
      CHECK_EQ(pthread_detach(t), 0);
    } else {
      if (i % 5 == 0) pthread_kill(t, SIGUSR1);  // it may have ended: still joinable
      Join(t);
    }
    if (i % 8 == 0) SleepMs(1);
  }
  return arg;
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static void* Stands(void* arg) {
  const intptr_t how = (intptr_t)arg;
  sigset_t usr1 = SetOf(SIGUSR1, 0);
  ready++;
  if (how == 0) rests = 1;
  while (!stop) switch (how) {
      case 0: SleepMs(2); break;
      case 1:
        for (volatile int i = 0; i < 100000; i++) {
        }
        break;
      case 2: {
        struct timespec when = In(CLOCK_REALTIME, 2);
        pthread_mutex_lock(&mutex);
        pthread_cond_timedwait(&cond, &mutex, &when);
        pthread_mutex_unlock(&mutex);
        break;
      }
      case 3: free(malloc(50000)), sched_yield(); break;
    }
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &usr1, NULL), 0);
  return arg;
}
static void Storm(const char* name) {
  (void)name;
  struct sigaction act = {.sa_handler = ForkHere, .sa_flags = SA_RESTART};
  CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
  CHECK_EQ(pthread_key_create(&key, OnEnd), 0);
  rests = 1;
  allocates = UnderPreload();
  pthread_t makers[2];
  for (intptr_t i = 0; i < kStanding; i++) standing[i] = Start(Stands, (void*)i);
  for (int i = 0; i < 2; i++) makers[i] = Start(Begins, &makers[i]);
  while (ready < kStanding) SleepMs(1);
  for (int i = 0; i < kForks; i++) {
    const int before = forks;
    if (i % 5 == 4) {
      raise(SIGUSR1);
    } else {
      CHECK_EQ(pthread_kill(standing[i % kStanding], SIGUSR1), 0);
    }
    EVENTUALLY(forks > before);
  }
  stop = 1;
  for (int i = 0; i < 2; i++) Join(makers[i]);
  for (int i = 0; i < kStanding; i++) Join(standing[i]);
  EVENTUALLY(raising == 0);
  CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"storm", Storm}};
  return RUN_PARTS(parts);
}
