// SPDX-License-Identifier: Apache-2.0
// Ten thousand threads at once: all wait, all are woken in each of several ways, all are joined.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// run: name=long pace=long native=no 100000
// timeout: 120
#include <semaphore.h>
#include <stdatomic.h>

#include "pthreads.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static sem_t sem, ready;
static int go, count;
static __thread intptr_t mine;

static void* Waits(void* arg) {
  const intptr_t me = (intptr_t)arg;
  mine = me;
  CHECK_EQ(sem_post(&ready), 0);
  switch (me % 3) {
    case 0:
      while (sem_wait(&sem) != 0) CHECK_EQ(errno, EINTR);
      break;
    case 1:
      pthread_mutex_lock(&mutex);
      while (!go) pthread_cond_wait(&cond, &mutex);
      pthread_mutex_unlock(&mutex);
      break;
    case 2:
      while (!__atomic_load_n(&go, __ATOMIC_ACQUIRE)) SleepMs(100);
      break;
  }
  CHECK_EQ(mine, me);
  pthread_mutex_lock(&mutex);
  count++;
  pthread_mutex_unlock(&mutex);
  return (void*)(me * 3);
}

int main(int argc, char** argv) {
  const long wanted = argc > 1 ? atol(argv[1]) : 10000;
  pthread_t* t = malloc(sizeof *t * (size_t)wanted);
  CHECK(sem_init(&sem, 0, 0) == 0 && sem_init(&ready, 0, 0) == 0);
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  CHECK_EQ(pthread_attr_setstacksize(&attr, 64 << 10), 0);
  long made = 0;
  for (; made < wanted; made++) {
    int error = pthread_create(&t[made], &attr, Waits, (void*)made);
    if (error == EAGAIN && made < wanted) {
      // Natively a limit of the system; what was made must still end well.
      CHECK_MSG(!Scheduled(), "no more than %ld threads", made);
      break;
    }
    CHECK_MSG(error == 0, "thread %ld: %s", made, strerror(error));
  }
  for (long i = 0; i < made; i++) CHECK_EQ(sem_wait(&ready), 0);
  pthread_mutex_lock(&mutex);
  __atomic_store_n(&go, 1, __ATOMIC_RELEASE);
  pthread_cond_broadcast(&cond);
  pthread_mutex_unlock(&mutex);
  for (long i = 0; i < made; i += 3) CHECK_EQ(sem_post(&sem), 0);
  for (long i = 0; i < made; i++) CHECK(Join(t[i]) == (void*)(i * 3));
  CHECK_EQ(count, made);
  free(t);
  puts("all right");
  return 0;
}
