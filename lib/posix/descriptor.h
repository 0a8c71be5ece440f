// SPDX-License-Identifier: Apache-2.0
// Waiting for descriptors, for threads with a G.
#pragma once

#include <errno.h>
#include <poll.h>

#include "posix/blocking.h"
#include "sched/netpoll.h"

namespace undergo::posix {

using sched::FdKind;

enum class WaitEnd : uint8_t {
  kReady,    // or nobody knows: try again
  kTimeout,  // the deadline is over
  kEintr,    // a handler wants the call to end
  kCannot    // nothing can wait for this descriptor but a call that blocks
};

// Parks until the descriptor has one of `events` (EPOLLIN, ...). A cancellation point. *fd is
// another number afterwards if the descriptor was closed meanwhile; the operation goes on with that
// and ends with sched::NetpollEndUse.
// `seen`, if not null: the wait is over if NetpollActivity is another one.
WaitEnd WaitForFd(int* fd, uint32_t events, uint64_t deadline, Restart restart,
                  const uint32_t* seen = nullptr);
// The same without being a cancellation point: kEintr when the thread is to be cancelled.
WaitEnd WaitUncancelled(int* fd, uint32_t events, uint64_t deadline, Restart restart,
                        const uint32_t* seen = nullptr);

// What the number names; asks the kernel if that is not known.
FdKind KindOf(int fd);

inline bool IsNonblocking(int fd) {
  if (sched::NetpollIsOwn(fd)) return false;
  long flags = plat::Syscall(__NR_fcntl, fd, F_GETFL);
  return plat::IsError(flags) || (flags & O_NONBLOCK) != 0;
}

// What poll() with a time limit of 0 says about one descriptor.
inline int ReadyNow(int fd, short events) {
  struct pollfd p = {fd, events, 0};
  return static_cast<int>(plat::Syscall(__NR_poll, &p, 1, 0)) > 0 ? p.revents : 0;
}

// SO_RCVTIMEO or SO_SNDTIMEO as a deadline from now on, for a socket. Nobody asks the kernel before
// such an option was set on any socket of this process, or is found on one of unknown origin.
uint64_t SocketDeadline(int fd, int option);
// Whether a blocking read of this socket waits for more than a byte (SO_RCVLOWAT). The same.
bool WaitsForMore(int fd);
// From now on the kernel is asked: other processes have sockets of this one.
void SocketOptionsUnknown();

// Whether writes may be done in parts: not those to sockets that keep messages apart.
bool TakesParts(int fd);

// The result of a system call as libc gives it.
inline ssize_t Result(long r) {
  if (!plat::IsError(r)) return r;
  if (UNDERGO_UNLIKELY(r == -EPIPE)) KeepPipeSignal();
  errno = static_cast<int>(-r);
  return -1;
}

// And back.
inline long Raw(ssize_t r) { return r >= 0 ? r : -errno; }

// How a wait of one operation goes on.
struct FdOperation {
  FdOperation(int d, uint32_t e, uint32_t s) : seen(s), fd(d), now(d), events(e) {}

  // After an attempt that would have blocked. True: try again, with the number `now`. False: give
  // up; `error` is what the call ends with, 0: it has to be made for real, and to block. With
  // `started`, when a part is done already, it never is 0.
  bool Again(bool started = false);
  // Something was done.
  void Progress() { rounds_ = 0; }
  bool waited() const { return known_; }
  void End() { sched::NetpollEndUse(fd, now); }

  uint32_t seen;  // NetpollActivity before the attempt
  const int fd;
  int now;
  const uint32_t events;
  int error = 0;
  bool blocks = false;  // nobody may wait (sched/confine.h): the next attempt does

 private:
  bool known_ = false;
  Restart restart_ = Restart::kByFlag;
  uint64_t deadline_ = sched::kNever;
  uint32_t rounds_ = 0;
};

// Parks until the descriptor is ready if a blocking call would wait for it. False: the call ends
// with errno. In all other cases it may be made.
bool AwaitFd(int fd, uint32_t events, uint64_t deadline = sched::kNever);

}  // namespace undergo::posix
