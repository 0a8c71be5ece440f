// SPDX-License-Identifier: Apache-2.0
// Objects go into the kernel and come back while collections run: for a time an epoll watch, or a
// timer, holds the only pointer to each of them, and it got there after the collector had looked.
// run: name=epoll epoll
// run: name=epoll_poison env=UNDERGO=gc=poison epoll
// run: name=epoll_checked env=GODEBUG=gccheckmark=1 epoll
// run: name=epoll_snapshot env=UNDERGO=tracking=snapshot epoll
// run: name=raw raw
// run: name=raw_poison env=UNDERGO=gc=poison raw
// run: name=many env=UNDERGO=gc=poison many
// run: name=timer env=UNDERGO=gc=poison timer
// run: name=wild wild
// timeout: 90
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "gc.h"

enum { kWatches = 200, kTimers = 20, kWords = 8 };

static uint64_t Mixed(uint64_t number) { return number * 0x9e3779b97f4a7c15u ^ 0x5bf0363; }
static NOINLINE uint64_t* Make(uint64_t number) {
  uint64_t* o = malloc(kWords * sizeof *o);
  CHECK(o);
  for (int i = 0; i < kWords; i++) o[i] = number;
  o[1] = Mixed(number);
  return o;
}
static void Look(const uint64_t* o) {
  CHECK_MSG(o[1] == Mixed(o[0]), "an object was lost: number %#llx, then %#llx",
            (unsigned long long)o[0], (unsigned long long)o[1]);
}

static int raw;
static int Control(int epoll, int op, int fd, struct epoll_event* event) {
  if (raw) return (int)syscall(SYS_epoll_ctl, epoll, op, fd, event);
  return epoll_ctl(epoll, op, fd, event);
}

static int epoll, events[kWatches];
static uint64_t* slots[kWatches];  // the place in memory; null while the kernel has it

static NOINLINE void PutIn(int i) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = slots[i]};
  CHECK_EQ(Control(epoll, EPOLL_CTL_MOD, events[i], &event), 0);
  slots[i] = NULL;
  memset(&event, 0, sizeof event);
  __asm__ volatile("" ::"r"(&event) : "memory");
}
// Whichever watch is next: all are ready all the time, and one-shot.
static NOINLINE void TakeOut(void) {
  struct epoll_event got = {0};
  CHECK_EQ(epoll_wait(epoll, &got, 1, -1), 1);
  uint64_t* o = got.data.ptr;
  Look(o);
  CHECK(o[0] < kWatches && slots[o[0]] == NULL);
  slots[o[0]] = o;
  // The watch holds its word even when it is spent.
  struct epoll_event none = {0};
  CHECK_EQ(Control(epoll, EPOLL_CTL_MOD, events[o[0]], &none), 0);
  memset(&got, 0, sizeof got);
  __asm__ volatile("" ::"r"(&got) : "memory");
}

// About half of the objects are in the kernel at any time, each for a millisecond.
static void Epoll(const char* name) {
  epoll = epoll_create1(0);
  CHECK(epoll >= 0);
  for (int i = 0; i < kWatches; i++) {
    CHECK((events[i] = eventfd(1, 0)) >= 0);
    struct epoll_event event = {.events = 0, .data.u64 = 0};
    CHECK_EQ(Control(epoll, EPOLL_CTL_ADD, events[i], &event), 0);
    slots[i] = Make((uint64_t)i);
  }
  Live* live = MakeLive(20000, 5);  // so that a mark takes a while
  Scrub();
  StartCollector();
  Random r = {7};
  int inside = 0;
  for (double end = Seconds() + 3; Seconds() < end || (GcWorks() && GcStats()->num_gc < 5);) {
    for (int k = 0; k < 100; k++) {
      int i = (int)Below(&r, kWatches);
      if (inside > 0 && (!slots[i] || Below(&r, 8) == 0)) {
        TakeOut();
        inside--;
      } else if (slots[i]) {
        PutIn(i);
        inside++;
      }
    }
    Leak(10);
  }
  StopCollector(5);
  CheckLive(live, 20000, 5);
  (void)name;
}

// More words in one mark than are noted one by one.
static void Many(const char* name) {
  enum { kMany = 6000 };
  static int fds[kMany];
  static uintptr_t hidden[kMany];
  epoll = epoll_create1(0);
  int pair = eventfd(1, 0), count = 0;
  CHECK(epoll >= 0 && pair >= 0);
  while (count < kMany && (fds[count] = dup(pair)) >= 0) count++;
  CHECK(count > 500);
  StartCollector();
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < count; i++) {
      uint64_t* o = Make((uint64_t)i);
      hidden[i] = Hide(o);
      struct epoll_event event = {.events = 0, .data.ptr = o};
      CHECK_EQ(Control(epoll, round ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fds[i], &event), 0);
    }
    Scrub();
    SleepMs(50);
    Leak(20000);
    for (int i = 0; i < count; i++) Look(Reveal(hidden[i]));
  }
  StopCollector(1);
  (void)name;
}

static void Timer(const char* name) {
  StartCollector();
  timer_t timers[kTimers];
  uintptr_t hidden[kTimers];
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 3);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
  for (double end = Seconds() + 2; Seconds() < end;) {
    for (int i = 0; i < kTimers; i++) {
      uint64_t* o = Make((uint64_t)i);
      hidden[i] = Hide(o);
      struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3};
      event.sigev_value.sival_ptr = o;
      CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &timers[i]), 0);
    }
    Scrub();
    Leak(3000);
    SleepMs(2);
    for (int i = 0; i < kTimers; i++) Look(Reveal(hidden[i]));
    for (int i = 0; i < kTimers; i++) CHECK_EQ(timer_delete(timers[i]), 0);
  }
  StopCollector(3);
  (void)name;
}

// Calls that fail do so as ever, while a mark runs as well as between marks.
static void Wild(const char* name) {
  epoll = epoll_create1(0);
  int fd = eventfd(0, 0);
  struct epoll_event* gone = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(gone != MAP_FAILED);
  StartCollector();
  for (double end = Seconds() + 1; Seconds() < end;) {
    Leak(500);
    for (raw = 0; raw < 2; raw++) {
      CHECK(Control(epoll, EPOLL_CTL_ADD, fd, gone) == -1 && errno == EFAULT);
      CHECK(Control(epoll, EPOLL_CTL_ADD, fd, NULL) == -1 && errno == EFAULT);
      CHECK(Control(epoll, EPOLL_CTL_DEL, fd, gone) == -1 && errno == ENOENT);
    }
    CHECK(syscall(SYS_timer_create, CLOCK_MONOTONIC, gone, gone) == -1 && errno == EFAULT);
  }
  StopCollector(2);
  (void)name;
}

int main(int argc, char** argv) {
  static const struct {
    const char* name;
    void (*run)(const char* name);
  } parts[] = {{"epoll", Epoll}, {"raw", Epoll}, {"many", Many}, {"timer", Timer}, {"wild", Wild}};
  CHECK(argc == 2);
  raw = !strcmp(argv[1], "raw");
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    if (strcmp(parts[i].name, argv[1]) == 0) return parts[i].run(argv[1]), 0;
  }
  CHECK(!"unknown part");
}
