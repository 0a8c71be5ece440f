// SPDX-License-Identifier: Apache-2.0
// longjmp and its kin.
//
// Problem: a handler that jumps away leaves for good what it interrupted. Natively that may be a
// system call, which is over then, or malloc, which is undefined and yet what shells, interpreters
// and programs with time limits do. Here it may be
//  * a blocking call of the scheduler: it is left early;
//  * a slow path of the heap: a lock would stay taken, and `busy` would send the thread to the late
//    heap for ever; or a request for a collection, which nobody would carry out. So the jump waits.
//    The thread goes back into the slow path by sigreturn, with the mask of the handler, and jumps
//    where the section ends. The handler's frames are lost either way, and at which instruction of
//    malloc the signal came the program cannot tell.
// Handlers in such handlers make a chain of notes, one for each interrupted section (SlowPathNote):
// the jump goes from one to the next.
//
// Rejected: holding handlers back until the section ends (they would be late by a sweep or a purge,
// and most come back), repairing what was left (each lock would need an owner and a log).
#include "posix/jump.h"

#include <setjmp.h>
#include <signal.h>

#include "plat/real.h"
#include "plat/syscall.h"
#include "posix/posix.h"
#include "posix/signal.h"
#include "sched/handoff.h"
#include "sched/masks.h"
#include "sched/sched.h"
#include "sched/thread.h"
#include "world/record.h"

namespace undergo::posix {

namespace {

using Buffer = struct __jmp_buf_tag;

constexpr int kRsp = 6;  // in __jmpbuf, mangled
constexpr int kMangleBits = 17;
constexpr size_t kRegisters = sizeof(__jmp_buf);
constexpr size_t kMaskAt = 9;  // in jump_to; behind the registers and mask_was_saved
static_assert(sizeof heap::thread_words.jump_to == kRegisters + 2 * sizeof(uint64_t));

// Out of a handler: the call that it interrupted is over, the mask is that of the buffer.
void BeforeJump(const Buffer* to) {
  G* g = sched::Active() ? sched::Self() : nullptr;
  if (g == nullptr || g->g0) return;
  bool in_call = heap::thread_words.g == nullptr && g->state != sched::GState::kPinned;
  bool plain = !in_call && to->__mask_was_saved == 0 && LoadRelaxed(&g->handling) == 0;
  if (plain || !IsOnOwnM(g)) return;
  if (g->state == sched::GState::kSyscall) sched::LeaveCallEarly();
  if (g->state == sched::GState::kRunning) heap::thread_words.g = g;
  StoreRelaxed(&g->handling, uint64_t{0});  // it may leave the handler
  if (to->__mask_was_saved == 0) return;
  {
    heap::BusyScope stay;
    uint64_t mask;
    __builtin_memcpy(&mask, &to->__saved_mask, sizeof mask);
    world::SetSignalMask(mask);
    sched::SetMaskOf(g, mask);
    if ((LoadRelaxed(&g->pending) & ~g->mask) != 0) StoreRelaxed(&g->words->deferred, 1u);
  }
  sched::RunDeferred();
}

Addr StackPointerOf(const Buffer* to) {
  uint64_t mangled, guard;
  __builtin_memcpy(&mangled, &to->__jmpbuf[kRsp], sizeof mangled);
  asm("movq %%fs:0x30, %0" : "=r"(guard));
  return (mangled >> kMangleBits | mangled << (64 - kMangleBits)) ^ guard;
}

// Where the kernel's frame lies the handler's own frames are below it. Notes of handlers that were
// left in another way are forgotten.
bool LeavesSlowPath(const Buffer* to) {
  heap::ThreadWords& w = heap::thread_words;
  Addr here = reinterpret_cast<Addr>(__builtin_frame_address(0));
  for (;;) {
    auto* note = static_cast<SlowPathNote*>(w.interrupted);
    if (note == nullptr) return false;
    auto frame = reinterpret_cast<Addr>(note->context());
    if (w.busy + w.in_hook >= note->depth() && here < frame) {
      Addr target = StackPointerOf(to);
      return target < here || target >= frame;
    }
    w.interrupted = note->outer();
  }
}

[[noreturn]] void ReturnTo(ucontext_t* context) {
  asm volatile(
      "movq %0, %%rsp\n\t"
      "movl %1, %%eax\n\t"
      "syscall\n\t"
      "hlt"
      :
      : "r"(context), "i"(__NR_rt_sigreturn)
      : "memory");
  __builtin_unreachable();
}

// Goes on in the slow path that the innermost handler interrupted.
[[noreturn]] void FinishSlowPath(const Buffer* to, int value) {
  heap::ThreadWords& w = heap::thread_words;
  uint64_t before = world::SetSignalMask(~uint64_t{0});
  auto* note = static_cast<SlowPathNote*>(w.interrupted);
  w.interrupted = note->outer();
  w.jump_value = static_cast<uint32_t>(value);
  __builtin_memcpy(&w.jump_to[0], &to->__jmpbuf[0], kRegisters);
  w.jump_to[kMaskAt - 1] = static_cast<uint64_t>(to->__mask_was_saved);
  __builtin_memcpy(&w.jump_to[kMaskAt], &to->__saved_mask, sizeof(uint64_t));
  w.jump_below = 1 + (note->outer() != nullptr ? note->outer()->depth() : 0);
  w.busy = note->busy();
  w.in_hook = note->in_hook();
  ucontext_t* c = note->context();
  __builtin_memcpy(&c->uc_sigmask, &before, sizeof before);
  // The kernel installs the alternate stack of the frame: that which there is now.
  stack_t now = {};
  plat::Syscall(__NR_sigaltstack, nullptr, &now);
  now.ss_flags &= ~SS_ONSTACK;
  c->uc_stack = now;
  G* g = sched::Active() ? sched::Self() : nullptr;
  if (g != nullptr && !g->g0 && g->state == sched::GState::kRunning) w.g = g;
  ReturnTo(c);
}

// Returns when nothing keeps the jump from being made.
void PrepareJump(const Buffer* to, int value) {
  if (UNDERGO_UNLIKELY(heap::thread_words.interrupted != nullptr) && LeavesSlowPath(to)) {
    FinishSlowPath(to, value);
  }
  BeforeJump(to);
}

}  // namespace

void JumpNow() {
  heap::ThreadWords& w = heap::thread_words;
  w.jump_below = 0;
  Buffer to = {};
  __builtin_memcpy(&to.__jmpbuf[0], &w.jump_to[0], kRegisters);
  to.__mask_was_saved = static_cast<int>(w.jump_to[kMaskAt - 1]);
  __builtin_memcpy(&to.__saved_mask, &w.jump_to[kMaskAt], sizeof(uint64_t));
  posix::siglongjmp(&to, static_cast<int>(w.jump_value));
}

#define UNDERGO_JUMP(name)                      \
  void name(Buffer to[1], int value) {          \
    if (real::name == nullptr) real::Resolve(); \
    PrepareJump(to, value);                     \
    real::name(to, value);                      \
    __builtin_unreachable();                    \
  }
UNDERGO_JUMP(longjmp)
UNDERGO_JUMP(_longjmp)
UNDERGO_JUMP(siglongjmp)
UNDERGO_JUMP(__longjmp_chk)

}  // namespace undergo::posix
