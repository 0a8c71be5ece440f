// SPDX-License-Identifier: Apache-2.0
// The coordinator's helpers: whoever comes in time takes part, nobody is waited for, and a job that
// is over is never entered.

#include "gc/gang.h"

#include <criterion/criterion.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>

using undergo::gc::Gang;

namespace {

Gang gang;

struct Job {
  std::atomic<int> inside{0}, left{0}, workers{0};
  std::atomic<bool> over{false}, wrong{false};
  std::atomic<uint32_t> seen{0};  // bit i: worker i was here
};

// Items are divided as they are taken.
void Work(void* context, uint32_t i) {
  auto* job = static_cast<Job*>(context);
  if (job->over) job->wrong = true;
  job->inside++;
  job->workers++;
  job->seen |= 1u << i;
  while (job->left.fetch_sub(1) > 0) {
    if (i == 0) sched_yield();
  }
  job->inside--;
}

void RunOne(Job* job, int items) {
  job->left = items;
  gang.Run(Work, job);
  job->over = true;
  cr_assert(job->inside == 0 && !job->wrong && (job->seen & 1) != 0);
  cr_assert(job->workers >= 1);
}

}  // namespace

Test(gang, alone) {
  Job job;
  RunOne(&job, 10);
  cr_expect(gang.size() == 1 && job.workers == 1);
  gang.Stop();
}

Test(gang, helpers_take_part) {
  gang.Start(3);
  cr_assert(gang.size() == 4);
  uint32_t seen = 0;
  for (int i = 0; i < 2000 && seen != 15; ++i) {
    Job job;
    RunOne(&job, 2000);
    seen |= job.seen;
  }
  cr_expect(seen == 15, "workers %x", seen);
  gang.Stop();
  cr_expect(gang.size() == 1);
}

// Jobs so short that helpers come late: a job's context is gone when Run has returned.
Test(gang, late_helpers_stay_out) {
  gang.Start(2);
  for (int i = 0; i < 20000; ++i) {
    Job job;
    RunOne(&job, i % 3);
  }
  gang.Stop();
}

Test(gang, stop_and_start) {
  for (int i = 0; i < 200; ++i) {
    gang.Start(static_cast<uint32_t>(i % 4));
    Job job;
    RunOne(&job, 50);
    gang.Stop();
  }
}
