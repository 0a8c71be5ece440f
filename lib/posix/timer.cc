// SPDX-License-Identifier: Apache-2.0
// Timers that name a thread, or measure the CPU time of one.
//
// Problem: the signal is meant for one thread, the kernel knows none of ours by its id, and the
// kernel thread that runs it now is another one's later.
//
// So such a timer sends its signal, 32 with the address of an entry in our table, to a thread of
// the library that does nothing but wait for those. It hands each one on as pthread_kill would
// (signal_deliver.cc). What the program wanted of the siginfo is kept in the entry. One signal of a
// timer is pending at a time; more of them count as its overrun, as in the kernel.
//
// A thread that has its kernel thread for itself is named to the kernel as that. A timer that the
// main thread made for itself before there were others names the process's first kernel thread:
// when its signal comes to another G there, it is handed on (ThreadOfTimer).
//
// A thread that makes a timer on its own CPU clock keeps its kernel thread from then on, whose
// clock it is. Points in time are shifted by what that has computed for others.
//
// Rejected: a timer for the process with our entry as the value (an innocent thread's system calls
// would end early, and sigwait and signalfd would show the value), deadlines in the heaps of the
// scheduler (many clocks, and a second implementation of what the kernel does).
#include "posix/timer.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>

#include "plat/futex.h"
#include "plat/real.h"
#include "plat/syscall.h"
#include "plat/thread.h"
#include "plat/vm.h"
#include "posix/cpu_clock.h"
#include "posix/posix.h"
#include "posix/signal.h"
#include "sched/sched.h"
#include "sched/thread.h"
#include "sync/mutex.h"
#include "world/record.h"

