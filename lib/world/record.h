// SPDX-License-Identifier: Apache-2.0
// One record for each kernel thread of the program.
//
// A record is made by the thread itself (at its start under the pthread_create wrapper, or at its
// first wrapped blocking call) or by the stopper, which finds threads that nobody announced in
// /proc/self/task. Records live in memory that is never unmapped, so that the stopper can look at
// one whose thread has died; they are linked and unlinked under `records_lock`, which the stopper
// holds from the beginning of a stop to its end.
#pragma once

#include "base/atomic.h"
#include "base/types.h"
#include "heap/thread_words.h"
#include "plat/syscall.h"
#include "sync/mutex.h"

namespace undergo::world {

enum class RecordKind : uint8_t {
  kThread,
  kNoUserCode,  // workers of the kernel, a main thread that has ended: counted, never stopped
};

// Mode of a thread in a stop, the low bits of Record::state; above them the number of the stop.
//   kIdle -> kRequested       the stopper
//   kRequested -> kStopped    the thread: its answer
//   any -> kIdle              the stopper: the world starts, or the stop is given up
enum Mode : uint32_t { kIdle = 0, kRequested = 1, kStopped = 2, kModeBits = 3 };
constexpr int kNumberShift = 2;

enum class StoppedBy : uint8_t { kNothing, kBlockedCall, kItself };

struct alignas(64) Record {
  // Read by x86_64/blocked_call.S. The stack pointer in a wrapped blocking call, 0 outside of one.
  // Written by the thread alone; the stopper reads it after its barrier.
  Addr blocked_sp;
  // The stack whose addresses prove that the running thread is this one and not another that
  // borrows its thread block; size 0: unknown. Written by the thread at its start.
  Addr own_low;
  size_t own_size;  // 0 also while a child of vfork uses stack and block (vfork.S)

  uint32_t state;      // number << kNumberShift | Mode
  uint32_t signalled;  // 1: a stop signal was sent and has not been handled
  int tid;             // 0: record not in use
  RecordKind kind;     // records_lock
  StoppedBy by;        // of the running stop; records_lock
  bool send_failed;    // records_lock; the signal is to be sent again
  bool borrows_block;  // the thread runs on the thread block of another; written by its handler
  uint64_t ran_ns;     // records_lock; CPU time when it was first late with this signal; 0: was not
  uint32_t seen;       // number of the enumeration that found it; records_lock
  heap::ThreadWords* words;  // its own, null when it is not known to have any. Written by itself

  Addr stack_low, stack_high;  // 0: unknown. Written by itself or under records_lock
  Addr altstack;               // written by itself; 0: none or unknown
  size_t altstack_size;

  // Of the running stop; written before the answer, or by the stopper.
  Addr sp;
  Addr pc, bp;  // of a thread that stopped by itself, with sp; pc 0: the frame of blocked_call.S
  const void* frame;
  size_t frame_size;

  Record* next;  // records_lock
  Record* prev;
  Record* chain;  // in its hash bucket; records_lock
};

constexpr uint64_t kAllButStopSignal = ~(uint64_t{1} << (33 - 1));
// Returns the mask before.
inline uint64_t SetSignalMask(uint64_t mask) {
  uint64_t before = 0;
  plat::Syscall(__NR_rt_sigprocmask, 2 /* SETMASK */, &mask, &before, sizeof mask);
  return before;
}

inline uint64_t CurrentSignalMask() {
  uint64_t mask = 0;
  plat::Syscall(__NR_rt_sigprocmask, 0 /* BLOCK */, nullptr, &mask, sizeof mask);
  return mask;
}

// Keeps the handlers of the program off the thread, which may wait for a lock of ours or hold it.
// The stop signal still comes.
class SignalsOff {
 public:
  SignalsOff() : before_(SetSignalMask(kAllButStopSignal)) {}
  ~SignalsOff() { SetSignalMask(before_); }
  SignalsOff(const SignalsOff&) = delete;
  SignalsOff& operator=(const SignalsOff&) = delete;

 private:
  uint64_t before_;
};

inline uint32_t ModeOf(uint32_t state) { return state & kModeBits; }

extern constinit sync::Mutex records_lock;
extern constinit Record* first_record;   // records_lock
extern constinit uint32_t record_count;  // records_lock for writers
extern constinit int process_id;         // of the process that the records belong to

// All with records_lock held.
Record* FindRecord(int tid);
Record* NewRecord(int tid);  // null when there is no memory
void DropRecord(Record* r);

// Whether an address that came with a signal is that of a record.
bool IsRecord(const void* p);

// The running thread's record if it has one and is not a borrower of its thread block; one is made
// if the thread has none. Null: the thread cannot publish anything now.
Record* OwnRecord();

// Bounds for the thread that started the process, from its stack's top.
void RecordMainThread();

// A new thread with these bounds of its stack; its end. Called by the thread itself.
void ThreadStarted(Addr stack_low, Addr stack_high);
void ThreadEnded();
// The alternate stack of the calling thread.
void SetAltStack(Addr low, size_t size);

// Called when a thread got its record outside of ThreadStarted, so that its end can be noticed.
using AdoptedHook = void (*)();
extern constinit AdoptedHook on_thread_adopted;

// In a forked child, no other thread exists.
void ResetRecords();

}  // namespace undergo::world
