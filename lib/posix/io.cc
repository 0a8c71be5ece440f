// SPDX-License-Identifier: Apache-2.0
// Bytes through descriptors that can be waited for.
//
// What is tried first cannot block: RWF_NOWAIT for pipes, sockets, eventfds and timerfds, a look by
// poll() for the rest. A blocking write goes on until all is written, as the kernel's does. Regular
// files and unknown kinds block the kernel thread; RWF_NOWAIT on a file would give less than a
// whole read when a part of it is not in memory.
#include <errno.h>
#include <sys/uio.h>

#include "posix/attempt.h"
#include "posix/deadline.h"

namespace undergo::posix {

namespace {

constexpr int kNowaitFlag = 8;  // RWF_NOWAIT
constexpr int kMostVectors = 1024;

long TryRead(int fd, const struct iovec* v, int n) {
  // -1: the file's position.
  return plat::Syscall(__NR_preadv2, fd, v, n, -1L, -1L, kNowaitFlag);
}
long TryWrite(int fd, const struct iovec* v, int n) {
  return plat::Syscall(__NR_pwritev2, fd, v, n, -1L, -1L, kNowaitFlag);
}

// Whether a read or write of this number may park; it is known to take RWF_NOWAIT then.
bool TakesNowait(int fd) {
  FdKind kind = KindOf(fd);
  return kind == FdKind::kNowait || (kind == FdKind::kSocket && !WaitsForMore(fd));
}

// The same calls for one vector, as read() and write(), and for many.
template <typename F>
UNDERGO_INLINE ssize_t Read(int fd, const struct iovec* v, int n, F block) {
  if (sched::Current() == nullptr || n <= 0) return block();
  size_t total = Total(v, static_cast<size_t>(n));
  if (total == 0) return block();
  if (!TakesNowait(fd)) return AwaitFd(fd, EPOLLIN) ? block() : -1;
  return Retry(
      fd, EPOLLIN, total, [=](int d) { return TryRead(d, v, n); }, block);
}

template <typename F>
UNDERGO_INLINE ssize_t Write(int fd, const struct iovec* v, int n, F block) {
  if (sched::Current() == nullptr || n <= 0 || n > kMostVectors) return block();
  size_t total = Total(v, static_cast<size_t>(n));
  if (total == 0) return block();
  if (!TakesNowait(fd)) return AwaitFd(fd, EPOLLOUT) ? block() : -1;
  return RetryAll(
      fd, EPOLLOUT, total,
      [=](int d, size_t done, bool blocks) {
        if (UNDERGO_LIKELY(done == 0)) return TryWrite(d, v, n);
        constexpr int kMost = 16;
        struct iovec rest[kMost];
        int count = Rest(v, static_cast<size_t>(n), done, rest, kMost);
        if (UNDERGO_LIKELY(!blocks)) return TryWrite(d, rest, count);
        return plat::Syscall(__NR_write, d, rest[0].iov_base, rest[0].iov_len);
      },
      block);
}

}  // namespace

ssize_t read(int fd, void* p, size_t n) {
  struct iovec v = {p, n};
  return Read(fd, &v, 1, [=] { return plain::read(fd, p, n); });
}

ssize_t __read(int fd, void* p, size_t n) { return posix::read(fd, p, n); }

ssize_t __read_chk(int fd, void* p, size_t n, size_t size) {
  return n > size ? plain::__read_chk(fd, p, n, size) : posix::read(fd, p, n);
}

ssize_t readv(int fd, const struct iovec* v, int n) {
  return Read(fd, v, n, [=] { return plain::readv(fd, v, n); });
}

ssize_t write(int fd, const void* p, size_t n) {
  struct iovec v = {const_cast<void*>(p), n};
  return Write(fd, &v, 1, [=] { return plain::write(fd, p, n); });
}

ssize_t __write(int fd, const void* p, size_t n) { return posix::write(fd, p, n); }

ssize_t writev(int fd, const struct iovec* v, int n) {
  return Write(fd, v, n, [=] { return plain::writev(fd, v, n); });
}

// --- from descriptor to descriptor: the call itself blocks the kernel thread when it must ---

namespace {

ssize_t Moved(int in, int out, ssize_t n) {
  if (n > 0) {
    sched::NetpollHandOver(in, EPOLLOUT, static_cast<size_t>(n));
    sched::NetpollHandOver(out, EPOLLIN, static_cast<size_t>(n));
  }
  return n;
}

ssize_t Put(int out, ssize_t n) {
  if (n > 0) sched::NetpollHandOver(out, EPOLLIN, static_cast<size_t>(n));
  return n;
}

}  // namespace

ssize_t sendfile(int out, int in, off_t* at, size_t n) {
  if (!AwaitFd(out, EPOLLOUT)) return -1;
  return Moved(in, out, plain::sendfile(out, in, at, n));
}

ssize_t sendfile64(int out, int in, off64_t* at, size_t n) {
  if (!AwaitFd(out, EPOLLOUT)) return -1;
  return Moved(in, out, plain::sendfile64(out, in, at, n));
}

ssize_t splice(int in, off64_t* in_at, int out, off64_t* out_at, size_t n, unsigned flags) {
  bool waits = (flags & SPLICE_F_NONBLOCK) == 0;
  if (waits && (!AwaitFd(in, EPOLLIN) || !AwaitFd(out, EPOLLOUT))) return -1;
  return Moved(in, out, plain::splice(in, in_at, out, out_at, n, flags));
}

ssize_t tee(int in, int out, size_t n, unsigned flags) {
  bool waits = (flags & SPLICE_F_NONBLOCK) == 0;
  if (waits && (!AwaitFd(in, EPOLLIN) || !AwaitFd(out, EPOLLOUT))) return -1;
  return Put(out, plain::tee(in, out, n, flags));
}

ssize_t vmsplice(int fd, const struct iovec* v, size_t n, unsigned flags) {
  return Put(fd, plain::vmsplice(fd, v, n, flags));
}

// --- message queues, whose descriptors can be polled ---

namespace {

// As AwaitFd; what is no time the call itself complains about.
bool AwaitQueue(mqd_t q, uint32_t events, const struct timespec* t) {
  uint64_t deadline = sched::kNever;
  if (t != nullptr && (t->tv_sec < 0 || DeadlineOf(CLOCK_REALTIME, t, &deadline) != 0)) return true;
  return AwaitFd(q, events, deadline);
}

}  // namespace

ssize_t mq_receive(mqd_t q, char* p, size_t n, unsigned* priority) {
  return AwaitFd(q, EPOLLIN) ? plain::mq_receive(q, p, n, priority) : -1;
}

ssize_t mq_timedreceive(mqd_t q, char* p, size_t n, unsigned* priority, const struct timespec* t) {
  if (!AwaitQueue(q, EPOLLIN, t)) return -1;
  return plain::mq_timedreceive(q, p, n, priority, t);
}

int mq_send(mqd_t q, const char* p, size_t n, unsigned priority) {
  return AwaitFd(q, EPOLLOUT) ? plain::mq_send(q, p, n, priority) : -1;
}

int mq_timedsend(mqd_t q, const char* p, size_t n, unsigned priority, const struct timespec* t) {
  if (!AwaitQueue(q, EPOLLOUT, t)) return -1;
  return plain::mq_timedsend(q, p, n, priority, t);
}

}  // namespace undergo::posix
