// SPDX-License-Identifier: Apache-2.0
// The poller: waits for descriptors on behalf of all Gs.
//
// Problem: the descriptors are the program's. It shares them with other processes, duplicates them,
// closes them behind our back (stdio, the resolver), and uses their numbers again. So nothing is
// believed about a number that the kernel has not confirmed: each wait registers its descriptor
// anew, one-shot, by EPOLL_CTL_MOD or ADD, which also looks whether it is ready. An event that
// comes for an older file under the same number ends a wait too early, and the caller tries again.
//
//   slot of a number:  list of FdWaits | events registered | other end, kind (hints)
//
// Direct hand-over: who writes into a pipe whose reader waits here ends that wait by itself. Who
// was woken so the last time is not registered at once the next time, because most probably it
// will be again: its number goes to a short list, which is worked off by an M before it sleeps, and
// but for the waits that began since the last time by who looks on. A ping-pong between two Gs
// costs no call but its reads and writes.
//
// The two descriptors of the poller sit on numbers that programs seldom get to. The interposed
// close() and its kin spare them (NetpollOwns, NetpollMakeRoom); before each wait the M makes sure
// that they are still what they were, by changing a registration that only ours has, and makes new
// ones if not. The same call breaks a wait: the eventfd is always ready and registered with or
// without EPOLLIN. So nothing is ever written to a number that may be somebody else's.
//
// Rejected: registration for the life of a descriptor (Go's; needs to see every close), an event
// loop thread, O_NONBLOCK on the program's descriptors (others see it).
#include "sched/netpoll.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>

#include "base/assert.h"
#include "plat/clock.h"
#include "plat/futex.h"
#include "plat/syscall.h"
#include "sched/confine.h"
#include "sched/fd_slots.h"
#include "world/stop.h"

