// SPDX-License-Identifier: Apache-2.0
// Preemption at any instruction.
//
// Problem: a thread that computes for long keeps others from running; its code was not compiled for
// us and may be stopped anywhere: in the middle of a red zone, with vector registers in use, inside
// of libc with one of its locks held, on a stack of its own.
//
// sysmon sends signal 33 (world/signal.h) to the M of a G that has run for 10 ms while others wait.
// The handler runs with all signals blocked; it changes the interrupted context so that the thread
// goes on in undergo_preempted, which saves all registers on the thread's own stack and calls the
// scheduler as if the thread had. So nothing of the kernel's is left behind on the M: signal mask
// and alternate stack are those of the thread. A lock of libc that the G holds keeps others waiting
// in the kernel; sysmon takes their Ps, and the G runs again.
//
// Not at every instruction: inside of the library itself, in the return from a signal handler
// (which belongs to the kernel thread), with a lock of the dynamic loader held
// (sched/loader_locks.h) or without room on the stack. Then sysmon asks again shortly. On a stack
// that is not the thread's (coroutines, an alternate signal stack) the room is not known: sysmon
// takes the P away and lets the M go on without one, which costs a switch in the kernel and is
// never wrong.
//
// The thread may have begun a system call that we do not see (stdio, the resolver) since sysmon has
// looked. What the kernel does not restart after a handler ends with EINTR then, although no signal
// of the program's came: it is begun once more if its number is known, which stands in the
// instruction before it in nearly all of libc. Only calls that wait at the start may be; their
// timeouts start again, a moment later.
//
// Rejected: switching inside of the handler (sigreturn on another M would install this M's mask and
// alternate stack there), SIGURG (the program may use it), timers on each M (they disturb those who
// are alone on their P).
#include "sched/preempt.h"

#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <ucontext.h>

#include "plat/own_text.h"
#include "plat/syscall.h"
#include "sched/loader_locks.h"
#include "sched/masks.h"
#include "sched/park.h"
#include "world/stop.h"

extern "C" {
__attribute__((visibility("hidden"))) constinit uint64_t undergo_xsave_size = 576;
__attribute__((visibility("hidden"))) void undergo_preempted();
__attribute__((visibility("hidden"))) void undergo_give_way(const undergo::Addr* frame);
}

static_assert(offsetof(undergo::heap::ThreadWords, resume) == 72);  // x86_64/preempted.S

