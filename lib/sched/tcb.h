// SPDX-License-Identifier: Apache-2.0
// True glibc thread blocks for Gs: struct pthread, static TLS and dtv, without a kernel thread.
//
// Everything in libc that belongs to a thread (errno, locale, thread-local variables, keys,
// cancellation, the owner of a mutex) is reached through the thread pointer, so a G with a block of
// its own behaves like a thread because to libc it is one.
#pragma once

#include <pthread.h>

#include "sched/g.h"

namespace undergo::sched {

// Offsets in struct pthread of glibc 2.36.
inline constexpr size_t kPthreadSize = 2368;

// Looks up what is needed of libc and compares what can be compared with the layout that this code
// knows. Null, or why threads have to stay kernel threads.
const char* CheckLibc();
// The running thread, just made by libc, is the pattern for all blocks. After CheckLibc.
const char* TakePattern();
// The kernel forgets the running thread's rseq area, which lies in its block: blocks move from one
// kernel thread to another.
void DropRseq();

// Bytes above the stack of a slot: static TLS and struct pthread.
size_t BlockSize();

// Makes the block of a new slot, or makes that of a used one new: sets fs, words, tid. False when
// there is no memory. Not in the scheduler: it takes locks of libc.
bool MakeBlock(G* g);
// Tells libc the bounds of the stack, the start routine and whether the thread is detached.
void DescribeThread(G* g);
// Libc's functions answer ESRCH for this thread from now on.
void ForgetThread(G* g);
// In a forked child that libc did not make: its list of blocks holds the running thread's alone.
void ResetBlockList();
// A thread of libc's ends; true for the last one.
bool LastOfLibc();
// First of all on the new thread.
void InitLibcOnThread();
// Destructors of thread-local variables and of keys, at the thread's end.
void RunDestructors();

// Fields of a block.
template <typename T>
inline T* Field(Addr block, size_t offset) {
  return reinterpret_cast<T*>(block + offset);
}
inline int* TidField(Addr block) { return Field<int>(block, 720); }
inline void** ResultField(Addr block) { return Field<void*>(block, 1576); }
inline uint32_t* CancelField(Addr block) { return Field<uint32_t>(block, 776); }
// Bits of it.
inline constexpr uint32_t kCancelDisabled = 1u << 0, kCancelAsync = 1u << 1, kCanceling = 1u << 2,
                          kCanceled = 1u << 3, kExiting = 1u << 4, kTerminated = 1u << 5;
// The chain of landing places of pthread_exit and of cancellation.
inline void** UnwindField(Addr block) { return Field<void*>(block, 768); }
inline void** RobustHeadField(Addr block) { return Field<void*>(block, 736); }

// libc's own, exported for its parts.
extern "C" {
void __pthread_register_cancel(__pthread_unwind_buf_t* buf);
void __pthread_unregister_cancel(__pthread_unwind_buf_t* buf);
}

}  // namespace undergo::sched
