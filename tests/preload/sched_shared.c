// SPDX-License-Identifier: Apache-2.0
// Conditions, semaphores, barriers and read-write locks in memory that two processes share; each
// process has several threads at them.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "pthreads.h"

enum { kThreads = 3, kRounds = 200 };
static struct {
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  pthread_rwlock_t rwlock;
  pthread_barrier_t barrier;
  pthread_spinlock_t spin;
  sem_t sem, back;
  int turn, inside, steps;
  atomic_int crossed, readers;
} * at;

// Runs the body in some threads here and in a child process, and waits for all.
static void Both(ThreadBody body) {
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) alarm(60);  // if the parent fails
  pthread_t t[kThreads];
  for (intptr_t i = 0; i < kThreads; i++)
    t[i] = Start(body, (void*)(child == 0 ? i : i + kThreads));
  for (int i = 0; i < kThreads; i++) Join(t[i]);
  if (child == 0) _exit(0);
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
}

// Six threads in two processes take turns.
static void* Turns(void* arg) {
  const int me = (int)(intptr_t)arg;
  for (int i = 0; i < kRounds; i++) {
    CHECK_EQ(pthread_mutex_lock(&at->mutex), 0);
    while (at->turn % (2 * kThreads) != me) {
      struct timespec when = In(CLOCK_REALTIME, 60000);
      if (i % 2)
        CHECK_EQ(pthread_cond_wait(&at->cond, &at->mutex), 0);
      else
        CHECK_EQ(pthread_cond_timedwait(&at->cond, &at->mutex, &when), 0);
    }
    at->turn++;
    CHECK_EQ(pthread_cond_broadcast(&at->cond), 0);
    CHECK_EQ(pthread_mutex_unlock(&at->mutex), 0);
  }
  return NULL;
}
static void Cond(const char* name) {
  (void)name;
  Both(Turns);
  CHECK_EQ(at->turn, 2 * kThreads * kRounds);
}

static void* PassesTokens(void* arg) {
  const int here = (intptr_t)arg >= kThreads;
  for (int i = 0; i < kRounds * 5; i++) {
    CHECK_EQ(sem_wait(here ? &at->sem : &at->back), 0);
    CHECK_EQ(sem_post(here ? &at->back : &at->sem), 0);
  }
  return NULL;
}
static void Sem(const char* name) {
  (void)name;
  CHECK(sem_init(&at->sem, 1, 1) == 0 && sem_init(&at->back, 1, 0) == 0);
  Both(PassesTokens);
  int a, b;
  CHECK(sem_getvalue(&at->sem, &a) == 0 && sem_getvalue(&at->back, &b) == 0 && a + b == 1);
}
// The same over names.
static void NamedSem(const char* name) {
  char text[64];
  snprintf(text, sizeof text, "/undergo-%s-%d", name, getpid());
  sem_t* s = sem_open(text, O_CREAT | O_EXCL, 0600, 0);
  if (s == SEM_FAILED) SKIP("no named semaphores here");
  CHECK(sem_open(text, O_CREAT | O_EXCL, 0600, 0) == SEM_FAILED && errno == EEXIST);
  sem_t* same = sem_open(text, 0);
  CHECK(same == s);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    sem_t* own = sem_open(text, O_RDWR);
    CHECK(own != SEM_FAILED);
    for (int i = 0; i < 100; i++) CHECK_EQ(sem_post(own), 0);
    _exit(0);
  }
  for (int i = 0; i < 100; i++) CHECK_EQ(sem_wait(s), 0);
  CHECK(sem_trywait(s) == -1 && errno == EAGAIN);
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  CHECK(sem_unlink(text) == 0 && sem_unlink(text) == -1 && errno == ENOENT);
  CHECK(sem_close(s) == 0 && sem_close(same) == 0);
}

static void* Crosses(void* arg) {
  for (int i = 0; i < kRounds; i++) {
    atomic_fetch_add(&at->crossed, 1);
    int r = pthread_barrier_wait(&at->barrier);
    CHECK(r == 0 || r == PTHREAD_BARRIER_SERIAL_THREAD);
    CHECK_EQ(at->crossed, (i + 1) * 2 * kThreads);
    if (r == PTHREAD_BARRIER_SERIAL_THREAD) at->steps++;
    pthread_barrier_wait(&at->barrier);
  }
  return arg;
}
static void Barrier(const char* name) {
  (void)name;
  Both(Crosses);
  CHECK_EQ(at->steps, kRounds);
  CHECK_EQ(pthread_barrier_destroy(&at->barrier), 0);
}

