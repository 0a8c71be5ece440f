// SPDX-License-Identifier: Apache-2.0
// Stacks of 16 KiB, of which the program has used half when it calls: what the library needs of
// them in its slow paths, for the frames of signals and for preemption must fit beside that. Where
// the thread block takes its room out of the 16 KiB, as natively, the program uses a quarter.
// build: -Wl,-z,now
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// run: name=preempted env=UNDERGO=stress=preempt
// run: name=stopped env=UNDERGO=stress=stop
// timeout: 60
#include <arpa/inet.h>
#include <poll.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <undergo/undergo.h>

#include "pthreads.h"

enum { kStack = 16 << 10, kHalf = 8 << 10, kThreads = 6 };

typedef void (*Body)(int me);
typedef struct Deep {
  Body body;
  int me;
  size_t used;
} Deep;

// The body runs with so much of the stack in use, by words that must be the same afterwards.
static __attribute__((noinline)) void* RunDeep(void* arg) {
  Deep d = *(Deep*)arg;
  const int kernel_thread = gettid() < 1 << 22;  // the scheduler's ids are higher
  if (kernel_thread) d.used /= 2;
  char* volatile used = __builtin_alloca(d.used);
  Fill(used, d.used, (uint64_t)d.me);
  d.body(d.me);
  CHECK(Verify(used, d.used, (uint64_t)d.me) == d.used);
  return NULL;
}
static pthread_t StartDeep(Deep* d) {
  pthread_attr_t attr;
  pthread_t t;
  pthread_attr_init(&attr);
  size_t least = (size_t)PTHREAD_STACK_MIN;
  CHECK_EQ(pthread_attr_setstacksize(&attr, least > kStack ? least : kStack), 0);
  CHECK_EQ(pthread_create(&t, &attr, RunDeep, d), 0);
  pthread_attr_destroy(&attr);
  return t;
}
static void InDeep(Body body, size_t used) {
  Deep d[kThreads];
  pthread_t t[kThreads];
  for (int i = 0; i < kThreads; i++) {
    d[i] = (Deep){body, i, used};
    t[i] = StartDeep(&d[i]);
  }
  for (int i = 0; i < kThreads; i++) Join(t[i]);
}

// --- the heap: refills, large objects, collections and their assists ---

static void Allocates(int me) {
  Random r = {(uint64_t)me + 1};
  void* kept[40] = {0};
  for (int i = 0; i < 20000; i++) {
    size_t k = Below(&r, 40), size = 1 + Below(&r, Below(&r, 50) ? 2000 : 300000);
    if (i % 3 == 0) kept[k] = NULL;  // lost
    switch (i % 5) {
      case 0: free(kept[k]), kept[k] = calloc(1, size); break;
      case 1: kept[k] = realloc(kept[k], size); break;
      case 2:
        free(kept[k]);
        kept[k] = NULL;
        CHECK_EQ(posix_memalign(&kept[k], 256, size), 0);
        break;
      default: free(kept[k]), kept[k] = malloc(size); break;
    }
    CHECK(kept[k]);
    *(char*)kept[k] = 1;
  }
  if (UnderPreload() && undergo_gc != NULL) undergo_gc();
  for (int i = 0; i < 40; i++) free(kept[i]);
  if (UnderPreload()) malloc_trim(0);
}

// --- waiting for each other ---

static pthread_mutex_t mutex;
static pthread_cond_t cond;
static pthread_rwlock_t lock;
static pthread_barrier_t barrier;
static sem_t sem;
static int turn;
static void Waits(int me) {
  struct timespec when;
  for (int i = 0; i < 100; i++) {
    pthread_mutex_lock(&mutex);
    while (turn % kThreads != me) pthread_cond_wait(&cond, &mutex);
    turn++;
    pthread_cond_broadcast(&cond);
    if (i % 10 == 0) {
      when = In(CLOCK_REALTIME, 1);
      pthread_cond_timedwait(&cond, &mutex, &when);
    }
    pthread_mutex_unlock(&mutex);
    CHECK_EQ(sem_post(&sem), 0);
    CHECK_EQ(sem_wait(&sem), 0);
    pthread_rwlock_rdlock(&lock);
    pthread_rwlock_unlock(&lock);
    pthread_rwlock_wrlock(&lock);
    pthread_rwlock_unlock(&lock);
    int ended = pthread_barrier_wait(&barrier);
    CHECK(ended == 0 || ended == PTHREAD_BARRIER_SERIAL_THREAD);
  }
  when = In(CLOCK_REALTIME, 2);
  CHECK(sem_timedwait(&sem, &when) == -1 && errno == ETIMEDOUT);
}

// --- descriptors ---

