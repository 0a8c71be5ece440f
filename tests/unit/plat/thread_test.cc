// SPDX-License-Identifier: Apache-2.0
// Threads without glibc: they run, have their own thread-local variables, take no signal and leave
// nothing behind.
#include "plat/thread.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

#include "base/atomic.h"
#include "check.h"
#include "plat/futex.h"
#include "plat/maps.h"
#include "plat/syscall.h"

using namespace undergo;

namespace {

__thread int with_value __attribute__((tls_model("initial-exec"))) = 4711;
__thread long zeroed __attribute__((tls_model("initial-exec")));

struct Report {
  uint32_t done;  // futex; the last thing that the thread writes
  uint32_t go;    // futex; the thread waits for it when `wait` is set
  bool wait;
  int value;
  long zero;
  void* address;
  long tid;
  char name[16];
  uint64_t mask;
};

void Look(void* arg) {
  auto* r = static_cast<Report*>(arg);
  r->value = with_value;
  r->zero = zeroed;
  with_value = 1;
  zeroed = 1;
  r->address = &with_value;
  r->tid = plat::Syscall(__NR_gettid);
  plat::Syscall(__NR_prctl, 16 /* PR_GET_NAME */, &r->name[0]);
  plat::Syscall(__NR_rt_sigprocmask, SIG_SETMASK, nullptr, &r->mask, sizeof r->mask);
  while (r->wait && LoadAcquire(&r->go) == 0) plat::FutexWait(&r->go, 0);
  StoreRelease(&r->done, 1);
  plat::FutexWake(&r->done, 1);
}

void Await(Report* r) {
  while (LoadAcquire(&r->done) == 0) plat::FutexWait(&r->done, 0);
}

void AwaitNone() {
  for (int i = 0; plat::OwnThreadCount() != 0; ++i) {
    cr_assert(i < 2000, "threads do not end");
    SleepMs(1);
  }
}

long Mappings() {
  long n = 0;
  plat::ForEachMapping(
      [](void* context, const plat::Mapping&) {
        ++*static_cast<long*>(context);
        return true;
      },
      &n);
  return n;
}

}  // namespace

Test(thread, has_its_own_variables_and_no_signals) {
  with_value = 99;
  Report r = {};
  long tid = plat::SpawnThread(Look, &r, "a-name-too-long-for-it");
  cr_assert(tid > 0, "%ld", tid);
  Await(&r);
  cr_expect(r.tid == tid);
  cr_expect(r.value == 4711 && r.zero == 0, "%d, %ld", r.value, r.zero);
  cr_expect(with_value == 99 && r.address != &with_value);
  cr_expect(strcmp(r.name, "a-name-too-long") == 0, "%s", r.name);
  // The two that cannot be blocked read as not blocked; 33 is the library's own.
  constexpr uint64_t kOpen = uint64_t{1} << (33 - 1);
  cr_expect((r.mask & kOpen) == 0);
  cr_expect((r.mask | kOpen | 1u << (SIGKILL - 1) | 1u << (SIGSTOP - 1)) == ~uint64_t{0}, "%lx",
            r.mask);
  sigset_t mine;
  pthread_sigmask(SIG_SETMASK, nullptr, &mine);
  cr_expect(sigismember(&mine, SIGUSR1) == 0, "the maker's mask changed");
}

Test(thread, memory_is_used_again) {
  Report first = {};
  cr_assert(plat::SpawnThread(Look, &first, "t") > 0);
  Await(&first);
  AwaitNone();
  long mappings = Mappings();
  for (int i = 0; i < 300; ++i) {
    Report r = {};
    cr_assert(plat::SpawnThread(Look, &r, "t") > 0);
    Await(&r);
    cr_expect(r.value == 4711 && r.zero == 0, "a used block came unclean: %d, %ld", r.value,
              r.zero);
    AwaitNone();
  }
  cr_expect(Mappings() <= mappings + 1, "%ld mappings, %ld before", Mappings(), mappings);
}

Test(thread, kept_off_the_callers_cpu) {
  cpu_set_t mine, its;
  cr_assert(sched_getaffinity(0, sizeof mine, &mine) == 0);
  std::atomic<bool> stop = false;
  auto wait = [](void* p) {
    while (!*static_cast<std::atomic<bool>*>(p)) SleepMs(1);
  };
  long tid = plat::SpawnThread(wait, &stop, "t");
  cr_assert(tid > 0);
  int cpu = -1;
  plat::KeepOffOwnCpu(&tid, 1, &cpu);
  cr_assert(sched_getaffinity(static_cast<pid_t>(tid), sizeof its, &its) == 0);
  if (CPU_COUNT(&mine) == 1) {
    cr_expect(cpu == -1 && CPU_EQUAL(&its, &mine));
  } else {
    cr_assert(cpu >= 0 && CPU_ISSET(cpu, &mine) && !CPU_ISSET(cpu, &its));
    CPU_SET(cpu, &its);
    cr_expect(CPU_EQUAL(&its, &mine));
    // The caller may use one CPU only: the other thread keeps what it has.
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    cr_assert(sched_setaffinity(0, sizeof one, &one) == 0);
    int unknown = -1;
    plat::KeepOffOwnCpu(&tid, 1, &unknown);
    cr_expect(unknown == -1);
    cr_assert(sched_getaffinity(static_cast<pid_t>(tid), sizeof its, &its) == 0);
    cr_expect(!CPU_ISSET(cpu, &its));
  }
  stop = true;
  AwaitNone();
}

Test(thread, many_at_once) {
  static Report r[40];
  for (Report& one : r) {
    one.wait = true;
    long tid = plat::SpawnThread(Look, &one, "many");
    cr_assert(tid > 0);
    cr_expect(plat::IsOwnThread(static_cast<int>(tid)));
  }
  cr_expect(plat::OwnThreadCount() == 40);
  cr_expect(!plat::IsOwnThread(getpid()));
  size_t bytes = 0;
  plat::ForEachOwnStack(
      [](void* context, Addr low, Addr high) { *static_cast<size_t*>(context) += high - low; },
      &bytes);
  cr_expect(bytes >= 40 * 256 * kKiB);
  for (Report& one : r) {
    StoreRelease(&one.go, 1);
    plat::FutexWake(&one.go, 1);
  }
  for (Report& one : r) {
    Await(&one);
    cr_expect(one.value == 4711);
  }
  AwaitNone();
  // The next thread gives back what the others left.
  Report last = {};
  cr_assert(plat::SpawnThread(Look, &last, "last") > 0);
  Await(&last);
  bytes = 0;
  AwaitNone();
  plat::ForEachOwnStack(
      [](void* context, Addr low, Addr high) { *static_cast<size_t*>(context) += high - low; },
      &bytes);
  cr_expect(bytes < 2 * 512 * kKiB, "%zu bytes kept", bytes);
}

Test(thread, forked_child_has_none) {
  Report r = {};
  r.wait = true;
  cr_assert(plat::SpawnThread(Look, &r, "t") > 0);
  pid_t child = fork();
  if (child == 0) {
    plat::ForgetOwnThreads();
    Report mine = {};
    bool right = plat::OwnThreadCount() == 0 && plat::SpawnThread(Look, &mine, "t") > 0;
    if (right) Await(&mine);
    _exit(right && mine.value == 4711 ? 0 : 1);
  }
  int status;
  cr_assert(waitpid(child, &status, 0) == child);
  cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", status);
  StoreRelease(&r.go, 1);
  plat::FutexWake(&r.go, 1);
  Await(&r);
}
