// SPDX-License-Identifier: Apache-2.0
// stress=stop: a thread that stops and starts the world every 200 microseconds, from start on.
#include "boot/stress.h"

#include <time.h>

#include "base/fmt.h"
#include "boot/options.h"
#include "plat/log.h"
#include "plat/syscall.h"
#include "plat/thread.h"
#include "world/world.h"

namespace undergo::boot {

namespace {

constexpr uint64_t kBudgetNs = 1'000'000'000;
constexpr long kPauseNs = 200'000;

void StopAndStart(void*) {
  for (;;) {
    if (world::StopTheWorld(kBudgetNs) == world::StopResult::kStopped) world::StartTheWorld();
    struct timespec pause = {0, kPauseNs};
    plat::Syscall(__NR_nanosleep, &pause, nullptr);
  }
}

}  // namespace

void StartStress() {
  if (options.stress != StressMode::kStop) return;
  world::EnablePublishing();
  world::StartTracking();
  long tid = plat::SpawnThread(StopAndStart, nullptr, "undergo-stress");
  if (tid > 0) return;
  char line[100];
  Fmt out(line, sizeof line);
  out.Str("undergo: stress=stop: no thread, error ").Dec(static_cast<uint64_t>(-tid)).Char('\n');
  plat::LogWrite(out.text(), out.length());
}

}  // namespace undergo::boot
