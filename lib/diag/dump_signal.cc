// SPDX-License-Identifier: Apache-2.0
// The signal that asks for a dump, in the place of its default action.
//
// Go's answer to SIGQUIT is a dump and exit status 2; that of an unmodified program is to die of
// it, with a core. Here: the dump, then the native death, so that who sent the signal sees what it
// expects. Any other signal was named by the user for the dump's sake: the program goes on.
//
// The thread that got SIGQUIT waits for the dump in its handler: what comes after raise() must not
// run. In a slow path of the heap or the scheduler it must not wait, as the stop of the world waits
// for the end of that: then it goes on until the dump's thread ends the process.
#include "posix/dump_signal.h"

#include "diag/dump.h"
#include "heap/thread_words.h"
#include "plat/log.h"
#include "plat/syscall.h"
#include "world/foreign.h"
#include "world/record.h"

namespace undergo::diag {

namespace {

void Die() { DieOf(SIGQUIT); }

void OnQuit(void* context) {
  // In a child of vfork nothing here is its own.
  if (world::WhoseMemory() == world::Whose::kForeign) return Die();
  DumpOrder order;
  order.title = "undergo: SIGQUIT: all threads:";
  bool waits = heap::thread_words.busy == 0;
  if (waits) {
    order.waiting_tid = static_cast<int>(plat::Syscall(__NR_gettid));
    order.waiting_context = context;
  } else {
    order.then = Die;
  }
  // A second signal during the dump means that it takes too long.
  if (!RequestDump(order)) return Die();
  if (!waits) return;
  AwaitDump();
  Die();
}

void OnSignal(int sig, siginfo_t*, void* context) {
  if (sig == SIGQUIT) return OnQuit(context);
  if (world::WhoseMemory() == world::Whose::kForeign) return;
  DumpOrder order;
  order.title = "undergo: all threads:";
  order.queues = true;
  RequestDump(order);
}

}  // namespace

void DieOf(int sig) {
  const uint64_t action[4] = {};
  plat::Syscall(__NR_rt_sigaction, sig, &action[0], nullptr, 8);
  plat::Syscall(__NR_tgkill, plat::Syscall(__NR_getpid), plat::Syscall(__NR_gettid), sig);
  world::SetSignalMask(~(uint64_t{1} << (sig - 1)));
}

void ConfigureDumpSignal(int sig, bool now) { posix::ReplaceDefaultAction(sig, OnSignal, now); }

}  // namespace undergo::diag
