// SPDX-License-Identifier: Apache-2.0
// The stop signal: kernel signal 33.
//
// It must be one that programs cannot block, catch or count. glibc keeps 32 and 33 for itself and
// takes them out of every mask that a program sets; 33 serves setuid() and its kin, which must be
// repeated on each thread. We share it: a stop signal is queued with si_code SI_QUEUE and the
// thread's record as its value, glibc's own has SI_TKILL and is handed on to the handler that
// stood there before. In the other direction glibc's handler ignores what is not SI_TKILL. glibc
// installs its handler at the first pthread_create, maybe after us: who stops the world looks
// first, and again when an answer is late.
//
// A stopped thread leaves SIGCHLD unblocked as long as the program has no handler for it. The
// kernel drops a signal that nobody wants only if the thread that made the child does not block it.
// Else it looks for another thread that takes it, and wakes that: semop, sigtimedwait and getrandom
// then end early, although no handler has run. Once the program handles it, it is blocked: who is
// stopped must not run the program's code.
// Rejected: SIGPWR, SIGXCPU, real-time signals of the program's range (visible in masks, in
// sigwait sets and to debuggers), SIGURG (interrupts the program's own system calls with its mask).
//
// The handler runs on whatever thread the kernel has, glibc's or not: a thread of raw clone may
// share the thread block of its parent. It looks at thread-local variables only after it has made
// sure that they are its own.
#include <asm/prctl.h>
#include <elf.h>
#include <signal.h>
#include <sys/auxv.h>
#include <ucontext.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "heap/restart.h"
#include "plat/context.h"
#include "plat/syscall.h"
#include "plat/vm.h"
#include "world/remote_call.h"
#include "world/stop.h"

// What a handler returns to. The bytes are those by which unwinders know a signal frame.
asm(R"(
        .pushsection .text
        .hidden undergo_world_sigreturn
        .globl undergo_world_sigreturn
        .type undergo_world_sigreturn, @function
        .byte 0x90
undergo_world_sigreturn:
        movq $15, %rax
        syscall
        .size undergo_world_sigreturn, . - undergo_world_sigreturn
        .popsection
)");
extern "C" void undergo_world_sigreturn() __attribute__((visibility("hidden")));

