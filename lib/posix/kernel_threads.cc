// SPDX-License-Identifier: Apache-2.0
// Starts of kernel threads, so that world/ knows each thread's stack from its first instruction.
//
// The thread begins in a routine of ours, which finds out the stack's bounds, makes the record and
// jumps to the program's routine: no frame of ours remains, so backtraces, cancellation and
// pthread_exit are as without us. What it needs travels in an object of the program's heap, whose
// only pointer is the argument that glibc keeps in the new thread's block: a root like any other.
// Threads that come to life in other ways are found by world/tasks.cc; then their bounds are not
// known, which costs precision, not safety.
#include <errno.h>

#include "heap/fastpath.h"
#include "posix/posix.h"
#include "world/blocked_call.h"
#include "world/record.h"

namespace undergo::posix {

namespace {

struct Start {
  union {
    void* (*posix)(void*);
    thrd_start_t c11;
  } routine;
  void* arg;
  Addr low, high;  // the stack that the program provided; high 0: glibc made one
  size_t size;     // then its size
};

size_t DefaultStackSize() {
  pthread_attr_t attr;
  size_t size = 0;
  if (pthread_getattr_default_np(&attr) != 0) return 0;
  pthread_attr_getstacksize(&attr, &size);
  pthread_attr_destroy(&attr);
  return size;
}

Start* NewStart(const pthread_attr_t* attr, void* arg) {
  int saved = errno;
  auto* s = static_cast<Start*>(heap::Malloc(sizeof(Start)));
  errno = saved;
  if (s == nullptr) return nullptr;
  *s = {};
  s->arg = arg;
  void* low = nullptr;
  if (attr != nullptr && pthread_attr_getstack(attr, &low, &s->size) == 0) {
    s->low = reinterpret_cast<Addr>(low);
    s->high = s->low + s->size;  // 0 when no address was set
  }
  if (s->size == 0) s->size = DefaultStackSize();
  return s;
}

// The new thread's first steps. glibc puts the thread block at the top of the stack that it makes,
// and a guard of unknown size below.
void Begin(const Start& s) {
  constexpr size_t kBlock = 2 * kKiB;  // part of the thread block above the thread pointer
  Addr tp = reinterpret_cast<Addr>(__builtin_thread_pointer());
  Addr low = s.low;
  Addr high = s.high;
  if (high == 0) {
    high = AlignUp(tp + kBlock, kOsPageSize);
    low = high + kOsPageSize - Min(s.size, high);
  }
  Addr here = reinterpret_cast<Addr>(__builtin_frame_address(0));
  if (here <= low || here >= high) low = high = 0;  // not as we think: unknown
  world::ThreadStarted(low, high);
  WatchThreadExit();
}

void* BeginPosix(void* p) {
  auto* s = static_cast<Start*>(p);
  Begin(*s);
  auto routine = s->routine.posix;
  void* arg = s->arg;
  heap::Free(s);
  return routine(arg);
}

int BeginC11(void* p) {
  auto* s = static_cast<Start*>(p);
  Begin(*s);
  auto routine = s->routine.c11;
  void* arg = s->arg;
  heap::Free(s);
  return routine(arg);
}

}  // namespace

int CreateKernelThread(pthread_t* thread, const pthread_attr_t* attr, void* (*routine)(void*),
                       void* arg) {
  Start* s = world::publishing ? NewStart(attr, arg) : nullptr;
  if (s == nullptr) return real::pthread_create(thread, attr, routine, arg);
  s->routine.posix = routine;
  int error = real::pthread_create(thread, attr, BeginPosix, s);
  if (error != 0) heap::Free(s);
  return error;
}

int CreateKernelThread(thrd_t* thread, thrd_start_t routine, void* arg) {
  Start* s = world::publishing ? NewStart(nullptr, arg) : nullptr;
  if (s == nullptr) return real::thrd_create(thread, routine, arg);
  s->routine.c11 = routine;
  int error = real::thrd_create(thread, BeginC11, s);
  if (error != thrd_success) heap::Free(s);
  return error;
}

}  // namespace undergo::posix