static void Reads(int me) {
  int ends[2], pair[2], ep = epoll_create1(0);
  char c = (char)me;
  CHECK(pipe(ends) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && ep >= 0);
  struct epoll_event event = {EPOLLIN, {NULL}};
  CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, ends[0], &event), 0);
  struct pollfd p[20];
  for (int i = 0; i < 20; i++) p[i] = (struct pollfd){i % 2 ? ends[0] : pair[0], POLLIN, 0};
  fd_set set;
  FD_ZERO(&set);
  FD_SET(ends[0], &set);
  struct timeval moment = {0, 2000};
  struct iovec v = {&c, 1};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(poll(p, 20, 2), 0);
    CHECK_EQ(select(ends[0] + 1, &set, NULL, NULL, &moment), 0);
    FD_SET(ends[0], &set);
    CHECK_EQ(epoll_wait(ep, &event, 1, 2), 0);
    CHECK(write(ends[1], &c, 1) == 1 && epoll_wait(ep, &event, 1, -1) == 1);
    CHECK(read(ends[0], &c, 1) == 1 && sendmsg(pair[0], &m, 0) == 1);
    CHECK(recvmsg(pair[1], &m, 0) == 1 && writev(ends[1], &v, 1) == 1 &&
          readv(ends[0], &v, 1) == 1);
  }
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof at;
  int listener = socket(AF_INET, SOCK_STREAM, 0), out = socket(AF_INET, SOCK_STREAM, 0);
  CHECK_EQ(bind(listener, (struct sockaddr*)&at, size), 0);
  CHECK_EQ(listen(listener, 1), 0);
  CHECK_EQ(getsockname(listener, (struct sockaddr*)&at, &size), 0);
  CHECK_EQ(connect(out, (struct sockaddr*)&at, size), 0);
  int in = accept(listener, NULL, NULL);
  CHECK(in >= 0 && send(out, &c, 1, 0) == 1 && recv(in, &c, 1, 0) == 1 && c == (char)me);
  const int all[] = {ends[0], ends[1], pair[0], pair[1], ep, listener, out, in};
  for (int i = 0; i < 8; i++) CHECK_EQ(close(all[i]), 0);
}

// --- threads and processes ---

static pthread_key_t key;
static void OnEnd(void* value) { free(value); }
static void Sleeps(int me) {
  CHECK_EQ(pthread_setspecific(key, malloc(100)), 0);
  SleepMs(me);
}
static void Cleans(void* arg) { ++*(int*)arg; }
static void IsCancelled(int me) {
  static atomic_int cleaned[kThreads];
  pthread_cleanup_push(Cleans, (void*)&cleaned[me]);
  SleepMs(1000000);
  pthread_cleanup_pop(1);
}
static void Starts(int me) {
  Deep d = {Sleeps, me, 1 << 10}, never = {IsCancelled, me, 1 << 10};
  for (int i = 0; i < 10; i++) {
    Join(StartDeep(&d));
    pthread_t t = StartDeep(&never);
    if (i % 2) SleepMs(1);
    CHECK_EQ(pthread_cancel(t), 0);
    CHECK(Join(t) == PTHREAD_CANCELED);
  }
  for (int i = 0; i < 3; i++) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) _exit(me);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == me);
  }
}

// --- signals, for which the kernel needs some kilobytes by itself ---

static atomic_int handled;
static void OnSignal(int sig) {
  (void)sig;
  free(malloc(64));
  handled++;
}
static pthread_t threads[kThreads];
static atomic_int known, ready;
static void IsSignalled(int me) {
  threads[me] = pthread_self();
  known++;
  while (known < kThreads) SleepMs(1);
  for (int i = 0; i < 50; i++) {
    CHECK_EQ(pthread_kill(threads[(me + i) % kThreads], SIGUSR1), 0);
    raise(SIGUSR1);
    switch (i % 4) {
      case 0: SleepMs(1); break;
      case 1: free(malloc(3000 + (size_t)i * 500)); break;
      case 2: sched_yield(); break;
      case 3: pthread_mutex_lock(&mutex), pthread_mutex_unlock(&mutex); break;
    }
  }
  ready++;
  while (ready < kThreads) SleepMs(1);
}
static void Computes(int me) {
  double x = me;
  const double end = Seconds() + 0.2;
  while (Seconds() < end)
    for (int i = 0; i < 1000; i++) x = x * 0.5 + i;
  CHECK(x > 0);
}

static void Heap(const char* name) { (void)name, InDeep(Allocates, kHalf); }
static void Sync(const char* name) {
  (void)name;
  pthread_mutex_init(&mutex, NULL);
  pthread_cond_init(&cond, NULL);
  pthread_rwlock_init(&lock, NULL);
  pthread_barrier_init(&barrier, NULL, kThreads);
  sem_init(&sem, 0, 0);
  InDeep(Waits, kHalf);
}
static void Descriptors(const char* name) { (void)name, InDeep(Reads, kHalf - 512); }
static void Life(const char* name) {
  (void)name;
  CHECK_EQ(pthread_key_create(&key, OnEnd), 0);
  InDeep(Starts, kHalf - 2048);
}
static void Signals(const char* name) {
  (void)name;
  struct sigaction act = {.sa_handler = OnSignal, .sa_flags = SA_RESTART};
  CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
  InDeep(IsSignalled, kHalf - 3072);
  CHECK_MSG(handled >= 50 * kThreads, "%d signals", handled);
}
static void Slices(const char* name) { (void)name, InDeep(Computes, kHalf); }

int main(int argc, char** argv) {
  static const Part parts[] = {{"heap", Heap}, {"sync", Sync},       {"descriptors", Descriptors},
                               {"life", Life}, {"signals", Signals}, {"slices", Slices}};
  return RUN_PARTS(parts);
}
