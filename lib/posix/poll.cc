// SPDX-License-Identifier: Apache-2.0
// poll, select and epoll_wait: asked with a time limit of 0, parked on all descriptors if nothing
// is ready, asked again.
//
// A set of more than a few dozen descriptors blocks the kernel thread: entering and leaving each
// one for each wait would cost more. When many kernel threads are blocked already such sets park,
// too: then it is worth it. Calls with a signal mask block: the kernel has to change the mask and
// to wait in one step. An epoll descriptor is itself one that can be waited for.
#include <errno.h>
#include <poll.h>
#include <sys/select.h>

#include "plat/clock.h"
#include "plat/vm.h"
#include "posix/cancel_point.h"
#include "posix/descriptor.h"
#include "posix/signal_mask.h"
#include "sched/confine.h"
#include "sched/sched.h"

namespace undergo::posix {

namespace {

constexpr nfds_t kFew = 32;  // descriptors that cost less to enter than a kernel thread
constexpr nfds_t kMost = 1024;
constexpr uint32_t kManyMs = 64;  // from here on kernel threads are worth more

bool MayPark(nfds_t n) {
  if (sched::Current() == nullptr || sched::IsConfined()) return false;
  return n <= kFew || (n <= kMost && LoadRelaxed(&sched::sched.m_count) >= kManyMs);
}

// What a wait for a set needs.
class Room {
 public:
  explicit Room(nfds_t n) : size_(n * (sizeof(struct pollfd) + sizeof(sched::FdWait))) {
    memory_ = n <= kFew ? few_ : static_cast<char*>(plat::MapPages(size_));
    waits = reinterpret_cast<sched::FdWait*>(memory_);
    fds = reinterpret_cast<struct pollfd*>(memory_ + n * sizeof(sched::FdWait));
  }
  ~Room() {
    if (memory_ != few_ && memory_ != nullptr) plat::Unmap(reinterpret_cast<Addr>(memory_), size_);
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;

  bool ok() const { return memory_ != nullptr; }

  sched::FdWait* waits;
  struct pollfd* fds;

 private:
  alignas(sched::FdWait) char few_[kFew * (sizeof(struct pollfd) + sizeof(sched::FdWait))];
  size_t size_;
  char* memory_;
};

// A look that does not wait: the kernel gives EINTR when a signal came meanwhile, even one of ours.
template <typename... A>
long LookNow(long number, A... args) {
  long r;
  do {
    r = plat::Syscall(number, args...);
  } while (r == -EINTR);
  return r;
}

uint64_t DeadlineIn(int ms) {
  return ms < 0 ? sched::kNever : plat::NowNs() + static_cast<uint64_t>(ms) * 1'000'000;
}

int MsUntil(uint64_t deadline) {
  if (deadline == sched::kNever) return -1;
  uint64_t now = plat::NowNs();
  return now >= deadline ? 0 : static_cast<int>((deadline - now + 999'999) / 1'000'000);
}

// Parks until one of the descriptors in room->fds may be ready. Their numbers change with those
// that are closed meanwhile. kEintr also when the thread is to be cancelled: the caller looks.
WaitEnd WaitForAny(Room* room, nfds_t n, uint64_t deadline) {
  if (CancelPending()) return WaitEnd::kEintr;
  sched::Wake why;
  struct pollfd* fds = room->fds;
  {
    sched::Waiter w(sched::WaitReason::kPoll);
    sched::FdWait* waits = room->waits;
    w.Arm();
    nfds_t entered = 0;
    bool all = true;
    for (nfds_t i = 0; i < n && all; ++i) {
      uint32_t events = static_cast<uint16_t>(fds[i].events);
      waits[i] = sched::FdWait(&w, fds[i].fd, events, false);
      if (fds[i].fd >= 0) all = sched::NetpollAdd(&waits[i]) == sched::Entered::kYes;
      entered += all;
    }
    bool ended = !all && w.Disarm();
    why = all ? w.Wait(deadline, true) : ended ? sched::Wake::kReady : sched::Wake::kNone;
    for (nfds_t i = 0; i < entered; ++i) {
      if (fds[i].fd < 0) continue;
      sched::NetpollRemove(&waits[i]);
      fds[i].fd = waits[i].fd;
    }
    if (why == sched::Wake::kNone) return WaitEnd::kCannot;
    if (why == sched::Wake::kReady) return WaitEnd::kReady;
    if (why == sched::Wake::kTimeout) return WaitEnd::kTimeout;
  }
  bool eintr = AttendToInterrupt(Restart::kNever) || CancelPending();
  return eintr ? WaitEnd::kEintr : WaitEnd::kReady;
}

// The same for the program's set: answers poll()'s result when something is ready, else how the
// wait ended. `set` is changed by the kernel alone.
struct Polled {
  int result;   // above 0: descriptors that are ready
  WaitEnd end;  // when result is 0
};

Polled PollParked(struct pollfd* set, nfds_t n, uint64_t deadline) {
  Room room(n);
  if (!room.ok()) return {0, WaitEnd::kCannot};
  __builtin_memcpy(room.fds, set, n * sizeof *set);
  Polled answer = {0, WaitEnd::kReady};
  while (answer.result == 0 && answer.end == WaitEnd::kReady) {
    answer.end = WaitForAny(&room, n, deadline);
    if (answer.end == WaitEnd::kEintr || answer.end == WaitEnd::kCannot) break;
    long r = LookNow(__NR_poll, room.fds, n, 0);
    answer.result = r > 0 ? static_cast<int>(r) : 0;
  }
  for (nfds_t i = 0; i < n; ++i) {
    set[i].revents = answer.result > 0 ? room.fds[i].revents : 0;
    sched::NetpollEndUse(set[i].fd, room.fds[i].fd);
  }
  return answer;
}

// --- select ---

constexpr int kBits = 64;
using Set = unsigned long;

bool In(const fd_set* s, int fd) {
  return s != nullptr && (reinterpret_cast<const Set*>(s)[fd / kBits] >> (fd % kBits) & 1) != 0;
}

// The descriptors of three sets go to `fds` if it is not null; revents keeps the number. Returns
// their count.
nfds_t Collect(int n, fd_set* const sets[3], struct pollfd* fds) {
  nfds_t count = 0;
  for (int base = 0; base < n; base += kBits) {
    Set any = 0;
    for (int i = 0; i < 3; ++i) {
      if (sets[i] != nullptr) any |= reinterpret_cast<const Set*>(sets[i])[base / kBits];
    }
    for (; any != 0; any &= any - 1) {
      int fd = base + static_cast<int>(__builtin_ctzl(any));
      if (fd >= n) break;
      if (fds != nullptr) {
        int events = (In(sets[0], fd) ? POLLIN | POLLRDNORM | POLLRDBAND : 0) |
                     (In(sets[1], fd) ? POLLOUT | POLLWRNORM | POLLWRBAND : 0) |
                     (In(sets[2], fd) ? POLLPRI : 0);
        fds[count] = {fd, static_cast<short>(events), static_cast<short>(fd)};
      }
      ++count;
    }
  }
  return count;
}

struct Sets {
  static constexpr int kWords = FD_SETSIZE / kBits;
  Set words[3][kWords];

  void Load(int n, fd_set* const s[3]) {
    auto size = static_cast<size_t>((n + kBits - 1) / kBits) * sizeof(Set);
    for (int i = 0; i < 3; ++i) {
      if (s[i] != nullptr) __builtin_memcpy(words[i], s[i], size);
    }
  }
  void Store(int n, fd_set* const s[3]) const {
    auto size = static_cast<size_t>((n + kBits - 1) / kBits) * sizeof(Set);
    for (int i = 0; i < 3; ++i) {
      if (s[i] != nullptr) __builtin_memcpy(s[i], words[i], size);
    }
  }
  void Clear() { __builtin_memset(words, 0, sizeof words); }
};

long SelectNow(int n, fd_set* const s[3], Sets* sets) {
  sets->Load(n, s);
  struct timeval zero = {};
  return LookNow(__NR_select, n, s[0] != nullptr ? sets->words[0] : nullptr,
                 s[1] != nullptr ? sets->words[1] : nullptr,
                 s[2] != nullptr ? sets->words[2] : nullptr, &zero);
}

void SetRest(struct timeval* t, uint64_t deadline) {
  if (t == nullptr) return;
  uint64_t now = plat::NowNs();
  uint64_t us = deadline > now ? (deadline - now) / 1000 : 0;
  t->tv_sec = static_cast<time_t>(us / 1'000'000);
  t->tv_usec = static_cast<suseconds_t>(us % 1'000'000);
}

WaitEnd WaitForSets(int n, fd_set* const s[3], uint64_t deadline) {
  nfds_t count = Collect(n, s, nullptr);
  if (!MayPark(count)) return WaitEnd::kCannot;
  Room room(count);
  if (!room.ok()) return WaitEnd::kCannot;
  Collect(n, s, room.fds);
  WaitEnd end = WaitForAny(&room, count, deadline);
  for (nfds_t i = 0; i < count; ++i) sched::NetpollEndUse(room.fds[i].revents, room.fds[i].fd);
  return end;
}

int Select(int n, fd_set* const s[3], struct timeval* t, uint64_t deadline) {
  Sets sets;
  for (;;) {
    long r = SelectNow(n, s, &sets);
    WaitEnd end = WaitEnd::kReady;
    if (r == 0) {
      end = WaitForSets(n, s, deadline);
      if (end == WaitEnd::kReady) continue;
      if (end == WaitEnd::kTimeout) r = SelectNow(n, s, &sets);
    }
    SetRest(t, deadline);
    if (end == WaitEnd::kCannot) return plain::select(n, s[0], s[1], s[2], t);
    if (end == WaitEnd::kEintr) {
      TestCancel();
      return static_cast<int>(Result(-EINTR));
    }
    if (r >= 0) sets.Store(n, s);
    return static_cast<int>(Result(r));
  }
}

int Poll(struct pollfd* fds, nfds_t n, bool now, uint64_t deadline) {
  pthread_testcancel();
  if (n != 0 || now) {
    long r = LookNow(__NR_poll, fds, n, 0);
    if (r != 0 || now) return static_cast<int>(Result(r));
  }
  Polled answer = PollParked(fds, n, deadline);
  if (answer.result > 0) return answer.result;
  if (answer.end == WaitEnd::kCannot) return plain::poll(fds, n, MsUntil(deadline));
  if (answer.end != WaitEnd::kEintr) return 0;
  TestCancel();
  return static_cast<int>(Result(-EINTR));
}

int EpollWait(int fd, struct epoll_event* events, int n, bool at_once, uint64_t deadline) {
  pthread_testcancel();
  long r = LookNow(__NR_epoll_wait, fd, events, n, 0);
  if (r != 0 || at_once) return static_cast<int>(Result(r));
  int now = fd;
  WaitEnd end;
  do {
    end = WaitForFd(&now, EPOLLIN, deadline, Restart::kNever);
    if (end == WaitEnd::kEintr) r = -EINTR;
    if (end == WaitEnd::kCannot) break;
    if (end != WaitEnd::kEintr) r = LookNow(__NR_epoll_wait, now, events, n, 0);
  } while (r == 0 && end == WaitEnd::kReady);
  sched::NetpollEndUse(fd, now);
  if (end == WaitEnd::kCannot) return plain::epoll_wait(fd, events, n, MsUntil(deadline));
  return static_cast<int>(Result(r));
}

// A time span as a deadline; null: none. False: not valid.
bool DeadlineAfter(const struct timespec* t, uint64_t* deadline) {
  *deadline = sched::kNever;
  if (t == nullptr) return true;
  if (t->tv_sec < 0 || t->tv_nsec < 0 || t->tv_nsec >= 1'000'000'000) return false;
  *deadline = plat::NowNs() + static_cast<uint64_t>(t->tv_sec) * 1'000'000'000 +
              static_cast<uint64_t>(t->tv_nsec);
  return true;
}

bool IsZero(const struct timespec* t) { return t != nullptr && t->tv_sec == 0 && t->tv_nsec == 0; }

// A call with a mask, made for real.
template <typename F>
int Masked(const sigset_t* mask, F call) {
  if (mask == nullptr || sched::Current() == nullptr) return call();
  pthread_testcancel();
  TemporaryMask temporary(mask);
  return temporary.interrupted() ? static_cast<int>(Result(-EINTR)) : call();
}

}  // namespace

int poll(struct pollfd* fds, nfds_t n, int ms) {
  if (!MayPark(n)) return plain::poll(fds, n, ms);
  return Poll(fds, n, ms == 0, DeadlineIn(ms));
}

int __poll(struct pollfd* fds, nfds_t n, int ms) { return posix::poll(fds, n, ms); }

int __poll_chk(struct pollfd* fds, nfds_t n, int ms, size_t size) {
  return size / sizeof *fds < n ? plain::__poll_chk(fds, n, ms, size) : posix::poll(fds, n, ms);
}

int select(int n, fd_set* r, fd_set* w, fd_set* e, struct timeval* t) {
  bool valid = t == nullptr || (t->tv_sec >= 0 && t->tv_usec >= 0);
  if (!MayPark(0) || n < 0 || n > FD_SETSIZE || !valid) {
    return plain::select(n, r, w, e, t);
  }
  pthread_testcancel();
  fd_set* const sets[3] = {r, w, e};
  uint64_t deadline = sched::kNever;
  if (t != nullptr) {
    deadline = plat::NowNs() + static_cast<uint64_t>(t->tv_sec) * 1'000'000'000 +
               static_cast<uint64_t>(t->tv_usec) * 1000;
    if (t->tv_sec == 0 && t->tv_usec == 0) return plain::select(n, r, w, e, t);
  }
  return Select(n, sets, t, deadline);
}

int __select(int n, fd_set* r, fd_set* w, fd_set* e, struct timeval* t) {
  return posix::select(n, r, w, e, t);
}

int epoll_wait(int fd, struct epoll_event* events, int n, int ms) {
  if (!MayPark(0)) return plain::epoll_wait(fd, events, n, ms);
  return EpollWait(fd, events, n, ms == 0, DeadlineIn(ms));
}

int epoll_pwait(int fd, struct epoll_event* events, int n, int ms, const sigset_t* mask) {
  if (mask == nullptr) return posix::epoll_wait(fd, events, n, ms);
  return Masked(mask, [=] { return plain::epoll_pwait(fd, events, n, ms, mask); });
}

int epoll_pwait2(int fd, struct epoll_event* events, int n, const struct timespec* t,
                 const sigset_t* mask) {
  uint64_t deadline;
  if (mask == nullptr && MayPark(0) && DeadlineAfter(t, &deadline)) {
    return EpollWait(fd, events, n, IsZero(t), deadline);
  }
  return Masked(mask, [=] { return plain::epoll_pwait2(fd, events, n, t, mask); });
}

int ppoll(struct pollfd* fds, nfds_t n, const struct timespec* t, const sigset_t* mask) {
  uint64_t deadline;
  bool parks = mask == nullptr && MayPark(n);
  if (parks && DeadlineAfter(t, &deadline)) return Poll(fds, n, IsZero(t), deadline);
  return Masked(mask, [=] { return plain::ppoll(fds, n, t, mask); });
}

int __ppoll_chk(struct pollfd* fds, nfds_t n, const struct timespec* t, const sigset_t* mask,
                size_t size) {
  return size / sizeof *fds < n ? plain::__ppoll_chk(fds, n, t, mask, size)
                                : posix::ppoll(fds, n, t, mask);
}

int pselect(int n, fd_set* r, fd_set* w, fd_set* e, const struct timespec* t,
            const sigset_t* mask) {
  uint64_t deadline;
  bool parks = mask == nullptr && n >= 0 && n <= FD_SETSIZE && MayPark(0);
  if (parks && !IsZero(t) && DeadlineAfter(t, &deadline)) {
    pthread_testcancel();
    fd_set* const sets[3] = {r, w, e};
    struct timeval rest = {};
    return Select(n, sets, t != nullptr ? &rest : nullptr, deadline);
  }
  return Masked(mask, [=] { return plain::pselect(n, r, w, e, t, mask); });
}

}  // namespace undergo::posix
