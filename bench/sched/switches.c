// SPDX-License-Identifier: Apache-2.0
// What one operation of a thread costs: start and end, hand-over in several ways, locks, yields.
//   switches create|detached|cond|sem|mutex|contended|yield|pipe COUNT [THREADS]
#include "schedbench.h"

static long count, threads;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond[2] = {PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER};
static sem_t sems[2], done;
static int turn, pipes[2][2];
static long counter;

static void* Nothing(void* arg) { return arg; }
static void CreateJoin(void) {
  for (long i = 0; i < count; i++) Join(Start(Nothing, NULL));
}
static void* Posts(void* arg) {
  sem_post(&done);
  return arg;
}
// A hundred at a time, so that both ways of counting the living agree.
static void CreateDetached(void) {
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  for (long i = 0; i < count; i += 100) {
    pthread_t t;
    for (int k = 0; k < 100; k++) Try(pthread_create(&t, &attr, Posts, NULL), "pthread_create");
    for (int k = 0; k < 100; k++) sem_wait(&done);
  }
}

static void* CondSide(void* arg) {
  const int me = arg != NULL;
  pthread_mutex_lock(&mutex);
  for (long i = 0; i < count; i++) {
    while (turn != me) pthread_cond_wait(&cond[me], &mutex);
    turn = !me;
    pthread_cond_signal(&cond[!me]);
  }
  pthread_mutex_unlock(&mutex);
  return NULL;
}
static void* SemSide(void* arg) {
  const int me = arg != NULL;
  for (long i = 0; i < count; i++) {
    sem_wait(&sems[me]);
    sem_post(&sems[!me]);
  }
  return NULL;
}
static void* PipeSide(void* arg) {
  const int me = arg != NULL;
  char c = 0;
  for (long i = 0; i < count; i++) {
    if (me && write(pipes[1][1], &c, 1) != 1) exit(1);
    if (read(pipes[!me][0], &c, 1) != 1) exit(1);
    if (!me && write(pipes[0][1], &c, 1) != 1) exit(1);
  }
  return NULL;
}
static void Pair(Body side) {
  pthread_t a = Start(side, NULL), b = Start(side, &turn);
  Join(a), Join(b);
}

static void* Sleeps(void* arg) {
  sem_wait(&sems[1]);
  return arg;
}
static void Uncontended(void) {
  pthread_t other = Start(Sleeps, NULL);  // else the process counts as single-threaded
  for (long i = 0; i < count; i++) {
    pthread_mutex_lock(&mutex);
    counter++;
    pthread_mutex_unlock(&mutex);
  }
  sem_post(&sems[1]);
  Join(other);
}
static void* Locks(void* arg) {
  for (long i = 0; i < count / threads; i++) {
    pthread_mutex_lock(&mutex);
    counter++;
    pthread_mutex_unlock(&mutex);
  }
  return arg;
}
static void* Yields(void* arg) {
  for (long i = 0; i < count / threads; i++) sched_yield();
  return arg;
}
static void All(Body body) {
  pthread_t t[256];
  for (long i = 0; i < threads; i++) t[i] = Start(body, NULL);
  for (long i = 0; i < threads; i++) Join(t[i]);
}

int main(int argc, char** argv) {
  const char* what = argc > 1 ? argv[1] : "";
  count = Argument(argc, argv, 2, 10000);
  threads = Argument(argc, argv, 3, 4);
  sem_init(&sems[0], 0, 1), sem_init(&sems[1], 0, 0), sem_init(&done, 0, 0);
  Expect(threads <= 256 && pipe(pipes[0]) == 0 && pipe(pipes[1]) == 0, "arguments");
  Join(Start(Nothing, NULL));  // what the first thread costs is not measured
  const double begin = NowSeconds(), cpu = CpuSeconds();
  long operations = count;
  if (!strcmp(what, "create"))
    CreateJoin();
  else if (!strcmp(what, "detached"))
    CreateDetached();
  else if (!strcmp(what, "cond"))
    operations *= 2, Pair(CondSide);
  else if (!strcmp(what, "sem"))
    operations *= 2, Pair(SemSide);
  else if (!strcmp(what, "pipe"))
    operations *= 2, Pair(PipeSide);
  else if (!strcmp(what, "mutex"))
    Uncontended();
  else if (!strcmp(what, "contended"))
    All(Locks);
  else if (!strcmp(what, "yield"))
    All(Yields);
  else
    return fprintf(stderr, "switches: what is '%s'?\n", what), 2;
  Metric("ns", (NowSeconds() - begin) * 1e9 / (double)operations);
  Metric("cpu_ns", (CpuSeconds() - cpu) * 1e9 / (double)operations);
  return 0;
}
