// SPDX-License-Identifier: Apache-2.0
// Clocks and usage of threads. A clock of a G is named as the kernel names that of a thread, by the
// G's number.
#include "sched/cpu_time.h"

#include <errno.h>
#include <time.h>

#include "posix/cpu_clock.h"
#include "posix/posix.h"
#include "sched/handoff.h"
#include "sched/m.h"
#include "sched/thread.h"

namespace undergo::posix {

using sched::G;

namespace {

constexpr clockid_t kThreadClock = 6;  // of the kernel: a thread's, in scheduler time
clockid_t ClockOf(int tid) {
  return static_cast<clockid_t>(~static_cast<uint32_t>(tid) << 3 | kThreadClock);
}

// The G whose CPU time the clock shows; null: it is one of the kernel's.
G* OwnerOf(clockid_t clock) {
  if (!sched::Active()) return nullptr;
  if (clock == CLOCK_THREAD_CPUTIME_ID) return sched::Self();
  if (clock >= 0 || (clock & 7) != kThreadClock) return nullptr;
  return sched::FindByTid(static_cast<int>(~(clock >> 3)));
}

struct timespec ToTimespec(uint64_t ns) {
  return {static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
}

}  // namespace

clockid_t KernelClockOf(clockid_t clock) {
  if (clock >= 0 && clock != CLOCK_THREAD_CPUTIME_ID) return clock;
  sched::StartAccounting();
  G* g = OwnerOf(clock);
  if (g == nullptr) return clock;
  if (g == sched::Self()) sched::Pin();
  return g->state == sched::GState::kPinned ? ClockOf(g->m->tid) : clock;
}

int64_t AheadOfKernel(clockid_t clock) {
  G* g = OwnerOf(clock);
  if (g == nullptr || g->state != sched::GState::kPinned) return 0;
  return static_cast<int64_t>(sched::CpuTime(g) - sched::ThreadCpuClock(g->m->tid));
}

int clock_gettime(clockid_t clock, struct timespec* t) {
  if (UNDERGO_UNLIKELY(real::clock_gettime == nullptr)) real::Resolve();
  if (UNDERGO_LIKELY(clock >= 0 && clock != CLOCK_THREAD_CPUTIME_ID)) {
    return real::clock_gettime(clock, t);
  }
  sched::StartAccounting();
  G* g = OwnerOf(clock);
  if (g == nullptr) return real::clock_gettime(clock, t);
  *t = ToTimespec(sched::CpuTime(g));
  return 0;
}

int clock_getres(clockid_t clock, struct timespec* t) {
  if (real::clock_getres == nullptr) real::Resolve();
  return real::clock_getres(OwnerOf(clock) != nullptr ? CLOCK_THREAD_CPUTIME_ID : clock, t);
}

int pthread_getcpuclockid(pthread_t thread, clockid_t* clock) {
  if (real::pthread_getcpuclockid == nullptr) real::Resolve();
  sched::StartAccounting();
  G* g = sched::Find(thread);
  if (g == nullptr) return real::pthread_getcpuclockid(thread, clock);
  *clock = ClockOf(g->tid);
  return 0;
}

int getrusage(__rusage_who_t who, struct rusage* usage) {
  if (real::getrusage == nullptr) real::Resolve();
  int result = real::getrusage(who, usage);
  if (who != RUSAGE_THREAD || result != 0) return result;
  sched::StartAccounting();
  G* g = sched::Self();
  if (g == nullptr) return 0;
  // The kernel's shares of user and system time are those of the kernel thread.
  uint64_t ns = sched::CpuTime(g);
  auto us = [](const struct timeval& t) {
    return static_cast<uint64_t>(t.tv_sec) * 1'000'000 + static_cast<uint64_t>(t.tv_usec);
  };
  uint64_t user = us(usage->ru_utime), all = user + us(usage->ru_stime);
  uint64_t own = ns / 1000;
  uint64_t own_user =
      all == 0 ? own
               : static_cast<uint64_t>(static_cast<double>(own) * static_cast<double>(user) /
                                       static_cast<double>(all));
  auto to_timeval = [](uint64_t t) {
    return timeval{static_cast<time_t>(t / 1'000'000), static_cast<suseconds_t>(t % 1'000'000)};
  };
  usage->ru_utime = to_timeval(own_user);
  usage->ru_stime = to_timeval(own - own_user);
  return 0;
}

}  // namespace undergo::posix