namespace undergo::sched {

constinit bool preempt_by_signal = true;
constinit bool preempt_always = false;

namespace {

constexpr size_t kRedZone = 128;
constexpr size_t kRoom = 2048;  // for the scheduler itself, beside the registers

constinit Addr text_low = 0, text_high = 0;

// The kernel calls a handler with this as the return address: mov $15, %rax; syscall.
bool InSigreturn(Addr ip, Addr rax) {
  constexpr unsigned char kCode[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};
  auto* at = reinterpret_cast<const unsigned char*>(ip);
  if (__builtin_memcmp(at, kCode, sizeof kCode) == 0) return true;
  return rax == 15 && at[0] == 0x0f && at[1] == 0x05;
}

bool WaitsAtStart(uint32_t number) {
  switch (number) {
    case __NR_read:
    case __NR_poll:
    case __NR_select:
    case __NR_pause:
    case __NR_nanosleep:
    case __NR_accept:
    case __NR_recvfrom:
    case __NR_recvmsg:
    case __NR_semop:
    case __NR_msgrcv:
    case __NR_rt_sigtimedwait:
    case __NR_rt_sigsuspend:
    case __NR_futex:
    case __NR_semtimedop:
    case __NR_clock_nanosleep:
    case __NR_epoll_wait:
    case __NR_pselect6:
    case __NR_ppoll:
    case __NR_epoll_pwait:
    case __NR_accept4:
    case __NR_epoll_pwait2: return true;
    default: return false;
  }
}

// A signal of the program's that the thread takes as soon as this handler returns.
bool AnotherSignal(const ucontext_t* context) {
  uint64_t pending = 0;
  plat::Syscall(__NR_rt_sigpending, &pending, sizeof pending);
  return (pending & ~*reinterpret_cast<const uint64_t*>(&context->uc_sigmask)) != 0;
}

// Whether this handler has ended a system call of g, which then starts again.
bool RestartCall(G* g, ucontext_t* context) {
  struct Code {
    unsigned char move;  // mov $number, %eax; syscall
    unsigned char number[4];
    unsigned char call[2];
  } code;
  static_assert(sizeof code == 7);
  auto* registers = context->uc_mcontext.gregs;
  if (UNDERGO_LIKELY(registers[REG_RAX] != -EINTR)) return false;
  auto after = static_cast<Addr>(registers[REG_RIP]);
  if (after % kOsPageSize < sizeof code) return false;
  if (g->left_handler == after) {  // it may be that of the program's that has ended the call
    g->left_handler = 0;
    return false;
  }
  __builtin_memcpy(&code, reinterpret_cast<const void*>(after - sizeof code), sizeof code);
  if (code.move != 0xb8 || code.call[0] != 0x0f || code.call[1] != 0x05) return false;
  uint32_t number;
  __builtin_memcpy(&number, code.number, sizeof number);
  if (!WaitsAtStart(number) || AnotherSignal(context)) return false;
  registers[REG_RAX] = static_cast<greg_t>(number);
  registers[REG_RIP] -= static_cast<greg_t>(sizeof code.call);
  return true;
}

bool CanGiveWay(const G* g, const M* m, const ucontext_t* context) {
  const heap::ThreadWords* w = g->words;
  // In the first case it has been interrupted on its way to the scheduler.
  if (w->resume != 0 || w->busy != 0 || w->g != g || g->m != m || g->state != GState::kRunning)
    return false;
  auto ip = static_cast<Addr>(context->uc_mcontext.gregs[REG_RIP]);
  auto sp = static_cast<Addr>(context->uc_mcontext.gregs[REG_RSP]);
  if (InOwnText(ip)) return false;
  if (HoldsLoaderLock(g)) return false;
  size_t room = kRedZone + undergo_xsave_size + kRoom;
  if (sp - g->stack_low >= g->stack_high - g->stack_low || sp - g->stack_low < room) return false;
  return !InSigreturn(ip, static_cast<Addr>(context->uc_mcontext.gregs[REG_RAX]));
}

// In the handler of signal 33. False: the value is not ours.
bool OnPreemptSignal(void* value, ucontext_t* context) {
  M* m = LoadAcquire(&sched.all_ms);  // pairs: LinkM
  while (m != nullptr && m != value) m = m->all_next;
  if (m == nullptr) return false;
  G* g = Self();
  if (g != nullptr && g->m == m && HearsWhatIdleMsHear(g)) {
    HearOnIdleM(m, reinterpret_cast<uint64_t*>(&context->uc_sigmask));
  }
  // One that waits is no longer in the way of others: sysmon takes its P.
  if (g == nullptr || g->g0 || RestartCall(g, context) || !CanGiveWay(g, m, context)) {
    StoreRelaxed(&m->preempting, uint32_t{kMissed});
    return true;
  }
  auto* registers = context->uc_mcontext.gregs;
  StoreRelaxed(&m->preempting, uint32_t{kNotAsked});
  // Nothing may be written below the red zone: there is the signal's frame, which is still needed.
  g->words->resume = static_cast<Addr>(registers[REG_RIP]);
  registers[REG_RSP] -= static_cast<greg_t>(kRedZone);
  registers[REG_RIP] = reinterpret_cast<greg_t>(&undergo_preempted);
  return true;
}

// Asked for another kernel thread: a blocking call that we see has begun.
bool InCall(const M* m) {
  const P* p = m->p;
  return (p != nullptr && LoadAcquire(&p->status) == PStatus(m->id, kPSyscall)) ||
         m->cur->state == GState::kSyscall;  // pairs: EnterCall
}

// In a handler: the running kernel thread's own block when it runs a G.
Addr OwnBlock() {
  G* g = Self();
  return g != nullptr && g->m != nullptr && g->m->block != g->fs ? g->m->block : 0;
}

}  // namespace

bool InOwnText(Addr ip) { return ip >= text_low && ip < text_high; }

void PreparePreemption() {
  world::own_block = OwnBlock;
  plat::OwnText(&text_low, &text_high);
  FindLoaderLocks();
  unsigned a, b, c, d;
  if (__get_cpuid_count(0xd, 0, &a, &b, &c, &d) != 0 && b > undergo_xsave_size) {
    undergo_xsave_size = b;  // bytes for the state that the system has enabled
  }
  world::on_queued_signal = OnPreemptSignal;
  world::PrepareSignals();
  world::EnsureHandler();
}

bool Preempt(M* m) {
  if (!preempt_by_signal) return false;
  StoreRelaxed(&m->preempting, uint32_t{kAsking});
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // pairs: AwaitPreemption
  // A signal in a blocking call of the program would end it early.
  if (!InCall(m) && !plat::IsError(world::SendStopSignal(m->tid, m))) {
    uint32_t asking = kAsking;                             // unless it has come already
    CasAcqRel(&m->preempting, &asking, uint32_t{kAsked});  // pairs: OnPreemptSignal
    return true;
  }
  StoreRelaxed(&m->preempting, uint32_t{kNotAsked});
  return false;
}

void AwaitPreemption(M* m) {
  // Once it was sent: the program may have blocked it by a raw system call.
  constexpr int kTries = 100'000;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // pairs: Preempt
  for (int sent = 0; sent < kTries;) {
    uint32_t state = LoadRelaxed(&m->preempting);
    if (!MayCome(state)) return;
    sent += state == kAsked;
    CpuRelax();  // no system call: a filter of the program's may forbid it
  }
}

}  // namespace undergo::sched

void undergo_give_way(const undergo::Addr* frame) {
  using namespace undergo::sched;
  G* g = Current();
  if (g == nullptr) return;
  g->preempted = frame;
  PassLoaderWakes();
  Yield(preempt_always ? Yielding::kAnyway : Yielding::kBehindAll);
  g->preempted = nullptr;
}
