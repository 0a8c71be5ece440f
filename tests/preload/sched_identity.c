// SPDX-License-Identifier: Apache-2.0
// What a thread may ask about itself: its number, stack, name, scheduling, affinity, CPU time.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "pthreads.h"

enum { kThreads = 50 };
static pid_t ids[kThreads];
static pthread_t handles[kThreads];
static atomic_int ready, gate;

static void* Ids(void* arg) {
  const intptr_t me = (intptr_t)arg;
  ids[me] = gettid();
  ready++;
  while (!gate) {
    CHECK_EQ(gettid(), ids[me]);
    CHECK_EQ(syscall(SYS_gettid), ids[me]);
    CHECK_EQ(getpid(), ids[me] == 0 ? 0 : getpid());
    if (me % 2)
      SleepMs(1);
    else
      sched_yield();
  }
  CHECK_EQ(tgkill(getpid(), gettid(), 0), 0);
  return NULL;
}
static void Numbers(const char* name) {
  (void)name;
  CHECK(gettid() == getpid() && syscall(SYS_gettid) == getpid());
  ready = gate = 0;
  for (intptr_t i = 0; i < kThreads; i++) handles[i] = Start(Ids, (void*)i);
  EVENTUALLY(ready == kThreads);
  for (int i = 0; i < kThreads; i++) {
    CHECK(ids[i] > 0 && ids[i] != getpid());
    CHECK(!pthread_equal(handles[i], pthread_self()));
    for (int k = 0; k < i; k++) CHECK(ids[i] != ids[k] && !pthread_equal(handles[i], handles[k]));
    CHECK_EQ(tgkill(getpid(), ids[i], 0), 0);
  }
  gate = 1;
  for (int i = 0; i < kThreads; i++) Join(handles[i]);
  for (int i = 0; i < kThreads; i++) CHECK(tgkill(getpid(), ids[i], 0) == -1 && errno == ESRCH);
}

// The stack that is told must be the one that is used, and usable as a whole.
__attribute__((noinline)) static void Touch(char* low) {
  volatile char here[64];
  for (char* p = (char*)here; p > low + 20000; p -= 4096) *(volatile char*)(p - 4096) = 1;
}
static void* Stack(void* arg) {
  pthread_attr_t attr;
  void* low;
  size_t size, guard, want = (size_t)arg;
  char here;
  CHECK_EQ(pthread_getattr_np(pthread_self(), &attr), 0);
  CHECK_EQ(pthread_attr_getstack(&attr, &low, &size), 0);
  CHECK_EQ(pthread_attr_getguardsize(&attr, &guard), 0);
  CHECK_MSG(&here > (char*)low && &here < (char*)low + size, "%p is not in %p + %zu", (void*)&here,
            low, size);
  CHECK_MSG(size >= want - 8192 && size <= want + (1 << 16), "size %zu, wanted %zu", size, want);
  CHECK((char*)low + size - &here < 65536);
  if (want <= 1 << 20) Touch(low);
  int state;
  CHECK(pthread_attr_getdetachstate(&attr, &state) == 0 && state == PTHREAD_CREATE_JOINABLE);
  pthread_attr_destroy(&attr);
  return NULL;
}
static void Stacks(const char* name) {
  (void)name;
  pthread_attr_t attr;
  size_t size;
  CHECK(pthread_getattr_default_np(&attr) == 0 && pthread_attr_getstacksize(&attr, &size) == 0);
  Join(Start(Stack, (void*)size));
  static const size_t sizes[] = {64 << 10, 100 << 10, 256 << 10, 1 << 20, 64 << 20};
  for (int i = 0; i < 5; i++) {
    pthread_t t;
    pthread_attr_init(&attr);
    CHECK_EQ(pthread_attr_setstacksize(&attr, sizes[i]), 0);
    CHECK_EQ(pthread_create(&t, &attr, Stack, (void*)sizes[i]), 0);
    Join(t);
  }
  CHECK_EQ(pthread_attr_setstacksize(&attr, 100), EINVAL);
  void* low;
  char here;
  CHECK_EQ(pthread_getattr_np(pthread_self(), &attr), 0);
  CHECK_EQ(pthread_attr_getstack(&attr, &low, &size), 0);
  CHECK(&here > (char*)low && &here < (char*)low + size);
  // Somebody else's.
  ready = gate = 0;
  pthread_t t = Start(Ids, (void*)0);
  EVENTUALLY(ready == 1);
  CHECK_EQ(pthread_getattr_np(t, &attr), 0);
  CHECK(pthread_attr_getstack(&attr, &low, &size) == 0 && size > 16384);
  gate = 1;
  Join(t);
}

