// SPDX-License-Identifier: Apache-2.0
// Bodies of the interposed functions, from abi/libc.def, and what boot needs of this layer.
#pragma once

#include <fcntl.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <termios.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/types.h"
#include "plat/real.h"

// Exported by libc, declared by none of its headers.
extern "C" int __sigaction(int sig, const struct sigaction* act, struct sigaction* old) noexcept;
extern "C" sighandler_t bsd_signal(int sig, sighandler_t handler) noexcept;
extern "C" {
int __nanosleep(const struct timespec* t, struct timespec* left);
int __poll(struct pollfd* fds, nfds_t n, int ms);
int __poll_chk(struct pollfd* fds, nfds_t n, int ms, size_t size);
int __ppoll_chk(struct pollfd* fds, nfds_t n, const struct timespec* t, const sigset_t* mask,
                size_t size);
int __select(int n, fd_set* r, fd_set* w, fd_set* e, struct timeval* t);
int __sigsuspend(const sigset_t* mask);
int __xpg_sigpause(int sig);
int __libc_start_main(int (*main)(int, char**, char**), int argc, char** argv, void (*init)(),
                      void (*fini)(), void (*rtld_fini)(), void* stack_end);
void _pthread_cleanup_push(struct _pthread_cleanup_buffer* buffer, void (*routine)(void*),
                           void* arg);
void _pthread_cleanup_pop(struct _pthread_cleanup_buffer* buffer, int execute);
void __longjmp_chk(struct __jmp_buf_tag to[1], int value) noexcept __attribute__((noreturn));
pid_t __wait(int* status);
pid_t __waitpid(pid_t pid, int* status, int options);
ssize_t __read(int fd, void* p, size_t n);
ssize_t __read_chk(int fd, void* p, size_t n, size_t size);
ssize_t __pread64(int fd, void* p, size_t n, off64_t at);
ssize_t __pread_chk(int fd, void* p, size_t n, off_t at, size_t size);
ssize_t __pread64_chk(int fd, void* p, size_t n, off64_t at, size_t size);
ssize_t __write(int fd, const void* p, size_t n);
ssize_t __pwrite64(int fd, const void* p, size_t n, off64_t at);
ssize_t __recv_chk(int fd, void* p, size_t n, size_t size, int flags);
ssize_t __recvfrom_chk(int fd, void* p, size_t n, size_t size, int flags, struct sockaddr* from,
                       socklen_t* length);
ssize_t __send(int fd, const void* p, size_t n, int flags);
int __connect(int fd, const struct sockaddr* to, socklen_t size);
int __close(int fd);
int __pthread_rwlock_rdlock(pthread_rwlock_t* l) noexcept;
int __pthread_rwlock_wrlock(pthread_rwlock_t* l) noexcept;
int __pthread_rwlock_tryrdlock(pthread_rwlock_t* l) noexcept;
int __pthread_rwlock_trywrlock(pthread_rwlock_t* l) noexcept;
int __pthread_rwlock_unlock(pthread_rwlock_t* l) noexcept;
int __pthread_once(pthread_once_t* once, void (*init)());
int __pthread_mutex_lock(pthread_mutex_t* m) noexcept;
int __pthread_mutex_trylock(pthread_mutex_t* m) noexcept;
int __pthread_mutex_unlock(pthread_mutex_t* m) noexcept;
int __pthread_mutex_init(pthread_mutex_t* m, const pthread_mutexattr_t* attr) noexcept;
int __dup2(int fd, int to) noexcept;
int __pipe(int ends[2]) noexcept;
}

namespace undergo::posix {

#define UNDERGO_ROW(ret, name, params, args) ret name params;
#include "abi/libc.def"

// seccomp(operation, ..., program) is about to be called.
void BeforeSeccomp(long operation, long program);
// The same for prctl(PR_SET_SECCOMP, mode, program).
void BeforePrctlSeccomp(long mode, long program);

// Registers the fork handlers. Called before anybody else can register some: glibc runs the first
// registered prepare handler last and the first registered child handler first, so the handlers of
// others may allocate.
void InstallForkHandlers();

// From now on threads publish their blocking calls where they can (world/blocked_call.h).
void EnableBlockingCalls();

// Faults are looked at before the program's handler of SIGSEGV sees them (heap/poison.h).
void WatchFaults();

// Makes sure that threads give their mcache back when they end.
void InstallThreadExitHook();
// For a thread that has to say goodbye although it may never allocate.
void WatchThreadExit();

// A wait of the running thread ended otherwise than by kReady, and its Waiter is in no queue any
// more: handlers that were held back run. True when the call has to end with EINTR: a handler
// without SA_RESTART ran or, for kNever, any (signal(7) says which calls are so).
enum class Restart { kByFlag, kNever };
bool AttendToInterrupt(Restart restart = Restart::kByFlag);
// A call of the running thread has just failed with EPIPE, and it has not left its kernel thread
// since: a SIGPIPE that the thread blocks is its own, and does not stay with the kernel thread.
void KeepPipeSignal();
// System calls by syscall() that send a signal to a thread of the scheduler: true when it was one;
// *result is as the kernel's.
bool SignalCall(long number, long a, long b, long c, long d, long* result);
// Wires signals to the scheduler; at start.
void InstallSignals();

// Lets threads fulfil what others want for them (posix/attributes.cc).
void InstallWishes();
void ResetWishesAfterFork();

// Threads of glibc's own making, by the real pthread_create and thrd_create.
int CreateKernelThread(pthread_t* thread, const pthread_attr_t* attr, void* (*routine)(void*),
                       void* arg);
int CreateKernelThread(thrd_t* thread, thrd_start_t routine, void* arg);

// Pointers that did not come from this heap; for heap::heap_client.
bool FreeForeign(void* p);
bool ForeignSize(void* p, size_t* size);

}  // namespace undergo::posix
