// SPDX-License-Identifier: Apache-2.0
// Stopping the world.
//
// Problem: in somebody else's process stop every thread at an instruction where its registers and
// stack are known, so that no system call of the program returns early and nothing can hang.
//
// Two ways to be stopped:
//  * A thread in a wrapped blocking call (blocked_call.h) has published its stack pointer. It
//  counts
//    as stopped without a signal, so the call never sees one; if it returns meanwhile, it waits.
//    The wrapper only stores and then looks at `undergo_world_stopping`; the stopper sets that
//    word, lets the kernel put a memory barrier on all running threads (membarrier) and then reads
//    what they published. Either the stopper sees the stack pointer, or the thread sees the stop.
//  * All others get a signal. The handler notes the kernel's frame and waits; inside a slow path of
//    the heap (`busy`) it only sets `stop_pending`, and the thread stops at the end of that.
//
// An answer is a compare-and-swap on the record's state, which holds the number of the stop, and
// one less in `pending`, which holds it too: an answer that comes after the stop was given up
// changes nothing. When all have answered, the number of threads that the kernel counts must be
// the number of records; else the list is read, and again until nothing changes: only then nobody
// is left who could make a thread. A thread that does not answer in time (signal blocked by a raw
// system call, uninterruptible sleep) makes the stop fail: everybody runs again. On a machine with
// too much to do that would often be for nothing: a thread that is runnable but gets no CPU
// executes nothing meanwhile, and stops when it gets one.
//
// Waiting: a few microseconds of spinning, because threads on other CPUs answer within that time,
// then a futex, because those on this CPU need it.
//
// Rejected: a lock prefix in the wrappers instead of the barrier (two of them cost more than the
// rest of the wrapper), ptrace from a helper process (often denied), SIGSTOP-like freezing by
// cgroup (not ours to use), reading registers from /proc/self/task/N/syscall (lacks most of them).
// Sources: the handshake of bdwgc and of the JVMs; membarrier(2); signal(7).
#include "world/stop.h"

#include <errno.h>
#include <limits.h>
#include <linux/membarrier.h>
#include <time.h>

#include "base/assert.h"
#include "plat/futex.h"
#include "plat/maps.h"
#include "plat/syscall.h"
#include "plat/thread.h"
#include "world/foreign.h"
#include "world/remote_call.h"
#include "world/world.h"

extern "C" {
constinit uint32_t undergo_world_stopping = 0;
}

