// SPDX-License-Identifier: Apache-2.0
// Sockets: tried with MSG_DONTWAIT, parked when they would block.
//
// accept() has no such flag: the listener is polled first; connect.cc is about connect(). What is
// left to block the kernel thread: receiving with MSG_WAITALL into a message header, and from
// sockets with a low-water mark.
#include <errno.h>
#include <sys/socket.h>

#include "posix/attempt.h"
#include "posix/deadline.h"

namespace undergo::posix {

namespace {

// These never wait, or wait in a way of their own.
constexpr int kNotParked = MSG_DONTWAIT | MSG_ERRQUEUE | MSG_OOB | MSG_FASTOPEN;

int Waiting(int flags, bool blocks) { return blocks ? flags : flags | MSG_DONTWAIT; }

// No SIGPIPE for a call that has sent a part.
int Silence(size_t done) { return done != 0 ? MSG_NOSIGNAL : 0; }

bool Parks(int fd, int flags) {
  return sched::Current() != nullptr && (flags & kNotParked) == 0 && KindOf(fd) == FdKind::kSocket;
}

ssize_t Receive(int fd, void* p, size_t n, int flags, struct sockaddr* from, socklen_t* size) {
  auto block = [=] { return plain::recvfrom(fd, p, n, flags, from, size); };
  if (!Parks(fd, flags) || n == 0) return block();
  bool all = (flags & MSG_WAITALL) != 0;
  if ((all && (flags & MSG_PEEK) != 0) || WaitsForMore(fd)) {
    return AwaitFd(fd, EPOLLIN) ? block() : -1;
  }
  if (!all) {
    return Retry(
        fd, EPOLLIN, (flags & MSG_PEEK) == 0 ? n : 0,
        [=](int d) {
          return plat::Syscall(__NR_recvfrom, d, p, n, flags | MSG_DONTWAIT, from, size);
        },
        block);
  }
  return RetryAll(
      fd, EPOLLIN, n,
      [=](int d, size_t done, bool blocks) {
        return plat::Syscall(__NR_recvfrom, d, static_cast<char*>(p) + done, n - done,
                             Waiting(flags, blocks), from, size);
      },
      block);
}

ssize_t Send(int fd, const void* p, size_t n, int flags, const struct sockaddr* to,
             socklen_t size) {
  auto block = [=] { return plain::sendto(fd, p, n, flags, to, size); };
  if (!Parks(fd, flags)) return block();
  return RetryAll(
      fd, EPOLLOUT, n,
      [=](int d, size_t done, bool blocks) {
        return plat::Syscall(__NR_sendto, d, static_cast<const char*>(p) + done, n - done,
                             Waiting(flags | Silence(done), blocks), to, size);
      },
      block);
}

size_t Length(const struct msghdr* m) { return Total(m->msg_iov, m->msg_iovlen); }

// The rest of a message of which `done` bytes are sent: no control data again.
long SendRest(int fd, const struct msghdr* m, size_t done, int flags) {
  constexpr int kMost = 16;
  struct iovec rest[kMost];
  struct msghdr copy = *m;
  copy.msg_control = nullptr;
  copy.msg_controllen = 0;
  copy.msg_iov = rest;
  copy.msg_iovlen = static_cast<size_t>(Rest(m->msg_iov, m->msg_iovlen, done, rest, kMost));
  return plat::Syscall(__NR_sendmsg, fd, &copy, flags);
}

// A message of which `done` bytes are sent already.
template <typename F>
ssize_t SendMessage(int fd, const struct msghdr* m, int flags, size_t done, F block) {
  return RetryAll(
      fd, EPOLLOUT, Length(m) - done,
      [=](int d, size_t more, bool blocks) {
        if (UNDERGO_UNLIKELY(done + more != 0)) {
          return SendRest(d, m, done + more, Waiting(flags | MSG_NOSIGNAL, blocks));
        }
        return plat::Syscall(__NR_sendmsg, d, m, Waiting(flags, blocks));
      },
      block);
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

// Descriptors that are sent are other processes' too.
void NoteSent(const struct msghdr* m) {
  if (m->msg_controllen != 0) sched::NetpollShare();
}

template <typename F>
int Accept(int fd, bool blocks, F block) {
  if (sched::Current() == nullptr) return block();
  if (!AwaitFd(fd, EPOLLIN)) return -1;
  int made = block();
  if (made >= 0) {
    sched::NetpollForget(made);
    sched::NetpollSetKind(made, FdKind::kSocket);
    if (blocks) sched::NetpollSetOwn(made, true);
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
  if ((flags & MSG_WAITALL) != 0 || WaitsForMore(fd)) {
    return AwaitFd(fd, EPOLLIN) ? WithControl(m, block()) : -1;
  }
  ssize_t r = Retry(
      fd, EPOLLIN, 0,
      [=](int d) { return plat::Syscall(__NR_recvmsg, d, m, flags | MSG_DONTWAIT); }, block);
  return WithControl(m, r);
}

// As the kernel's: all messages unless MSG_WAITFORONE is set, and the time counts between two of
// them only.
int recvmmsg(int fd, struct mmsghdr* m, unsigned n, int flags, struct timespec* t) {
  bool parks = Parks(fd, flags) && !WaitsForMore(fd) && (t == nullptr || IsValid(t));
  if (!parks) {
    int r = plain::recvmmsg(fd, m, n, flags, t);
    for (int i = 0; i < r; ++i) WithControl(&m[i].msg_hdr, 0);
    return r;
  }
  uint64_t deadline = t != nullptr ? plat::NowNs() + ToNs(t) : sched::kNever;
  unsigned done = 0;
  ssize_t r = 0;
  while (done < n) {
    int rest = flags | MSG_DONTWAIT;
    r = Retry(
        fd, EPOLLIN, 0,
        [=](int d) { return plat::Syscall(__NR_recvmmsg, d, m + done, n - done, rest, nullptr); },
        [=] { return plain::recvmmsg(fd, m + done, n - done, flags | MSG_WAITFORONE, nullptr); });
    if (r <= 0) break;
    for (ssize_t i = 0; i < r; ++i) WithControl(&m[done + static_cast<unsigned>(i)].msg_hdr, 0);
    done += static_cast<unsigned>(r);
    if ((flags & MSG_WAITFORONE) != 0 || IsNonblocking(fd)) break;
    if (t == nullptr) continue;
    uint64_t now = plat::NowNs();
    if (now >= deadline) {
      *t = {};
      break;
    }
    *t = {static_cast<time_t>((deadline - now) / 1'000'000'000),
          static_cast<long>((deadline - now) % 1'000'000'000)};
  }
  return done != 0 ? static_cast<int>(done) : static_cast<int>(r);
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
  NoteSent(m);
  if (!Parks(fd, flags)) return block();
  return SendMessage(fd, m, flags, 0, block);
}

int sendmmsg(int fd, struct mmsghdr* m, unsigned n, int flags) {
  for (unsigned i = 0; i < n; ++i) NoteSent(&m[i].msg_hdr);
  if (!Parks(fd, flags)) return plain::sendmmsg(fd, m, n, flags);
  unsigned done = 0;
  while (done < n) {
    ssize_t r = Retry(
        fd, EPOLLOUT, 0,
        [=](int d) {
          return plat::Syscall(__NR_sendmmsg, d, m + done, n - done, flags | MSG_DONTWAIT);
        },
        [=] { return plain::sendmmsg(fd, m + done, 1, flags); });
    if (r <= 0) return done != 0 ? static_cast<int>(done) : static_cast<int>(r);
    done += static_cast<unsigned>(r);
    // The last one may have gone in part.
    struct mmsghdr* last = &m[done - 1];
    size_t sent = last->msg_len, size = Length(&last->msg_hdr);
    if (UNDERGO_LIKELY(sent >= size)) continue;
    if (IsNonblocking(fd)) return static_cast<int>(done);
    ssize_t more = SendMessage(fd, &last->msg_hdr, flags, sent, [] { return ssize_t{0}; });
    if (more > 0) last->msg_len += static_cast<unsigned>(more);
    if (last->msg_len < size) return static_cast<int>(done);
  }
  return static_cast<int>(done);
}

int accept(int fd, struct sockaddr* from, socklen_t* size) {
  return Accept(fd, true, [=] { return plain::accept(fd, from, size); });
}

int accept4(int fd, struct sockaddr* from, socklen_t* size, int flags) {
  return Accept(fd, (flags & SOCK_NONBLOCK) == 0,
                [=] { return plain::accept4(fd, from, size, flags); });
}

}  // namespace undergo::posix
