// SPDX-License-Identifier: Apache-2.0
// connect().
//
// Problem: a connection over a network takes a round trip, and a program may make thousands at a
// time, but connect() takes no flag that would keep it from blocking; only O_NONBLOCK of the
// description does, which others may share. So the flag is set, and cleared again at once, where
// nobody else can have the description: on a TCP socket that this process made and has neither
// duplicated, sent, nor inherited to a child since (NetpollIsOwn). The call only begins the
// connection then; meanwhile fcntl() and ioctl() of other threads on this number wait
// (FlagsLock). The G parks until the socket is writable or has an error, and the second connect()
// fetches the result, which leaves the socket in the state of a blocking call's end.
//
// All others block the kernel thread, whose P goes to another one: shared sockets, local sockets
// (when they block, because the listener's queue is full, no event tells the end of it), and
// protocols that we do not know. UDP does not block anyway.
//
// Rejected: SO_SNDTIMEO (as shared as O_NONBLOCK, and nothing tells whose it was), MSG_FASTOPEN
// with MSG_DONTWAIT (begins a connection without blocking, but with an option in the first packet
// that some networks drop), ending the call by a signal (a kernel thread for each connection until
// then), io_uring (often forbidden).
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "posix/cancel_point.h"
#include "posix/descriptor.h"

namespace undergo::posix {

namespace {

constexpr long kBlocks = 1;  // not an answer of connect

bool IsTcp(int fd) {
  int protocol = 0;
  socklen_t n = sizeof protocol;
  long r = plat::Syscall(__NR_getsockopt, fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &n);
  return !plat::IsError(r) && protocol == IPPROTO_TCP;
}

// Begins the connection; kBlocks: the program's own call has to.
long Begin(int fd, const struct sockaddr* to, socklen_t size) {
  sched::FlagsLock lock(fd);
  if (!sched::NetpollIsOwn(fd) || !IsTcp(fd)) return kBlocks;
  long flags = plat::Syscall(__NR_fcntl, fd, F_GETFL);
  if (plat::IsError(flags) || (flags & O_NONBLOCK) != 0) return kBlocks;
  if (plat::IsError(plat::Syscall(__NR_fcntl, fd, F_SETFL, flags | O_NONBLOCK))) return kBlocks;
  long r = plat::Syscall(__NR_connect, fd, to, size);
  plat::Syscall(__NR_fcntl, fd, F_SETFL, flags);
  return r;
}

template <typename F>
int Connect(int fd, const struct sockaddr* to, socklen_t size, F block) {
  if (sched::Current() == nullptr || !sched::NetpollIsOwn(fd)) return block(fd);
  TestCancel();
  long r = Begin(fd, to, size);
  if (r == kBlocks) return block(fd);
  // EALREADY: an earlier call was interrupted.
  if (r != -EINPROGRESS && r != -EALREADY) return static_cast<int>(Result(r));
  uint64_t deadline = SocketDeadline(fd, SO_SNDTIMEO);
  Restart restart = deadline != sched::kNever ? Restart::kNever : Restart::kByFlag;
  int now = fd;
  int events = 0;
  WaitEnd end = WaitEnd::kReady;
  while (end == WaitEnd::kReady && events == 0) {
    end = WaitForFd(&now, EPOLLOUT, deadline, restart);
    events = ReadyNow(now, POLLOUT);
  }
  int result;
  if (events != 0 || end == WaitEnd::kCannot) {
    result = block(now);  // the connection is made or has failed: it tells which
  } else {
    result = static_cast<int>(Result(end == WaitEnd::kEintr ? -EINTR : r));
  }
  sched::NetpollEndUse(fd, now);
  return result;
}

}  // namespace

int connect(int fd, const struct sockaddr* to, socklen_t size) {
  return Connect(fd, to, size, [=](int d) { return plain::connect(d, to, size); });
}

int __connect(int fd, const struct sockaddr* to, socklen_t size) {
  return Connect(fd, to, size, [=](int d) { return plain::__connect(d, to, size); });
}

}  // namespace undergo::posix
