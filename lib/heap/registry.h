// SPDX-License-Identifier: Apache-2.0
// All mcaches: which thread has one, which are idle, and what happens to them at thread exit and
// in a forked child.
#pragma once

#include "heap/mcache.h"
#include "heap/mheap.h"
#include "sync/mutex.h"

namespace undergo::heap {

// Gives the running thread an mcache; null when there is no memory for one. BusyScope held.
MCache* AttachThread();
// Takes the mcache of the running thread back for good; later requests of the thread are served by
// the late heap. Called when the thread ends.
void DetachThread();
// Called after the first allocation of each thread but the first; set by boot so that thread exit
// can be noticed.
using AttachHook = void (*)();
extern constinit AttachHook on_thread_attached;

// Makes spans available that others' threads own and a third thread emptied, so that the memory of
// a thread that sleeps for ever is not lost. Returns slices released. BusyScope held, no heap lock.
size_t ReclaimFromOthers();

// Everything that can be had without the help of other threads: the caller's own cache (its lock
// must not be held), what others' caches do not need, and empty spans between owners.
void ReclaimAll();

// A span from the page heap; before the heap grows for it, what others do not need is reclaimed.
// BusyScope held; the caller may hold the lock of its own mcache.
Span* AllocSpanOrReclaim(uint32_t slices, uint32_t align_slices, SpanUse use, bool* zeroed);

// As ReclaimFromOthers for the mcaches that no thread has now; cheap when there is nothing to do.
// True when spans may have become available. The caller may hold the lock of its own mcache.
bool ReclaimFromIdle();

// First of the list of all mcaches; follow all_next.
MCache* FirstMCache();

// fork(): no other thread may hold a heap lock while the process is copied. The three handlers.
void LockAllForFork();
void UnlockAllInParent();
void ResetAllInChild();

}  // namespace undergo::heap