static void* Names(void* arg) {
  char want[16], got[16];
  const int me = (int)(intptr_t)arg;
  CHECK_EQ(pthread_getname_np(pthread_self(), got, sizeof got), 0);
  CHECK_MSG(!strcmp(got, "parent"), "%s", got);  // inherited
  snprintf(want, sizeof want, "thread-%d", me);
  if (me % 2)
    CHECK_EQ(pthread_setname_np(pthread_self(), want), 0);
  else
    CHECK_EQ(prctl(PR_SET_NAME, want), 0);
  for (int i = 0; i < 10; i++) {
    SleepMs(1);
    CHECK_EQ(pthread_getname_np(pthread_self(), got, sizeof got), 0);
    CHECK_MSG(!strcmp(got, want), "%s instead of %s", got, want);
    CHECK(prctl(PR_GET_NAME, got) == 0 && !strcmp(got, want));
  }
  CHECK_EQ(pthread_setname_np(pthread_self(), "a name too long for it"), ERANGE);
  CHECK_EQ(pthread_getname_np(pthread_self(), got, 5), ERANGE);
  return NULL;
}
static void Naming(const char* name) {
  (void)name;
  pthread_t t[20];
  char got[16];
  CHECK_EQ(pthread_setname_np(pthread_self(), "parent"), 0);
  for (intptr_t i = 0; i < 20; i++) t[i] = Start(Names, (void*)i);
  for (int i = 0; i < 20; i++) Join(t[i]);
  CHECK(pthread_getname_np(pthread_self(), got, sizeof got) == 0 && !strcmp(got, "parent"));
  ready = gate = 0;
  t[0] = Start(Ids, (void*)0);
  EVENTUALLY(ready == 1);
  CHECK_EQ(pthread_setname_np(t[0], "by-another"), 0);
  CHECK(pthread_getname_np(t[0], got, sizeof got) == 0 && !strcmp(got, "by-another"));
  gate = 1;
  Join(t[0]);
}

static cpu_set_t all;
static void* Affine(void* arg) {
  cpu_set_t one, got;
  CHECK(sched_getaffinity(0, sizeof got, &got) == 0 && CPU_EQUAL(&got, &all));
  if (arg == NULL) return NULL;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &all)) continue;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (cpu % 2)
      CHECK_EQ(pthread_setaffinity_np(pthread_self(), sizeof one, &one), 0);
    else
      CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    for (int i = 0; i < 20; i++) {
      CHECK_EQ(sched_getcpu(), cpu);
      if (i % 5)
        sched_yield();
      else
        SleepMs(1);
    }
    CHECK_EQ(pthread_getaffinity_np(pthread_self(), sizeof got, &got), 0);
    CHECK(CPU_EQUAL(&got, &one));
  }
  CPU_ZERO(&one);
  CHECK(sched_setaffinity(0, sizeof one, &one) == -1 && errno == EINVAL);
  CHECK_EQ(sched_setaffinity(0, sizeof all, &all), 0);
  return NULL;
}
static void* HasPolicy(void* arg) {
  int policy;
  struct sched_param p = {0};
  CHECK(pthread_getschedparam(pthread_self(), &policy, &p) == 0 && policy == SCHED_OTHER &&
        p.sched_priority == 0);
  CHECK_EQ(pthread_setschedparam(pthread_self(), SCHED_OTHER, &p), 0);
  CHECK_EQ(pthread_setschedprio(pthread_self(), 0), 0);
  CHECK(sched_getscheduler(0) == SCHED_OTHER && sched_getscheduler(gettid()) == SCHED_OTHER);
  CHECK_EQ(pthread_setschedparam(pthread_self(), 99, &p), EINVAL);
  CHECK_EQ(pthread_setschedparam(pthread_self(), SCHED_BATCH, &p), 0);
  sched_yield();
  SleepMs(1);
  CHECK(pthread_getschedparam(pthread_self(), &policy, &p) == 0 && policy == SCHED_BATCH);
  CHECK_EQ(sched_getscheduler(0), SCHED_BATCH);
  p.sched_priority = 2;
  int error = pthread_setschedparam(pthread_self(), SCHED_RR, &p);
  if (error == 0) {
    SleepMs(1);
    CHECK(sched_getscheduler(0) == SCHED_RR && sched_getparam(0, &p) == 0 && p.sched_priority == 2);
  } else
    CHECK_EQ(error, EPERM);
  // Niceness is a thread's own on Linux.
  if (setpriority(PRIO_PROCESS, (id_t)gettid(), 7) == 0)
    CHECK(getpriority(PRIO_PROCESS, (id_t)gettid()) == 7 && getpriority(PRIO_PROCESS, 0) == 7);
  return arg;
}
static void Scheduling(const char* name) {
  (void)name;
  CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  pthread_t t[8];
  for (intptr_t i = 0; i < 8; i++) t[i] = Start(Affine, (void*)(i % 2));
  for (int i = 0; i < 8; i++) Join(t[i]);
  CHECK(sched_getscheduler(0) == SCHED_OTHER && getpriority(PRIO_PROCESS, 0) == 0);
  for (int i = 0; i < 4; i++) t[i] = Start(HasPolicy, NULL);
  for (int i = 0; i < 4; i++) Join(t[i]);
  CHECK(sched_getscheduler(0) == SCHED_OTHER && getpriority(PRIO_PROCESS, 0) == 0);
  CHECK(pthread_setconcurrency(3) == 0 && pthread_getconcurrency() == 3);
}