namespace undergo::world {

constinit ParkedHook parked_stack = nullptr;

namespace {

constexpr int kCountBits = 20;
constexpr uint32_t kCountMask = (1u << kCountBits) - 1;
constexpr uint64_t kFirstLookNs = 200'000;  // how late an answer is before /proc is asked about it
constexpr uint64_t kLastLookNs = 5'000'000;
constexpr uint64_t kPatienceStepNs = 5'000'000;  // between looks at those who wait for a CPU
constexpr int kSpins = 100;
constexpr int kMaxWorkers = 256;

constinit uint32_t stop_number = 0;  // the stopper
constinit uint32_t pending = 0;      // number << kCountBits | answers missing; a futex
constinit uint32_t start_count = 0;  // counts starts of the world; a futex for those who wait
constinit uint64_t last_stop_ns = 0;
constinit int stopper_tid = 0;
constinit bool stopped = false;
constinit uint64_t stopper_mask = 0;      // its signal mask before the stop
constinit bool tracking = false;          // atomic; all that StartTracking does is done
constinit int workers[kMaxWorkers] = {};  // thread ids, 0: free

uint64_t NowNs() {
  struct timespec t;
  if (clock_gettime(CLOCK_MONOTONIC, &t) != 0) return 0;
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

// --- one thread ---

void ForgetRequest(Record* r) {
  uint32_t state = LoadAcquire(&r->state);                                   // pairs: AnswerStop
  if (ModeOf(state) == kRequested && CasAcqRel(&r->state, &state, kIdle)) {  // pairs: AnswerStop
    FetchAddRelaxed(&pending, ~0u);
  }
}

void Send(Record* r) {
  long e = SendStopSignal(r);
  r->send_failed = plat::IsError(e);  // EAGAIN: too many queued signals; ESRCH shows later
  if (r->send_failed) StoreRelaxed(&r->signalled, 0u);
}

void Request(Record* r) {
  r->by = StoppedBy::kNothing;
  if (r->kind != RecordKind::kThread || r->tid == stopper_tid) return;
  r->frame = nullptr;
  r->frame_size = 0;
  Addr sp = LoadAcquire(&r->blocked_sp);  // pairs: blocked_call.S, LeaveSlow
  if (sp != 0) {
    r->by = StoppedBy::kBlockedCall;
    r->sp = sp;
    r->pc = 0;
    return;
  }
  r->by = StoppedBy::kItself;
  FetchAddRelaxed(&pending, 1u);
  StoreRelease(&r->state, stop_number << kNumberShift | kRequested);  // pairs: OnStopSignal
  if (ExchangeAcqRel(&r->signalled, 1u) == 0) {                       // pairs: OnStopSignal
    r->ran_ns = 0;
    Send(r);
  }
}

// Looks after those who have not answered for a while.
void LookAfterLate() {
  bool replaced = EnsureHandler();  // then signals were swallowed by the other handler
  for (Record* r = first_record; r != nullptr;) {
    Record* next = r->next;
    if (ModeOf(LoadAcquire(&r->state)) == kRequested) {  // pairs: AnswerStop
      Fate fate = FateOf(r);
      if (fate != Fate::kAlive) ForgetRequest(r);
      if (fate == Fate::kNoUserCode) r->kind = RecordKind::kNoUserCode;
      if (fate == Fate::kNoUserCode) r->by = StoppedBy::kNothing;
      if (fate == Fate::kGone) {
        DropRecord(r);
      } else if (fate == Fate::kAlive && (r->send_failed || replaced)) {
        StoreRelaxed(&r->signalled, 1u);
        Send(r);
      }
    }
    r = next;
  }
}

// --- all threads ---

uint32_t Missing() { return LoadAcquire(&pending) & kCountMask; }  // pairs: AnswerStop

// How long a stop may take.
struct Deadline {
  uint64_t at;    // CLOCK_MONOTONIC in ns
  uint64_t last;  // while those who are missing wait for a CPU
};

// The time is over. Threads that wait for a CPU stop as soon as they get one, and stopping again
// later would only meet others that wait: so they get more time, up to the last.
bool Extend(Deadline* d, uint64_t now) {
  if (now >= d->last) return false;
  for (Record* r = first_record; r != nullptr; r = r->next) {
    if (ModeOf(LoadAcquire(&r->state)) == kRequested && !WaitsForCpu(r))
      return false;  // pairs: AnswerStop
  }
  d->at = Min(now + kPatienceStepNs, d->last);
  return true;
}

bool AwaitAnswers(Deadline* d) {
  for (int i = 0; i < kSpins; ++i) {
    if (Missing() == 0) return true;
    CpuRelax();
  }
  uint64_t look = kFirstLookNs;
  for (;;) {
    uint32_t seen = LoadAcquire(&pending);  // pairs: AnswerStop
    if ((seen & kCountMask) == 0) return true;
    uint64_t now = NowNs();
    if (now >= d->at && !Extend(d, now)) return false;
    uint64_t wait = Min(look, Max(d->at, now + 1) - now);
    struct timespec t = {0, static_cast<long>(wait)};
    long e = plat::Syscall(__NR_futex, &pending, 128 /* WAIT | PRIVATE */, seen, &t);
    if (e != -ETIMEDOUT) continue;
    LookAfterLate();
    look = Min(look * 2, kLastLookNs);
  }
}

// Threads that the kernel should count if we know all.
long Expected() {
  long n = record_count + plat::OwnThreadCount() + ForeignWorkerCount();
  bool counted = FindRecord(stopper_tid) != nullptr || IsWorker(stopper_tid);
  return counted ? n : n + 1;
}

bool AwaitAll(Deadline* d) {
  while (AwaitAnswers(d)) {
    long count = TaskCount();
    if (count < 0) return false;
    if (count == Expected()) return true;
    if (NowNs() >= d->at || !ListTasks(Request)) return false;
    if (Missing() == 0 && TaskCount() != Expected()) plat::Syscall(__NR_sched_yield);
  }
  return false;
}

void Release() {
  stopped = false;
  FetchAndAcqRel(&undergo_world_stopping, ~kStopping);  // pairs: WaitForStart
  for (Record* r = first_record; r != nullptr; r = r->next) {
    if (LoadRelaxed(&r->state) != kIdle) ExchangeAcqRel(&r->state, kIdle);  // pairs: AnswerStop
  }
  FetchAddAcqRel(&start_count, 1u);  // pairs: AnswerStop, WaitForStart
  plat::FutexWake(&start_count, INT_MAX);
  uint64_t mask = stopper_mask;
  records_lock.Unlock();
  SetSignalMask(mask);
}

// No handler of the program runs on the stopper before the world starts: it might wait for it.
bool LockRecords(uint64_t deadline) {
  uint64_t before = SetSignalMask(kAllButStopSignal);
  while (!records_lock.TryLock()) {
    if (NowNs() >= deadline) {
      SetSignalMask(before);
      return false;
    }
    plat::Syscall(__NR_sched_yield);
  }
  stopper_mask = before;
  return true;
}

// From here on every thread either shows that it is blocked or sees that the world stops. False
// when the kernel refuses the barrier, which it did not before: then the next stop does without.
bool Barrier() {
  __atomic_fetch_or(&undergo_world_stopping, kStopping, __ATOMIC_SEQ_CST);  // pairs: blocked_call.S
  if ((undergo_world_stopping & kNeedFence) != 0) return true;
  if (!plat::IsError(plat::Syscall(__NR_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0))) {
    return true;
  }
  __atomic_fetch_or(&undergo_world_stopping, kNeedFence, __ATOMIC_SEQ_CST);
  return false;
}

bool FindMainStack(void* context, const plat::Mapping& m) {
  auto* r = static_cast<Record*>(context);
  Addr top = r->own_low + r->own_size;
  if (top < m.start || top >= m.end) return true;
  r->stack_low = r->own_low;
  r->stack_high = m.end;
  return false;
}

void OnBusyEnd() {
  __builtin_unwind_init();  // callee-saved registers onto the stack
  StopHere();
}

}  // namespace

bool AnswerStop(Record* r, uint32_t state) {
  uint32_t answer = (state & ~uint32_t{kModeBits}) | kStopped;
  if (!CasAcqRel(&r->state, &state, answer)) return false;  // pairs: Request, Release
  uint32_t number = (answer >> kNumberShift) & (~0u >> kCountBits);
  uint32_t seen = LoadAcquire(&pending);  // pairs: AwaitAnswers
  while (seen >> kCountBits == number) {
    if (!CasAcqRel(&pending, &seen, seen - 1)) continue;  // pairs: AwaitAnswers
    if ((seen & kCountMask) == 1) plat::FutexWake(&pending, 1);
    break;
  }
  for (;;) {
    uint32_t starts = LoadAcquire(&start_count);        // pairs: Release
    if (LoadAcquire(&r->state) != answer) return true;  // pairs: Release
    plat::FutexWait(&start_count, starts);
  }
}

void WaitForStart() {
  for (;;) {
    uint32_t starts = LoadAcquire(&start_count);                          // pairs: Release
    if ((LoadAcquire(&undergo_world_stopping) & kStopping) == 0) return;  // pairs: Release
    plat::FutexWait(&start_count, starts);
  }
}

void StopHere() {
  heap::ThreadWords& words = heap::thread_words;
  words.stop_pending = 0;
  auto* r = static_cast<Record*>(words.record);
  // The handler has set both when it set stop_pending, except in a forked child.
  if (r == nullptr || r->words != &words) return;
  uint32_t state = LoadAcquire(&r->state);  // pairs: Request
  if (ModeOf(state) != kRequested) return;
  // No handler of the program may run while this thread counts as stopped.
  uint64_t before = CurrentSignalMask();
  SetSignalMask(before | MaskWhileStopped());
  r->frame = nullptr;
  r->frame_size = 0;
  // The registers of the callers lie in this function's frame, below its frame address.
  __builtin_unwind_init();
  asm volatile("leaq (%%rip), %0; movq %%rsp, %1; movq %%rbp, %2"
               : "=&r"(r->pc), "=&r"(r->sp), "=&r"(r->bp));
  AnswerStop(r, state);
  SetSignalMask(before);
}

StopResult StopTheWorld(uint64_t budget_ns, uint64_t patience_ns) {
  UNDERGO_CHECK(LoadRelaxed(&tracking));
  uint64_t start = NowNs();
  last_stop_ns = 0;
  Deadline deadline = {start + budget_ns, start + patience_ns};
  if (WhoseMemory() == Whose::kCopy) AfterForkInChild();
  if (ForeignLives()) return StopResult::kGaveUp;
  if (!LockRecords(deadline.at)) return StopResult::kGaveUp;
  stopper_tid = static_cast<int>(plat::Syscall(__NR_gettid));
  if (EnsureHandler()) {
    // Signals that are still under way were swallowed.
    for (Record* r = first_record; r != nullptr; r = r->next) StoreRelaxed(&r->signalled, 0u);
  }
  TaskCount();  // looks the folder up, which takes ten times as long as it does again below
  ++stop_number;
  // One more than the answers that are missing, until all are asked.
  StoreRelease(&pending, stop_number << kCountBits | 1u);  // pairs: AnswerStop
  start = NowNs();
  bool all = Barrier();
  if (all) {
    for (Record* r = first_record; r != nullptr; r = r->next) Request(r);
    FetchAddRelaxed(&pending, ~0u);
    all = AwaitAll(&deadline);
  }
  last_stop_ns = NowNs() - start;
  if (!all) {
    Release();
    return StopResult::kGaveUp;
  }
  stopped = true;
  return StopResult::kStopped;
}

void StartTheWorld() {
  UNDERGO_CHECK(stopped);
  Release();
}

void ForEachStopped(void (*visit)(void* context, const StoppedThread& t), void* context) {
  UNDERGO_CHECK(stopped);
  for (Record* r = first_record; r != nullptr; r = r->next) {
    if (r->by == StoppedBy::kNothing) continue;
    StoppedThread t = {r->tid,           r->sp, 0,    0, r->frame, r->frame_size, r->altstack,
                       r->altstack_size, r->pc, r->bp};
    if (r->sp >= r->stack_low && r->sp < r->stack_high) {
      t.stack_low = r->stack_low;
      t.stack_high = r->stack_high;
    }
    visit(context, t);
  }
}

uint64_t LastStopNs() { return last_stop_ns; }
uint32_t ThreadCount() { return LoadRelaxed(&record_count); }
bool IsStopped() { return stopped; }

void StartTracking() {
  if (LoadAcquire(&tracking)) return;  // pairs: below
  // Who comes second waits: the scheduler must not put another thread in the place of the main one
  // before the bounds of its stack are known.
  SignalsOff off;
  sync::MutexLock hold(records_lock);
  if (LoadRelaxed(&tracking)) return;
  if (process_id == 0) process_id = static_cast<int>(plat::Syscall(__NR_getpid));
  PrepareSignals();
  heap::on_busy_end = OnBusyEnd;
  if (plat::IsError(
          plat::Syscall(__NR_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0))) {
    // A thread that is between its store and its look now is over that long before the first stop.
    undergo_world_stopping |= kNeedFence;
  }
  Record* main = FindRecord(process_id);
  if (main != nullptr && main->own_size != 0) plat::ForEachMapping(FindMainStack, main);
  EnsureHandler();
  StoreRelease(&tracking, true);  // pairs: above
}

void RegisterWorker(int tid) {
  for (int& w : workers) {
    int none = 0;
    if (CasAcqRel(&w, &none, tid)) return;  // pairs: UnregisterWorker
  }
}

void UnregisterWorker(int tid) {
  for (int& w : workers) {
    if (LoadRelaxed(&w) == tid) StoreRelease(&w, 0);  // pairs: RegisterWorker
  }
}

uint32_t ForeignWorkerCount() {
  uint32_t n = 0;
  for (const int& w : workers) {
    int tid = LoadRelaxed(&w);
    n += tid != 0 && !plat::IsOwnThread(tid);
  }
  return n;
}

bool IsWorker(int tid) {
  for (const int& w : workers) {
    if (LoadRelaxed(&w) == tid) return true;
  }
  return plat::IsOwnThread(tid);
}

void AfterForkInChild() {
  undergo_world_stopping &= ~kStopping;
  stopped = false;
  remote_call_lock.ResetAfterFork();
  heap::thread_words.stop_pending = 0;
  for (int& w : workers) w = 0;
  plat::ForgetOwnThreads();
  ResetRecords();
  MarkOwnMemoryAgain();
}

}  // namespace undergo::world
