// SPDX-License-Identifier: Apache-2.0
// Bytes through descriptors that can be waited for.
//
// What is tried first cannot block: RWF_NOWAIT for pipes, sockets, eventfds and timerfds, a look by
// poll() for the rest. A blocking write goes on until all is written, as the kernel's does. Regular
// files and unknown kinds block the kernel thread; RWF_NOWAIT on a file would give less than a
// whole read when a part of it is not in memory.
#include <errno.h>
#include <sys/uio.h>

#include "plat/clock.h"
#include "posix/descriptor.h"

namespace undergo::posix {

namespace {

constexpr int kNowaitFlag = 8;  // RWF_NOWAIT

long TryRead(int fd, const struct iovec* v, int n) {
  // -1: the file's position.
  return plat::Syscall(__NR_preadv2, fd, v, n, -1L, -1L, kNowaitFlag);
}
long TryWrite(int fd, const struct iovec* v, int n) {
  return plat::Syscall(__NR_pwritev2, fd, v, n, -1L, -1L, kNowaitFlag);
}

bool Unsupported(long r) { return r == -EOPNOTSUPP || r == -ENOSYS; }

// Whether a read or write of this number may park; it is known to take RWF_NOWAIT then.
bool TakesNowait(int fd) {
  FdKind kind = KindOf(fd);
  return kind == FdKind::kNowait || kind == FdKind::kSocket;
}

size_t Total(const struct iovec* v, int n) {
  size_t total = 0;
  for (int i = 0; i < n; ++i) total += v[i].iov_len;
  return total;
}

// The rest of v after `done` bytes, as far as it fits. Returns the count.
int Rest(const struct iovec* v, int n, size_t done, struct iovec* rest, int most) {
  int count = 0;
  for (int i = 0; i < n && count < most; ++i) {
    if (done >= v[i].iov_len) {
      done -= v[i].iov_len;
      continue;
    }
    rest[count].iov_base = static_cast<char*>(v[i].iov_base) + done;
    rest[count++].iov_len = v[i].iov_len - done;
    done = 0;
  }
  return count;
}

template <typename F>
ssize_t Read(int fd, const struct iovec* v, int n, F block) {
  pthread_testcancel();
  long r = TryRead(fd, v, n);
  if (UNDERGO_UNLIKELY(Unsupported(r))) {
    sched::NetpollSetKind(fd, FdKind::kPollFirst);
    return AwaitFd(fd, EPOLLIN) ? block() : -1;
  }
  if (r == -EAGAIN) {
    FdOperation op(fd, EPOLLIN);
    while (r == -EAGAIN) {
      if (!op.Again()) {
        op.End();
        return op.error != 0 ? Result(-op.error) : block();
      }
      r = TryRead(op.now, v, n);
    }
    op.End();
  }
  if (r > 0) sched::NetpollHandOver(fd, EPOLLOUT);
  return Result(r);
}

// A blocking write that has not written all yet. `done`: bytes so far.
template <typename F>
ssize_t WriteOn(int fd, const struct iovec* v, int n, size_t done, size_t total, F block) {
  constexpr int kMost = 16;
  FdOperation op(fd, EPOLLOUT);
  long error = 0;
  while (done < total) {
    struct iovec rest[kMost];
    int count = Rest(v, n, done, rest, kMost);
    long r = TryWrite(op.now, rest, count);
    if (r > 0) {
      done += static_cast<size_t>(r);
      op.Progress();
      sched::NetpollHandOver(fd, EPOLLIN);
      continue;
    }
    if (r != -EAGAIN) {
      error = r;
      break;
    }
    if (op.Again(done != 0)) continue;
    if (op.error == 0) {
      op.End();
      return block();
    }
    error = -op.error;
    break;
  }
  op.End();
  return done != 0 ? static_cast<ssize_t>(done) : Result(error);
}

template <typename F>
ssize_t Write(int fd, const struct iovec* v, int n, F block) {
  pthread_testcancel();
  long r = TryWrite(fd, v, n);
  if (UNDERGO_UNLIKELY(Unsupported(r))) {
    sched::NetpollSetKind(fd, FdKind::kPollFirst);
    return AwaitFd(fd, EPOLLOUT) ? block() : -1;
  }
  size_t done = r > 0 ? static_cast<size_t>(r) : 0;
  if (done != 0) sched::NetpollHandOver(fd, EPOLLIN);
  size_t total = Total(v, n);
  if (UNDERGO_LIKELY(done == total) || (r != -EAGAIN && r <= 0)) return Result(r);
  if (done != 0 && IsNonblocking(fd)) return r;
  return WriteOn(fd, v, n, done, total, block);
}

// read() and its other names.
template <typename F>
UNDERGO_INLINE ssize_t ReadBytes(int fd, void* p, size_t n, F block) {
  if (sched::Current() == nullptr || n == 0) return block();
  if (!TakesNowait(fd)) return AwaitFd(fd, EPOLLIN) ? block() : -1;
  struct iovec v = {p, n};
  return Read(fd, &v, 1, block);
}

template <typename F>
UNDERGO_INLINE ssize_t WriteBytes(int fd, const void* p, size_t n, F block) {
  if (sched::Current() == nullptr || n == 0) return block();
  if (!TakesNowait(fd)) return AwaitFd(fd, EPOLLOUT) ? block() : -1;
  struct iovec v = {const_cast<void*>(p), n};
  return Write(fd, &v, 1, block);
}

}  // namespace

ssize_t read(int fd, void* p, size_t n) {
  return ReadBytes(fd, p, n, [=] { return plain::read(fd, p, n); });
}

ssize_t __read(int fd, void* p, size_t n) { return posix::read(fd, p, n); }

ssize_t __read_chk(int fd, void* p, size_t n, size_t size) {
  return n > size ? plain::__read_chk(fd, p, n, size) : posix::read(fd, p, n);
}

ssize_t readv(int fd, const struct iovec* v, int n) {
  auto block = [=] { return plain::readv(fd, v, n); };
  if (sched::Current() == nullptr || n <= 0 || !TakesNowait(fd) || Total(v, n) == 0) {
    return AwaitFd(fd, EPOLLIN) ? block() : -1;
  }
  return Read(fd, v, n, block);
}

ssize_t write(int fd, const void* p, size_t n) {
  return WriteBytes(fd, p, n, [=] { return plain::write(fd, p, n); });
}

ssize_t __write(int fd, const void* p, size_t n) { return posix::write(fd, p, n); }

ssize_t writev(int fd, const struct iovec* v, int n) {
  auto block = [=] { return plain::writev(fd, v, n); };
  if (sched::Current() == nullptr || n <= 0 || n > 1024 || !TakesNowait(fd) || Total(v, n) == 0) {
    return AwaitFd(fd, EPOLLOUT) ? block() : -1;
  }
  return Write(fd, v, n, block);
}

// --- from descriptor to descriptor: the call itself blocks the kernel thread when it must ---

namespace {

ssize_t Moved(int in, int out, ssize_t n) {
  if (n > 0) {
    sched::NetpollHandOver(in, EPOLLOUT);
    sched::NetpollHandOver(out, EPOLLIN);
  }
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
  return Moved(in, out, plain::tee(in, out, n, flags));
}

ssize_t vmsplice(int fd, const struct iovec* v, size_t n, unsigned flags) {
  return Moved(fd, fd, plain::vmsplice(fd, v, n, flags));
}

// --- message queues, whose descriptors can be polled ---

namespace {

uint64_t QueueDeadline(const struct timespec* t) {
  if (t == nullptr || t->tv_nsec < 0 || t->tv_nsec >= 1'000'000'000) return sched::kNever;
  uint64_t now = plat::NowNs(CLOCK_REALTIME);
  uint64_t when =
      static_cast<uint64_t>(Max(t->tv_sec, 0)) * 1'000'000'000 + static_cast<uint64_t>(t->tv_nsec);
  return plat::NowNs() + (when > now ? when - now : 0);
}

}  // namespace

ssize_t mq_receive(mqd_t q, char* p, size_t n, unsigned* priority) {
  return AwaitFd(q, EPOLLIN) ? plain::mq_receive(q, p, n, priority) : -1;
}

ssize_t mq_timedreceive(mqd_t q, char* p, size_t n, unsigned* priority, const struct timespec* t) {
  if (!AwaitFd(q, EPOLLIN, QueueDeadline(t))) return -1;
  return plain::mq_timedreceive(q, p, n, priority, t);
}

int mq_send(mqd_t q, const char* p, size_t n, unsigned priority) {
  return AwaitFd(q, EPOLLOUT) ? plain::mq_send(q, p, n, priority) : -1;
}

int mq_timedsend(mqd_t q, const char* p, size_t n, unsigned priority, const struct timespec* t) {
  if (!AwaitFd(q, EPOLLOUT, QueueDeadline(t))) return -1;
  return plain::mq_timedsend(q, p, n, priority, t);
}

}  // namespace undergo::posix
