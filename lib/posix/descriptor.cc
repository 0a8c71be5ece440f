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
#include "gc/pipes.h"
#include "plat/clock.h"
#include "posix/cancel_point.h"
#include "sched/confine.h"
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

// Options that were set on some socket.
enum SocketOptions : uint32_t { kTimes = 1, kLowWater = 2 };
constinit uint32_t socket_options = 0;  // atomic

void NoteOptions(uint32_t options) {
  if ((LoadRelaxed(&socket_options) & options) == options) return;
  FetchOrAcqRel(&socket_options, options);  // pairs: nobody
}

uint64_t TimeOf(int fd, int option) {
  struct timeval t = {};
  socklen_t size = sizeof t;
  if (plat::IsError(plat::Syscall(__NR_getsockopt, fd, SOL_SOCKET, option, &t, &size))) return 0;
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000 + static_cast<uint64_t>(t.tv_usec);
}

int IntOption(int fd, int option, int otherwise) {
  int value = otherwise;
  socklen_t size = sizeof value;
  long r = plat::Syscall(__NR_getsockopt, fd, SOL_SOCKET, option, &value, &size);
  return plat::IsError(r) ? otherwise : value;
}

// A socket that others have made.
void AskOptions(int fd) {
  if (TimeOf(fd, SO_RCVTIMEO) != 0 || TimeOf(fd, SO_SNDTIMEO) != 0) NoteOptions(kTimes);
  if (IntOption(fd, SO_RCVLOWAT, 1) > 1) NoteOptions(kLowWater);
}

