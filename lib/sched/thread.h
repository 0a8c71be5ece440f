// SPDX-License-Identifier: Apache-2.0
// Threads of the program as Gs: begin, end, join.
#pragma once

#include <pthread.h>

#include "sched/g.h"
#include "world/world.h"

namespace undergo::sched {

// What pthread_create was asked for.
struct ThreadRequest {
  void* (*start)(void*);
  void* arg;
  bool c11;
  bool detached;
  size_t stack_size;  // bytes, without guard
  size_t guard_size;  // bytes; multiple of the page size
  Addr stack;         // lowest address of the program's own stack; 0: none
  int policy, priority;
  bool has_mask;  // else it inherits its maker's
  uint64_t mask;  // signals that it blocks from the beginning
};

// Starts the scheduler if it does not run: the calling thread becomes a G if it is the main thread.
// False when threads have to stay kernel threads; the reason was printed once if it is not the
// user's wish.
bool StartScheduler();
// Settings, before the first StartScheduler. 0 procs: never start.
void Configure(int procs);
void StayKernelThreads(const char* why);
bool Configured();

// 0 or an error number.
int CreateThread(pthread_t* id, const ThreadRequest& request);
// The G of a thread id: null when it is no thread of ours (a plain thread, or none at all). A
// thread that ended and was joined is none.
G* Find(pthread_t id);
// The G of a kernel-like thread id as gettid() gives it; null when unknown.
G* FindByTid(int tid);
inline pthread_t IdOf(const G* g) { return g->fs; }

// pthread_join and its kin. deadline: monotonic ns, kNever. 0, EDEADLK, EINVAL, ETIMEDOUT, or EINTR
// when the thread was interrupted and should look why.
int Join(G* g, void** result, uint64_t deadline, bool try_only);
int Detach(G* g);

// The number of threads, main included; 0 before the scheduler runs.
uint32_t ThreadCount();
// visit(context, g) for every live thread. Threads may come and go meanwhile.
void ForEachThread(void (*visit)(void* context, G* g), void* context);

// For world::parked_stack.
world::ParkedStack ParkedStackAt(Addr at);

// Ends the running G's part of the process as pthread_exit in main does: others go on.
[[noreturn]] void EndMain();

extern constinit G main_g;

}  // namespace undergo::sched
