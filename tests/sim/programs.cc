// SPDX-License-Identifier: Apache-2.0
// Programs of the simulated threads.
//
// The threads of a seed are pairs. In each round the two of a pair meet, by one of the ways to wait
// (a Waiter, a semaphore on a queue of sema.h, a descriptor, looking at a word without giving way),
// and each does something of its own before: computes, gives way, sleeps, takes a mutex, blocks in
// the kernel with or without saying so, interrupts others, asks for another M. At the end of a
// round all threads may meet at a barrier of a mutex and a condition. Nobody waits for a thread
// that waits for it, so every program ends if no wake-up is lost.
#include "programs.h"

#include <string.h>

#include "machine.h"
#include "sched/handoff.h"
#include "sched/preempt.h"
#include "sched/sema.h"

namespace undergo::sim {

namespace {

using namespace sched;

constexpr uint32_t kMutexes = 2;

// Of three states, as on a futex: 0 free, 1 held, 2 held and maybe wanted.
struct ToyMutex {
  uint32_t word;
  uint32_t holders;  // who is inside; plain
};

struct ToySemaphore {
  uint32_t tokens;              // under a Visit, with the next two
  uint64_t next_ticket, woken;  // first come, first served
};

// Where two threads meet.
struct Pair {
  ToySemaphore semaphores[2];
  uint32_t mail[2];  // atomic; things sent to that side
  Waiter* waiters[2];
};

struct Programs {
  ToyMutex mutexes[kMutexes];
  ToyMutex barrier_mutex;
  uint32_t barrier_condition;  // its address is the key
  uint32_t arrived, generation;
  Pair pairs[kMostGs / 2 + kMostPlain];
  uint32_t threads, rounds;
  uint64_t seed;
  G* gs[kMostGs];
  uint32_t g_count;
};
Programs all;

struct Self1 {
  uint32_t index;
};
Self1 selves[kMostGs + 2 * kMostPlain];

Pair& PairOf(uint32_t index) { return all.pairs[index / 2]; }

uint64_t MaybeDeadline() { return Random(3) == 0 ? Now() + 1 + Random(150'000) : kNever; }

void CheckPlace() {
  G* g = Self();
  if (g == nullptr) return;
  if (g->m != Running()->m) Fail("G%lu runs on an M that is not its own", g->goid);
  if (g->state != GState::kRunning) Fail("G%lu runs and is not told to", g->goid);
}

// Instructions of the program; here signals come.
void Compute(uint64_t steps) {
  for (uint64_t i = 0; i < steps; ++i) {
    Point("compute", nullptr);
    Thread* t = Running();
    if (!t->preempted || Current() == nullptr) continue;
    t = Running();
    t->preempted = false;
    Yield(Yielding::kBehindAll);
    CheckPlace();
  }
}

void AttendTo(Wake why) {
  if (why == Wake::kInterrupted && Self() != nullptr) Calm(Self());
}

// --- mutex ---

void LockWanted(ToyMutex* m) {
  while (ExchangeAcqRel(&m->word, 2u) != 0) {
    Sleeper s(WaitReason::kMutex, m);
    Visit v(m);
    if (ExchangeAcqRel(&m->word, 2u) == 0) break;
    AttendTo(v.Wait(&s, MaybeDeadline(), Random(2) == 0));
  }
}

void Entered(ToyMutex* m) {
  if (m->holders++ != 0) Fail("two threads hold a mutex");
}

void Lock(ToyMutex* m) {
  uint32_t free = 0;
  if (!CasAcqRel(&m->word, &free, 1u)) LockWanted(m);
  Entered(m);
}

bool Release(ToyMutex* m) {
  --m->holders;
  return ExchangeAcqRel(&m->word, 0u) == 2;
}

void Unlock(ToyMutex* m) {
  if (!Release(m)) return;
  Visit v(m);
  v.WakeOne();
}

// --- condition ---

void WaitFor(uint32_t* condition, ToyMutex* m) {
  Sleeper s(WaitReason::kCond, condition);
  Visit v(condition);
  v.Queue(&s);
  if (Release(m)) {
    v.MoveTo(m);
    v.WakeOne();
  }
  AttendTo(v.Sleep(&s, MaybeDeadline(), Random(2) == 0));
  LockWanted(m);
  Entered(m);
}

// With the mutex held: the waiters go on to wait for it.
void Broadcast(uint32_t* condition, ToyMutex* m) {
  if (Random(2) == 0) {
    Visit v(condition);
    v.WakeAll();
    return;
  }
  if (Random(2) == 0) {
    Visit v(condition, m);
    ExchangeAcqRel(&m->word, 2u);
    v.Requeue(~0u);
    return;
  }
  Visit v(condition);
  if (v.Empty()) return;
  // Those who came while the queue was not locked do not harm here.
  v.Reach(m);
  ExchangeAcqRel(&m->word, 2u);
  v.Requeue(~0u);
}

void MeetAll() {
  ToyMutex* m = &all.barrier_mutex;
  Lock(m);
  uint32_t mine = all.generation;
  if (++all.arrived == all.threads) {
    all.arrived = 0;
    ++all.generation;
    Broadcast(&all.barrier_condition, m);
  }
  while (all.generation == mine) WaitFor(&all.barrier_condition, m);
  Unlock(m);
}

// --- semaphore ---

void Post(ToySemaphore* s) {
  Visit v(s);
  uint64_t ticket = 0;
  if (!v.WakeOne([&ticket](Sleeper* w) { ticket = w->detail, w->granted = true; })) {
    ++s->tokens;
  } else if (ticket <= s->woken) {
    Fail("a thread was woken before one that came first");
  } else {
    s->woken = ticket;
  }
}

void WaitFor(ToySemaphore* s) {
  for (;;) {
    Sleeper sleeper(WaitReason::kSemaphore, s);
    Visit v(s);
    if (s->tokens != 0) {
      --s->tokens;
      return;
    }
    sleeper.detail = ++s->next_ticket;
    Wake why = v.Wait(&sleeper, MaybeDeadline(), Random(2) == 0);
    if (why == Wake::kReady) {
      if (!sleeper.granted) Fail("woken, and nothing was granted");
      return;
    }
    AttendTo(why);
  }
}

// --- sleep ---

void SleepFor(uint64_t ns) {
  Waiter w(WaitReason::kSleep);
  uint64_t deadline = Now() + ns;
  w.Arm();
  Wake why = w.Wait(deadline, Random(2) == 0);
  if (why == Wake::kTimeout && Now() < deadline) Fail("a sleep was too short");
  if (why == Wake::kReady) Fail("a sleep was ended by nobody");
  AttendTo(why);
}

// --- a mailbox with a Waiter ---

void Send(uint32_t to) {
  Pair& pair = PairOf(to);
  GQueue ready;
  Point("send", nullptr);
  Flush();
  {
    Instruction one;
    pair.mail[to % 2]++;
    Waiter* w = pair.waiters[to % 2];
    pair.waiters[to % 2] = nullptr;
    if (w != nullptr) w->Claim(Wake::kReady, &ready);
  }
  if (G* g = ready.Pop()) MakeReady(g, Random(2) == 0);
}

void Receive(uint32_t self) {
  Pair& pair = PairOf(self);
  uint32_t* mail = &pair.mail[self % 2];
  Waiter** place = &pair.waiters[self % 2];
  while (LoadRelaxed(mail) == 0) {
    Waiter w(WaitReason::kFutex);
    w.Arm();
    Point("receive", nullptr);
    Flush();
    if (*mail != 0 && Random(2) == 0) {
      w.Disarm();
      continue;
    }
    if (*mail == 0) *place = &w;
    uint64_t deadline = *mail == 0 ? MaybeDeadline() : Now() + 1;
    Wake why = w.Wait(deadline, Random(2) == 0);
    if (*place == &w) *place = nullptr;
    AttendTo(why);
  }
  --*mail;
}

// Without giving way: another M has to run the sender.
void Watch(uint32_t self) {
  uint32_t* mail = &PairOf(self).mail[self % 2];
  // Longer than work may wait while a P is idle; for a while otherwise.
  uint64_t patience = sched::sched.procs > 1 && Random(8) == 0 ? 5000 : Random(300);
  while (*mail == 0) {
    Compute(4);
    patience > 0 ? static_cast<void>(--patience) : SleepFor(Random(3000) + 1);
  }
  --*mail;
}

// --- what a thread does on its own ---

void Section(ToyMutex* m) {
  Lock(m);
  uint64_t how = Random(4);
  if (how == 0) Yield();
  if (how == 1) SleepFor(1 + Random(20'000));
  if (how >= 2) Compute(Random(50));
  Unlock(m);
}

void BlockingCall() {
  G* g = Random(3) == 0 ? EnterLongCall() : EnterCall();
  if (Random(4) != 0) Block(State::kInCall, nullptr, Now() + 1 + Random(200'000));
  if (g != nullptr && Random(8) == 0) ReturnToCall(LeaveCallEarly());
  ExitCall(g);
}

void Disturb() {
  G* g = all.gs[Random(all.g_count)];
  if (Random(2) == 0) {
    Interrupt(g);
  } else {
    StoreRelease(&g->wishes, g);  // pairs: LeaveSched
  }
}

void YieldAndCheck() {
  G* g = Current();
  bool wished = g != nullptr && LoadRelaxed(&g->wishes) != nullptr;
  Yield(Random(4) == 0 ? Yielding::kBehindAll : Yielding::kBehindNeighbours);
  if (wished && LoadRelaxed(&g->wishes) != nullptr) Fail("a wish was not heard");
}

void DoSomething() {
  switch (Random(13)) {
    case 0:
    case 1: Compute(Random(Random(16) == 0 ? 15'000 : 300)); break;
    case 2:
    case 3: YieldAndCheck(); break;
    case 4: SleepFor(1 + Random(100'000)); break;
    case 5:
    case 6: Section(&all.mutexes[Random(kMutexes)]); break;
    case 7:
    case 8: BlockingCall(); break;
    case 9: Disturb(); break;
    case 10:
      if (Current() != nullptr && Random(4) == 0) MoveTo(AnyM());
      break;
    case 11:
      // The kernel has the thread, and it did not say so.
      if (Random(8) == 0) Block(State::kInCall, nullptr, Now() + Random(3'000'000));
      break;
    default: break;
  }
  CheckPlace();
}

// --- rounds ---

// The same for both sides of a pair.
uint64_t Choice(uint32_t pair, uint32_t round) {
  uint64_t z = (all.seed * 1000003 + pair) * 1000003 + round;
  z = (z ^ (z >> 31)) * 0xBF58476D1CE4E5B9;
  return (z ^ (z >> 29)) * 0x94D049BB133111EB >> 20;
}

void Meet(uint32_t self, uint64_t how) {
  uint32_t other = self ^ 1;
  uint32_t turns = (how >> 8) % 4 == 0 ? 12 + (how >> 16) % 30 : 1;
  for (uint32_t i = 0; i < turns; ++i) {
    switch (how % 4) {
      case 0:
        Send(other);
        Receive(self);
        break;
      case 1:
        Send(other);
        Watch(self);
        break;
      case 2:
        if (all.g_count > self && all.g_count > other) {
          DeviceWrite(other);
          DeviceRead(self);
          break;
        }
        [[fallthrough]];
      default:
        // One after the other, as in a ping-pong.
        if (self % 2 == 0) Post(&PairOf(self).semaphores[1]);
        WaitFor(&PairOf(self).semaphores[self % 2]);
        if (self % 2 == 1) Post(&PairOf(self).semaphores[0]);
    }
    CheckPlace();
    Progress();
  }
}

void* Program(void* arg) {
  uint32_t self = static_cast<Self1*>(arg)->index;
  for (uint32_t round = 0; round < all.rounds; ++round) {
    for (uint64_t n = Random(4); n > 0; --n) DoSomething();
    Meet(self, Choice(self / 2, round));
    if (Choice(1000, round) % 3 == 0) MeetAll();
  }
  return nullptr;
}

void HearWishes(G* g) { ExchangeAcqRel(&g->wishes, static_cast<void*>(nullptr)); }
void HearSignals(G*) { StoreRelaxed(&heap::thread_words.deferred, 0u); }

}  // namespace

void Explain() {
  PrintMachine();
  PrintTrace();
}

const char* RunSeed(uint64_t seed) {
  Begin(seed);
  memset(static_cast<void*>(&all), 0, sizeof all);
  BuildMachine(1 + static_cast<uint32_t>(Random(4)));
  on_wishes = HearWishes;
  on_sched_end = HearSignals;
  all.seed = seed;
  all.rounds = 1 + static_cast<uint32_t>(Random(4));
  all.g_count = 2 * (1 + static_cast<uint32_t>(Random(kMostGs / 2)));
  // A pair of plain threads, or one of each kind.
  uint32_t plain = Random(4) == 0 ? kMostPlain : 0;
  all.threads = all.g_count + plain;
  for (uint32_t i = 0; i < all.threads; ++i) {
    selves[i].index = i;
    if (i < all.g_count) {
      all.gs[i] = NewG(Program, &selves[i]);
    } else {
      NewPlainThread(Program, &selves[i]);
    }
  }
  StartMachine();
  Run();
  if (Failure() == nullptr) {
    if (const char* wrong = CheckRest()) NoteFailure(wrong);
  }
  return Failure();
}

}  // namespace undergo::sim
