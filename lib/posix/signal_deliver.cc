// SPDX-License-Identifier: Apache-2.0
// Which thread gets a signal, and how it gets it.
//
// Problem: the kernel delivers to Ms, the program means its own threads. A signal for one thread
// may find it parked, in a queue, or running on an M that it will have left when the signal
// arrives; one for the process may find an idle M although a parked thread should take it.
//
// What is meant for one thread is put into its G's queue first. Then the thread is made to look:
// `deferred` in its words (it looks at the end of its next section in the scheduler), Interrupt (a
// wait ends), and, while it is on an M, a real signal of the same number to that M, so that the
// kernel ends system calls by its own rules: a poke. The trampoline replaces a poke's siginfo by
// that of the queue; a poke that comes too late finds nothing and is dropped. When the thread looks
// by itself it pokes itself: frames, masks, alternate stacks, restarts, and default actions are
// always the kernel's work.
//
// What came to a kernel thread in the middle of the scheduler is held (signal_queue.h) and placed
// at the section's end: to the running thread if it takes it, else to main, else to one that waits,
// else to any; if all block it, back to the kernel, where sigwait and signalfd find it. One that
// only parked threads take while all Ms run others is found by sysmon (TakeProcessSignals).
//
// What the process sends to itself is placed at once, as for one thread: natively a thread that
// does not block it has run its handler before it does anything else, so it must not end, nor block
// the signal, while some idle M still finds out that it has received it.
//
// Rejected: calling handlers by ourselves (a made-up context, and a second implementation of what
// the kernel does), a thread that takes all signals by sigwait (changes default actions and what
// other processes see in /proc).
#include <errno.h>
#include <linux/membarrier.h>

#include "plat/syscall.h"
#include "posix/posix.h"
#include "posix/signal.h"
#include "posix/timer.h"
#include "sched/masks.h"
#include "sched/park.h"
#include "sched/sched.h"
#include "sched/stack.h"
#include "sched/thread.h"
#include "world/record.h"

