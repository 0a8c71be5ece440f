// SPDX-License-Identifier: Apache-2.0
// Bodies of abi/blocking.def: calls that block the kernel thread, during which the thread counts as
// stopped and its P may go to another M.
//
// Only libc's own functions are called so. Where another preloaded library wraps one (faketime,
// fakeroot, socket_wrapper), its code would run on a thread that counts as stopped: such a function
// is called as it is, and its thread gets stop signals.
#include "posix/blocking.h"

#include <errno.h>
#include <link.h>
#include <linux/futex.h>

#include "gc/collector.h"
#include "plat/syscall.h"
#include "posix/futex.h"
#include "posix/kernel_state.h"
#include "posix/kernel_words.h"
#include "posix/raw_calls.h"
#include "sched/netpoll.h"
#include "world/blocked_call.h"

namespace undergo::posix {

namespace {

// A function that this libc does not have, or entered before boot.
template <auto* kReal>
UNDERGO_COLD auto Look() {
  real::Resolve();
  return *kReal;
}

enum Row : int {
#define UNDERGO_ROW(ret, name, params, args) k_##name,
#define UNDERGO_VARIADIC(ret, name, params, args) UNDERGO_ROW(ret, name, params, args)
#include "abi/blocking.def"
#undef UNDERGO_ROW
  k_fcntl,
  k_fcntl64,
  k_syscall,
  kRows
};
// Which rows publish. Written once, by EnableBlockingCalls.
constinit bool publishes[kRows] = {};

// Calls that last: the P is given away on the way in if anybody needs it, not after a look of
// sysmon.
constexpr bool Lasts(Row row) {
  switch (row) {
    case k_pause:
    case k_sigwait:
    case k_sigwaitinfo:
    case k_sigtimedwait:
    case k_sigsuspend:
    case k___sigsuspend:
    case k_sem_wait:
    case k_sem_timedwait:
    case k_sem_clockwait:
    case k_pthread_cond_wait:
    case k_pthread_cond_timedwait:
    case k_pthread_cond_clockwait:
    case k_cnd_wait:
    case k_cnd_timedwait:
    case k_wait:
    case k___wait:
    case k_msgrcv:
    case k_flock:
    case k_lockf:
    case k_lockf64:
    case k_wait3:
    case k_wait4:
    case k_waitid:
    case k_waitpid:
    case k___waitpid:
    case k_fsync:
    case k_syncfs:
    case k_sync:
    case k_fcntl:
    case k_fcntl64: return true;
    default: return false;
  }
}

// From a thread with a G.
UNDERGO_NOINLINE long CallFromG(void* real, const long args[6], bool publish, bool lasts) {
  const long nested[6] = {reinterpret_cast<long>(real), reinterpret_cast<long>(args), 0, 0, 0, 0};
  sched::G* g = lasts ? sched::EnterLongCall() : sched::EnterCall();
  long result =
      publish ? undergo_sched_call(reinterpret_cast<void*>(undergo_world_blocked_call), nested)
              : undergo_sched_call(real, args);
  if (UNDERGO_UNLIKELY(result == -1) && errno == EPIPE) KeepPipeSignal();
  sched::ExitCall(g);
  return result;
}

template <Row kRow, typename R, typename... P, typename... A>
UNDERGO_INLINE R CallReal(R (*real)(P...), A... args) {
  if (UNDERGO_UNLIKELY(sched::Current() != nullptr)) {
    const long words[6] = {(long)args...};
    long result = CallFromG(reinterpret_cast<void*>(real), words, publishes[kRow], Lasts(kRow));
    return static_cast<R>(result);
  }
  if (!publishes[kRow]) return real(args...);
  return world::BlockedCall(real, args...);
}

template <Row kRow, auto* kReal, typename... A>
UNDERGO_INLINE auto Call(A... args) {
  auto real = *kReal;
  if (UNDERGO_UNLIKELY(real == nullptr)) {
    real = Look<kReal>();
    if (real == nullptr) {
      errno = ENOSYS;
      return static_cast<decltype(real(args...))>(-1);
    }
  }
  return CallReal<kRow>(real, args...);
}

}  // namespace

#define UNDERGO_ROW(ret, name, params, args) \
  ret plain::name params { return Call<k_##name, &real::name> args; }
#define UNDERGO_VARIADIC(ret, name, params, args) UNDERGO_ROW(ret, name, params, args)
#include "abi/blocking.def"
#undef UNDERGO_ROW

#define UNDERGO_ROW(ret, name, params, args) \
  ret name params { return Call<k_##name, &real::name> args; }
#define UNDERGO_VARIADIC(ret, name, params, args) UNDERGO_ROW(ret, name, params, args)
#define UNDERGO_WAIT(ret, name, params, args)
#define UNDERGO_VARIADIC_WAIT(ret, name, params, args)
#include "abi/blocking.def"
#undef UNDERGO_ROW

namespace {

// A lock that is free is taken without giving the P away; `wait` blocks.
template <typename T, typename F>
int Lock(T attempt, F wait) {
  if (sched::Current() == nullptr) return wait();
  int saved = errno;
  int r = attempt();
  if (r == 0 || (errno != EAGAIN && errno != EACCES)) return r;
  errno = saved;
  return wait();
}

template <Row kRow, auto* kReal>
UNDERGO_INLINE int Fcntl(int fd, int command, long arg) {
  auto real = *kReal;
  if (UNDERGO_UNLIKELY(real == nullptr)) real = Look<kReal>();
  switch (command) {
    case F_SETLKW:
      return Lock([=] { return real(fd, F_SETLK, arg); },
                  [=] { return Call<kRow, kReal>(fd, command, arg); });
    case F_OFD_SETLKW:
      return Lock([=] { return real(fd, F_OFD_SETLK, arg); },
                  [=] { return Call<kRow, kReal>(fd, command, arg); });
    case F_DUPFD:
    case F_DUPFD_CLOEXEC: sched::NetpollShare(); break;
    case F_GETFL:
    case F_SETFL:
      if (sched::Active()) {
        sched::FlagsLock lock(fd);
        if (command == F_SETFL) sched::NetpollDisown(fd);
        return real(fd, command, arg);
      }
      if (command == F_SETFL) sched::NetpollDisown(fd);
      break;
    default: break;
  }
  return real(fd, command, arg);
}

}  // namespace

int flock(int fd, int op) {
  if (real::flock == nullptr) real::Resolve();
  if ((op & LOCK_NB) != 0) return real::flock(fd, op);
  return Lock([=] { return real::flock(fd, op | LOCK_NB); }, [=] { return plain::flock(fd, op); });
}

int lockf(int fd, int op, off_t n) {
  if (real::lockf == nullptr) real::Resolve();
  if (op != F_LOCK) return real::lockf(fd, op, n);
  return Lock([=] { return real::lockf(fd, F_TLOCK, n); }, [=] { return plain::lockf(fd, op, n); });
}

int lockf64(int fd, int op, off64_t n) {
  if (real::lockf64 == nullptr) real::Resolve();
  if (op != F_LOCK) return real::lockf64(fd, op, n);
  return Lock([=] { return real::lockf64(fd, F_TLOCK, n); },
              [=] { return plain::lockf64(fd, op, n); });
}

int ioctl(int fd, unsigned long request, long arg) {
  if (request == FIONBIO) sched::NetpollDisown(fd);
  if (request != FIONBIO || !sched::Active()) return plain::ioctl(fd, request, arg);
  if (real::ioctl == nullptr) real::Resolve();
  sched::FlagsLock lock(fd);
  sched::NetpollDisown(fd);
  return real::ioctl(fd, request, arg);
}

int fcntl(int fd, int command, long arg) { return Fcntl<k_fcntl, &real::fcntl>(fd, command, arg); }

int fcntl64(int fd, int command, long arg) {
  // Since glibc 2.28; the same on this machine.
  if (UNDERGO_UNLIKELY(real::fcntl64 == nullptr)) return posix::fcntl(fd, command, arg);
  return Fcntl<k_fcntl64, &real::fcntl64>(fd, command, arg);
}

namespace {

template <long kNumber>
long Raw(long a, long b, long c, long d, long e, long f) {
  return plat::RawSyscall(kNumber, a, b, c, d, e, f);
}

// The system calls that programs and runtimes make by syscall() to wait, or to exec.
long (*WaitingCall(long number, long second))(long, long, long, long, long, long) {
  constexpr long kFutexOperation = 127;
  switch (number) {
    case __NR_futex:
      second &= kFutexOperation;
      return second == FUTEX_WAIT || second == FUTEX_WAIT_BITSET ? Raw<__NR_futex> : nullptr;
    case __NR_futex_waitv: return Raw<__NR_futex_waitv>;
    case __NR_nanosleep: return Raw<__NR_nanosleep>;
    case __NR_clock_nanosleep: return Raw<__NR_clock_nanosleep>;
    case __NR_poll: return Raw<__NR_poll>;
    case __NR_ppoll: return Raw<__NR_ppoll>;
    case __NR_select: return Raw<__NR_select>;
    case __NR_pselect6: return Raw<__NR_pselect6>;
    case __NR_epoll_wait: return Raw<__NR_epoll_wait>;
    case __NR_epoll_pwait: return Raw<__NR_epoll_pwait>;
    case __NR_epoll_pwait2: return Raw<__NR_epoll_pwait2>;
    case __NR_io_getevents: return Raw<__NR_io_getevents>;
    case __NR_io_uring_enter: return Raw<__NR_io_uring_enter>;
    case __NR_getrandom: return Raw<__NR_getrandom>;
    case __NR_rt_sigtimedwait: return Raw<__NR_rt_sigtimedwait>;
    case __NR_waitid: return Raw<__NR_waitid>;
    case __NR_execve: return Raw<__NR_execve>;
    case __NR_execveat: return Raw<__NR_execveat>;
    default: return nullptr;
  }
}

}  // namespace

namespace {

constexpr long kSetModeFilter = 1;  // of seccomp(); 0: the strict mode

long Userfaultfd(long flags) {
  gc::BeforeUserfaultfd();
  long result = real::syscall(__NR_userfaultfd, flags, 0, 0, 0, 0, 0);
  gc::AfterUserfaultfd();
  return result;
}

}  // namespace

long syscall(long number, long a, long b, long c, long d, long e, long f) {
  long sent;
  if (UNDERGO_UNLIKELY(SignalCall(number, a, b, c, d, &sent))) {
    if (sent == 0) return 0;
    errno = static_cast<int>(-sent);
    return -1;
  }
  const long args[6] = {a, b, c, d, e, f};
  long own;
  if (ThreadSyscall(number, args, &own)) return own;
  if (number == __NR_futex && sched::Active() && Futex(args, &own)) {
    if (!plat::IsError(own)) return own;
    errno = static_cast<int>(-own);
    return -1;
  }
  if (DescriptorSyscall(number, args, &own)) return own;
  bool watched = publishes[k_syscall] || sched::Current() != nullptr;
  auto* waiting = watched ? WaitingCall(number, b) : nullptr;
  if (waiting == nullptr) {
    if (UNDERGO_UNLIKELY(real::syscall == nullptr)) Look<&real::syscall>();
    if (UNDERGO_UNLIKELY(number == __NR_userfaultfd)) return Userfaultfd(a);
    if (UNDERGO_UNLIKELY(number == __NR_seccomp) && a <= kSetModeFilter) BeforeSeccomp(a, c);
    if (UNDERGO_UNLIKELY(KeepsWord(number))) return KeepingCall(number, args);
    return real::syscall(number, a, b, c, d, e, f);
  }
  bool told = (number == __NR_execve || number == __NR_execveat) && gc::BeforeExec();
  long result = CallReal<k_syscall>(waiting, a, b, c, d, e, f);
  if (told) gc::AfterExec();
  if (!plat::IsError(result)) return result;
  errno = static_cast<int>(-result);
  return -1;
}

namespace {

struct Range {
  Addr low, high;
};
// libc and the parts of it that were libraries of their own before glibc 2.34.
struct LibcRanges {
  Range part[3];
  int count = 0;

  bool Contains(const void* f) const {
    Addr a = reinterpret_cast<Addr>(f);
    for (int i = 0; i < count; ++i) {
      if (a >= part[i].low && a < part[i].high) return true;
    }
    return false;
  }
};

int AddLibc(struct dl_phdr_info* info, size_t, void* context) {
  auto* libc = static_cast<LibcRanges*>(context);
  const char* name = info->dlpi_name;
  for (const char* p = name; *p != '\0'; ++p) {
    if (*p == '/') name = p + 1;
  }
  bool part = false;
  constexpr const char* kParts[] = {"libc.so.", "libpthread.so.", "librt.so."};
  for (const char* known : kParts) {
    part |= __builtin_strncmp(name, known, __builtin_strlen(known)) == 0;
  }
  if (!part) return 0;
  Range r = {~Addr{0}, 0};
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    r.low = Min(r.low, info->dlpi_addr + segment.p_vaddr);
    r.high = Max(r.high, info->dlpi_addr + segment.p_vaddr + segment.p_memsz);
  }
  libc->part[libc->count++] = r;
  return libc->count == 3;
}

}  // namespace

void EnableBlockingCalls() {
  LibcRanges libc;
  dl_iterate_phdr(AddLibc, &libc);
#define UNDERGO_ROW(ret, name, params, args) \
  publishes[k_##name] = libc.Contains(reinterpret_cast<void*>(real::name));
#define UNDERGO_VARIADIC(ret, name, params, args) UNDERGO_ROW(ret, name, params, args)
#include "abi/blocking.def"
#undef UNDERGO_ROW
  publishes[k_fcntl] = libc.Contains(reinterpret_cast<void*>(real::fcntl));
  publishes[k_fcntl64] = libc.Contains(reinterpret_cast<void*>(real::fcntl64));
  publishes[k_syscall] = libc.Contains(reinterpret_cast<void*>(real::syscall));
}

}  // namespace undergo::posix
