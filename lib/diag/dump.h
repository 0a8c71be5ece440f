// SPDX-License-Identifier: Apache-2.0
// A dump of every thread, in the manner of Go's goroutine dump: state, what it waits for and since
// when, and its call chain with names.
#pragma once

#include <signal.h>

#include "base/types.h"

namespace undergo::diag {

struct DumpOrder {
  const char* title = nullptr;  // the first line; constant text, null: none
  // A thread that waits for the end of the dump in a signal handler, and what the handler
  // interrupted (a ucontext_t); 0: there is none.
  int waiting_tid = 0;
  const void* waiting_context = nullptr;
  void (*then)() = nullptr;  // called at the end, on the thread that prints; null: nothing
  bool queues = false;       // while another dump is being printed: one more after it
};

// Prints the dump soon, on a thread of its own. From anywhere, also from a signal handler. False
// when another one is being printed and this one does not queue, or no thread can be made.
bool RequestDump(const DumpOrder& order);
// Sleeps until the dump that is being printed is over. In a handler that leaves signal 33 open.
void AwaitDump();

// The default action of the signal, for the calling thread: the process dies of it.
void DieOf(int sig);

// UNDERGO=dump=. After the dump on SIGQUIT the process dies of the signal as it would have without;
// after that on any other signal it goes on. `now`: from the start; else from its first thread on.
void ConfigureDumpSignal(int sig, bool now);

}  // namespace undergo::diag
