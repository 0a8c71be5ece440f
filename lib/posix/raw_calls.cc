// SPDX-License-Identifier: Apache-2.0
// System calls by number that do what an interposed function does.
//
// They are no cancellation points, which the functions are: cancellation is disabled meanwhile.
// Where the kernel's call differs from libc's function (signal sets of 8 bytes, the time that is
// left written back, error numbers) it is made up for here.
#include "posix/raw_calls.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "plat/clock.h"
#include "plat/syscall.h"
#include "plat/vm.h"
#include "posix/deadline.h"
#include "posix/posix.h"
#include "sched/g.h"

namespace undergo::posix {

namespace {

constexpr long kSetSize = 8;  // bytes of the kernel's signal sets

template <typename T>
T* As(long word) {
  return reinterpret_cast<T*>(word);
}
int Int(long word) { return static_cast<int>(word); }
size_t Size(long word) { return static_cast<size_t>(word); }

class NoCancel {
 public:
  NoCancel() { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
  ~NoCancel() { pthread_setcancelstate(before_, nullptr); }
  NoCancel(const NoCancel&) = delete;
  NoCancel& operator=(const NoCancel&) = delete;

 private:
  int before_;
};

// A set of the kernel's as one of libc's, and back.
class Set {
 public:
  explicit Set(long kernels) : kernels_(As<uint64_t>(kernels)) {
    sigemptyset(&libcs_);
    valid_ = kernels_ == nullptr || plat::SafeRead(static_cast<Addr>(kernels), &libcs_, kSetSize);
  }
  // Any address may come here. False: the call's result is as the kernel's for a wild one.
  bool Check(long* r) const {
    if (UNDERGO_LIKELY(valid_)) return true;
    errno = EFAULT;
    *r = -1;
    return false;
  }
  sigset_t* get() { return kernels_ != nullptr ? &libcs_ : nullptr; }
  void Store() {
    if (kernels_ != nullptr) __builtin_memcpy(kernels_, &libcs_, kSetSize);
  }

 private:
  uint64_t* kernels_;
  sigset_t libcs_;
  bool valid_;
};

// The kernel writes the rest of a relative time back.
class TimeLeft {
 public:
  explicit TimeLeft(long t) : t_(As<struct timespec>(t)), from_(plat::NowNs()) {}
  void Store() {
    if (t_ == nullptr || !IsValid(t_)) return;
    uint64_t whole = ToNs(t_), used = plat::NowNs() - from_;
    uint64_t left = whole > used ? whole - used : 0;
    *t_ = {static_cast<time_t>(left / 1'000'000'000), static_cast<long>(left % 1'000'000'000)};
  }

