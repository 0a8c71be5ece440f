// SPDX-License-Identifier: Apache-2.0
// The C library's threads and waits with one fault, named by UNDERGO_BROKEN, for tests/selftest.sh:
// each fault must be noticed by a test of tests/preload/sched_*. Without the variable it is right.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char* fault = "";
__attribute__((constructor)) static void Init(void) {
  const char* value = getenv("UNDERGO_BROKEN");
  if (value) fault = value;
}
static int Is(const char* name) { return fault[0] != 0 && !strcmp(fault, name); }
static _Atomic unsigned long calls;
static int Sometimes(const char* name) { return Is(name) && ++calls % 50 == 0; }

// REAL(function) is the C library's.
#define REAL(name) ((__typeof__(&name))Next(#name))
static void* Next(const char* name) {
  void* p = dlsym(RTLD_NEXT, name);
  if (!p) abort();
  return p;
}

int pthread_join(pthread_t t, void** result) {
  int error = REAL(pthread_join)(t, result);
  if (Is("join_result") && error == 0 && result) *result = NULL;
  return error;
}
int pthread_tryjoin_np(pthread_t t, void** result) {
  return Is("tryjoin_waits") ? pthread_join(t, result) : REAL(pthread_tryjoin_np)(t, result);
}
int pthread_detach(pthread_t t) {
  int error = REAL(pthread_detach)(t);
  return Is("detach_blind") ? 0 : error;
}
int pthread_mutex_lock(pthread_mutex_t* m) {
  if (Sometimes("mutex_open")) return 0;
  return REAL(pthread_mutex_lock)(m);
}
int pthread_mutex_unlock(pthread_mutex_t* m) {
  if (Sometimes("mutex_open")) return 0;
  int error = REAL(pthread_mutex_unlock)(m);
  return Is("no_owner") ? 0 : error;
}
int pthread_mutex_consistent(pthread_mutex_t* m) {
  return Is("inconsistent") ? 0 : REAL(pthread_mutex_consistent)(m);
}
int pthread_mutex_timedlock(pthread_mutex_t* m, const struct timespec* t) {
  if (Is("mutex_early") && REAL(pthread_mutex_trylock)(m) != 0) return ETIMEDOUT;
  return REAL(pthread_mutex_timedlock)(m, t);
}
int pthread_cond_signal(pthread_cond_t* c) {
  return Sometimes("lost_signal") ? 0 : REAL(pthread_cond_signal)(c);
}
int pthread_cond_timedwait(pthread_cond_t* c, pthread_mutex_t* m, const struct timespec* t) {
  return Is("cond_early") ? ETIMEDOUT : REAL(pthread_cond_timedwait)(c, m, t);
}
int pthread_cond_wait(pthread_cond_t* c, pthread_mutex_t* m) {
  int error = REAL(pthread_cond_wait)(c, m);
  if (Is("cond_unlocked")) REAL(pthread_mutex_unlock)(m);
  return error;
}
int pthread_rwlock_wrlock(pthread_rwlock_t* l) {
  return Is("writers_read") ? REAL(pthread_rwlock_rdlock)(l) : REAL(pthread_rwlock_wrlock)(l);
}
int pthread_barrier_wait(pthread_barrier_t* b) {
  return Sometimes("barrier_open") ? 0 : REAL(pthread_barrier_wait)(b);
}
int pthread_spin_lock(pthread_spinlock_t* l) {
  return Sometimes("spin_open") ? 0 : REAL(pthread_spin_lock)(l);
}
int pthread_once(pthread_once_t* once, void (*init)(void)) {
  if (Is("once_again")) init();
  return REAL(pthread_once)(once, init);
}
int sem_post(sem_t* s) {
  if (Sometimes("sem_twice")) REAL(sem_post)(s);
  return REAL(sem_post)(s);
}
int sem_timedwait(sem_t* s, const struct timespec* t) {
  if (Is("sem_early") && REAL(sem_trywait)(s) != 0) return errno = ETIMEDOUT, -1;
  return REAL(sem_timedwait)(s, t);
}
int pthread_key_create(pthread_key_t* key, void (*destroy)(void*)) {
  return REAL(pthread_key_create)(key, Is("no_destructors") ? NULL : destroy);
}
int pthread_setcancelstate(int state, int* old) {
  return Is("always_cancel") ? 0 : REAL(pthread_setcancelstate)(state, old);
}
int nanosleep(const struct timespec* t, struct timespec* left) {
  struct timespec half = {t->tv_sec / 2, t->tv_nsec / 2};
  return REAL(nanosleep)(Is("short_sleep") ? &half : t, left);
}
int sched_yield(void) {
  unsigned clean = 0x1f80;
  if (Is("modes_lost")) __asm__ volatile("ldmxcsr %0" : : "m"(clean));
  if (Is("errno_lost")) errno = 0;
  return REAL(sched_yield)();
}
ssize_t read(int fd, void* p, size_t n) {
  if (Is("nonblocking") && n > 0) {
    struct pollfd look = {fd, POLLIN, 0};
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    REAL(poll)(&look, 1, -1);
  }
  return REAL(read)(fd, p, n);
}
ssize_t write(int fd, const void* p, size_t n) {
  return REAL(write)(fd, p, Is("short_write") && n > 65536 ? n / 2 : n);
}
ssize_t recv(int fd, void* p, size_t n, int flags) {
  return REAL(recv)(fd, p, n, Is("no_waitall") ? flags & ~MSG_WAITALL : flags);
}
int accept(int fd, struct sockaddr* a, socklen_t* size) {
  int got = REAL(accept)(fd, a, size);
  if (got >= 0 && Is("nonblocking_accept")) fcntl(got, F_SETFL, O_NONBLOCK);
  return got;
}
int poll(struct pollfd* p, nfds_t n, int ms) {
  if (Sometimes("spurious_eintr")) return errno = EINTR, -1;
  return REAL(poll)(p, n, ms);
}
int epoll_pwait(int ep, struct epoll_event* e, int n, int ms, const sigset_t* mask) {
  return REAL(epoll_pwait)(ep, e, n, ms < 0 && Is("mask_ignored") ? 100 : ms,
                           Is("mask_ignored") ? NULL : mask);
}
int close(int fd) {
  if (Is("close_late") && fd > 2) return 0;
  return REAL(close)(fd);
}
int pthread_sigmask(int how, const sigset_t* set, sigset_t* old) {
  if (Is("process_mask") && gettid() != getpid()) return REAL(pthread_sigmask)(how, NULL, old);
  return REAL(pthread_sigmask)(how, set, old);
}
int pthread_kill(pthread_t t, int sig) {
  return Is("kill_process") && sig ? kill(getpid(), sig) : REAL(pthread_kill)(t, sig);
}
int sigaction(int sig, const struct sigaction* act, struct sigaction* old) {
  struct sigaction copy;
  if (act) copy = *act;
  if (act && Is("always_restart")) copy.sa_flags |= SA_RESTART;
  if (act && Is("no_altstack")) copy.sa_flags &= ~SA_ONSTACK;
  return REAL(sigaction)(sig, act ? &copy : NULL, old);
}
int timer_create(clockid_t clock, struct sigevent* e, timer_t* timer) {
  struct sigevent copy;
  if (e) copy = *e;
  if (e && Is("timer_any") && copy.sigev_notify == SIGEV_THREAD_ID)
    copy.sigev_notify = SIGEV_SIGNAL;
  return REAL(timer_create)(clock, e ? &copy : NULL, timer);
}
pid_t fork(void) {
  pid_t child = REAL(fork)();
  sigset_t all;
  sigemptyset(&all);
  if (child == 0 && Is("fork_mask")) REAL(pthread_sigmask)(SIG_SETMASK, &all, NULL);
  return child;
}
int execv(const char* path, char* const* argv) {
  sigset_t all;
  sigfillset(&all);
  if (Is("exec_mask")) REAL(pthread_sigmask)(SIG_SETMASK, &all, NULL);
  return REAL(execv)(path, argv);
}
pid_t gettid(void) { return Is("one_tid") ? getpid() : (pid_t)REAL(syscall)(SYS_gettid); }
int pthread_getattr_np(pthread_t t, pthread_attr_t* attr) {
  int error = REAL(pthread_getattr_np)(t, attr);
  if (error == 0 && Is("wrong_stack")) pthread_attr_setstack(attr, (void*)4096, 1 << 20);
  return error;
}
int pthread_setname_np(pthread_t t, const char* name) {
  return Is("no_names") ? 0 : REAL(pthread_setname_np)(t, name);
}
int pthread_setaffinity_np(pthread_t t, size_t n, const cpu_set_t* set) {
  return Is("no_affinity") ? 0 : REAL(pthread_setaffinity_np)(t, n, set);
}
void exit(int status) {
  if (Is("no_flush")) _exit(status);
  REAL(exit)(status);
  __builtin_unreachable();
}
long syscall(long number, ...) {
  va_list args;
  va_start(args, number);
  long a = va_arg(args, long), b = va_arg(args, long), c = va_arg(args, long),
       d = va_arg(args, long), e = va_arg(args, long), f = va_arg(args, long);
  va_end(args);
  long result = REAL(syscall)(number, a, b, c, d, e, f);
  if (number == SYS_futex && (b & FUTEX_CMD_MASK) == FUTEX_WAKE && Is("futex_count")) return 0;
  if (number == SYS_futex && (b & FUTEX_CMD_MASK) == FUTEX_WAKE_BITSET && Is("futex_bits"))
    return REAL(syscall)(number, a, (b & ~FUTEX_CMD_MASK) | FUTEX_WAKE, 100L, d, e, f);
  return result;
}
