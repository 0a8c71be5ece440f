// SPDX-License-Identifier: Apache-2.0
// Calls that leave a word with the kernel, which gives it back later: it counts as a pointer of the
// program's. Between collections nothing is to be done, the kernel is asked then
// (gc/kernel_roots.h); what comes while one marks is noted (gc/kernel_words.h).
#include "gc/kernel_words.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>

#include "gc/pipes.h"
#include "posix/kernel_words.h"
#include "posix/posix.h"
#include "posix/timer.h"

namespace undergo::posix {

namespace {

template <typename F>
auto WithWord(const void* at, F call) {
  bool noted = at != nullptr && gc::NoteKernelWord(at);
  auto result = call();
  if (at != nullptr && !noted) gc::NoteKernelWord(at);
  return result;
}

// Any pointer may come here, a null pointer or a wild one as well.
const void* WordOf(const struct epoll_event* event) {
  return event != nullptr ? &event->data : nullptr;
}

}  // namespace

int epoll_ctl(int epoll, int op, int fd, struct epoll_event* event) {
  if (real::epoll_ctl == nullptr) real::Resolve();
  const void* at = op != EPOLL_CTL_DEL ? WordOf(event) : nullptr;
  return WithWord(at, [=] { return real::epoll_ctl(epoll, op, fd, event); });
}

int timer_create(clockid_t clock, struct sigevent* event, timer_t* timer) {
  if (real::timer_create == nullptr) real::Resolve();
  const void* at = event != nullptr ? &event->sigev_value : nullptr;
  return WithWord(at, [=] { return CreateTimer(clock, event, timer); });
}

namespace {

const void* WordOf(long number, const long args[6]) {
  if (number == __NR_epoll_ctl && args[1] != EPOLL_CTL_DEL) {
    return WordOf(reinterpret_cast<const struct epoll_event*>(args[3]));
  }
  auto* event = reinterpret_cast<const struct sigevent*>(args[1]);
  return number == __NR_timer_create && event != nullptr ? &event->sigev_value : nullptr;
}

}  // namespace

long KeepingCall(long number, const long args[6]) {
  bool makes_pipe = number == __NR_pipe || number == __NR_pipe2;
  long result = WithWord(makes_pipe ? nullptr : WordOf(number, args), [=] {
    if (number == __NR_timer_create) {
      return TimerCreateCall(static_cast<clockid_t>(args[0]),
                             reinterpret_cast<const struct sigevent*>(args[1]),
                             reinterpret_cast<int*>(args[2]));
    }
    return real::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]);
  });
  if (makes_pipe) gc::pipes.Made();
  return result;
}

}  // namespace undergo::posix