 private:
  struct timespec* t_;
  uint64_t from_;
};

bool Bytes(long number, const long a[6], long* r) {
  int fd = Int(a[0]);
  switch (number) {
    case __NR_read: return *r = posix::read(fd, As<void>(a[1]), Size(a[2])), true;
    case __NR_write: return *r = posix::write(fd, As<void>(a[1]), Size(a[2])), true;
    case __NR_readv: return *r = posix::readv(fd, As<struct iovec>(a[1]), Int(a[2])), true;
    case __NR_writev: return *r = posix::writev(fd, As<struct iovec>(a[1]), Int(a[2])), true;
    case __NR_recvfrom:
      *r = posix::recvfrom(fd, As<void>(a[1]), Size(a[2]), Int(a[3]), As<struct sockaddr>(a[4]),
                           As<socklen_t>(a[5]));
      return true;
    case __NR_sendto:
      *r = posix::sendto(fd, As<void>(a[1]), Size(a[2]), Int(a[3]), As<struct sockaddr>(a[4]),
                         static_cast<socklen_t>(a[5]));
      return true;
    case __NR_recvmsg: return *r = posix::recvmsg(fd, As<struct msghdr>(a[1]), Int(a[2])), true;
    case __NR_sendmsg: return *r = posix::sendmsg(fd, As<struct msghdr>(a[1]), Int(a[2])), true;
    case __NR_recvmmsg:
      *r = posix::recvmmsg(fd, As<struct mmsghdr>(a[1]), static_cast<unsigned>(a[2]), Int(a[3]),
                           As<struct timespec>(a[4]));
      return true;
    case __NR_sendmmsg:
      *r = posix::sendmmsg(fd, As<struct mmsghdr>(a[1]), static_cast<unsigned>(a[2]), Int(a[3]));
      return true;
    case __NR_accept:
      *r = posix::accept(fd, As<struct sockaddr>(a[1]), As<socklen_t>(a[2]));
      return true;
    case __NR_accept4:
      *r = posix::accept4(fd, As<struct sockaddr>(a[1]), As<socklen_t>(a[2]), Int(a[3]));
      return true;
    case __NR_connect:
      *r = posix::connect(fd, As<struct sockaddr>(a[1]), static_cast<socklen_t>(a[2]));
      return true;
    default: return false;
  }
}

long PSelect(const long a[6]) {
  struct Mask {
    long set;
    long size;
  };
  auto* mask = As<const Mask>(a[5]);
  Set set(mask != nullptr ? mask->set : 0);
  long r;
  if (!set.Check(&r)) return r;
  TimeLeft left(a[4]);
  r = posix::pselect(Int(a[0]), As<fd_set>(a[1]), As<fd_set>(a[2]), As<fd_set>(a[3]),
                          As<struct timespec>(a[4]), set.get());
  left.Store();
  return r;
}

bool Readiness(long number, const long a[6], long* r) {
  switch (number) {
    case __NR_poll:
      *r = posix::poll(As<struct pollfd>(a[0]), static_cast<nfds_t>(a[1]), Int(a[2]));
      return true;
    case __NR_ppoll: {
      Set set(a[3]);
      if (!set.Check(r)) return true;
      TimeLeft left(a[2]);
      *r = posix::ppoll(As<struct pollfd>(a[0]), static_cast<nfds_t>(a[1]),
                        As<struct timespec>(a[2]), set.get());
      left.Store();
      return true;
    }
    case __NR_select:
      *r = posix::select(Int(a[0]), As<fd_set>(a[1]), As<fd_set>(a[2]), As<fd_set>(a[3]),
                         As<struct timeval>(a[4]));
      return true;
    case __NR_pselect6: return *r = PSelect(a), true;
    case __NR_epoll_wait:
      *r = posix::epoll_wait(Int(a[0]), As<struct epoll_event>(a[1]), Int(a[2]), Int(a[3]));
      return true;
    case __NR_epoll_pwait: {
      Set set(a[4]);
      if (!set.Check(r)) return true;
      *r = posix::epoll_pwait(Int(a[0]), As<struct epoll_event>(a[1]), Int(a[2]), Int(a[3]),
                              set.get());
      return true;
    }
    case __NR_epoll_pwait2: {
      Set set(a[4]);
      if (!set.Check(r)) return true;
      *r = posix::epoll_pwait2(Int(a[0]), As<struct epoll_event>(a[1]), Int(a[2]),
                               As<struct timespec>(a[3]), set.get());
      return true;
    }
    default: return false;
  }
}

bool Waits(long number, const long a[6], long* r) {
  switch (number) {
    case __NR_nanosleep:
      *r = posix::nanosleep(As<struct timespec>(a[0]), As<struct timespec>(a[1]));
      return true;
    case __NR_clock_nanosleep: {
      int error = posix::clock_nanosleep(static_cast<clockid_t>(a[0]), Int(a[1]),
                                         As<struct timespec>(a[2]), As<struct timespec>(a[3]));
      if (error != 0) errno = error;
      *r = error != 0 ? -1 : 0;
      return true;
    }
    case __NR_sched_yield: return *r = posix::sched_yield(), true;
    case __NR_wait4:
      *r = posix::wait4(Int(a[0]), As<int>(a[1]), Int(a[2]), As<struct rusage>(a[3]));
      return true;
    case __NR_waitid:
      if (a[4] != 0) return false;
      *r = posix::waitid(static_cast<idtype_t>(a[0]), static_cast<id_t>(a[1]), As<siginfo_t>(a[2]),
                         Int(a[3]));
      return true;
    case __NR_mq_timedreceive:
      *r = posix::mq_timedreceive(Int(a[0]), As<char>(a[1]), Size(a[2]), As<unsigned>(a[3]),
                                  As<struct timespec>(a[4]));
      return true;
    case __NR_mq_timedsend:
      *r = posix::mq_timedsend(Int(a[0]), As<char>(a[1]), Size(a[2]), static_cast<unsigned>(a[3]),
                               As<struct timespec>(a[4]));
      return true;
    case __NR_flock: return *r = posix::flock(Int(a[0]), Int(a[1])), true;
    default: return false;
  }
}

// Numbers that come, go, and are told about.
bool Numbers(long number, const long a[6], long* r) {
  int fd = Int(a[0]);
  switch (number) {
    case __NR_close: return *r = posix::close(fd), true;
    case __NR_close_range:
      *r = posix::close_range(static_cast<unsigned>(a[0]), static_cast<unsigned>(a[1]), Int(a[2]));
      return true;
    case __NR_dup: return *r = posix::dup(fd), true;
    case __NR_dup2: return *r = posix::dup2(fd, Int(a[1])), true;
    case __NR_dup3: return *r = posix::dup3(fd, Int(a[1]), Int(a[2])), true;
    case __NR_pipe: return *r = posix::pipe(As<int>(a[0])), true;
    case __NR_pipe2: return *r = posix::pipe2(As<int>(a[0]), Int(a[1])), true;
    case __NR_socket: return *r = posix::socket(fd, Int(a[1]), Int(a[2])), true;
    case __NR_socketpair:
      return *r = posix::socketpair(fd, Int(a[1]), Int(a[2]), As<int>(a[3])), true;
    case __NR_eventfd: return *r = posix::eventfd(static_cast<unsigned>(a[0]), 0), true;
    case __NR_eventfd2: return *r = posix::eventfd(static_cast<unsigned>(a[0]), Int(a[1])), true;
    case __NR_setsockopt:
      *r =
          posix::setsockopt(fd, Int(a[1]), Int(a[2]), As<void>(a[3]), static_cast<socklen_t>(a[4]));
      return true;
    case __NR_fcntl: return *r = posix::fcntl(fd, Int(a[1]), a[2]), true;
    case __NR_ioctl: return *r = posix::ioctl(fd, Size(a[1]), a[2]), true;
    default: return false;
  }
}

bool Signals(long number, const long a[6], long* r) {
  switch (number) {
    case __NR_rt_sigprocmask: {
      if (a[3] != kSetSize) return false;
      Set set(a[1]), old(a[2]);
      if (!set.Check(r) || !old.Check(r)) return true;
      *r = posix::sigprocmask(Int(a[0]), set.get(), old.get());
      if (*r == 0) old.Store();
      return true;
    }
    case __NR_rt_sigpending: {
      if (a[1] != kSetSize || a[0] == 0) return false;
      Set set(a[0]);
      if (!set.Check(r)) return true;
      *r = posix::sigpending(set.get());
      if (*r == 0) set.Store();
      return true;
    }
    case __NR_rt_sigsuspend: {
      if (a[1] != kSetSize || a[0] == 0) return false;
      Set set(a[0]);
      if (!set.Check(r)) return true;
      return *r = posix::sigsuspend(set.get()), true;
    }
    case __NR_rt_sigtimedwait: {
      if (a[3] != kSetSize || a[0] == 0) return false;
      Set set(a[0]);
      if (!set.Check(r)) return true;
      return *r = posix::sigtimedwait(set.get(), As<siginfo_t>(a[1]), As<struct timespec>(a[2])),
             true;
    }
    case __NR_sigaltstack:
      return *r = posix::sigaltstack(As<stack_t>(a[0]), As<stack_t>(a[1])), true;
    default: return false;
  }
}

}  // namespace

bool DescriptorSyscall(long number, const long a[6], long* result) {
  if (!sched::Active()) return false;
  NoCancel no_cancel;
  if (Numbers(number, a, result)) return true;
  if (sched::Current() == nullptr) return false;
  return Bytes(number, a, result) || Readiness(number, a, result) || Waits(number, a, result) ||
         Signals(number, a, result);
}

}  // namespace undergo::posix