FdKind Ask(int fd) {
  struct stat s;
  if (plat::IsError(plat::Syscall(__NR_fstat, fd, &s))) return FdKind::kUnknown;
  switch (s.st_mode & S_IFMT) {
    case S_IFSOCK: AskOptions(fd); return FdKind::kSocket;
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
  if (UNDERGO_UNLIKELY(sched::IsConfined())) return FdKind::kPlain;
  FdKind kind = sched::NetpollKind(fd);
  if (UNDERGO_LIKELY(kind != FdKind::kUnknown)) return kind;
  kind = Ask(fd);
  if (kind == FdKind::kUnknown) return FdKind::kPlain;
  sched::NetpollSetKind(fd, kind);
  return kind;
}

uint64_t SocketDeadline(int fd, int option) {
  if ((LoadRelaxed(&socket_options) & kTimes) == 0) return sched::kNever;
  uint64_t us = TimeOf(fd, option);
  return us == 0 ? sched::kNever : plat::NowNs() + us * 1000;
}

bool WaitsForMore(int fd) {
  bool set = UNDERGO_UNLIKELY((LoadRelaxed(&socket_options) & kLowWater) != 0);
  return set && IntOption(fd, SO_RCVLOWAT, 1) > 1;
}

void SocketOptionsUnknown() { NoteOptions(kTimes | kLowWater); }

bool TakesParts(int fd) { return IntOption(fd, SO_TYPE, SOCK_STREAM) == SOCK_STREAM; }

int setsockopt(int fd, int level, int name, const void* value, socklen_t size) {
  if (real::setsockopt == nullptr) real::Resolve();
  if (level == SOL_SOCKET) {
    // The second pair has 64-bit times on every machine.
    constexpr int kReceiveTime64 = 66, kSendTime64 = 67;
    bool times =
        name == SO_RCVTIMEO || name == SO_SNDTIMEO || name == kReceiveTime64 || name == kSendTime64;
    if (times) NoteOptions(kTimes);
    if (name == SO_RCVLOWAT) NoteOptions(kLowWater);
  }
  return real::setsockopt(fd, level, name, value, size);
}

WaitEnd WaitUncancelled(int* fd, uint32_t events, uint64_t deadline, Restart restart,
                        const uint32_t* seen) {
  if (CancelPending()) return WaitEnd::kEintr;
  {
    sched::Waiter w((events & EPOLLOUT) != 0 ? sched::WaitReason::kIoWrite
                                             : sched::WaitReason::kIoRead);
    sched::FdWait f(&w, *fd, events, true);
    if (seen != nullptr) {
      f.counts = true;
      f.seen = *seen;
    }
    w.Arm();
    sched::Entered entered = sched::NetpollAdd(&f);
    if (entered != sched::Entered::kYes) {
      bool ready = w.Disarm() || entered == sched::Entered::kNow;
      return ready ? WaitEnd::kReady : WaitEnd::kCannot;
    }
    sched::Wake why = w.Wait(deadline, true);
    sched::NetpollRemove(&f);
    *fd = f.fd;
    if (why == sched::Wake::kReady) return WaitEnd::kReady;
    if (why == sched::Wake::kTimeout) return WaitEnd::kTimeout;
  }
  return AttendToInterrupt(restart) || CancelPending() ? WaitEnd::kEintr : WaitEnd::kReady;
}

WaitEnd WaitForFd(int* fd, uint32_t events, uint64_t deadline, Restart restart,
                  const uint32_t* seen) {
  int before = *fd;
  WaitEnd end = WaitUncancelled(fd, events, deadline, restart, seen);
  if (UNDERGO_UNLIKELY(end == WaitEnd::kEintr) && CancelPending()) {
    sched::NetpollEndUse(before, *fd);
    TestCancel();
  }
  return end;
}

bool FdOperation::Again(bool started) {
  if (UNDERGO_UNLIKELY(sched::IsConfined())) {
    blocks = started || now != fd;
    return blocks;
  }
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
  switch (WaitForFd(&now, events, deadline_, restart_, now == fd ? &seen : nullptr)) {
    case WaitEnd::kReady:
      seen = sched::NetpollActivity(now);
      if (UNDERGO_LIKELY(!sched::IsConfined())) return true;
      blocks = started || now != fd;
      return blocks;
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
  bool socket = !limited && KindOf(fd) == FdKind::kSocket;
  if (socket) {
    deadline = SocketDeadline(fd, (events & EPOLLOUT) != 0 ? SO_SNDTIMEO : SO_RCVTIMEO);
    limited = deadline != sched::kNever;
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
    if (ReadyNow(fd, wanted) != 0) return true;
    if (end == WaitEnd::kTimeout && socket) {
      errno = EAGAIN;
      return false;
    }
    if (end != WaitEnd::kReady) return true;  // the call itself says that the time is over
  }
}

// --- numbers that come and go ---

namespace {

// The number is about to be closed. What is known of numbers is older than the first thread, so it
// has to be forgotten before that, too.
void Forget(int fd) {
  if (sched::Active()) sched::NetpollClosing(fd);
  sched::NetpollForget(fd);
}

template <typename F>
int Close(int fd, F real) {
  if (UNDERGO_UNLIKELY(sched::NetpollOwns(fd))) {
    errno = EBADF;
    return -1;
  }
  Forget(fd);
  return real(fd);
}

int Replace(int fd, int to) {
  if (fd == to) return to;
  sched::NetpollShare();
  if (sched::Active()) sched::NetpollMakeRoom(to);
  Forget(to);
  return to;
}

int Made(int fd, FdKind kind, bool blocks, bool stream = false) {
  if (fd < 0 || !sched::Configured()) return fd;
  sched::NetpollForget(fd);
  sched::NetpollSetKind(fd, kind);
  if (blocks) sched::NetpollSetOwn(fd, stream);
  return fd;
}

bool IsStreamType(int type) { return (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) == SOCK_STREAM; }

// Ends of a channel inside of this process.
int MadePair(int result, const int ends[2], FdKind kind, bool blocks, bool stream = false) {
  if (result != 0) return result;
  if (kind != FdKind::kSocket) gc::pipes.Made();
  if (!sched::Configured()) return result;
  for (int i = 0; i < 2; ++i) Made(ends[i], kind, blocks, stream);
  sched::NetpollPair(ends[0], ends[1]);
  return result;
}

}  // namespace

int close(int fd) { return Close(fd, plain::close); }
int __close(int fd) { return Close(fd, plain::__close); }

int fclose(FILE* f) {
  if (real::fclose == nullptr) real::Resolve();
  int fd = sched::Configured() && f != nullptr ? fileno(f) : -1;
  if (fd >= 0) Forget(fd);
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
  if (!sched::Configured() || (flags & ~static_cast<int>(CLOSE_RANGE_UNSHARE)) != 0) {
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
    Forget(static_cast<int>(fd));
    fd = sched::NetpollSkip(fd);
  }
  return from <= last ? real::close_range(from, last, flags) : 0;
}

void closefrom(int first) {
  if (!sched::Configured()) {
    if (real::closefrom == nullptr) real::Resolve();
    return real::closefrom(first);
  }
  posix::close_range(first > 0 ? static_cast<unsigned>(first) : 0, ~0u, 0);
}

int pipe(int ends[2]) {
  if (real::pipe == nullptr) real::Resolve();
  return MadePair(real::pipe(ends), ends, FdKind::kNowait, true);
}

int __pipe(int ends[2]) { return posix::pipe(ends); }

int pipe2(int ends[2], int flags) {
  if (real::pipe2 == nullptr) real::Resolve();
  return MadePair(real::pipe2(ends, flags), ends, FdKind::kNowait,
                  (flags & (O_NONBLOCK | O_DIRECT)) == 0);
}

int socketpair(int family, int type, int protocol, int ends[2]) {
  if (real::socketpair == nullptr) real::Resolve();
  return MadePair(real::socketpair(family, type, protocol, ends), ends, FdKind::kSocket,
                  (type & SOCK_NONBLOCK) == 0, IsStreamType(type));
}

int dup(int fd) {
  if (real::dup == nullptr) real::Resolve();
  sched::NetpollShare();
  return real::dup(fd);
}

int socket(int family, int type, int protocol) {
  if (real::socket == nullptr) real::Resolve();
  return Made(real::socket(family, type, protocol), FdKind::kSocket, (type & SOCK_NONBLOCK) == 0,
              IsStreamType(type));
}

int eventfd(unsigned value, int flags) {
  if (real::eventfd == nullptr) real::Resolve();
  int fd = Made(real::eventfd(value, flags), FdKind::kNowait, (flags & EFD_NONBLOCK) == 0);
  if (fd >= 0 && sched::Configured()) sched::NetpollPair(fd, fd);
  return fd;
}

}  // namespace undergo::posix