namespace undergo::sched {

namespace {

constinit sync::Mutex open_lock;
constinit int epoll_fd = -1;        // atomic; written under open_lock
constinit int event_fd = -1;        // atomic; the same
constinit uint32_t waiting = 0;     // atomic; FdWaits in slots
constinit uint32_t broken = 0;      // atomic futex; 1: come back
constinit int highest_awaited = 0;  // atomic; of all numbers that somebody waited for
constinit bool has_pwait2 = true;   // set false by the first failure

constexpr uint32_t kMostPending = 64;
constinit sync::Mutex pending_lock;
constinit uint32_t pending_count = 0;  // atomic; written under pending_lock
constinit uint32_t flush_round = 0;    // atomic; counts flushes
constinit int pending[kMostPending] = {};

constexpr uint64_t kBreakTag = ~uint64_t{0};

// --- the poller's own descriptors ---

long Control(int epoll, int op, int fd, uint32_t events, uint64_t data) {
  struct epoll_event e = {};
  e.events = events;
  e.data.u64 = data;
  return plat::Syscall(__NR_epoll_ctl, epoll, op, fd, &e);
}

// Numbers out of the program's way, but in the table of 64 that each process begins with: when the
// kernel makes the table of a process with threads larger, the caller waits for tens of
// milliseconds; and fork copies it up to the highest number in use.
constexpr int kHigh = 56;

bool Rearm(int fd, FdSlot* s);

// With open_lock held.
bool OpenLocked() {
  auto e = static_cast<int>(plat::Syscall(__NR_epoll_create1, EPOLL_CLOEXEC));
  auto v = static_cast<int>(plat::Syscall(__NR_eventfd2, 1, EFD_CLOEXEC | EFD_NONBLOCK));
  e = NetpollMoveHigh(e);
  v = NetpollMoveHigh(v);
  if (e < 0 || v < 0 || plat::IsError(Control(e, EPOLL_CTL_ADD, v, 0, kBreakTag))) {
    if (e >= 0) plat::Syscall(__NR_close, e);
    if (v >= 0) plat::Syscall(__NR_close, v);
    return false;
  }
  StoreRelaxed(&event_fd, v);
  StoreRelease(&epoll_fd, e);  // pairs: readers
  return true;
}

bool Open() {
  if (UNDERGO_LIKELY(LoadAcquire(&epoll_fd) >= 0)) return true;  // pairs: OpenLocked
  {
    sync::MutexLock hold(open_lock);
    if (epoll_fd >= 0) return true;
    if (!OpenLocked()) return false;
  }
  NetpollBreak();  // an M may wait without it
  return true;
}

void RearmAll();

// Somebody closed ours: all that wait are registered anew.
void Reopen(int lost) {
  {
    sync::MutexLock hold(open_lock);
    if (epoll_fd != lost) return;
    StoreRelease(&epoll_fd, -1);  // pairs: Open
    if (!OpenLocked()) return;
  }
  RearmAll();
}

// --- waits of a slot; with its lock held ---

void Link(FdSlot* s, FdWait* f) {
  FdWait** at = &s->waits;
  FdWait* last = nullptr;
  for (; *at != nullptr; at = &(*at)->next) last = *at;
  f->next = nullptr;
  f->prev = last;
  f->linked = true;
  StoreRelaxed(at, f);
  if (f->fd > LoadRelaxed(&highest_awaited)) StoreRelaxed(&highest_awaited, f->fd);
  FetchAddRelaxed(&waiting, 1u);
}

void Unlink(FdSlot* s, FdWait* f) {
  (f->prev != nullptr ? f->prev->next : s->waits) = f->next;
  if (f->next != nullptr) f->next->prev = f->prev;
  f->linked = false;
  FetchAddRelaxed(&waiting, ~0u);
}

// Registers what the slot waits for. False when the descriptor cannot be polled.
bool Rearm(int fd, FdSlot* s) {
  uint32_t wanted = EPOLLONESHOT;
  for (FdWait* f = s->waits; f != nullptr; f = f->next) wanted |= f->events;
  int epoll = LoadAcquire(&epoll_fd);  // pairs: OpenLocked
  auto data = static_cast<uint64_t>(fd);
  long error = Control(epoll, EPOLL_CTL_MOD, fd, wanted, data);
  if (error == -ENOENT) error = Control(epoll, EPOLL_CTL_ADD, fd, wanted, data);
  if (error == -EEXIST) error = Control(epoll, EPOLL_CTL_MOD, fd, wanted, data);
  s->armed = error == 0 ? wanted : 0;
  return error == 0;
}

// Ends the waits that `events` are for. Whether there were any.
bool End(FdSlot* s, uint32_t events, GQueue* ready) {
  uint32_t taken = 0;
  bool all = (events & (EPOLLHUP | EPOLLERR)) != 0;
  for (FdWait* f = s->waits; f != nullptr;) {
    FdWait* next = f->next;
    uint32_t mine = f->events & events;
    bool wanted = all || (mine & ~(f->one ? taken : 0u)) != 0;
    if (wanted) {
      G* g = f->waiter->g();
      Unlink(s, f);
      // The FdWait may be gone as soon as its G runs, which needs this lock to go on.
      if (f->one) taken |= mine;
      if (ClaimWake(g, Wake::kReady)) {
        ready->Push(g);
      } else if (f->one) {
        taken &= ~mine;  // it has ended otherwise: the next one
      }
    }
    f = next;
  }
  return ready->head != nullptr;
}

// Leaves the registration for later; false when the list is full.
bool Postpone(int fd, FdSlot* s) {
  StoreRelaxed(&s->round, LoadRelaxed(&flush_round));
  if (s->pending) return true;
  sync::MutexLock hold(pending_lock);
  if (pending_count == kMostPending) return false;
  pending[pending_count] = fd;
  StoreRelaxed(&pending_count, pending_count + 1);
  s->pending = true;
  return true;
}

void Deliver(int fd, uint32_t events, GQueue* ready) {
  FdSlot* s = FindFdSlot(fd);
  if (s == nullptr) return;
  sync::MutexLock hold(s->lock);
  s->armed = 0;
  GQueue mine;
  if (End(s, events, &mine)) s->handed = false;
  ready->Append(&mine);
  // The others: if the descriptor is still ready, the next one's turn comes at once.
  if (s->waits != nullptr && !Rearm(fd, s)) End(s, EPOLLHUP, ready);
}

constinit M* waiting_m = nullptr;   // atomic; the M that waits in the kernel
constinit uint32_t epoll_lost = 0;  // atomic; 1: somebody closed it while an M waits

// Undoes a break that the M in the poller has not seen yet: RedoBreak.
bool StillOurs(int epoll) {
  return !plat::IsError(Control(epoll, EPOLL_CTL_MOD, LoadRelaxed(&event_fd), 0, kBreakTag));
}

void BreakEpoll(int epoll) {
  long r = Control(epoll, EPOLL_CTL_MOD, LoadRelaxed(&event_fd), EPOLLIN | EPOLLONESHOT, kBreakTag);
  if (UNDERGO_LIKELY(!plat::IsError(r))) return;
  StoreRelaxed(&epoll_lost, 1u);
  WakeSysmon();
}

void RedoBreak(int epoll) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // pairs: NetpollBreak
  if (LoadRelaxed(&broken) != 0) BreakEpoll(epoll);
}

void WaitWithoutEpoll(uint64_t ns) {
  if (LoadAcquire(&broken) == 0) {  // pairs: NetpollBreak
    if (ns == ~uint64_t{0}) {
      plat::FutexWait(&broken, 0);
    } else {
      plat::FutexWaitFor(&broken, 0, ns);
    }
  }
  StoreRelease(&broken, 0u);  // pairs: NetpollBreak
}

long WaitInEpoll(int epoll, uint64_t ns, NetpollEvents* events) {
  constexpr uint64_t kForever = ~uint64_t{0};
  if (has_pwait2) {
    uint64_t span[2] = {ns / 1'000'000'000, ns % 1'000'000'000};
    long n = plat::Syscall(__NR_epoll_pwait2, epoll, events->events, NetpollEvents::kMost,
                           ns == kForever ? nullptr : span, nullptr, 8);
    if (n != -ENOSYS) return n;
    has_pwait2 = false;
  }
  constexpr uint64_t kMostMs = 1'000'000'000;
  uint64_t ms = ns == kForever ? 0 : Min((ns + 999'999) / 1'000'000, kMostMs);
  return plat::Syscall(__NR_epoll_wait, epoll, events->events, NetpollEvents::kMost,
                       ns == kForever ? -1 : static_cast<int>(ms));
}

// Who waits for a number that is closed by now hears of it.
void RearmAll() {
  heap::BusyScope busy;  // a stop waits until no lock is held
  GQueue ready;
  ForEachAwaited([&ready](int fd, FdSlot* s) {
    if (!Rearm(fd, s)) End(s, EPOLLHUP, &ready);
  });
  if (ready.head != nullptr) MakeRunnableGlobally(&ready);
}

}  // namespace

bool NetpollActive() { return LoadRelaxed(&waiting) != 0; }

void NetpollWait(uint64_t ns, NetpollEvents* events) {
  events->count = 0;
  int epoll = LoadAcquire(&epoll_fd);  // pairs: OpenLocked
  bool waits = ns != 0;
  if (epoll < 0 || UNDERGO_UNLIKELY(IsConfined())) {
    if (waits) WaitWithoutEpoll(ns);
    return;
  }
  if (waits) {
    if (!StillOurs(epoll)) return Reopen(epoll);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);  // pairs: NetpollBreak
    if (LoadAcquire(&broken) != 0) ns = 0;    // StillOurs may have undone the break
  }
  if (waits) {
    G* g = Self();
    StoreRelaxed(&waiting_m, g != nullptr ? g->m : nullptr);
  }
  long n = WaitInEpoll(epoll, ns, events);
  events->count = n > 0 ? static_cast<int>(n) : 0;
  if (waits) {
    StoreRelaxed(&waiting_m, static_cast<M*>(nullptr));
    StoreRelease(&broken, 0u);  // pairs: NetpollBreak
    return;
  }
  // A break that was meant for the M that waits.
  for (int i = 0; i < events->count; ++i) {
    bool stolen = events->events[i].data.u64 == kBreakTag && LoadRelaxed(&broken) != 0;
    if (stolen) BreakEpoll(epoll);
  }
}

void NetpollDeliver(const NetpollEvents& events, GQueue* ready) {
  for (int i = 0; i < events.count; ++i) {
    if (events.events[i].data.u64 == kBreakTag) continue;
    Deliver(static_cast<int>(events.events[i].data.u64), events.events[i].events, ready);
  }
}

void Netpoll(GQueue* ready) {
  NetpollEvents events;
  NetpollWait(0, &events);
  NetpollDeliver(events, ready);
}

namespace {

// Takes one out of the list, from `*at` downwards, but none of this round unless `all`; -1: none.
int TakePending(uint32_t* at, bool all, uint32_t round) {
  sync::MutexLock hold(pending_lock);
  for (uint32_t i = Min(*at, pending_count); i-- > 0;) {
    int fd = pending[i];
    if (!all && LoadRelaxed(&FindFdSlot(fd)->round) == round) continue;
    StoreRelaxed(&pending_count, pending_count - 1);
    pending[i] = pending[pending_count];
    *at = i;
    return fd;
  }
  return -1;
}

}  // namespace

void NetpollFlush(bool all) {
  if (LoadRelaxed(&pending_count) == 0) return;
  uint32_t round = FetchAddRelaxed(&flush_round, 1u);
  uint32_t at = kMostPending;
  for (;;) {
    int fd = TakePending(&at, all, round);
    if (fd < 0) return;
    FdSlot* s = FindFdSlot(fd);
    sync::MutexLock hold(s->lock);
    s->pending = false;
    GQueue ready;
    if (s->waits != nullptr && !Rearm(fd, s)) End(s, EPOLLHUP, &ready);
    if (ready.head != nullptr) MakeRunnableGlobally(&ready);
  }
}

void NetpollBreak() {
  if (ExchangeAcqRel(&broken, 1u) != 0) return;  // pairs: NetpollWait
  __atomic_thread_fence(__ATOMIC_SEQ_CST);       // pairs: NetpollWait
  plat::FutexWake(&broken, 1);
  int epoll = LoadAcquire(&epoll_fd);  // pairs: OpenLocked
  if (epoll >= 0 && !IsConfined()) BreakEpoll(epoll);
}

void NetpollStop() {
  GQueue ready;
  {
    Section in;
    ForEachAwaited([&ready](int, FdSlot* s) { End(s, EPOLLHUP, &ready); });
    StoreRelaxed(&pending_count, 0u);
  }
  if (ready.head != nullptr) {
    heap::BusyScope busy;
    MakeRunnableGlobally(&ready);
  }
  // The M in the poller does not come back to it.
  int epoll = LoadAcquire(&epoll_fd);  // pairs: OpenLocked
  ExchangeAcqRel(&broken, 1u);         // pairs: NetpollWait
  if (epoll >= 0) BreakEpoll(epoll);
  plat::FutexWake(&broken, 1);
}

void NetpollVerify(uint64_t now, bool must) {
  constexpr uint64_t kLong = 10'000'000'000;  // ns
  static constinit uint64_t verified = 0;
  int epoll = LoadAcquire(&epoll_fd);  // pairs: OpenLocked
  bool lost = LoadRelaxed(&epoll_lost) != 0;
  if (epoll < 0 || IsConfined() || (!must && !lost && now - verified < kLong)) return;
  verified = now;
  if (!StillOurs(epoll)) {
    Reopen(epoll);
    // An M in the old one hears nothing any more; it may just be on its way there.
    M* m = LoadRelaxed(&waiting_m);
    if (m != nullptr) world::SendStopSignal(m->tid, m);
    StoreRelaxed(&epoll_lost, m != nullptr ? 1u : 0u);
  } else {
    RedoBreak(epoll);
    if (lost) {
      StoreRelaxed(&epoll_lost, 0u);
      M* m = LoadRelaxed(&waiting_m);
      if (m != nullptr) world::SendStopSignal(m->tid, m);
    }
  }
  RearmAll();
}

void NetpollAfterFork() {
  int epoll = epoll_fd, event = event_fd;
  // The numbers may be the child's by now. Ours are those of which one is registered in the other.
  if (epoll >= 0) {
    long error = Control(epoll, EPOLL_CTL_ADD, event, 0, kBreakTag);
    if (error == -EEXIST) {
      plat::Syscall(__NR_close, epoll);
      plat::Syscall(__NR_close, event);
    } else if (error == 0) {
      Control(epoll, EPOLL_CTL_DEL, event, 0, 0);
    }
  }
  epoll_fd = event_fd = -1;
  waiting = broken = pending_count = 0;
  highest_awaited = 0;
  open_lock.ResetAfterFork();
  pending_lock.ResetAfterFork();
  ForgetFdSlots();
}

Entered NetpollAdd(FdWait* f) {
  Section in;
  FdSlot* s = MakeFdSlot(f->fd);
  if (s == nullptr || IsConfined() || !Open()) return Entered::kCannot;
  sync::MutexLock hold(s->lock);
  if (IsConfined()) return Entered::kCannot;
  Link(s, f);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // pairs: NetpollHandOver
  if (f->counts && LoadRelaxed(&s->activity) != f->seen) {
    if (f->linked) Unlink(s, f);
    return Entered::kNow;
  }
  if (s->handed && Postpone(f->fd, s)) return Entered::kYes;
  if (Rearm(f->fd, s)) return Entered::kYes;
  if (f->linked) Unlink(s, f);
  return Entered::kCannot;
}

void NetpollRemove(FdWait* f) {
  Section in;
  for (;;) {
    int fd = LoadRelaxed(&f->fd);
    FdSlot* s = FindFdSlot(fd);
    sync::MutexLock hold(s->lock);
    if (f->fd != fd) continue;  // moved meanwhile
    if (f->linked) Unlink(s, f);
    return;
  }
}

void NetpollHandOver(int fd, uint32_t events, size_t bytes) {
  FdSlot* own = FindFdSlot(fd);
  int peer = own != nullptr ? LoadRelaxed(&own->peer) - 1 : -1;
  if (peer < 0) return;
  FdSlot* s = FindFdSlot(peer);
  if (s == nullptr) return;
  auto n = static_cast<uint32_t>(bytes);
  if (events == EPOLLIN) FetchAddRelaxed(&s->balance, n);
  if (events == EPOLLOUT) FetchAddRelaxed(&own->balance, 0 - n);
  __atomic_fetch_add(&s->activity, 1u, __ATOMIC_SEQ_CST);  // pairs: NetpollAdd
  if (LoadRelaxed(&s->waits) == nullptr || Current() == nullptr) return;
  GQueue ready;
  {
    Section in;
    sync::MutexLock hold(s->lock);
    End(s, events, &ready);
    if (ready.head != nullptr) s->handed = true;
  }
  while (G* g = ready.Pop()) MakeReady(g, true);
}

unsigned NetpollSkip(unsigned fd) {
  for (unsigned next = fd + 1; next < kMostFds; next = (next / kFdChunk + 1) * kFdChunk) {
    unsigned epoll = static_cast<unsigned>(LoadRelaxed(&epoll_fd));
    unsigned event = static_cast<unsigned>(LoadRelaxed(&event_fd));
    bool ours = epoll / kFdChunk == next / kFdChunk || event / kFdChunk == next / kFdChunk;
    if (ours || FindFdSlots(next / kFdChunk) != nullptr) return next - 1;
  }
  return kMostFds;
}

void NetpollClosing(int fd) {
  // Who waits for the other end sees the end of it.
  NetpollHandOver(fd, EPOLLIN | EPOLLOUT | EPOLLHUP, 0);
  FdSlot* s = FindFdSlot(fd);
  if (s == nullptr || LoadRelaxed(&s->waits) == nullptr || Current() == nullptr) return;
  long kept = plat::Syscall(__NR_fcntl, fd, F_DUPFD_CLOEXEC, kHigh);
  if (plat::IsError(kept)) kept = plat::Syscall(__NR_fcntl, fd, F_DUPFD_CLOEXEC, 3);
  if (plat::IsError(kept)) return;
  int to = static_cast<int>(kept);
  Section in;
  FdSlot* t = MakeFdSlot(to);
  if (t == nullptr) return static_cast<void>(plat::Syscall(__NR_close, to));
  sync::MutexLock hold(s->lock);
  sync::MutexLock hold_new(t->lock);
  t->kind = s->kind;
  t->users = 0;
  while (FdWait* f = s->waits) {
    Unlink(s, f);
    StoreRelaxed(&f->fd, to);
    Link(t, f);
    t->users++;
  }
  GQueue ready;
  if (t->waits == nullptr) {
    plat::Syscall(__NR_close, to);
  } else if (!Rearm(to, t)) {
    End(t, EPOLLHUP, &ready);
    MakeRunnableGlobally(&ready);
  }
}

void NetpollEndUse(int was, int now) {
  if (UNDERGO_LIKELY(was == now)) return;
  Section in;
  FdSlot* s = FindFdSlot(now);
  bool last;
  {
    sync::MutexLock hold(s->lock);
    last = --s->users == 0;
  }
  if (last) plat::Syscall(__NR_close, now);
}

int NetpollMoveHigh(int fd) {
  if (fd < 0) return -1;
  // Somebody may still look at a number that was closed by a bare system call.
  int least = Max(kHigh, LoadRelaxed(&highest_awaited) + 1);
  long high = plat::Syscall(__NR_fcntl, fd, F_DUPFD_CLOEXEC, least);
  if (plat::IsError(high)) return fd;
  plat::Syscall(__NR_close, fd);
  return static_cast<int>(high);
}

bool NetpollOwns(int fd) {
  if (UNDERGO_LIKELY(fd != LoadRelaxed(&epoll_fd) && fd != LoadRelaxed(&event_fd))) return false;
  return fd >= 0 && Active();
}

void NetpollMakeRoom(int fd) {
  if (!NetpollOwns(fd)) return;
  Section in;
  int lost = LoadAcquire(&epoll_fd);  // pairs: OpenLocked
  int event = LoadRelaxed(&event_fd);
  Reopen(lost);
  plat::Syscall(__NR_close, lost);
  plat::Syscall(__NR_close, event);
}

}  // namespace undergo::sched
