// SPDX-License-Identifier: Apache-2.0
// The list of robust mutexes that a thread holds, in its glibc block: what the kernel does with it
// when a thread dies has to be done here for a G.
#pragma once

#include <pthread.h>

#include "sched/g.h"

namespace undergo::sched {

// The running thread has locked the mutex; is about to unlock it.
void LinkRobust(pthread_mutex_t* m, bool inheriting);
void UnlinkRobust(pthread_mutex_t* m);

// The running G ends: its robust mutexes are marked, who waits for one is woken.
void ReleaseRobust(G* g);

// The running thread is about to lock one that other processes use: from now on it keeps its kernel
// thread, and the kernel knows its list.
void PinForRobust();

}  // namespace undergo::sched