// CPU time counts what the thread itself has computed.
static double Cpu(clockid_t clock) {
  struct timespec t;
  CHECK_EQ(clock_gettime(clock, &t), 0);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
// The first who asks does so about a thread that computes already and is never switched.
static atomic_long burnt;
static void* Computes(void* arg) {
  while (!gate) burnt++;
  return arg;
}
static void FirstLook(const char* name) {
  (void)name;
  gate = burnt = 0;
  pthread_t busy = Start(Computes, NULL);
  clockid_t clock;
  EVENTUALLY(burnt > 0);
  CHECK_EQ(pthread_getcpuclockid(busy, &clock), 0);
  double first = Cpu(clock);
  EVENTUALLY(Cpu(clock) > first + 0.02);
  gate = 1;
  Join(busy);
}
static void* Burns(void* arg) {
  double begin = Cpu(CLOCK_THREAD_CPUTIME_ID), wall = Seconds();
  CHECK_MSG(begin < 0.2, "a new thread has computed %.3f s", begin);
  while (Cpu(CLOCK_THREAD_CPUTIME_ID) - begin < 0.05) {
    for (volatile int i = 0; i < 10000; i++) {
    }
    CHECK(Seconds() - wall < 30);
  }
  burnt = 1;
  while (!gate) SleepMs(1);
  return arg;
}
static void* Idles(void* arg) {
  while (!gate) SleepMs(5);
  double used = Cpu(CLOCK_THREAD_CPUTIME_ID);
  CHECK_MSG(used < 0.04, "an idle thread used %.3f s", used);
  struct rusage use;
  CHECK_EQ(getrusage(RUSAGE_THREAD, &use), 0);
  return arg;
}
static void CpuTimes(const char* name) {
  (void)name;
  ready = gate = burnt = 0;
  pthread_t busy = Start(Burns, NULL), idle = Start(Idles, NULL);
  clockid_t clock, idle_clock;
  CHECK(pthread_getcpuclockid(busy, &clock) == 0 && pthread_getcpuclockid(idle, &idle_clock) == 0);
  EVENTUALLY(burnt);
  double used = Cpu(clock);
  CHECK_MSG(used >= 0.05 && used < 5, "%.3f s", used);
  CHECK(Cpu(idle_clock) < 0.04);
  CHECK(Cpu(CLOCK_PROCESS_CPUTIME_ID) >= 0.05);
  gate = 1;
  Join(busy), Join(idle);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"first_look", FirstLook},  {"numbers", Numbers},
                               {"stacks", Stacks},         {"naming", Naming},
                               {"scheduling", Scheduling}, {"cpu_times", CpuTimes}};
  return RUN_PARTS(parts);
}
