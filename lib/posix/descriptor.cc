// SPDX-License-Identifier: Apache-2.0
// Waiting for descriptors, and the calls that make, close and replace them.
//
// O_NONBLOCK is never set on a descriptor: other processes share it. A call is tried in a way that
// cannot block (RWF_NOWAIT, MSG_DONTWAIT); when it would have, and the descriptor is a blocking
// one, the G parks on the poller and tries again. Whether it is a blocking one is asked of the
// kernel each time, since anybody may have changed it.
#include "posix/descriptor.h"

#include <linux/close_range.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

#include "base/fmt.h"
#include "plat/clock.h"
#include "sched/thread.h"

namespace undergo::posix {

namespace {

// Rounds in which the poller says ready and the call says not: somebody else is faster, or it is
// ready for something else (an error queue). Then the call itself waits.
constexpr uint32_t kMostRounds = 16;

bool IsAnonymous(int fd, const char* what) {
  char link[32], target[64];
  Fmt(link, sizeof link).Str("/proc/self/fd/").Dec(static_cast<uint64_t>(fd));
  long n = plat::Syscall(__NR_readlink, link, target, sizeof target - 1);
  if (n <= 0) return false;
  target[n] = '\0';
  return __builtin_strcmp(target, what) == 0;
}

FdKind Ask(int fd) {
  struct stat s;
  if (plat::IsError(plat::Syscall(__NR_fstat, fd, &s))) return FdKind::kUnknown;
  switch (s.st_mode & S_IFMT) {
    case S_IFSOCK: return FdKind::kSocket;
    case S_IFIFO: return FdKind::kNowait;
    case S_IFCHR: {
      constexpr unsigned long kGetAttributes = 0x5401;  // TCGETS
      char attributes[64];
      bool terminal = !plat::IsError(plat::Syscall(__NR_ioctl, fd, kGetAttributes, attributes));
      return terminal ? FdKind::kPollFirst : FdKind::kPlain;
    }
    // What a signalfd gives depends on the mask of the kernel thread that asks.
    case 0: return IsAnonymous(fd, "anon_inode:[signalfd]") ? FdKind::kPlain : FdKind::kNowait;
    default: return FdKind::kPlain;
  }
}

}  // namespace

FdKind KindOf(int fd) {
  FdKind kind = sched::NetpollKind(fd);
  if (UNDERGO_LIKELY(kind != FdKind::kUnknown)) return kind;
  kind = Ask(fd);
  if (kind == FdKind::kUnknown) return FdKind::kPlain;
  sched::NetpollSetKind(fd, kind);
  return kind;
}

uint64_t SocketDeadline(int fd, int option) {
  struct timeval t = {};
  socklen_t size = sizeof t;
  if (plat::IsError(plat::Syscall(__NR_getsockopt, fd, SOL_SOCKET, option, &t, &size))) {
    return sched::kNever;
  }
  auto us = static_cast<uint64_t>(t.tv_sec) * 1'000'000 + static_cast<uint64_t>(t.tv_usec);
  return us == 0 ? sched::kNever : plat::NowNs() + us * 1000;
}

WaitEnd WaitForFd(int* fd, uint32_t events, uint64_t deadline, Restart restart) {
  pthread_testcancel();
  sched::Wake why;
  {
    sched::Waiter w((events & EPOLLOUT) != 0 ? sched::WaitReason::kIoWrite
                                             : sched::WaitReason::kIoRead);
    sched::FdWait f(&w, *fd, events, true);
    w.Arm();
    if (!sched::NetpollAdd(&f)) {
      return w.Disarm() ? WaitEnd::kReady : WaitEnd::kCannot;
    }
    why = w.Wait(deadline, true);
    sched::NetpollRemove(&f);
    *fd = f.fd;
    if (why == sched::Wake::kReady) return WaitEnd::kReady;
    if (why == sched::Wake::kTimeout) return WaitEnd::kTimeout;
  }
  bool eintr = AttendToInterrupt(restart);
  pthread_testcancel();
  return eintr ? WaitEnd::kEintr : WaitEnd::kReady;
}

bool FdOperation::Again(bool started) {
  if (!known_) {
    known_ = true;
    if (IsNonblocking(now)) return error = EAGAIN, false;
    if (sched::NetpollKind(fd) == FdKind::kSocket) {
      deadline_ = SocketDeadline(now, (events & EPOLLOUT) != 0 ? SO_SNDTIMEO : SO_RCVTIMEO);
      if (deadline_ != sched::kNever) restart_ = Restart::kNever;
    }
  }
  if (++rounds_ > kMostRounds) {
    if (!started && now == fd) return false;
    constexpr uint64_t kNap = 1'000'000;  // ns
    sched::Waiter w(sched::WaitReason::kIoRead);
    w.Arm();
    w.Wait(plat::NowNs() + kNap);
  }
  switch (WaitForFd(&now, events, deadline_, restart_)) {
    case WaitEnd::kReady: return true;
    case WaitEnd::kTimeout: error = EAGAIN; return false;
    case WaitEnd::kEintr: error = EINTR; return false;
    case WaitEnd::kCannot: error = now == fd && !started ? 0 : EBADF; return false;
  }
  return false;
}

bool AwaitFd(int fd, uint32_t events, uint64_t deadline) {
  if (sched::Current() == nullptr || KindOf(fd) == FdKind::kPlain) return true;
  short wanted = (events & EPOLLOUT) != 0 ? POLLOUT : POLLIN;
  if (ReadyNow(fd, wanted) != 0 || IsNonblocking(fd)) return true;
  bool limited = deadline != sched::kNever;
  if (!limited && KindOf(fd) == FdKind::kSocket) {
    deadline = SocketDeadline(fd, (events & EPOLLOUT) != 0 ? SO_SNDTIMEO : SO_RCVTIMEO);
    limited = deadline != sched::kNever;
    if (limited) return true;  // the call itself counts the time
  }
  for (int now = fd;;) {
    WaitEnd end = WaitForFd(&now, events, deadline, limited ? Restart::kNever : Restart::kByFlag);
    if (now != fd) {  // it was closed; nothing can be said about what the number is now
      sched::NetpollEndUse(fd, now);
      errno = EBADF;
      return false;
    }
    if (end == WaitEnd::kEintr) {
      errno = EINTR;
      return false;
    }
    if (end != WaitEnd::kReady || ReadyNow(fd, wanted) != 0) return true;
  }
}

// --- numbers that come and go ---

namespace {

template <typename F>
int Close(int fd, F real) {
  if (UNDERGO_UNLIKELY(sched::NetpollOwns(fd))) {
    errno = EBADF;
    return -1;
  }
  if (sched::Active()) {
    sched::NetpollClosing(fd);
    sched::NetpollForget(fd);
  }
  return real(fd);
}

int Replace(int fd, int to) {
  if (fd == to || !sched::Active()) return to;
  sched::NetpollMakeRoom(to);
  sched::NetpollClosing(to);
  sched::NetpollForget(to);
  return to;
}

// Ends of a channel inside of this process.
int MadePair(int result, const int ends[2], FdKind kind) {
  if (result != 0 || !sched::Configured()) return result;
  for (int i = 0; i < 2; ++i) {
    sched::NetpollForget(ends[i]);
    sched::NetpollSetKind(ends[i], kind);
  }
  sched::NetpollPair(ends[0], ends[1]);
  return result;
}

int Made(int fd, FdKind kind) {
  if (fd < 0 || !sched::Configured()) return fd;
  sched::NetpollForget(fd);
  sched::NetpollSetKind(fd, kind);
  return fd;
}

}  // namespace

int close(int fd) { return Close(fd, plain::close); }
int __close(int fd) { return Close(fd, plain::__close); }

int fclose(FILE* f) {
  if (real::fclose == nullptr) real::Resolve();
  int fd = sched::Active() && f != nullptr ? fileno(f) : -1;
  if (fd >= 0) {
    sched::NetpollClosing(fd);
    sched::NetpollForget(fd);
  }
  return real::fclose(f);
}

int dup2(int fd, int to) {
  if (real::dup2 == nullptr) real::Resolve();
  return real::dup2(fd, Replace(fd, to));
}

int __dup2(int fd, int to) { return posix::dup2(fd, to); }

int dup3(int fd, int to, int flags) {
  if (real::dup3 == nullptr) real::Resolve();
  return real::dup3(fd, Replace(fd, to), flags);
}

int close_range(unsigned first, unsigned last, int flags) {
  if (real::close_range == nullptr) real::Resolve();
  if (!sched::Active() || (flags & ~static_cast<int>(CLOSE_RANGE_UNSHARE)) != 0) {
    return real::close_range(first, last, flags);
  }
  // Pieces between our numbers, of which there are two.
  unsigned from = first;
  for (unsigned fd = first; fd <= last && fd < sched::kMostFds; ++fd) {
    if (sched::NetpollOwns(static_cast<int>(fd))) {
      if (fd > from) real::close_range(from, fd - 1, flags);
      from = fd + 1;
      continue;
    }
    sched::NetpollClosing(static_cast<int>(fd));
    sched::NetpollForget(static_cast<int>(fd));
    fd = sched::NetpollSkip(fd);
  }
  return from <= last ? real::close_range(from, last, flags) : 0;
}

void closefrom(int first) {
  if (!sched::Active()) {
    if (real::closefrom == nullptr) real::Resolve();
    return real::closefrom(first);
  }
  posix::close_range(first > 0 ? static_cast<unsigned>(first) : 0, ~0u, 0);
}

int pipe(int ends[2]) {
  if (real::pipe == nullptr) real::Resolve();
  return MadePair(real::pipe(ends), ends, FdKind::kNowait);
}

int __pipe(int ends[2]) { return posix::pipe(ends); }

int pipe2(int ends[2], int flags) {
  if (real::pipe2 == nullptr) real::Resolve();
  return MadePair(real::pipe2(ends, flags), ends, FdKind::kNowait);
}

int socketpair(int family, int type, int protocol, int ends[2]) {
  if (real::socketpair == nullptr) real::Resolve();
  return MadePair(real::socketpair(family, type, protocol, ends), ends, FdKind::kSocket);
}

int socket(int family, int type, int protocol) {
  if (real::socket == nullptr) real::Resolve();
  return Made(real::socket(family, type, protocol), FdKind::kSocket);
}

int eventfd(unsigned value, int flags) {
  if (real::eventfd == nullptr) real::Resolve();
  int fd = Made(real::eventfd(value, flags), FdKind::kNowait);
  if (fd >= 0 && sched::Configured()) sched::NetpollPair(fd, fd);
  return fd;
}

}  // namespace undergo::posix