namespace undergo::posix {

namespace {

constinit char poke_mark = 0;  // its address is the value of pokes
constexpr int kMostPokes = 1000;

// The kernel lets a thread other than main send no siginfo that looks like that of kill() or of the
// kernel itself: its code travels in disguise.
constexpr int kDisguise = -0x10000;
siginfo_t Disguised(const siginfo_t& info) {
  siginfo_t sent = info;
  if (info.si_code >= 0 || info.si_code == SI_TKILL) sent.si_code = kDisguise - info.si_code;
  return sent;
}

int OwnTid() { return static_cast<int>(plat::Syscall(__NR_gettid)); }

siginfo_t PokeInfo(int sig) {
  siginfo_t info = SelfInfo(sig, SI_QUEUE);
  info.si_value.sival_ptr = &poke_mark;
  return info;
}

// All threads have seen what this one wrote before, and their later loads see it.
void BarrierEverywhere() {
  constexpr auto kBarrier = MEMBARRIER_CMD_PRIVATE_EXPEDITED;
  if (!plat::IsError(plat::Syscall(__NR_membarrier, kBarrier, 0, 0))) return;
  plat::Syscall(__NR_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
  plat::Syscall(__NR_membarrier, kBarrier, 0, 0);
}

// The M that g is on now; null: on none.
sched::M* RunsOn(G* g) {
  sched::M* m = g->m;
  if (LoadAcquire(&g->on_cpu) == 0 || m == nullptr) return nullptr;  // pairs: FinishSwitch
  return LoadRelaxed(&m->cur) == g ? m : nullptr;
}

void Poke(G* g, int tid, int sig) {
  if (IsWrapped(ActionOf(sig))) {
    SendReal(tid, sig, PokeInfo(sig));
    return;
  }
  // A default action, or a handler that was installed behind our back.
  siginfo_t info;
  int taken;
  {
    SignalSection section;
    taken = Dequeue(g, Bit(sig), &info);
  }
  if (taken != 0) SendReal(tid, sig, info);
}

// g has something in its queue that it does not block.
void Kick(G* g, int sig) {
  StoreRelease(&g->words->deferred, 1u);  // pairs: OnSchedEnd
  if (sched::Interrupt(g)) return;
  sched::M* m = RunsOn(g);
  if (m == nullptr) {
    // In a queue: it looks when it runs. Unless it came to an M just now, without having seen it.
    BarrierEverywhere();
    m = RunsOn(g);
  }
  if (m != nullptr) Poke(g, m->tid, sig);
}

bool Lives(const G* g) {
  return g->state != sched::GState::kDead && g->state != sched::GState::kIdle;
}

bool Takes(const G* g, uint64_t bit) { return Lives(g) && (g->mask & bit) == 0; }

// The first thread, main before all others, for which f is true; null: none.
template <typename F>
G* FindThread(F f) {
  if (sched::main_g.fs != 0 && f(&sched::main_g)) return &sched::main_g;
  for (G* g = sched::FirstSlot(); g != nullptr; g = g->all_next) {
    if (g->fs != 0 && LoadRelaxed(&g->tid) != 0 && f(g)) return g;
  }
  return nullptr;
}

// Who gets a signal for the process; null: all block it.
G* Choose(G* self, uint64_t bit) {
  if (self != nullptr && !self->g0 && Takes(self, bit)) return self;
  G* any = nullptr;
  G* best = FindThread([&](G* g) {
    if (!Takes(g, bit)) return false;
    if (any == nullptr) any = g;
    return g->main || g->state == sched::GState::kWaiting;
  });
  return best != nullptr ? best : any;
}

// Who will take it when its handler returns; null: nobody, or one in sigwait is as good.
G* ChooseHandling(uint64_t bit) {
  G* found = nullptr;
  G* waits = FindThread([&](G* g) {
    bool handles = Lives(g) && (LoadRelaxed(&g->handling) & bit) != 0;
    if (found == nullptr && handles) found = g;
    return (g->waits_for & bit) != 0;
  });
  return waits == nullptr ? found : nullptr;
}

G* Receiver(G* self, uint64_t bit) {
  G* g = Choose(self, bit);
  return g != nullptr ? g : ChooseHandling(bit);
}

// Nobody takes it now.
void GiveBack(G* self, int sig, const siginfo_t& info) {
  // An idle M might have a mask of before.
  if (self != nullptr && self->g0) sched::SetKernelMask(self->m, self->m->mask | Bit(sig));
  SendToProcess(sig, info);
}

// Finds a thread for one that anybody may have.
void Place(G* self, const SignalNode& n) {
  G* kicked = nullptr;
  bool placed;
  {
    SignalSection section;
    G* named = n.info.si_code == SI_TIMER ? ThreadOfTimer(n.info) : nullptr;
    G* g = named != nullptr ? named : Receiver(self, Bit(n.sig));
    placed = g != nullptr && Enqueue(g, n.sig, n.info, named == nullptr);
    if (placed && g != self && (g->mask & Bit(n.sig)) == 0) kicked = g;
  }
  if (kicked != nullptr) Kick(kicked, n.sig);
  if (!placed) GiveBack(self, n.sig, n.info);
}

// Finds a thread for each signal that is held. Returns the first one that came to this plain thread
// itself: it is to be sent again.
SignalNode* PlaceHeld(G* self) {
  HandlersOff off;  // one that jumps away would take the rest of the list with it
  SignalNode* mine = nullptr;
  int tid = self == nullptr ? OwnTid() : 0;
  for (SignalNode* n = TakeHeld(); n != nullptr;) {
    SignalNode* next = n->next;
    bool own = n->owner != 0 && n->owner == tid;
    if (own && mine == nullptr) {
      mine = n;
    } else {
      if (own) {
        Hold(n->sig, n->info, tid);
        heap::thread_words.deferred = 1;
      } else if (n->owner == kQueued) {
        auto* g = static_cast<G*>(n->info.si_value.sival_ptr);
        if ((LoadRelaxed(&g->pending) & ~g->mask & Bit(n->sig)) != 0) Kick(g, n->sig);
      } else if (n->owner != kAnybody) {
        SendReal(n->owner, n->sig, n->info);
      } else {
        Place(self, *n);
      }
      FreeNode(n);
    }
    n = next;
  }
  return mine;
}

// The running thread's own queue, as far as its mask permits.
void Deliver(G* g) {
  for (int i = 0; i < kMostPokes; ++i) {
    uint64_t bits = LoadAcquire(&g->pending) & ~g->mask;  // pairs: Enqueue
    if (bits == 0) return;
    // It arrives before the call returns, unless the thread has moved.
    Poke(g, OwnTid(), __builtin_ctzll(bits) + 1);
  }
}

}  // namespace

SignalAction ActionOf(int sig) {
  SignalAction action = {};
  plat::Syscall(__NR_rt_sigaction, sig, nullptr, &action, sizeof(uint64_t));
  return action;
}

bool IsIgnored(const SignalAction& action, int sig) {
  if (action.handler == reinterpret_cast<Addr>(SIG_IGN)) return true;
  bool harmless = sig == SIGCHLD || sig == SIGURG || sig == SIGWINCH || sig == SIGCONT;
  return harmless && action.handler == reinterpret_cast<Addr>(SIG_DFL);
}

siginfo_t SelfInfo(int sig, int code) {
  siginfo_t info = {};
  info.si_signo = sig;
  info.si_code = code;
  info.si_pid = static_cast<pid_t>(plat::Syscall(__NR_getpid));
  info.si_uid = static_cast<uid_t>(plat::Syscall(__NR_getuid));
  return info;
}

int SendReal(int tid, int sig, const siginfo_t& info) {
  long pid = plat::Syscall(__NR_getpid);
  siginfo_t sent = Disguised(info);
  long result = info.si_code == SI_TKILL
                    ? plat::Syscall(__NR_tgkill, pid, tid, sig)
                    : plat::Syscall(__NR_rt_tgsigqueueinfo, pid, tid, sig, &sent);
  return plat::IsError(result) ? static_cast<int>(-result) : 0;
}

int SendToProcess(int sig, const siginfo_t& info) {
  long pid = plat::Syscall(__NR_getpid);
  siginfo_t sent = Disguised(info);
  long result = plat::Syscall(__NR_rt_sigqueueinfo, pid, sig, &sent);
  return plat::IsError(result) ? static_cast<int>(-result) : 0;
}

void Undisguise(siginfo_t* info) {
  if (UNDERGO_UNLIKELY(info->si_code <= kDisguise + 64)) info->si_code = kDisguise - info->si_code;
}

void CheckIdleMs() {
  static constinit uint64_t told = 0;  // atomic: what idle Ms were told, or need not know
  uint64_t idle = sched::IdleMask();
  uint64_t before = LoadRelaxed(&told);
  if (UNDERGO_LIKELY(idle == before)) return;
  StoreRelaxed(&told, idle);
  uint64_t harmful = 0;
  for (uint64_t bits = idle & ~before; bits != 0; bits &= bits - 1) {
    int sig = __builtin_ctzll(bits) + 1;
    // Also one that is ignored: who blocks it may wait for it, and an M would drop it.
    if (!IsWrapped(ActionOf(sig))) harmful |= Bit(sig);
  }
  if (harmful != 0) sched::TellIdleMs(harmful);
}

bool IsPoke(const siginfo_t* info) {
  return info->si_code == SI_QUEUE && info->si_value.sival_ptr == &poke_mark;
}

bool TakePoked(G* g, int sig, siginfo_t* info) {
  SignalSection section;
  return Dequeue(g, Bit(sig), info) != 0;
}

void PokeAfterHandler(G* g, uint64_t mask) {
  for (uint64_t bits = LoadAcquire(&g->pending) & ~mask; bits != 0; bits &= bits - 1) {
    Poke(g, OwnTid(), __builtin_ctzll(bits) + 1);
  }
}

namespace {

// In a SignalSection. False: no room.
bool QueueFor(G* g, int sig, const siginfo_t& info, bool any) {
  // The kernel, too, keeps one of a standard signal: it has the poke already.
  bool again = sig < kFirstRealTime && (LoadRelaxed(&g->pending) & Bit(sig)) != 0;
  bool queued = Enqueue(g, sig, info, any);
  // One in sigwait waits in the kernel, for what it blocks.
  bool waits = (g->waits_for & Bit(sig)) != 0;
  if (waits && !again && SendReal(g->m->tid, sig, PokeInfo(sig)) == 0) ++g->wait_pokes;
  return queued;
}

}  // namespace

int SendTo(G* g, int sig, const siginfo_t& info) {
  uint64_t bit = Bit(sig);
  bool blocked = (g->mask & bit) != 0;
  if (g == sched::Self() && !blocked) return SendReal(OwnTid(), sig, info);
  if (sig == SIGKILL || sig == SIGSTOP) return SendReal(OwnTid(), sig, info);
  if (!blocked && IsIgnored(ActionOf(sig), sig)) return 0;
  int error = 0;
  {
    SignalSection section;
    if (g->state == sched::GState::kDead) return 0;
    if (!QueueFor(g, sig, info, false)) error = EAGAIN;
  }
  if (error == 0 && (g->mask & bit) == 0) Kick(g, sig);
  sched::RunDeferred();
  return error;
}

bool SendToAny(G* self, int sig, const siginfo_t& info) {
  constexpr uint64_t kOfJobs = Bit(SIGCONT) | Bit(SIGTSTP) | Bit(SIGTTIN) | Bit(SIGTTOU);
  uint64_t bit = Bit(sig);
  if ((bit & kOfJobs) != 0 || !IsWrapped(ActionOf(sig))) return false;
  G* g;
  bool own;
  {
    SignalSection section;
    bool main_takes = sched::main_g.fs != 0 && Takes(&sched::main_g, bit);
    g = main_takes ? &sched::main_g : Receiver(self, bit);
    if (g == nullptr) return false;
    own = g == self && (g->mask & bit) == 0;
    if (!own && !QueueFor(g, sig, info, true)) return false;
  }
  if (own) {
    SendReal(OwnTid(), sig, info);
    return true;
  }
  // Its handler may have returned meanwhile (LeaveHandler); Enqueue was a full barrier.
  if ((LoadRelaxed(&g->mask) & bit) == 0) Kick(g, sig);
  sched::RunDeferred();
  return true;
}

void TakeProcessSignals() {
  uint64_t bits = 0;  // sysmon blocks them all
  plat::Syscall(__NR_rt_sigpending, &bits, sizeof bits);
  for (bits &= ~sched::kReservedSignals; bits != 0; bits &= bits - 1) {
    uint64_t bit = bits & -bits;
    {
      SignalSection section;
      if (Choose(nullptr, bit) == nullptr) continue;
    }
    SignalNode n = {};
    struct timespec none = {};
    n.sig = static_cast<int>(plat::Syscall(__NR_rt_sigtimedwait, &bit, &n.info, &none, sizeof bit));
    if (n.sig <= 0) continue;
    Undisguise(&n.info);
    Place(nullptr, n);
  }
}

void PassOn(G* g) {
  for (SignalNode* n = TakeQueue(g); n != nullptr;) {
    SignalNode* next = n->next;
    uint64_t bit = Bit(n->sig);
    G* heir = n->any ? Receiver(nullptr, bit) : nullptr;
    if (heir != nullptr && Enqueue(heir, n->sig, n->info, true)) {
      StoreRelease(&heir->words->deferred, 1u);  // pairs: OnSchedEnd
      siginfo_t told = {};
      told.si_value.sival_ptr = heir;
      Hold(n->sig, told, kQueued);
    } else if (n->any) {
      Hold(n->sig, n->info, kAnybody);
    }
    FreeNode(n);
    n = next;
  }
}

void OnSchedEnd(G* g) {
  heap::ThreadWords& w = heap::thread_words;
  do {
    StoreRelaxed(&w.deferred, 0u);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);  // pairs: Kick
    while (SignalNode* mine = PlaceHeld(g)) {
      int sig = mine->sig;
      siginfo_t info = mine->info;
      FreeNode(mine);
      SendReal(OwnTid(), sig, info);
    }
  } while (g != nullptr && g->g0 && LoadRelaxed(&w.deferred) != 0);
  if (g == nullptr || g->g0) return;
  Deliver(g);
  CheckCancel(g);
}

void KeepPipeSignal() {
  G* g = sched::Active() ? sched::Self() : nullptr;
  if (g == nullptr || g->g0 || (g->mask & Bit(SIGPIPE)) == 0) return;
  uint64_t set = Bit(SIGPIPE);
  siginfo_t info;
  struct timespec none = {};
  long sig = plat::Syscall(__NR_rt_sigtimedwait, &set, &info, &none, sizeof set);
  if (sig != SIGPIPE) return;  // MSG_NOSIGNAL
  SignalSection section;
  Enqueue(g, SIGPIPE, info, false);
}

bool AttendToInterrupt(Restart restart) {
  heap::ThreadWords& w = heap::thread_words;
  G* g = sched::Self();
  if (g != nullptr) {
    sched::Calm(g);
    StoreRelaxed(&w.deferred, 1u);
  }
  sched::EndHold();
  uint32_t handled = w.handled;
  w.handled = 0;
  return (handled &
          (restart == Restart::kNever ? heap::kHandlerRan : heap::kHandlerWithoutRestart)) != 0;
}

}  // namespace undergo::posix
