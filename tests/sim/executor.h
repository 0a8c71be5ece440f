// SPDX-License-Identifier: Apache-2.0
// Simulated kernel threads, their clock, their store buffers and their kernel.
//
// One at a time runs, on its own stack, until a point (tests/sim/hooks.h) at which the seed says
// that another one goes on. So a seed is an interleaving, and running it again is the same run.
#pragma once

#include "base/types.h"
#include "heap/thread_words.h"

namespace undergo::sched {
struct M;
}

namespace undergo::sim {

enum class State : uint8_t { kUnused, kReady, kFutex, kPoll, kInCall, kDone };

struct BufferedStore {
  void* at;
  size_t size;
  uint64_t old, value;
  uint64_t since;  // ns
};

// As on x86: a store becomes visible some time after it was made, all of a thread in their order,
// and not long after: a processor does not keep it while it computes, nor when it is taken away.
// While the thread runs they are in memory; what is not to be seen yet is taken back meanwhile.
inline constexpr uint32_t kBuffered = 12;

struct Thread {
  State state;
  Addr sp;
  heap::ThreadWords own_words;  // as in the thread block that libc made for it
  heap::ThreadWords* words;     // the running ones, while another thread runs
  const uint32_t* futex;
  uint64_t until;   // ns; end of its sleep, 0: none
  bool timed_out;   // how the last sleep ended
  uint64_t frozen;  // ns; gets no CPU before that
  uint64_t cpu_ns;
  sched::M* m;  // null: not an M
  bool traced;
  bool preempted;  // somebody asked for that, and it was not heard yet
  BufferedStore stores[kBuffered];
  uint32_t stored;
  void (*start)(void*);
  void* arg;
};

// --- the run ---

// Forgets all threads.
void Begin(uint64_t seed);
Thread* Spawn(void (*start)(void*), void* arg, sched::M* m);
// Until End() or Fail().
void Run();
// The simulation is over. From a simulated thread: does not return.
[[noreturn]] void End();
[[noreturn]] void Fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
// From outside of threads.
void NoteFailure(const char* text);
const char* Failure();  // null: none
void PrintTrace();

// --- for simulated threads ---

Thread* Running();
long Index(const Thread* t);          // as in the trace
Thread* ThreadOf(const sched::M* m);  // null: none
uint64_t Now();
uint64_t Random();
inline uint64_t Random(uint64_t below) { return Random() % below; }
// In the kernel, `until` (ns; 0: none). True when the time was over.
bool Block(State state, const uint32_t* futex, uint64_t until);
void Unblock(Thread* t);
// A thread that is blocked so, or null.
Thread* FindBlocked(State state);

// No points: as if it were one instruction of the simulated machine.
class Instruction {
 public:
  Instruction();
  ~Instruction();
  Instruction(const Instruction&) = delete;
  Instruction& operator=(const Instruction&) = delete;
};

// Called now and then, as an Instruction, also when time passes because all threads sleep.
extern void (*on_check)();

}  // namespace undergo::sim
