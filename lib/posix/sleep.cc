// SPDX-License-Identifier: Apache-2.0
// Sleeps: a G waits for a deadline of the scheduler's timers.
//
// Relative sleeps and absolute ones on the monotonic clock become one wait. A clock that can be set
// or that runs while the machine is suspended is looked at again at the end of each wait, and at
// least every second, so that a sleep until a point of such a clock ends within a second after the
// clock was set past it. Clocks of CPU time do not tick for a thread that waits: libc's own call
// waits for them.
#include <errno.h>
#include <threads.h>
#include <time.h>

#include "posix/blocking.h"
#include "posix/deadline.h"
#include "sched/park.h"

namespace undergo::posix {

namespace {

constexpr uint64_t kLook = 1'000'000'000;  // ns between two looks at a clock that may be set

// Until the monotonic time `deadline`. 0 or EINTR.
int SleepUntil(uint64_t deadline) {
  for (;;) {
    pthread_testcancel();
    if (plat::NowNs() >= deadline) return 0;
    {
      sched::Waiter w(sched::WaitReason::kSleep);
      w.Arm();
      if (w.Wait(deadline, true) != sched::Wake::kInterrupted) continue;
    }
    bool handled = AttendToInterrupt(Restart::kNever);
    pthread_testcancel();
    if (handled) return EINTR;
  }
}

int SleepUntil(clockid_t clock, const struct timespec* t) {
  uint64_t when = ToNs(t);
  if (clock == CLOCK_MONOTONIC) return SleepUntil(when);
  for (;;) {
    pthread_testcancel();
    uint64_t now = plat::NowNs(clock);
    if (now >= when) return 0;
    int error = SleepUntil(plat::NowNs() + Min(when - now, kLook));
    if (error != 0) return error;
  }
}

// 0 or an error number; *left is written for EINTR alone.
int SleepFor(const struct timespec* t, struct timespec* left) {
  if (!IsValid(t) || t->tv_sec < 0) return EINVAL;
  uint64_t ns = ToNs(t);
  if (ns == 0) {
    pthread_testcancel();
    sched::Yield();
    return 0;
  }
  uint64_t deadline = plat::NowNs() + ns;
  int error = SleepUntil(deadline);
  if (error == EINTR && left != nullptr) {
    uint64_t now = plat::NowNs();
    uint64_t rest = deadline > now ? deadline - now : 0;
    left->tv_sec = static_cast<time_t>(rest / 1'000'000'000);
    left->tv_nsec = static_cast<long>(rest % 1'000'000'000);
  }
  return error;
}

bool Parks(const struct timespec* t) { return sched::Current() != nullptr && t != nullptr; }

int Fail(int error) {
  if (error == 0) return 0;
  errno = error;
  return -1;
}

}  // namespace

int nanosleep(const struct timespec* t, struct timespec* left) {
  return Parks(t) ? Fail(SleepFor(t, left)) : plain::nanosleep(t, left);
}

int __nanosleep(const struct timespec* t, struct timespec* left) {
  return posix::nanosleep(t, left);
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec* t, struct timespec* left) {
  bool known = clock == CLOCK_MONOTONIC || clock == CLOCK_REALTIME || clock == CLOCK_BOOTTIME ||
               clock == CLOCK_TAI;
  if (!known || !Parks(t)) return plain::clock_nanosleep(clock, flags, t, left);
  if ((flags & TIMER_ABSTIME) == 0) return SleepFor(t, left);
  if (!IsValid(t) || t->tv_sec < 0) return EINVAL;
  return SleepUntil(clock, t);
}

unsigned sleep(unsigned seconds) {
  if (sched::Current() == nullptr) return plain::sleep(seconds);
  struct timespec t = {static_cast<time_t>(seconds), 0};
  if (SleepFor(&t, &t) == 0) return 0;
  return static_cast<unsigned>(t.tv_sec);
}

int usleep(useconds_t us) {
  if (sched::Current() == nullptr) return plain::usleep(us);
  struct timespec t = {static_cast<time_t>(us / 1'000'000),
                       static_cast<long>(us % 1'000'000) * 1000};
  return Fail(SleepFor(&t, nullptr));
}

int thrd_sleep(const struct timespec* t, struct timespec* left) {
  if (!Parks(t)) return plain::thrd_sleep(t, left);
  int error = SleepFor(t, left);
  return error == 0 ? 0 : error == EINTR ? -1 : -2;
}

}  // namespace undergo::posix
