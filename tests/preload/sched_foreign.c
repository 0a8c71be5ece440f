// SPDX-License-Identifier: Apache-2.0
// Threads that no pthread_create of the program made (the C library's helpers for names, files and
// timers, and a raw clone with data of its own) meet the program's threads at mutexes, conditions,
// semaphores and pipes.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <aio.h>
#include <linux/futex.h>
#include <netdb.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "pthreads.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static sem_t sem;
static int turns;

// Runs on a helper of the C library: alternates with a thread of the program.
static void Alternate(int me, int rounds) {
  for (int i = 0; i < rounds; i++) {
    CHECK_EQ(pthread_mutex_lock(&mutex), 0);
    while (turns % 2 != me) CHECK_EQ(pthread_cond_wait(&cond, &mutex), 0);
    turns++;
    CHECK_EQ(pthread_cond_broadcast(&cond), 0);
    CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
    if (i % 10 == 0) sched_yield();
    if (i % 20 == 0) usleep(100);
  }
}
static void OnExpiry(union sigval v) {
  Alternate(v.sival_int, 100);
  CHECK_EQ(sem_post(&sem), 0);
}
static void* Partner(void* arg) {
  Alternate(0, 100);
  return arg;
}
static void Helpers(const char* name) {
  (void)name;
  for (int i = 0; i < 3; i++) {
    struct sigevent e = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = OnExpiry};
    struct itimerspec soon = {{0, 0}, {0, 1000000}};
    timer_t timer;
    e.sigev_value.sival_int = 1;
    turns = 0;
    pthread_t t = Start(Partner, NULL);
    CHECK_EQ(timer_create(CLOCK_MONOTONIC, &e, &timer), 0);
    CHECK_EQ(timer_settime(timer, 0, &soon, NULL), 0);
    Join(t);
    while (sem_wait(&sem) != 0) {
    }
    CHECK_EQ(turns, 200);
    timer_delete(timer);
  }
}

// A callback thread that starts threads, is cancelled, has thread-local data.
static __thread int local = 5;
static void* Child(void* arg) {
  CHECK_EQ(local, 5);
  local = 6;
  SleepMs(1);
  CHECK_EQ(local, 6);
  return arg;
}
static void StartsThreads(union sigval v) {
  (void)v;
  CHECK_EQ(local, 5);
  local = 9;
  pthread_t t[5];
  for (intptr_t i = 0; i < 5; i++) t[i] = Start(Child, (void*)i);
  for (intptr_t i = 0; i < 5; i++) CHECK(Join(t[i]) == (void*)i);
  CHECK_EQ(local, 9);
  CHECK_EQ(sem_post(&sem), 0);
  pthread_exit(NULL);
}
static void Starters(const char* name) {
  (void)name;
  char path[64], text[32] = "";
  struct sigevent e = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = StartsThreads};
  snprintf(path, sizeof path, "/tmp/undergo-aio-%d", getpid());
  int fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
  CHECK(fd >= 0 && unlink(path) == 0);
  struct aiocb write_it = {.aio_fildes = fd, .aio_buf = "asynchronous", .aio_nbytes = 12};
  write_it.aio_sigevent = e;
  CHECK_EQ(aio_write(&write_it), 0);
  while (sem_wait(&sem) != 0) {
  }
  EVENTUALLY(aio_error(&write_it) == 0);
  CHECK_EQ(aio_return(&write_it), 12);
  struct aiocb read_it = {.aio_fildes = fd, .aio_buf = text, .aio_nbytes = 12};
  const struct aiocb* list[] = {&read_it};
  CHECK_EQ(aio_read(&read_it), 0);
  CHECK_EQ(aio_suspend(list, 1, NULL), 0);
  CHECK(aio_return(&read_it) == 12 && !strcmp(text, "asynchronous"));
  // Reads of a pipe that a thread of the program fills later.
  int ends[2];
  CHECK_EQ(pipe(ends), 0);
  struct aiocb from_pipe = {.aio_fildes = ends[0], .aio_buf = text, .aio_nbytes = 5};
  from_pipe.aio_sigevent = e;
  CHECK_EQ(aio_read(&from_pipe), 0);
  Moment();
  CHECK_EQ(write(ends[1], "later", 5), 5);
  while (sem_wait(&sem) != 0) {
  }
  CHECK(aio_return(&from_pipe) == 5 && !memcmp(text, "later", 5));
  close(fd), close(ends[0]), close(ends[1]);
}

static void* Resolves(void* arg) {
  struct addrinfo *info = NULL, hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
  for (int i = 0; i < 10; i++) {
    CHECK_EQ(getaddrinfo("127.0.0.1", "80", &hints, &info), 0);
    freeaddrinfo(info);
    CHECK_EQ(getaddrinfo("localhost", NULL, &hints, &info), 0);
    freeaddrinfo(info);
  }
  return arg;
}
static void Resolved(union sigval v) {
  (void)v;
  CHECK_EQ(sem_post(&sem), 0);
}
static void Names(const char* name) {
  (void)name;
  pthread_t t[10];
  for (int i = 0; i < 10; i++) t[i] = Start(Resolves, NULL);
  struct gaicb requests[5], *list[5];
  memset(requests, 0, sizeof requests);
  for (int i = 0; i < 5; i++) {
    requests[i].ar_name = "localhost";
    list[i] = &requests[i];
  }
  struct sigevent e = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = Resolved};
  CHECK_EQ(getaddrinfo_a(GAI_NOWAIT, list, 5, &e), 0);
  while (sem_wait(&sem) != 0) {
  }
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(gai_error(&requests[i]), 0);
    freeaddrinfo(requests[i].ar_result);
  }
  for (int i = 0; i < 10; i++) Join(t[i]);
}

// A thread of raw clone without thread-local data of its own: touches memory and futexes only.
static atomic_uint word;
static long Raw3(long number, long a, long b, long c) {
  long result;
  register long r10 __asm__("r10") = 0;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                   : "rcx", "r11", "memory");
  return result;
}
static int RawBody(void* arg) {
  (void)arg;
  for (unsigned i = 0; i < 200; i += 2) {
    while (word == i) Raw3(SYS_futex, (long)&word, FUTEX_WAIT_PRIVATE, i);
    word = i + 2;
    Raw3(SYS_futex, (long)&word, FUTEX_WAKE_PRIVATE, 1);
  }
  return 0;
}
static void* WithRaw(void* arg) {
  for (unsigned i = 0; i < 200; i += 2) {
    word = i + 1;
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1);
    while (word == i + 1) syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, i + 1, NULL);
  }
  return arg;
}
static void RawThread(const char* name) {
  (void)name;
  char* stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(stack != MAP_FAILED);
  int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
  CHECK(clone(RawBody, stack + 65536, flags, NULL) > 0);
  Join(Start(WithRaw, NULL));
}

int main(int argc, char** argv) {
  sem_init(&sem, 0, 0);
  static const Part parts[] = {
      {"helpers", Helpers}, {"starters", Starters}, {"names", Names}, {"raw_thread", RawThread}};
  return RUN_PARTS(parts);
}
