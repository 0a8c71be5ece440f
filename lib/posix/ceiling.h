// SPDX-License-Identifier: Apache-2.0
// Priority ceilings of mutexes: who holds one runs at least at its ceiling.
#pragma once

#include <pthread.h>

namespace undergo::posix {

inline constexpr int kCeilingShift = 19;  // of the word of a protecting mutex

// All for the calling thread. An error number: EINVAL, as libc, for a thread without a real-time
// policy or above the ceiling; or the kernel's. On success the thread is raised.
int RaiseTo(int ceiling);
// The mutex, whose word is taken, counts from now on. Its ceiling may have changed meanwhile.
void HoldCeiling(pthread_mutex_t* m);
// Not any more; the priority stays until the next call. False: it did not count.
bool DropCeiling(pthread_mutex_t* m);
// The priority becomes what the held mutexes want.
void SettlePriority();

// What the thread's own priority is, and becomes, while a ceiling raises it. False: none does.
bool BasePriority(const void* words, int* priority);
// The one to tell the kernel.
int SetBasePriority(void* words, int priority);

}  // namespace undergo::posix
