// SPDX-License-Identifier: Apache-2.0
// Sockets: tried with MSG_DONTWAIT, parked when they would block.
//
// accept() has no such flag: the listener is polled first. What is left to block the kernel thread:
// connect(), and receiving with MSG_WAITALL into a message header.
#include <errno.h>
#include <sys/socket.h>

#include "posix/descriptor.h"

namespace undergo::posix {

namespace {

// These never wait, or wait in a way of their own.
constexpr int kNotParked = MSG_DONTWAIT | MSG_ERRQUEUE | MSG_OOB | MSG_FASTOPEN;

bool Parks(int fd, int flags) {
  return sched::Current() != nullptr && (flags & kNotParked) == 0 && KindOf(fd) == FdKind::kSocket;
}

bool IsStream(int fd) {
  int type = 0;
  socklen_t size = sizeof type;
  long r = plat::Syscall(__NR_getsockopt, fd, SOL_SOCKET, SO_TYPE, &type, &size);
  return !plat::IsError(r) && type == SOCK_STREAM;
}

// attempt(fd) until it does not answer EAGAIN.
template <typename T, typename F>
ssize_t Retry(int fd, uint32_t events, T attempt, F block) {
  pthread_testcancel();
  long r = attempt(fd);
  if (r == -EAGAIN) {
    FdOperation op(fd, events);
    while (r == -EAGAIN) {
      if (!op.Again()) {
        op.End();
        return op.error != 0 ? Result(-op.error) : block();
      }
      r = attempt(op.now);
    }
    op.End();
  }
  if (r > 0) sched::NetpollHandOver(fd, events == EPOLLIN ? EPOLLOUT : EPOLLIN);
  return Result(r);
}

// attempt(fd, done) for the bytes that are left, until `total` are done.
template <typename T, typename F>
ssize_t RetryAll(int fd, uint32_t events, size_t total, T attempt, F block) {
  pthread_testcancel();
  FdOperation op(fd, events);
  size_t done = 0;
  long error = 0;
  for (;;) {
    long r = attempt(op.now, done);
    if (r > 0) {
      bool first = done == 0;
      done += static_cast<size_t>(r);
      op.Progress();
      sched::NetpollHandOver(fd, events == EPOLLIN ? EPOLLOUT : EPOLLIN);
      if (UNDERGO_LIKELY(done >= total)) break;
      if (first && (IsNonblocking(op.now) || !IsStream(op.now))) break;
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

ssize_t Receive(int fd, void* p, size_t n, int flags, struct sockaddr* from, socklen_t* size) {
  auto block = [=] { return plain::recvfrom(fd, p, n, flags, from, size); };
  if (!Parks(fd, flags) || n == 0) return block();
  bool all = (flags & MSG_WAITALL) != 0;
  if (all && (flags & MSG_PEEK) != 0) return AwaitFd(fd, EPOLLIN) ? block() : -1;
  if (!all) {
    return Retry(
        fd, EPOLLIN,
        [=](int d) {
          return plat::Syscall(__NR_recvfrom, d, p, n, flags | MSG_DONTWAIT, from, size);
        },
        block);
  }
  return RetryAll(
      fd, EPOLLIN, n,
      [=](int d, size_t done) {
        return plat::Syscall(__NR_recvfrom, d, static_cast<char*>(p) + done, n - done,
                             flags | MSG_DONTWAIT, from, size);
      },
      block);
}

ssize_t Send(int fd, const void* p, size_t n, int flags, const struct sockaddr* to,
             socklen_t size) {
  auto block = [=] { return plain::sendto(fd, p, n, flags, to, size); };
  if (!Parks(fd, flags)) return block();
  return RetryAll(
      fd, EPOLLOUT, n,
      [=](int d, size_t done) {
        return plat::Syscall(__NR_sendto, d, static_cast<const char*>(p) + done, n - done,
                             flags | MSG_DONTWAIT, to, size);
      },
      block);
}

size_t Length(const struct msghdr* m) {
  size_t n = 0;
  for (size_t i = 0; i < m->msg_iovlen; ++i) n += m->msg_iov[i].iov_len;
  return n;
}

// The rest of a message of which `done` bytes are sent: no control data again.
long SendRest(int fd, const struct msghdr* m, size_t done, int flags) {
  constexpr size_t kMost = 16;
  struct iovec rest[kMost];
  struct msghdr copy = *m;
  copy.msg_control = nullptr;
  copy.msg_controllen = 0;
  copy.msg_iov = rest;
  copy.msg_iovlen = 0;
  for (size_t i = 0; i < m->msg_iovlen && copy.msg_iovlen < kMost; ++i) {
    const struct iovec& v = m->msg_iov[i];
    if (done >= v.iov_len) {
      done -= v.iov_len;
      continue;
    }
    rest[copy.msg_iovlen++] = {static_cast<char*>(v.iov_base) + done, v.iov_len - done};
    done = 0;
  }
  return plat::Syscall(__NR_sendmsg, fd, &copy, flags);
}

// Received control data may hold descriptors, of which the numbers mean something new.
ssize_t WithControl(const struct msghdr* m, ssize_t r) {
  if (r < 0 || m->msg_controllen == 0) return r;
  for (struct cmsghdr* c = CMSG_FIRSTHDR(m); c != nullptr;
       c = CMSG_NXTHDR(const_cast<struct msghdr*>(m), c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < n; ++i) {
      int fd;
      __builtin_memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      sched::NetpollForget(fd);
    }
  }
  return r;
}

template <typename F>
int Accept(int fd, F block) {
  if (sched::Current() == nullptr) return block();
  if (!AwaitFd(fd, EPOLLIN)) return -1;
  int made = block();
  if (made >= 0) {
    sched::NetpollForget(made);
    sched::NetpollSetKind(made, FdKind::kSocket);
  }
  return made;
}

}  // namespace

ssize_t recv(int fd, void* p, size_t n, int flags) {
  return Receive(fd, p, n, flags, nullptr, nullptr);
}

ssize_t __recv_chk(int fd, void* p, size_t n, size_t size, int flags) {
  return n > size ? plain::__recv_chk(fd, p, n, size, flags) : posix::recv(fd, p, n, flags);
}

ssize_t recvfrom(int fd, void* p, size_t n, int flags, struct sockaddr* from, socklen_t* size) {
  return Receive(fd, p, n, flags, from, size);
}

ssize_t __recvfrom_chk(int fd, void* p, size_t n, size_t size, int flags, struct sockaddr* from,
                       socklen_t* length) {
  if (n <= size) return Receive(fd, p, n, flags, from, length);
  if (real::__recvfrom_chk == nullptr) real::Resolve();
  return real::__recvfrom_chk(fd, p, n, size, flags, from, length);
}

ssize_t recvmsg(int fd, struct msghdr* m, int flags) {
  auto block = [=] { return plain::recvmsg(fd, m, flags); };
  if (!Parks(fd, flags)) return WithControl(m, block());
  if ((flags & MSG_WAITALL) != 0) return AwaitFd(fd, EPOLLIN) ? WithControl(m, block()) : -1;
  ssize_t r = Retry(
      fd, EPOLLIN, [=](int d) { return plat::Syscall(__NR_recvmsg, d, m, flags | MSG_DONTWAIT); },
      block);
  return WithControl(m, r);
}

int recvmmsg(int fd, struct mmsghdr* m, unsigned n, int flags, struct timespec* t) {
  if (Parks(fd, flags) && t == nullptr && !AwaitFd(fd, EPOLLIN)) return -1;
  int r = plain::recvmmsg(fd, m, n, flags, t);
  for (int i = 0; i < r; ++i) WithControl(&m[i].msg_hdr, 0);
  return r;
}

ssize_t send(int fd, const void* p, size_t n, int flags) {
  return Send(fd, p, n, flags, nullptr, 0);
}

ssize_t __send(int fd, const void* p, size_t n, int flags) {
  return Send(fd, p, n, flags, nullptr, 0);
}

ssize_t sendto(int fd, const void* p, size_t n, int flags, const struct sockaddr* to,
               socklen_t size) {
  return Send(fd, p, n, flags, to, size);
}

ssize_t sendmsg(int fd, const struct msghdr* m, int flags) {
  auto block = [=] { return plain::sendmsg(fd, m, flags); };
  if (!Parks(fd, flags)) return block();
  return RetryAll(
      fd, EPOLLOUT, Length(m),
      [=](int d, size_t done) {
        if (UNDERGO_UNLIKELY(done != 0)) return SendRest(d, m, done, flags | MSG_DONTWAIT);
        return plat::Syscall(__NR_sendmsg, d, m, flags | MSG_DONTWAIT);
      },
      block);
}

int sendmmsg(int fd, struct mmsghdr* m, unsigned n, int flags) {
  if (Parks(fd, flags) && !AwaitFd(fd, EPOLLOUT)) return -1;
  return plain::sendmmsg(fd, m, n, flags);
}

int accept(int fd, struct sockaddr* from, socklen_t* size) {
  return Accept(fd, [=] { return plain::accept(fd, from, size); });
}

int accept4(int fd, struct sockaddr* from, socklen_t* size, int flags) {
  return Accept(fd, [=] { return plain::accept4(fd, from, size, flags); });
}

}  // namespace undergo::posix
