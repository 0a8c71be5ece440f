// SPDX-License-Identifier: Apache-2.0
// What lies around the scheduler in the simulation: Ms on simulated threads, Gs with stacks,
// descriptors, and what must be true of all of it at any time.
#pragma once

#include "executor.h"
#include "sched/park.h"
#include "sched/sched.h"

namespace undergo::sim {

inline constexpr uint32_t kMostGs = 12;
inline constexpr uint32_t kMostPlain = 2;
inline constexpr uint32_t kDevices = 16;  // one for each thread

// Nothing runs yet; `procs` Ps, one M, sysmon.
void BuildMachine(uint32_t procs);
// A runnable G, and a thread of the program without one.
sched::G* NewG(void* (*program)(void*), void* arg);
void NewPlainThread(void* (*program)(void*), void* arg);
void StartMachine();
// After the run: every P, M and G is where it has to be. Null, or what is wrong.
const char* CheckRest();
void PrintMachine();
// The programs get on.
void Progress();

sched::M* AnyM();

// Descriptors that count: a reader waits until somebody has written.
void DeviceWrite(uint32_t device);
void DeviceRead(uint32_t device);  // one reader at a time

}  // namespace undergo::sim
