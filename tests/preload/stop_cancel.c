// SPDX-License-Identifier: Apache-2.0
// Cancellation and pthread_exit out of blocking calls while the world is stopped and started all
// the time: cleanup handlers run on a thread that counts as running, once each, in their order.
// run: env=UNDERGO=stress=stop
// run: name=quiet
// timeout: 60
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>

#include "check.h"

enum { kRounds = 60 };

static int pipe_ends[2];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static sem_t never;

typedef struct Job {
  int kind;
  int asynchronous;
  volatile int entered, inner, outer, destroyed;
} Job;

static pthread_key_t key;

// Allocates, frees and blocks, as cleanup handlers do.
static void Inner(void* arg) {
  Job* j = arg;
  void* p = malloc(100);
  CHECK(p);
  free(p);
  usleep(100);
  CHECK(j->outer == 0);
  j->inner++;
}
static void Outer(void* arg) {
  Job* j = arg;
  usleep(100);
  CHECK(j->inner == 1);
  j->outer++;
}
static void Unlock(void* arg) {
  (void)arg;
  CHECK(pthread_mutex_unlock(&mutex) == 0);
}
static void Destroy(void* arg) {
  Job* j = arg;
  usleep(100);
  j->destroyed++;
}

static void Block(Job* j) {
  char c;
  struct pollfd p = {pipe_ends[0], POLLIN, 0};
  struct timespec hour = {3600, 0};
  switch (j->kind) {
    case 0: CHECK(read(pipe_ends[0], &c, 1) == -2); break;
    case 1: poll(&p, 1, -1); break;
    case 2: sem_wait(&never); break;
    case 3: nanosleep(&hour, NULL); break;
    case 4:
      pthread_mutex_lock(&mutex);
      pthread_cleanup_push(Unlock, NULL);
      while (1) pthread_cond_wait(&cond, &mutex);
      pthread_cleanup_pop(1);
      break;
    case 5: pause(); break;
  }
}

static void* Run(void* arg) {
  Job* j = arg;
  pthread_setspecific(key, j);
  if (j->asynchronous) pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
  pthread_cleanup_push(Outer, j);
  pthread_cleanup_push(Inner, j);
  j->entered = 1;
  Block(j);
  CheckFailed(__FILE__, __LINE__, "call %d came back", j->kind);
  pthread_cleanup_pop(0);
  pthread_cleanup_pop(0);
  return NULL;
}

static void OnSignal(int sig) {
  (void)sig;
  pthread_exit(&key);
}

int main(void) {
  CHECK(pipe(pipe_ends) == 0);
  sem_init(&never, 0, 0);
  pthread_key_create(&key, Destroy);
  struct sigaction act = {.sa_handler = OnSignal};
  sigaction(SIGUSR1, &act, NULL);
  Random random = {3};
  for (int round = 0; round < kRounds; round++) {
    for (int kind = 0; kind <= 5; kind++) {
      for (int how = 0; how < 3; how++) {
        // An asynchronous cancel of a condition's waiter is nobody's right.
        if (how == 1 && (kind == 4 || kind == 2)) continue;
        if (how == 2 && kind == 4) continue;
        Job j = {kind, how == 1, 0, 0, 0, 0};
        pthread_t t;
        CHECK(pthread_create(&t, NULL, Run, &j) == 0);
        while (!j.entered) sched_yield();
        if (Below(&random, 3)) usleep((useconds_t)Below(&random, 300));
        if (how == 2) {
          usleep(500);
          CHECK(pthread_kill(t, SIGUSR1) == 0);
        } else {
          CHECK(pthread_cancel(t) == 0);
        }
        void* result;
        CHECK(pthread_join(t, &result) == 0);
        CHECK(result == (how == 2 ? (void*)&key : PTHREAD_CANCELED));
        CHECK_MSG(j.inner == 1 && j.outer == 1 && j.destroyed == 1, "kind %d, how %d: %d %d %d",
                  kind, how, j.inner, j.outer, j.destroyed);
      }
    }
  }
  puts("cancelled");
  return 0;
}