static void* ReadsWrites(void* arg) {
  const intptr_t me = (intptr_t)arg;
  for (int i = 0; i < kRounds * 5; i++) {
    if ((i + me) % 4 == 0) {
      CHECK_EQ(pthread_rwlock_wrlock(&at->rwlock), 0);
      CHECK(++at->inside == 1 && at->readers == 0);
      if (i % 64 == 0) sched_yield();
      at->inside--;
    } else {
      CHECK_EQ(pthread_rwlock_rdlock(&at->rwlock), 0);
      at->readers++;
      CHECK_EQ(at->inside, 0);
      at->readers--;
    }
    CHECK_EQ(pthread_rwlock_unlock(&at->rwlock), 0);
    CHECK_EQ(pthread_spin_lock(&at->spin), 0);
    at->steps++;
    CHECK_EQ(pthread_spin_unlock(&at->spin), 0);
  }
  return NULL;
}
static void RwlockSpin(const char* name) {
  (void)name;
  at->steps = 0;
  Both(ReadsWrites);
  CHECK_EQ(at->steps, 2 * kThreads * kRounds * 5);
}

// Many threads of one process at one shared condition: each of them is a kernel thread meanwhile,
// which takes a moment each and no more.
enum { kCrowd = 2000 };
static int arrived, opened;
static void* InCrowd(void* arg) {
  pthread_mutex_lock(&at->mutex);
  arrived++;
  struct timespec when = In(CLOCK_REALTIME, 10 * kForeverMs);
  while (!opened) {
    int error = arrived % 2 ? pthread_cond_wait(&at->cond, &at->mutex)
                            : pthread_cond_timedwait(&at->cond, &at->mutex, &when);
    CHECK_EQ(error, 0);
  }
  pthread_mutex_unlock(&at->mutex);
  return arg;
}
static void Crowd(const char* name) {
  (void)name;
  static pthread_t t[kCrowd];
  for (int i = 0; i < kCrowd; i++) t[i] = Start(InCrowd, NULL);
  for (int seen = 0; seen < kCrowd; sched_yield()) {
    pthread_mutex_lock(&at->mutex);
    seen = arrived;
    pthread_mutex_unlock(&at->mutex);
  }
  pthread_mutex_lock(&at->mutex);
  opened = 1;
  pthread_cond_broadcast(&at->cond);
  pthread_mutex_unlock(&at->mutex);
  for (int i = 0; i < kCrowd; i++) Join(t[i]);
}

int main(int argc, char** argv) {
  at = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(at != MAP_FAILED);
  pthread_mutexattr_t ma;
  pthread_condattr_t ca;
  pthread_rwlockattr_t ra;
  pthread_barrierattr_t ba;
  pthread_mutexattr_init(&ma), pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED);
  pthread_condattr_init(&ca), pthread_condattr_setpshared(&ca, PTHREAD_PROCESS_SHARED);
  pthread_rwlockattr_init(&ra), pthread_rwlockattr_setpshared(&ra, PTHREAD_PROCESS_SHARED);
  pthread_barrierattr_init(&ba), pthread_barrierattr_setpshared(&ba, PTHREAD_PROCESS_SHARED);
  CHECK_EQ(pthread_mutex_init(&at->mutex, &ma), 0);
  CHECK_EQ(pthread_cond_init(&at->cond, &ca), 0);
  CHECK_EQ(pthread_rwlock_init(&at->rwlock, &ra), 0);
  CHECK_EQ(pthread_barrier_init(&at->barrier, &ba, 2 * kThreads), 0);
  CHECK_EQ(pthread_spin_init(&at->spin, PTHREAD_PROCESS_SHARED), 0);
  static const Part parts[] = {{"cond", Cond},
                               {"sem", Sem},
                               {"named", NamedSem},
                               {"barrier", Barrier},
                               {"rwlock_spin", RwlockSpin},
                               {"crowd", Crowd}};
  return RUN_PARTS(parts);
}
