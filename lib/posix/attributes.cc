// SPDX-License-Identifier: Apache-2.0
// How the kernel schedules a thread: its CPUs, policy, priority, niceness. All four belong to
// kernel threads. What changes nothing is answered without one. A G that asks for something else
// for itself keeps its kernel thread (posix/kernel_state.h) and then gets it from the kernel. If
// another thread asks for it, that is noted as a wish, which the G fulfils when it runs next.
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "heap/fastpath.h"
#include "plat/syscall.h"
#include "posix/ceiling.h"
#include "posix/kernel_state.h"
#include "posix/posix.h"
#include "sched/handoff.h"
#include "sched/preempt.h"
#include "sched/sched.h"
#include "sched/thread.h"
#include "sync/mutex.h"

namespace undergo::posix {

using sched::G;

namespace {

// What others want for a G.
struct Wishes {
  size_t cpus_size;  // bytes of cpus; 0: none
  cpu_set_t cpus;
  bool has_policy, has_nice;
  int policy, priority, nice;
  bool taken;  // the G is about to fulfil them
};
constinit sync::Mutex wishes_lock;  // of all G::wishes; in a BusyScope

int Fail(long result) {
  if (!plat::IsError(result)) return 0;
  errno = static_cast<int>(-result);
  return -1;
}
int ErrorOf(long result) { return plat::IsError(result) ? static_cast<int>(-result) : 0; }

bool IsPinned(const G* g) { return g->state == sched::GState::kPinned; }
// The G that a number names in calls about one thread; null: the kernel knows better.
G* TargetOf(pid_t id) {
  if (!sched::Active()) return nullptr;
  return id == 0 ? sched::Self() : sched::FindByTid(id);
}
// The kernel thread whose state answers for the G.
int KernelIdOf(const G* g) {
  if (g == sched::Self() || g->m == nullptr) return 0;
  return g->m->tid;
}

template <typename F>
void ChangeWishes(G* g, F change) {
  heap::BusyScope busy;
  auto* fresh = static_cast<Wishes*>(heap::Malloc(sizeof(Wishes)));
  if (fresh == nullptr) return;
  sync::MutexLock hold(wishes_lock);
  auto* old = static_cast<Wishes*>(g->wishes);
  *fresh = old != nullptr ? *old : Wishes{};
  fresh->taken = false;
  change(fresh);
  StoreRelease(&g->wishes, static_cast<void*>(fresh));  // pairs: LeaveSched
  if (old != nullptr) heap::Free(old);
}

bool WishesOf(const G* g, Wishes* out) {
  if (LoadRelaxed(&g->wishes) == nullptr) return false;
  heap::BusyScope busy;
  sync::MutexLock hold(wishes_lock);
  if (g->wishes == nullptr) return false;
  *out = *static_cast<Wishes*>(g->wishes);
  return true;
}

void Remind(G* g) {
  if (g->state == sched::GState::kRunning && g->m != nullptr) sched::Preempt(g->m);
}

// Those that nobody fulfils yet.
Wishes* TakeWishes(G* g, Wishes* out) {
  heap::BusyScope busy;
  sync::MutexLock hold(wishes_lock);
  auto* mine = static_cast<Wishes*>(g->wishes);
  if (mine == nullptr || mine->taken) return nullptr;
  mine->taken = true;
  *out = *mine;
  return mine;
}

void Fulfil(const Wishes& w) {
  KeepKernelThread();
  if (w.cpus_size != 0) plat::Syscall(__NR_sched_setaffinity, 0, w.cpus_size, &w.cpus);
  struct sched_param p = {};
  p.sched_priority = w.priority;
  if (w.has_policy) plat::Syscall(__NR_sched_setscheduler, 0, w.policy, &p);
  if (w.has_nice) plat::Syscall(__NR_setpriority, PRIO_PROCESS, 0, w.nice);
}

// On the G's own thread, at the end of a section of the scheduler. They show until they are so.
void FulfilWishes(G* g) {
  Wishes w;
  while (Wishes* mine = TakeWishes(g, &w)) {
    Fulfil(w);
    heap::BusyScope busy;
    sync::MutexLock hold(wishes_lock);
    if (g->wishes != mine || !mine->taken) continue;  // more came meanwhile
    heap::Free(mine);
    g->wishes = nullptr;
  }
}

// --- CPUs ---

long GetCpus(int tid, size_t size, cpu_set_t* set) {
  long n = plat::Syscall(__NR_sched_getaffinity, tid, size, set);
  if (plat::IsError(n)) return n;
  __builtin_memset(reinterpret_cast<char*>(set) + n, 0, size - static_cast<size_t>(n));
  return 0;
}

// Whether the set means the CPUs that this kernel thread has already, so that nothing changes; an
// error of the kernel's otherwise.
long ChangesCpus(size_t size, const cpu_set_t* set, bool* changes) {
  heap::BusyScope stay;
  cpu_set_t before, after;
  long e = GetCpus(0, sizeof before, &before);
  if (plat::IsError(e)) return e;
  e = plat::Syscall(__NR_sched_setaffinity, 0, size, set);
  if (plat::IsError(e)) return e;
  e = GetCpus(0, sizeof after, &after);
  *changes = plat::IsError(e) || !CPU_EQUAL(&before, &after);
  if (*changes) plat::Syscall(__NR_sched_setaffinity, 0, sizeof before, &before);
  return 0;
}

long SetCpus(G* g, size_t size, const cpu_set_t* set) {
  if (IsPinned(g)) return plat::Syscall(__NR_sched_setaffinity, KernelIdOf(g), size, set);
  // Asked for a thread that has all CPUs: the caller may have fewer.
  bool changes = true;
  if (!sched::IsPinned()) {
    long e = ChangesCpus(size, set, &changes);
    if (plat::IsError(e)) return e;
  }
  Wishes w;
  if (!changes && !WishesOf(g, &w)) return 0;
  if (g == sched::Self()) {
    KeepKernelThread();
    return plat::Syscall(__NR_sched_setaffinity, 0, size, set);
  }
  ChangeWishes(g, [size, set](Wishes* wishes) {
    wishes->cpus_size = Min(size, sizeof(cpu_set_t));
    CPU_ZERO(&wishes->cpus);
    __builtin_memcpy(&wishes->cpus, set, wishes->cpus_size);
  });
  Remind(g);
  return 0;
}

long CpusOf(const G* g, size_t size, cpu_set_t* set) {
  long e = GetCpus(KernelIdOf(g), size, set);
  Wishes w;
  if (plat::IsError(e) || !WishesOf(g, &w) || w.cpus_size == 0) return e;
  auto* to = reinterpret_cast<unsigned char*>(set);
  auto* from = reinterpret_cast<const unsigned char*>(&w.cpus);
  for (size_t i = 0; i < Min(size, w.cpus_size); ++i) to[i] &= from[i];
  return 0;
}

// --- policy and priority ---

constexpr int kResetOnFork = SCHED_RESET_ON_FORK;
bool IsRealTime(int policy) { return policy == SCHED_FIFO || policy == SCHED_RR; }

// Whether the kernel would permit it; on this kernel thread, which is as before afterwards.
long MayHavePolicy(int policy, const struct sched_param* p) {
  heap::BusyScope stay;
  struct sched_param before = {};
  long was = plat::Syscall(__NR_sched_getscheduler, 0);
  if (plat::IsError(was)) return was;
  plat::Syscall(__NR_sched_getparam, 0, &before);
  long e = plat::Syscall(__NR_sched_setscheduler, 0, policy, p);
  if (!plat::IsError(e)) plat::Syscall(__NR_sched_setscheduler, 0, was, &before);
  return e;
}

long PolicyOf(const G* g, int* policy, struct sched_param* p) {
  int tid = KernelIdOf(g);
  long e = plat::Syscall(__NR_sched_getscheduler, tid);
  if (plat::IsError(e)) return e;
  *policy = static_cast<int>(e);
  e = plat::Syscall(__NR_sched_getparam, tid, p);
  Wishes w;
  if (plat::IsError(e) || !WishesOf(g, &w) || !w.has_policy) return e;
  *policy = w.policy;
  p->sched_priority = w.priority;
  return 0;
}

long SetPolicy(G* g, int policy, const struct sched_param* p) {
  if (p == nullptr) return -EINVAL;
  bool own = g == sched::Self();
  if (IsPinned(g)) return plat::Syscall(__NR_sched_setscheduler, KernelIdOf(g), policy, p);
  int has = 0;
  struct sched_param had = {};
  long e = PolicyOf(g, &has, &had);
  if (plat::IsError(e)) return e;
  if (has == policy && had.sched_priority == p->sched_priority) return 0;
  // To undo a real-time policy is always permitted, so it can be tried.
  if (IsRealTime(policy & ~kResetOnFork) || !own) {
    e = MayHavePolicy(policy, p);
    if (plat::IsError(e)) return e;
  }
  if (own) {
    KeepKernelThread();
    return plat::Syscall(__NR_sched_setscheduler, 0, policy, p);
  }
  ChangeWishes(g, [policy, p](Wishes* w) {
    w->has_policy = true;
    w->policy = policy;
    w->priority = p->sched_priority;
  });
  Remind(g);
  return 0;
}

// By the functions of pthreads, for which a ceiling that raises the thread does not show.
long SetOwnPolicy(G* g, int policy, const struct sched_param* p) {
  if (p == nullptr) return -EINVAL;
  struct sched_param raised = *p;
  raised.sched_priority = SetBasePriority(g->words, p->sched_priority);
  return SetPolicy(g, policy, &raised);
}

}  // namespace

int sched_setaffinity(pid_t id, size_t size, const cpu_set_t* set) {
  if (real::sched_setaffinity == nullptr) real::Resolve();
  G* g = TargetOf(id);
  return g == nullptr ? real::sched_setaffinity(id, size, set) : Fail(SetCpus(g, size, set));
}

int sched_getaffinity(pid_t id, size_t size, cpu_set_t* set) {
  if (real::sched_getaffinity == nullptr) real::Resolve();
  G* g = TargetOf(id);
  return g == nullptr ? real::sched_getaffinity(id, size, set) : Fail(CpusOf(g, size, set));
}

int pthread_setaffinity_np(pthread_t thread, size_t size, const cpu_set_t* set) {
  if (real::pthread_setaffinity_np == nullptr) real::Resolve();
  G* g = sched::Find(thread);
  return g == nullptr ? real::pthread_setaffinity_np(thread, size, set)
                      : ErrorOf(SetCpus(g, size, set));
}

int pthread_getaffinity_np(pthread_t thread, size_t size, cpu_set_t* set) {
  if (real::pthread_getaffinity_np == nullptr) real::Resolve();
  G* g = sched::Find(thread);
  return g == nullptr ? real::pthread_getaffinity_np(thread, size, set)
                      : ErrorOf(CpusOf(g, size, set));
}

int sched_setscheduler(pid_t id, int policy, const struct sched_param* p) {
  if (real::sched_setscheduler == nullptr) real::Resolve();
  G* g = TargetOf(id);
  return g == nullptr ? real::sched_setscheduler(id, policy, p) : Fail(SetPolicy(g, policy, p));
}

int sched_getscheduler(pid_t id) {
  if (real::sched_getscheduler == nullptr) real::Resolve();
  G* g = TargetOf(id);
  if (g == nullptr) return real::sched_getscheduler(id);
  int policy = 0;
  struct sched_param p = {};
  return Fail(PolicyOf(g, &policy, &p)) == 0 ? policy : -1;
}

int sched_setparam(pid_t id, const struct sched_param* p) {
  if (real::sched_setparam == nullptr) real::Resolve();
  G* g = TargetOf(id);
  if (g == nullptr) return real::sched_setparam(id, p);
  int policy = 0;
  struct sched_param had = {};
  long e = PolicyOf(g, &policy, &had);
  return Fail(plat::IsError(e) ? e : SetPolicy(g, policy, p));
}

int sched_getparam(pid_t id, struct sched_param* p) {
  if (real::sched_getparam == nullptr) real::Resolve();
  G* g = TargetOf(id);
  int policy = 0;
  return g == nullptr ? real::sched_getparam(id, p) : Fail(PolicyOf(g, &policy, p));
}

int sched_rr_get_interval(pid_t id, struct timespec* t) {
  if (real::sched_rr_get_interval == nullptr) real::Resolve();
  G* g = TargetOf(id);
  return real::sched_rr_get_interval(g == nullptr ? id : KernelIdOf(g), t);
}

int pthread_setschedparam(pthread_t thread, int policy, const struct sched_param* p) {
  if (real::pthread_setschedparam == nullptr) real::Resolve();
  G* g = sched::Find(thread);
  return g == nullptr ? real::pthread_setschedparam(thread, policy, p)
                      : ErrorOf(SetOwnPolicy(g, policy, p));
}

int pthread_getschedparam(pthread_t thread, int* policy, struct sched_param* p) {
  if (real::pthread_getschedparam == nullptr) real::Resolve();
  G* g = sched::Find(thread);
  if (g == nullptr) return real::pthread_getschedparam(thread, policy, p);
  int error = ErrorOf(PolicyOf(g, policy, p));
  if (error == 0) BasePriority(g->words, &p->sched_priority);
  return error;
}

int pthread_setschedprio(pthread_t thread, int priority) {
  if (real::pthread_setschedprio == nullptr) real::Resolve();
  G* g = sched::Find(thread);
  if (g == nullptr) return real::pthread_setschedprio(thread, priority);
  int policy = 0;
  struct sched_param p = {};
  long e = PolicyOf(g, &policy, &p);
  if (plat::IsError(e)) return ErrorOf(e);
  p.sched_priority = priority;
  return ErrorOf(SetOwnPolicy(g, policy, &p));
}

// --- niceness ---

namespace {

constexpr int kMostNice = 19;

// As the kernel gives it, 20 less the niceness; or an error.
long NiceOf(const G* g) {
  Wishes w;
  if (WishesOf(g, &w) && w.has_nice) return 20 - w.nice;
  return plat::Syscall(__NR_getpriority, PRIO_PROCESS, KernelIdOf(g));
}

long MayBeNice(int nice) {
  heap::BusyScope stay;
  long before = plat::Syscall(__NR_getpriority, PRIO_PROCESS, 0);
  long e = plat::Syscall(__NR_setpriority, PRIO_PROCESS, 0, nice);
  if (!plat::IsError(e)) plat::Syscall(__NR_setpriority, PRIO_PROCESS, 0, 20 - before);
  return e;
}

long SetNice(G* g, int nice) {
  if (nice < -20) nice = -20;
  if (nice > kMostNice) nice = kMostNice;
  if (IsPinned(g)) return plat::Syscall(__NR_setpriority, PRIO_PROCESS, KernelIdOf(g), nice);
  long has = NiceOf(g);
  if (plat::IsError(has) || has == 20 - nice) return plat::IsError(has) ? has : 0;
  // More niceness is always permitted, so less can be tried.
  if (nice < 20 - has) {
    long e = MayBeNice(nice);
    if (plat::IsError(e)) return e;
  }
  if (g == sched::Self()) {
    KeepKernelThread();
    return plat::Syscall(__NR_setpriority, PRIO_PROCESS, 0, nice);
  }
  ChangeWishes(g, [nice](Wishes* w) {
    w->has_nice = true;
    w->nice = nice;
  });
  Remind(g);
  return 0;
}

}  // namespace

int setpriority(__priority_which_t which, id_t who, int value) {
  if (real::setpriority == nullptr) real::Resolve();
  G* g = which == PRIO_PROCESS ? TargetOf(static_cast<pid_t>(who)) : nullptr;
  return g == nullptr ? real::setpriority(which, who, value) : Fail(SetNice(g, value));
}

int getpriority(__priority_which_t which, id_t who) {
  if (real::getpriority == nullptr) real::Resolve();
  G* g = which == PRIO_PROCESS ? TargetOf(static_cast<pid_t>(who)) : nullptr;
  if (g == nullptr) return real::getpriority(which, who);
  long value = NiceOf(g);
  return Fail(value) != 0 ? -1 : static_cast<int>(20 - value);
}

int nice(int more) {
  if (real::nice == nullptr) real::Resolve();
  G* g = sched::Self();
  if (g == nullptr) return real::nice(more);
  long has = NiceOf(g);
  long e = plat::IsError(has) ? has : SetNice(g, static_cast<int>(20 - has) + more);
  if (e == -EACCES) e = -EPERM;  // as POSIX has it
  if (Fail(e) != 0) return -1;
  return static_cast<int>(20 - NiceOf(g));
}

void InstallWishes() { sched::on_wishes = FulfilWishes; }
void ResetWishesAfterFork() { wishes_lock.ResetAfterFork(); }

}  // namespace undergo::posix
