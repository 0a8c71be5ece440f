// SPDX-License-Identifier: Apache-2.0
// fork from threads: order of the handlers, locks that are usable in the child, a child that
// starts threads again and forks again, thread-local data and masks as they were, many at once.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "pthreads.h"

static char order[64];
static int ordered;
static pthread_mutex_t guarded = PTHREAD_MUTEX_INITIALIZER;
static atomic_int stop, counter;
static __thread int mine;
static pthread_key_t key;

static void Note(char c) {
  if (ordered < 63) order[ordered++] = c;
}
static void Prepare1(void) { Note('a'), pthread_mutex_lock(&guarded); }
static void Parent1(void) { pthread_mutex_unlock(&guarded), Note('b'); }
static void Child1(void) { pthread_mutex_unlock(&guarded), Note('c'); }
static void Prepare2(void) { Note('A'); }
static void Parent2(void) { Note('B'); }
static void Child2(void) { Note('C'); }

static void Await(pid_t child) {
  int status;
  pid_t got = waitpid(child, &status, 0);
  CHECK_MSG(got == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: %d, status 0x%x",
            got, status);
}
static void* Adds(void* arg) {
  char c;
  int* ends = arg;
  counter++;
  CHECK_EQ(pthread_mutex_lock(&guarded), 0);
  SleepMs(1);
  CHECK_EQ(pthread_mutex_unlock(&guarded), 0);
  CHECK_EQ(read(ends[0], &c, 1), 1);
  counter++;
  return NULL;
}
// What any process may do: threads that block, wait, end.
static void UseThreads(void) {
  int ends[2];
  pthread_t t[10];
  counter = 0;
  CHECK_EQ(pipe(ends), 0);
  for (int i = 0; i < 10; i++) t[i] = Start(Adds, ends);
  CHECK_EQ(write(ends[1], "0123456789", 10), 10);
  for (int i = 0; i < 10; i++) Join(t[i]);
  CHECK_EQ(counter, 20);
  close(ends[0]), close(ends[1]);
  struct timespec t5 = {0, 5000000};
  CHECK_EQ(nanosleep(&t5, NULL), 0);
}

static void* Background(void* arg) {
  const intptr_t how = (intptr_t)arg;
  while (!stop) {
    pthread_mutex_lock(&guarded);
    if (how == 0) sched_yield();
    pthread_mutex_unlock(&guarded);
    free(malloc(100));
    if (how == 1) SleepMs(1);
    if (how == 2)
      for (volatile int i = 0; i < 10000; i++) {
      }
  }
  return NULL;
}
static void* Forks(void* arg) {
  const int me = (int)(intptr_t)arg;
  for (int i = 0; i < 8; i++) {
    mine = me * 100 + i;
    CHECK_EQ(pthread_setspecific(key, &mine), 0);
    sigset_t set = SetOf(SIGUSR1, 0), now;
    CHECK_EQ(pthread_sigmask(i % 2 ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL), 0);
    pthread_t self = pthread_self();
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      alarm(60);
      CHECK(mine == me * 100 + i && pthread_getspecific(key) == &mine);
      CHECK(pthread_equal(self, pthread_self()));
      CHECK_EQ(gettid(), getpid());
      CHECK_EQ(syscall(SYS_gettid), getpid());
      CHECK(pthread_sigmask(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, SIGUSR1) == i % 2);
      UseThreads();
      if (i % 4 == 0) {
        pid_t grandchild = fork();
        CHECK(grandchild >= 0);
        if (grandchild == 0) {
          UseThreads();
          exit(0);
        }
        Await(grandchild);
      }
      // The end of the only thread is the end of the process, with status 0.
      if (i % 4 == 1) pthread_exit(NULL);
      if (i % 4 == 2) exit(0);
      _exit(0);
    }
    Await(child);
    CHECK_EQ(mine, me * 100 + i);
  }
  return NULL;
}

static void Order(const char* name) {
  (void)name;
  CHECK_EQ(pthread_atfork(Prepare1, Parent1, Child1), 0);
  CHECK_EQ(pthread_atfork(Prepare2, Parent2, Child2), 0);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) _exit(strcmp(order, "AacC") != 0);
  CHECK_MSG(!strcmp(order, "AabB"), "%s", order);
  Await(child);
}
static void Many(const char* name) {
  (void)name;
  pthread_t b[6], t[4];
  stop = 0;
  for (intptr_t i = 0; i < 6; i++) b[i] = Start(Background, (void*)(i % 3));
  for (intptr_t i = 0; i < 4; i++) t[i] = Start(Forks, (void*)i);
  for (int i = 0; i < 4; i++) Join(t[i]);
  stop = 1;
  for (int i = 0; i < 6; i++) Join(b[i]);
  UseThreads();
}

// With hundreds of parked threads; the child must not hear of them.
static sem_t parked;
static void* Parks(void* arg) {
  CHECK_EQ(sem_wait(&parked), 0);
  counter++;
  return arg;
}
static void Parked(const char* name) {
  (void)name;
  enum { kParked = 300 };
  pthread_t t[kParked];
  sem_init(&parked, 0, 0);
  counter = 0;
  for (int i = 0; i < kParked; i++) t[i] = Start(Parks, NULL);
  for (int i = 0; i < 5; i++) {
    pid_t child = i % 2 ? _Fork() : fork();
    CHECK(child >= 0);
    if (child == 0) {
      for (int k = 0; k < kParked; k++) sem_post(&parked);
      SleepMs(2);
      if (counter != 0) _exit(1);
      if (i % 2 == 0) UseThreads();
      _exit(0);
    }
    Await(child);
  }
  for (int i = 0; i < kParked; i++) sem_post(&parked);
  for (int i = 0; i < kParked; i++) Join(t[i]);
  CHECK_EQ(counter, kParked);
}

int main(int argc, char** argv) {
  CHECK_EQ(pthread_key_create(&key, NULL), 0);
  static const Part parts[] = {{"order", Order}, {"many", Many}, {"parked", Parked}};
  return RUN_PARTS(parts);
}