namespace undergo::posix {

namespace {

constexpr uint32_t kMostTimers = 4096;
constexpr int kSignal = 32;  // blocked by all threads of the library at any time
constexpr int kNoId = -1;
constexpr int kNoThread = -1;
constexpr int kPatience = 5;  // seconds without a timer, then the thread ends

struct ThreadTimer {
  uint32_t used;  // atomic
  int id;         // atomic; the kernel's number of the timer
  int tid;        // of the thread that it names; kNoThread: the entry is for the clock only
  int sig;
  int overrun;  // of the last signal that the thread got; atomic
  union sigval value;
  clockid_t clock;  // CPU time of a thread; 0: another clock
};

// Taken with signals blocked, in a BusyScope; by the timer thread as it is.
constinit sync::Mutex timers_lock;
constinit ThreadTimer* timers = nullptr;  // atomic; a root of the collector, as values are pointers
constinit uint32_t timer_count = 0;       // used ones; timers_lock for writers, atomic
constinit int timer_thread = 0;           // 0: none; timers_lock
constinit int owner = 0;                  // process that the above belongs to

class Locked {
 public:
  Locked() { timers_lock.Lock(); }
  ~Locked() { timers_lock.Unlock(); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  heap::BusyScope busy_;  // first: from here on the thread stays on its M
  world::SignalsOff off_;
};

int Pid() { return static_cast<int>(plat::Syscall(__NR_getpid)); }

// A forked child has none of its parent's timers.
void ForgetAncestors() {
  if (LoadRelaxed(&owner) == Pid()) return;
  timers_lock.ResetAfterFork();
  timer_thread = 0;
  timer_count = 0;
  for (uint32_t i = 0; timers != nullptr && i < kMostTimers; ++i) timers[i].used = 0;
  StoreRelaxed(&owner, Pid());
}

ThreadTimer* FindTimer(int id) {
  ThreadTimer* all = LoadAcquire(&timers);  // pairs: NewTimerLocked
  if (all == nullptr || LoadRelaxed(&timer_count) == 0 || LoadRelaxed(&owner) != Pid()) {
    return nullptr;
  }
  for (uint32_t i = 0; i < kMostTimers; ++i) {
    if (LoadAcquire(&all[i].used) != 0 && LoadAcquire(&all[i].id) == id) return &all[i];
    // pairs: Complete
  }
  return nullptr;
}

// --- the thread that gets the signals ---

bool MayEnd() {
  sync::MutexLock hold(timers_lock);
  if (timer_count != 0) return false;
  timer_thread = 0;
  return true;
}

void HandOn(const siginfo_t& got) {
  auto* t = static_cast<ThreadTimer*>(got.si_value.sival_ptr);
  siginfo_t info = got;
  G* g;
  {
    sync::MutexLock hold(timers_lock);
    if (t->used == 0 || t->id != got.si_timerid) return;  // deleted meanwhile
    info.si_signo = t->sig;
    info.si_value = t->value;
    g = sched::Active() ? sched::FindByTid(t->tid) : nullptr;
  }
  if (g != nullptr) SendTo(g, info.si_signo, info);
}

void TimerThread(void*) {
  const uint64_t set = Bit(kSignal);
  for (;;) {
    siginfo_t info;
    struct timespec patience = {kPatience, 0};
    long sig = plat::Syscall(__NR_rt_sigtimedwait, &set, &info, &patience, sizeof set);
    if (sig == kSignal && info.si_code == SI_TIMER) {
      HandOn(info);
    } else if (sig == -EAGAIN && MayEnd()) {
      return;
    }
  }
}

// --- making one ---

ThreadTimer* NewTimerLocked() {
  if (timers == nullptr) {
    constexpr size_t kSize = AlignUp(kMostTimers * sizeof(ThreadTimer), kOsPageSize);
    // Not by plat/vm.h, which keeps memory from the collector's roots.
    long at = plat::Syscall(__NR_mmap, nullptr, kSize, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (plat::IsError(at)) return nullptr;
    StoreRelease(&timers, reinterpret_cast<ThreadTimer*>(at));  // pairs: FindTimer
  }
  for (uint32_t i = 0; i < kMostTimers; ++i) {
    if (timers[i].used != 0) continue;
    timers[i] = {};
    timers[i].id = kNoId;
    StoreRelease(&timers[i].used, 1u);  // pairs: FindTimer
    StoreRelaxed(&timer_count, timer_count + 1);
    return &timers[i];
  }
  return nullptr;
}

void DropLocked(ThreadTimer* t) {
  t->value = {};
  StoreRelease(&t->used, 0u);  // pairs: FindTimer
  StoreRelaxed(&timer_count, timer_count - 1);
}

bool HasThreadLocked() {
  if (timer_thread != 0) return true;
  long tid = plat::SpawnThread(TimerThread, nullptr, "undergo timers");
  if (plat::IsError(tid)) return false;
  timer_thread = static_cast<int>(tid);
  return true;
}

// What the kernel is asked for instead, and the entry of it.
struct Request {
  struct sigevent event;
  ThreadTimer* entry = nullptr;
};

// An error number.
int Translate(const struct sigevent& e, Request* r) {
  r->event = e;
  bool active = sched::Active();
  int tid = e._sigev_un._tid;
  G* g = active ? sched::FindByTid(tid) : nullptr;
  bool early = !active && sched::Configured() && tid == Pid();
  if (g == nullptr && !early) return 0;
  if (e.sigev_signo <= 0 || e.sigev_signo >= kSignalCount) return EINVAL;
  if (g != nullptr && g->state == sched::GState::kPinned) {
    r->event._sigev_un._tid = g->m->tid;
    return 0;
  }
  ForgetAncestors();
  Locked hold;
  if (g != nullptr && !HasThreadLocked()) return EAGAIN;
  ThreadTimer* t = NewTimerLocked();
  if (t == nullptr) return EAGAIN;
  t->tid = tid;
  t->sig = e.sigev_signo;
  t->value = e.sigev_value;
  r->entry = t;
  if (g == nullptr) return 0;
  r->event.sigev_signo = kSignal;
  r->event.sigev_value.sival_ptr = t;
  r->event._sigev_un._tid = timer_thread;
  return 0;
}

void Complete(const Request& r, int error, int id) {
  if (r.entry == nullptr) return;
  Locked hold;
  if (error != 0) return DropLocked(r.entry);
  StoreRelease(&r.entry->id, id);  // pairs: FindTimer
}

// `clock` is the kernel's name for it only now.
void NoteClock(clockid_t clock, clockid_t kernel, const struct sigevent* e, int id) {
  if (clock == kernel || (e != nullptr && e->sigev_notify == SIGEV_THREAD)) return;
  ForgetAncestors();
  Locked hold;
  ThreadTimer* t = NewTimerLocked();
  if (t == nullptr) return;
  t->tid = kNoThread;
  t->clock = clock;
  StoreRelease(&t->id, id);  // pairs: FindTimer
}

// A point of the thread's clock for the kernel's.
void Shift(clockid_t clock, struct timespec* t) {
  constexpr int64_t kSecond = 1'000'000'000;
  int64_t ns = t->tv_sec * kSecond + t->tv_nsec;
  if (ns == 0) return;
  ns -= AheadOfKernel(clock);
  if (ns <= 0) ns = 1;
  *t = {ns / kSecond, ns % kSecond};
}

bool NamesThread(const struct sigevent* e) {
  return e != nullptr && e->sigev_notify == SIGEV_THREAD_ID;
}

// What libc gives for a timer without a thread of its own.
int KernelIdOf(timer_t timer) { return static_cast<int>(reinterpret_cast<intptr_t>(timer)); }

}  // namespace

G* ThreadOfTimer(const siginfo_t& info) {
  if (LoadRelaxed(&timer_count) == 0) return nullptr;
  ThreadTimer* t = FindTimer(info.si_timerid);
  if (t == nullptr || t->tid != sched::main_g.tid) return nullptr;
  return sched::main_g.state != sched::GState::kDead ? &sched::main_g : nullptr;
}

void TimerDelivered(const siginfo_t& info) {
  ThreadTimer* t = FindTimer(info.si_timerid);
  if (t != nullptr) StoreRelaxed(&t->overrun, info.si_overrun);
}

int CreateTimer(clockid_t clock, struct sigevent* e, timer_t* timer) {
  clockid_t kernel = KernelClockOf(clock);
  if (!NamesThread(e)) {
    int result = real::timer_create(kernel, e, timer);
    if (result == 0) NoteClock(clock, kernel, e, KernelIdOf(*timer));
    return result;
  }
  Request r;
  int error = Translate(*e, &r);
  if (error == 0 && real::timer_create(kernel, &r.event, timer) != 0) error = errno;
  if (error == 0 && r.entry == nullptr) NoteClock(clock, kernel, e, KernelIdOf(*timer));
  Complete(r, error, error == 0 ? KernelIdOf(*timer) : kNoId);
  if (error == 0) return 0;
  errno = error;
  return -1;
}

long TimerCreateCall(clockid_t clock, const struct sigevent* e, int* id) {
  clock = KernelClockOf(clock);
  // Any address may come here, as to the kernel, which answers EFAULT.
  struct sigevent copy;
  bool readable = e != nullptr && plat::SafeRead(reinterpret_cast<Addr>(e), &copy, sizeof copy);
  if (!readable || !NamesThread(&copy))
    return real::syscall(__NR_timer_create, clock, (long)e, (long)id, 0, 0, 0);
  Request r;
  int error = Translate(copy, &r);
  if (error == 0) {
    long result = plat::Syscall(__NR_timer_create, clock, &r.event, id);
    if (plat::IsError(result)) error = static_cast<int>(-result);
  }
  Complete(r, error, error == 0 ? *id : kNoId);
  if (error == 0) return 0;
  errno = error;
  return -1;
}

int timer_delete(timer_t timer) {
  if (real::timer_delete == nullptr) real::Resolve();
  ThreadTimer* t = FindTimer(KernelIdOf(timer));
  if (t != nullptr) {
    Locked hold;
    if (t->used != 0 && t->id == KernelIdOf(timer)) DropLocked(t);
  }
  return real::timer_delete(timer);
}

int timer_settime(timer_t timer, int flags, const struct itimerspec* value,
                  struct itimerspec* old) {
  if (real::timer_settime == nullptr) real::Resolve();
  ThreadTimer* t = FindTimer(KernelIdOf(timer));
  if (t == nullptr || t->clock == 0 || (flags & TIMER_ABSTIME) == 0 || value == nullptr) {
    return real::timer_settime(timer, flags, value, old);
  }
  struct itimerspec shifted = *value;
  Shift(t->clock, &shifted.it_value);
  return real::timer_settime(timer, flags, &shifted, old);
}

// That of the last signal which the thread got. The kernel has told ours about it.
int timer_getoverrun(timer_t timer) {
  if (real::timer_getoverrun == nullptr) real::Resolve();
  int kernel = real::timer_getoverrun(timer);
  ThreadTimer* t = kernel >= 0 ? FindTimer(KernelIdOf(timer)) : nullptr;
  return t != nullptr && t->tid != kNoThread && t->tid != Pid() ? LoadRelaxed(&t->overrun) : kernel;
}

}  // namespace undergo::posix
