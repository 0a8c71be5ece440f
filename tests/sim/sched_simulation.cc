// SPDX-License-Identifier: Apache-2.0
// The scheduler under seeded interleavings: the code of lib/sched as it is, with Ms, a kernel, a
// clock and store buffers that are simulated in one kernel thread (executor.h), small random
// programs (programs.cc), and checks at all times (machine.cc).
//
// SIM_SEEDS=N runs so many seeds instead of a few thousand; SIM_SEED=N runs this one, the same each
// time. One that fails prints the last 50 steps, or SIM_TRACE=N.
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "executor.h"
#include "programs.h"

using namespace undergo;

namespace {

constexpr uint64_t kSeeds = 3000;
uint64_t running = 0;

void OnCrash(int sig) {
  fprintf(stderr, "seed %lu: signal %d; SIM_SEED=%lu runs it again\n", running, sig, running);
  sim::Explain();
  _exit(1);
}

void WatchForCrashes() {
  static char stack[64 * 1024];
  stack_t alt = {};
  alt.ss_sp = &stack[0];
  alt.ss_size = sizeof stack;
  sigaltstack(&alt, nullptr);
  struct sigaction action = {};
  action.sa_handler = OnCrash;
  action.sa_flags = SA_ONSTACK | SA_RESETHAND;
  for (int sig : {SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE}) sigaction(sig, &action, nullptr);
}

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = getenv(name);
  return text != nullptr ? strtoull(text, nullptr, 10) : otherwise;
}

}  // namespace

Test(sched_simulation, no_interleaving_loses_a_wake_up) {
  WatchForCrashes();
  uint64_t only = FromEnvironment("SIM_SEED", 0);
  uint64_t last = only != 0 ? only : FromEnvironment("SIM_SEEDS", kSeeds);
  for (running = only != 0 ? only : 1; running <= last; ++running) {
    const char* wrong = sim::RunSeed(running);
    if (wrong == nullptr) continue;
    fprintf(stderr, "seed %lu: %s; SIM_SEED=%lu runs it again\n", running, wrong, running);
    sim::Explain();
    cr_assert_fail("seed %lu: %s", running, wrong);
  }
}