namespace undergo::world {

constinit QueuedSignalHook on_queued_signal = nullptr;
constinit OwnBlockHook own_block = nullptr;

namespace {

using Handler = void (*)(int, siginfo_t*, void*);

struct KernelSigaction {
  Handler handler;
  unsigned long flags;
  void (*restorer)();
  uint64_t mask;
};
constexpr uint64_t SignalBit(int sig) { return uint64_t{1} << (sig - 1); }
constexpr unsigned long kSaRestorer = 0x04000000;
constexpr size_t kRedZone = 128;

constinit KernelSigaction chained = {};  // what stood there before us; written by the stopper
constexpr uint64_t kAllSignals = ~(SignalBit(SIGKILL) | SignalBit(SIGSTOP));  // as the kernel says

constinit uint64_t mask_while_stopped = kAllSignals;  // atomic; written by EnsureHandler
constinit bool child_signal_handled = false;  // atomic; the program has had a handler of SIGCHLD
constinit bool has_fsgsbase = false;          // the CPU and the kernel permit rdfsbase

long Sigaction(const KernelSigaction* act, KernelSigaction* old, int sig = kStopSignal) {
  return plat::Syscall(__NR_rt_sigaction, sig, act, old, sizeof(uint64_t));
}

// Now or before, maybe installed behind our back.
bool ChildSignalHandled() {
  if (LoadRelaxed(&child_signal_handled)) return true;
  KernelSigaction child = {};
  return plat::IsError(Sigaction(nullptr, &child, SIGCHLD)) ||
         reinterpret_cast<Addr>(child.handler) > reinterpret_cast<Addr>(SIG_IGN);
}

Addr FsBase() {
  Addr fs = 0;
  if (has_fsgsbase) {
    asm volatile("rdfsbase %0" : "=r"(fs));
  } else {
    plat::Syscall(__NR_arch_prctl, ARCH_GET_FS, &fs);
  }
  return fs;
}

// Whether the thread pointer is that of a thread block as the ABI has it.
bool IsThreadBlock(Addr fs) {
  Addr self = 0;
  return fs != 0 && plat::SafeRead(fs, &self, sizeof self) && self == fs;
}

// The running thread's words if they are its own.
heap::ThreadWords* OwnWords(Record* r) {
  if (r->borrows_block) return nullptr;
  Addr fs = FsBase();
  if (r->words == nullptr && !IsThreadBlock(fs)) return nullptr;
  // From here on fs is valid: either it was looked at, or the thread used it when it set `words`.
  heap::ThreadWords* here = &heap::thread_words;
  if (r->words == here) return here;
  auto* claimed = static_cast<Record*>(here->record);
  if (claimed != nullptr && claimed != r && claimed->words == here && claimed->tid != r->tid) {
    r->borrows_block = true;
    return nullptr;
  }
  r->words = here;
  here->record = r;
  return here;
}

void SetFrame(Record* r, ucontext_t* context) {
  const auto& machine = context->uc_mcontext;
  Addr end = reinterpret_cast<Addr>(context) + sizeof *context;
  if (machine.fpregs != nullptr) {
    // The first word of the reserved part says that an extended area with its size follows.
    auto fp = reinterpret_cast<Addr>(machine.fpregs);
    const auto* reserved = reinterpret_cast<const uint32_t*>(fp + 464);
    constexpr uint32_t kExtended = 0x46505853;
    end = Max(end, fp + (reserved[0] == kExtended ? reserved[1] : 512));
  }
  r->frame = context;
  r->frame_size = end - reinterpret_cast<Addr>(context);
  r->sp = static_cast<Addr>(machine.gregs[REG_RSP]) - kRedZone;
  bool alternate = (context->uc_stack.ss_flags & SS_DISABLE) == 0;
  r->altstack = alternate ? reinterpret_cast<Addr>(context->uc_stack.ss_sp) : 0;
  r->altstack_size = alternate ? context->uc_stack.ss_size : 0;
}

// A signal 33 that is not ours: what would have happened without us.
void Chain(int sig, siginfo_t* info, void* context) {
  auto plain = reinterpret_cast<Addr>(chained.handler);
  if (plain == reinterpret_cast<Addr>(SIG_IGN)) return;
  if (plain != reinterpret_cast<Addr>(SIG_DFL)) {
    Addr fs = own_block != nullptr ? own_block() : 0;
    if (fs == 0) return chained.handler(sig, info, context);
    Addr before = plat::GetFsBase();
    plat::SetFsBase(fs);
    chained.handler(sig, info, context);
    plat::SetFsBase(before);
    return;
  }
  Sigaction(&chained, nullptr);  // delivered once this handler has returned
  plat::Syscall(__NR_tgkill, plat::Syscall(__NR_getpid), plat::Syscall(__NR_gettid), kStopSignal);
}

void OnStopSignal(int sig, siginfo_t* info, void* context) {
  auto* r = static_cast<Record*>(info->si_value.sival_ptr);
  if (info->si_code != SI_QUEUE) return Chain(sig, info, context);
  if (AnswerCall(r)) return;
  if (!IsRecord(r)) {
    bool known =
        on_queued_signal != nullptr && on_queued_signal(r, static_cast<ucontext_t*>(context));
    return known ? void() : Chain(sig, info, context);
  }
  ExchangeAcqRel(&r->signalled, 0u);        // pairs: Request
  uint32_t state = LoadAcquire(&r->state);  // pairs: Request
  if (ModeOf(state) != kRequested) return;  // the stop was given up
  heap::ThreadWords* words = OwnWords(r);
  if (words != nullptr && words->busy != 0) {
    words->stop_pending = 1;
    return;
  }
  auto* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  Addr ip = static_cast<Addr>(registers[REG_RIP]);
  registers[REG_RIP] = static_cast<greg_t>(heap::RestartPoint(ip));
  SetFrame(r, static_cast<ucontext_t*>(context));
  AnswerStop(r, state);
}

}  // namespace

Addr SigReturn() { return reinterpret_cast<Addr>(undergo_world_sigreturn); }

void PrepareSignals() {
  constexpr unsigned long kFsgsbase = 2;
  has_fsgsbase = (getauxval(AT_HWCAP2) & kFsgsbase) != 0;
}

uint64_t MaskWhileStopped() { return LoadRelaxed(&mask_while_stopped); }

bool EnsureHandler() {
  KernelSigaction now = {};
  if (plat::IsError(Sigaction(nullptr, &now))) return false;
  bool is_ours = now.handler == OnStopSignal;
  uint64_t mask = ChildSignalHandled() ? kAllSignals : kAllSignals & ~SignalBit(SIGCHLD);
  StoreRelaxed(&mask_while_stopped, mask);
  if (is_ours && now.mask == mask) return false;
  if (!is_ours) chained = now;
  KernelSigaction ours = {OnStopSignal, SA_SIGINFO | SA_RESTART | SA_ONSTACK | kSaRestorer,
                          undergo_world_sigreturn, mask};
  Sigaction(&ours, nullptr);
  return !is_ours;
}

void BlockChildSignal() {
  if (LoadRelaxed(&child_signal_handled)) return;
  StoreRelaxed(&child_signal_handled, true);
  KernelSigaction now = {};
  if (!plat::IsError(Sigaction(nullptr, &now)) && now.handler == OnStopSignal) EnsureHandler();
}

long SendStopSignal(Record* r) { return SendStopSignal(r->tid, r); }

long SendStopSignal(int tid, void* value) {
  siginfo_t info = {};
  long pid = plat::Syscall(__NR_getpid);
  info.si_signo = kStopSignal;
  info.si_code = SI_QUEUE;
  info.si_pid = static_cast<pid_t>(pid);
  info.si_value.sival_ptr = value;
  return plat::Syscall(__NR_rt_tgsigqueueinfo, pid, tid, kStopSignal, &info);
}

}  // namespace undergo::world
