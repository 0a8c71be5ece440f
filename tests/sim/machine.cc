// SPDX-License-Identifier: Apache-2.0
// The Ms, Ps and Gs of the simulation, and simple versions of what the scheduler calls: the
// poller's descriptors, signal masks, accounting, the making of Ms, preemption.
#include "machine.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "plat/context.h"
#include "sched/confine.h"
#include "sched/cpu_time.h"
#include "sched/handoff.h"
#include "sched/masks.h"
#include "sched/netpoll.h"
#include "sched/preempt.h"
#include "sched/procs.h"
#include "sched/quiesce.h"
#include "sched/sysmon.h"
#include "sched/trace.h"
#include "sched/trim.h"
#include "world/blocked_call.h"
#include "world/world.h"

namespace undergo::heap {
constinit BusyEndHook on_busy_end = nullptr;
constinit BusyEndHook on_jump = nullptr;
}

namespace undergo::world {
constinit bool publishing = false;
void EnterBlocked() {}
void LeaveBlocked() {}
}  // namespace undergo::world

namespace undergo::sim {

namespace {

using sched::G;
using sched::GQueue;
using sched::GState;
using sched::M;
using sched::P;
using sched::PStatus;
using sched::Waiter;

constexpr uint32_t kMostMs = 30;
constexpr uint32_t kMostPs = 4;
constexpr size_t kStack = 64 * kKiB;
constexpr uint64_t kLate = 700'000;       // ns that work may wait while a P is idle; a nap and some
constexpr uint64_t kStuck = 400'000'000;  // ns without progress of the programs
constexpr uint64_t kSettle = 5'000'000;   // ns until all Ms sleep after the last G

struct Device {
  uint32_t tokens;
  Waiter* waiter;
};

struct Plain {
  void* (*program)(void*);
  void* arg;
};

// Work that was seen at one place, and since when.
struct Seen {
  const void* what;
  uint64_t since;
};

struct Machine {
  M ms[kMostMs];
  uint32_t m_count;
  G gs[kMostGs];
  uint32_t g_count;
  heap::ThreadWords words[kMostGs];
  Plain plain[kMostPlain];
  uint32_t plain_count;
  uint32_t alive;  // programs that have not ended
  uint64_t progress, ended;
  Device devices[kDevices];
  bool broken;  // the poller's wait
  Seen seen[2 * kMostPs + 2];
};

Machine machine;
alignas(64) P ps[kMostPs];
char* stacks = nullptr;

auto& S() { return undergo::sched::sched; }

// --- what must be true at any time ---

void Look(Seen* s, const void* what, const char* where) {
  if (what == nullptr || what != s->what) {
    *s = {what, Now()};
  } else if (Now() - s->since > kLate) {
    Fail("%s has waited for %lu ns while a P is idle", where, Now() - s->since);
  }
}

void CheckLive() {
  if (machine.alive != 0 && Now() - machine.progress > kStuck) {
    Fail("%u programs do not end: a wake-up is lost", machine.alive);
  }
  if (S().idle_p_count == 0) {
    memset(&machine.seen[0], 0, sizeof machine.seen);
    return;
  }
  Seen* s = &machine.seen[0];
  for (uint32_t i = 0; i < S().procs; ++i) {
    P& p = ps[i];
    Look(s++, p.runnext, "a G in runnext");
    bool ring = p.head != p.tail;
    Look(s++, ring ? p.ring[p.head % sched::kRingSize] : nullptr, "a G in a ring");
  }
  Look(s++, S().global.head, "a G in the global queue");
  uint64_t nearest = sched::NearestDeadline();
  bool late = nearest != 0 && nearest + kLate < Now();
  Look(s++, late ? &late : nullptr, "a deadline");
}

// --- threads ---

void EndOfProgram() {
  Instruction one;
  machine.progress = Now();
  if (--machine.alive == 0) machine.ended = Now();
}

void BeginG(void* arg) {
  auto* g = static_cast<G*>(arg);
  sched::FinishSwitch(g);
  sched::LeaveSched(g);
  g->start(g->arg);
  EndOfProgram();
  sched::EnterSched(g);
  g->state = GState::kDead;
  sched::Schedule(g);
  Fail("a dead G runs");
}

void BeginPlain(void* arg) {
  auto* plain = static_cast<Plain*>(arg);
  plain->program(plain->arg);
  EndOfProgram();
}

// As pthread_create on a thread without a G.
void BeginStarter(void*) {
  for (uint32_t i = 0; i < machine.g_count; ++i) sched::MakeReady(&machine.gs[i], true);
}

void BeginM(void* arg) {
  auto* m = static_cast<M*>(arg);
  sched::RunM(m);
  Fail("an M ends");
}

void BeginSysmon(void*) {
  sched::RunSysmon();
  End();
}

bool MakeM() {
  if (machine.m_count == kMostMs) Fail("more than %u Ms", kMostMs);
  M* m = machine.m_count == 0 ? &sched::first_m : &machine.ms[machine.m_count];
  m->id = ++machine.m_count;
  m->tid = static_cast<int>(m->id);
  m->rand = m->id * 2654435761u | 1;
  G* g0 = &m->g0;
  m->cur = g0;
  g0->m = m;
  g0->g0 = true;
  g0->on_cpu = 1;
  g0->state = GState::kRunning;
  Thread* t = Spawn(BeginM, m, m);
  if (t == nullptr) return false;
  g0->words = &t->own_words;
  g0->fs = reinterpret_cast<Addr>(g0->words);
  g0->words->self = g0;
  g0->words->busy = g0->words->in_sched = 1;
  m->all_next = S().all_ms;
  S().all_ms = m;
  S().m_count++;
  return true;
}

bool AnyReady() {
  for (Device& d : machine.devices) {
    if (d.waiter != nullptr && d.tokens != 0) return true;
  }
  return false;
}

void WakePoller() {
  if (Thread* t = FindBlocked(State::kPoll)) Unblock(t);
}

void FillEvents(sched::NetpollEvents* events) {
  Instruction one;
  for (uint32_t i = 0; i < kDevices; ++i) {
    Device& d = machine.devices[i];
    if (d.waiter != nullptr && d.tokens != 0) events->events[events->count++].data.u32 = i;
  }
}

}  // namespace

void Progress() { machine.progress = Now(); }

void BuildMachine(uint32_t procs) {
  memset(static_cast<void*>(&machine), 0, sizeof machine);
  memset(static_cast<void*>(&S()), 0, sizeof S());
  memset(static_cast<void*>(&sched::first_m), 0, sizeof sched::first_m);
  for (P& p : ps) {
    // The heap of deadlines keeps its pages.
    size_t before = offsetof(P, timers), after = before + sizeof p.timers;
    memset(static_cast<void*>(&p), 0, before);
    memset(reinterpret_cast<char*>(&p) + after, 0, sizeof p - after);
    p.timers.ResetAfterFork();
  }
  if (stacks == nullptr) {
    stacks = static_cast<char*>(mmap(nullptr, kMostGs * kStack, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  }
  sched::active_page[0] = 1;
  machine.progress = S().last_poll = S().now = Now();
  for (uint32_t i = 0; i < procs; ++i) {
    ps[i].id = i;
    S().ps[i] = &ps[i];
    sched::PutIdleP(&ps[i]);
  }
  S().procs = S().ps_made = procs;
  on_check = CheckLive;
}

G* NewG(void* (*program)(void*), void* arg) {
  uint32_t i = machine.g_count++;
  G* g = &machine.gs[i];
  heap::ThreadWords* w = &machine.words[i];
  w->busy = w->in_sched = 1;
  w->g = w->self = g;
  g->words = w;
  g->fs = reinterpret_cast<Addr>(w);
  g->goid = i + 1;
  g->start = program;
  g->arg = arg;
  g->sp = plat::MakeContext(reinterpret_cast<Addr>(stacks) + (i + 1) * kStack, BeginG, g);
  g->state = GState::kRunnable;
  ++machine.alive;
  S().gcount++;
  return g;
}

void NewPlainThread(void* (*program)(void*), void* arg) {
  Plain* plain = &machine.plain[machine.plain_count++];
  *plain = {program, arg};
  ++machine.alive;
  Spawn(BeginPlain, plain, nullptr);
}

void StartMachine() {
  MakeM();
  Spawn(BeginSysmon, nullptr, nullptr)->traced = false;
  Spawn(BeginStarter, nullptr, nullptr);
}

const char* CheckRest() {
  uint32_t idle_ps = 0, idle_ms = 0;
  for (P* p = S().idle_ps; p != nullptr; p = p->next_idle) ++idle_ps;
  for (M* m = S().idle_ms; m != nullptr; m = m->next_idle) ++idle_ms;
  if (idle_ps != S().procs || S().idle_p_count != idle_ps) return "a P is lost";
  if (S().idle_m_count != idle_ms) return "the idle Ms are counted wrongly";
  uint32_t polls = FindBlocked(State::kPoll) != nullptr;
  if (idle_ms + polls != S().m_count) return "an M is neither idle nor in the poller";
  if (S().spinning != 0) return "an M that spins is counted, and none does";
  if (S().watched != 0) return "an M that watches is told, and none does";
  if (S().global.size != 0 || S().global.head != nullptr) return "the global queue is not empty";
  if (S().lock.locked()) return "the scheduler's lock is held";
  for (uint32_t i = 0; i < S().procs; ++i) {
    if (!sched::RunqEmpty(&ps[i])) return "a run queue is not empty";
    if (ps[i].timers.size() != 0) return "a deadline is left";
  }
  for (uint32_t i = 0; i < machine.g_count; ++i) {
    if (machine.gs[i].state != GState::kDead) return "a G is not dead";
    if (machine.gs[i].on_cpu != 0) return "a dead G keeps its M";
  }
  return nullptr;
}

void PrintMachine() {
  Instruction one;
  for (uint32_t i = 0; i < machine.g_count; ++i) {
    const G& g = machine.gs[i];
    fprintf(stderr, "G%lu state %d wake %u why %s on_cpu %u M%u\n", g.goid,
            static_cast<int>(g.state), g.wake, sched::NameOf(g.why), g.on_cpu,
            g.m != nullptr ? g.m->id : 0);
  }
  for (uint32_t i = 0; i < S().procs; ++i) {
    fprintf(stderr, "P%u state %u M%u, %u Gs\n", i, ps[i].status & 3, ps[i].status >> 2,
            sched::RunqSize(&ps[i]));
  }
  for (M* m = S().all_ms; m != nullptr; m = m->all_next) {
    fprintf(stderr, "M%u is T%ld, P%d, G%lu\n", m->id, Index(ThreadOf(m)),
            m->p != nullptr ? static_cast<int>(m->p->id) : -1, m->cur->goid);
  }
  fprintf(stderr, "idle Ps %u, idle Ms %u, spinning %u, watched %u, last poll %lu\n",
          S().idle_p_count, S().idle_m_count, S().spinning, S().watched, S().last_poll);
}

M* AnyM() {
  Instruction one;
  uint64_t n = Random(machine.m_count);
  return n == 0 ? &sched::first_m : &machine.ms[n];
}

void DeviceWrite(uint32_t device) {
  Point("write", nullptr);
  Flush();
  machine.devices[device].tokens++;
  if (AnyReady()) WakePoller();
}

void DeviceRead(uint32_t device) {
  Device& d = machine.devices[device];
  for (;;) {
    Point("read", nullptr);
    if (d.tokens != 0) {
      --d.tokens;
      return;
    }
    Waiter w(sched::WaitReason::kIoRead);
    w.Arm();
    Point("add", nullptr);
    Flush();
    d.waiter = &w;
    if (d.tokens != 0) WakePoller();
    bool timed = Random(4) == 0;
    sched::Wake why = w.Wait(timed ? Now() + Random(200'000) + 1 : sched::kNever, true);
    if (d.waiter == &w) d.waiter = nullptr;
    if (why == sched::Wake::kInterrupted) sched::Calm(sched::Self());
  }
}

}  // namespace undergo::sim

// --- what the scheduler calls ---

namespace undergo::sched {

using namespace undergo::sim;

constinit uint32_t active_page[kOsPageSize / sizeof(uint32_t)] = {};
constinit M first_m = {};
constinit bool preempt_by_signal = true;
constinit bool preempt_always = false;
constinit uint32_t accounting = 0;

bool NewM() { return MakeM(); }

bool Preempt(M* m) {
  Thread* t = ThreadOf(m);
  StoreRelaxed(&m->preempting, uint32_t{kAsked});
  t->preempted = true;
  return true;
}
// No call of a simulated program ends early.
void AwaitPreemption(M*) {}

uint64_t ThreadCpuClock(int tid) {
  for (M* m = S().all_ms; m != nullptr; m = m->all_next) {
    if (m->tid == tid) return ThreadOf(m)->cpu_ns;
  }
  return 0;
}
void AccountSwitch(G*, G*) {}

bool NetpollActive() {
  for (Device& d : machine.devices) {
    if (d.waiter != nullptr) return true;
  }
  return false;
}
void NetpollWait(uint64_t ns, NetpollEvents* events) {
  constexpr uint64_t kForever = ~uint64_t{0};
  Point("epoll", nullptr);
  Flush();
  if (ns != 0 && !machine.broken && !AnyReady()) {
    if (FindBlocked(State::kPoll) != nullptr) Fail("two Ms wait in the poller");
    Block(State::kPoll, nullptr, ns == kForever ? 0 : Now() + ns);
  }
  machine.broken = false;
  FillEvents(events);
}
void NetpollDeliver(const NetpollEvents& events, GQueue* ready) {
  Instruction one;
  for (int i = 0; i < events.count; ++i) {
    Device& d = machine.devices[events.events[i].data.u32];
    if (d.waiter == nullptr) continue;
    d.waiter->Claim(Wake::kReady, ready);
    d.waiter = nullptr;
  }
}
void Netpoll(GQueue* ready) {
  NetpollEvents events;
  Point("epoll", nullptr);
  FillEvents(&events);
  NetpollDeliver(events, ready);
}
void NetpollFlush(bool) {}
void NetpollVerify(uint64_t, bool) {}
void NetpollBreak() {
  Point("break", nullptr);
  Flush();
  machine.broken = true;
  WakePoller();
}

void SetIdleMask(M*) {}
void SetKernelMask(M*, uint64_t) {}
void AskForMask(M*, G*) {}
void AdoptAltStack(M*, G*) {}
void LeaveAltStack(M*, G*) {}

uint64_t TracePeriod() { return 0; }
void TraceIfDue(uint64_t) {}
void AdaptProcs(uint64_t) {}
void BeginRetiring() {}
bool MayRetire() { return false; }
constinit uint32_t confinement = 0;
bool MakeConfinedMs() { return false; }
void TrimStacks(uint64_t) {}
bool StacksTrimmedSince(uint64_t) { return true; }
void AwaitTrimmed(G*) {}
bool Retire(uint64_t now) { return machine.alive == 0 && now > machine.ended + kSettle; }

}  // namespace undergo::sched

// Of the thread pointers only the thread block's words matter here.
extern "C" void RealSwitch(undergo::Addr* save, undergo::Addr load,
                           undergo::Addr fs) asm("undergo_switch");
extern "C" void undergo_sim_switch(undergo::Addr* save, undergo::Addr load, undergo::Addr fs) {
  undergo::heap::running_words = reinterpret_cast<undergo::heap::ThreadWords*>(fs);
  RealSwitch(save, load, undergo::plat::GetFsBase());
}
