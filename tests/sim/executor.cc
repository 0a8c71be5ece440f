// SPDX-License-Identifier: Apache-2.0
#include "executor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "plat/context.h"
#include "plat/real.h"

extern "C" void RealSwitch(undergo::Addr* save, undergo::Addr load,
                           undergo::Addr fs) asm("undergo_switch");

namespace undergo::heap {
ThreadWords* running_words = nullptr;
}

namespace undergo::sim {

void (*on_check)() = nullptr;

namespace {

constexpr uint32_t kThreads = 48;
constexpr size_t kStack = 64 * kKiB;
constexpr uint32_t kTraced = 4096;     // at the most
constexpr uint32_t kCheckEvery = 128;  // steps
constexpr uint64_t kMostSteps = 3'000'000;

constexpr uint64_t kBeginning = 1'000'000'000;  // ns

struct Step {
  uint64_t now;
  uint32_t thread;
  const char* what;
  const volatile void* at;
  const void* pc;
};

struct Executor {
  Thread threads[kThreads];
  Thread* current;
  uint32_t instruction;  // above 0: no points
  Addr main_sp, abandoned_sp;
  uint64_t random, now, steps;
  uint64_t next_expiry;  // nothing ends by time before
  // Of the seed: how it interleaves.
  uint64_t tick;          // ns of a step
  uint64_t stay;          // another thread goes on at one point of so many
  uint64_t drain;         // a store becomes visible at one point of so many
  uint64_t freeze_every;  // a thread gets no CPU for long at one point of so many, 0: never
  uint64_t traced;
  Step trace[kTraced];
  char failure[400];
};

Executor x;
char* stacks = nullptr;

constexpr uint64_t kNoExpiry = ~uint64_t{0};

void ExpireAndFindNext() {
  x.next_expiry = kNoExpiry;
  for (Thread& t : x.threads) {
    if (t.state < State::kFutex || t.state > State::kInCall || t.until == 0) continue;
    if (t.until <= x.now) {
      t.timed_out = true;
      t.state = State::kReady;
    } else if (t.until < x.next_expiry) {
      x.next_expiry = t.until;
    }
  }
}

// --- store buffers ---

void Write(const BufferedStore& s, uint64_t value) { memcpy(s.at, &value, s.size); }

uint64_t Read(const BufferedStore& s) {
  uint64_t value = 0;
  memcpy(&value, s.at, s.size);
  return value;
}

void DropFirst(Thread* t) {
  --t->stored;
  memmove(&t->stores[0], &t->stores[1], t->stored * sizeof t->stores[0]);
}

void HideStores(Thread* t) {
  for (uint32_t i = t->stored; i-- > 0;) {
    BufferedStore& s = t->stores[i];
    // A plain store of its own to the same place has come after it.
    if (Read(s) == s.value) Write(s, s.old);
  }
}

void ShowStores(Thread* t) {
  for (uint32_t i = 0; i < t->stored; ++i) {
    BufferedStore& s = t->stores[i];
    s.old = Read(s);
    Write(s, s.value);
  }
}

void DrainOne() {
  Thread* t = &x.threads[Random(kThreads)];
  if (t->stored == 0) return;
  if (t != x.current) Write(t->stores[0], t->stores[0].value);
  DropFirst(t);
}

void DrainOld() {
  constexpr uint64_t kLongest = 100'000;  // ns
  for (Thread& t : x.threads) {
    while (t.stored != 0 && t.stores[0].since + kLongest < x.now) {
      if (&t != x.current) Write(t.stores[0], t.stores[0].value);
      DropFirst(&t);
    }
  }
}

// --- who runs ---

void SwitchTo(Thread* next) {
  Thread* t = x.current;
  if (next == t) return;
  HideStores(t);
  t->words = heap::running_words;
  x.current = next;
  RealSwitch(&t->sp, next->sp, plat::GetFsBase());
  heap::running_words = t->words;
  ShowStores(t);
}

// The other threads must have been left in order: their stores are not needed any more.
[[noreturn]] void Leave() {
  x.current = nullptr;
  RealSwitch(&x.abandoned_sp, x.main_sp, plat::GetFsBase());
  __builtin_unreachable();
}

// A ready thread; time passes until there is one.
Thread* Pick() {
  for (;;) {
    Thread* ready[kThreads];
    uint32_t n = 0;
    uint64_t thaw = kNoExpiry;
    for (Thread& t : x.threads) {
      if (t.state != State::kReady) continue;
      if (t.frozen <= x.now) {
        ready[n++] = &t;
      } else if (t.frozen < thaw) {
        thaw = t.frozen;
      }
    }
    if (n != 0) return ready[Random(n)];
    uint64_t next = thaw < x.next_expiry ? thaw : x.next_expiry;
    if (next == kNoExpiry) Fail("all threads sleep for good");
    if (next > x.now) x.now = next;
    ExpireAndFindNext();
    if (++x.steps > kMostSteps) Fail("no end after %lu steps", x.steps);
    if (on_check != nullptr) {
      Instruction one;
      on_check();
    }
  }
}

void ThreadMain(void* arg) {
  auto* t = static_cast<Thread*>(arg);
  heap::running_words = &t->own_words;
  t->start(t->arg);
  Flush();
  t->state = State::kDone;
  SwitchTo(Pick());
  __builtin_unreachable();
}

int Clock(clockid_t, struct timespec* t) {
  t->tv_sec = static_cast<time_t>(x.now / 1'000'000'000);
  t->tv_nsec = static_cast<long>(x.now % 1'000'000'000);
  return 0;
}

long Futex(const uint32_t* word, int op, uint32_t value, const uint64_t* span) {
  constexpr int kWait = 128, kWake = 129;
  if (op == kWake) {
    long woken = 0;
    for (Thread& t : x.threads) {
      if (woken == value) break;
      if (t.state != State::kFutex || t.futex != word) continue;
      Unblock(&t);
      ++woken;
    }
    return woken;
  }
  if (op != kWait) return -ENOSYS;
  if (*word != value) return -EAGAIN;
  if (Random(16) == 0) return 0;  // spurious
  uint64_t until = span == nullptr ? 0 : x.now + span[0] * 1'000'000'000 + span[1];
  return Block(State::kFutex, word, until) ? -ETIMEDOUT : 0;
}

}  // namespace

Instruction::Instruction() { ++x.instruction; }
Instruction::~Instruction() { --x.instruction; }

long Index(const Thread* t) { return t - &x.threads[0]; }
Thread* Running() { return x.current; }
uint64_t Now() { return x.now; }

Thread* ThreadOf(const sched::M* m) {
  for (Thread& t : x.threads) {
    if (t.state != State::kUnused && t.m == m) return &t;
  }
  return nullptr;
}

uint64_t Random() {
  x.random += 0x9E3779B97F4A7C15;
  uint64_t z = x.random;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

__attribute__((noinline)) void Point(const char* what, const volatile void* at) {
  Thread* t = x.current;
  if (t == nullptr || x.instruction != 0) return;
  bool idles = strcmp(what, "pause") == 0 || strcmp(what, "compute") == 0;
  if (t->traced && !idles) {
    x.trace[x.traced++ % kTraced] = {x.now, static_cast<uint32_t>(t - x.threads), what, at,
                                     __builtin_return_address(0)};
  }
  x.now += x.tick;
  t->cpu_ns += x.tick;
  if (++x.steps > kMostSteps) Fail("no end after %lu steps", x.steps);
  if (x.steps % kCheckEvery == 0 && on_check != nullptr) {
    Instruction one;
    on_check();
  }
  if (x.now >= x.next_expiry) ExpireAndFindNext();
  uint64_t r = Random();
  if (r % x.drain == 0) DrainOne();
  DrainOld();
  bool freeze = x.freeze_every != 0 && (r >> 20) % x.freeze_every == 0;
  if (freeze) t->frozen = x.now + (r >> 40) % 30'000;
  if (freeze || (r >> 10) % x.stay == 0) SwitchTo(Pick());
}

void Flush() {
  if (x.current != nullptr) x.current->stored = 0;
}

void Buffer(void* at, size_t size, uint64_t old, uint64_t value) {
  Thread* t = x.current;
  if (t == nullptr) return;
  if (t->stored == kBuffered) DropFirst(t);
  t->stores[t->stored++] = {at, size, old, value, x.now};
}

bool Block(State state, const uint32_t* futex, uint64_t until) {
  Thread* t = x.current;
  Flush();
  t->futex = futex;
  t->until = until;
  t->timed_out = false;
  t->state = state;
  if (until != 0 && until < x.next_expiry) x.next_expiry = until;
  SwitchTo(Pick());
  return t->timed_out;
}

void Unblock(Thread* t) {
  if (t->state > State::kReady && t->state < State::kDone) t->state = State::kReady;
}

Thread* FindBlocked(State state) {
  for (Thread& t : x.threads) {
    if (t.state == state) return &t;
  }
  return nullptr;
}

long KernelCall(long nr, long a, long b, long c, long d, long, long) {
  if (x.current == nullptr) return -ENOSYS;
  Point("call", nullptr);
  Flush();
  switch (nr) {
    case __NR_futex:
      return Futex(reinterpret_cast<const uint32_t*>(a), static_cast<int>(b),
                   static_cast<uint32_t>(c), reinterpret_cast<const uint64_t*>(d));
    case __NR_sched_yield: SwitchTo(Pick()); return 0;
    case __NR_rt_sigprocmask: return 0;
    default: return -ENOSYS;
  }
}

void Begin(uint64_t seed) {
  if (stacks == nullptr) {
    stacks = static_cast<char*>(mmap(nullptr, kThreads * kStack, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  }
  memset(&x, 0, sizeof x);
  x.random = seed * 0x2545F4914F6CDD1D;
  x.now = kBeginning;
  x.next_expiry = kNoExpiry;
  constexpr uint64_t kTicks[] = {10, 20, 50, 50};
  constexpr uint64_t kStays[] = {2, 4, 16, 64};
  constexpr uint64_t kDrains[] = {1, 4, 16, 64};
  constexpr uint64_t kFreezes[] = {0, 100, 300, 1000};
  x.tick = kTicks[Random(4)];
  x.stay = kStays[Random(4)];
  x.drain = kDrains[Random(4)];
  x.freeze_every = kFreezes[Random(4)];
  real::clock_gettime = Clock;
}

Thread* Spawn(void (*start)(void*), void* arg, sched::M* m) {
  for (Thread& t : x.threads) {
    if (t.state != State::kUnused) continue;
    t.start = start;
    t.arg = arg;
    t.m = m;
    t.traced = true;
    t.state = State::kReady;
    size_t i = static_cast<size_t>(&t - x.threads);
    Addr top = reinterpret_cast<Addr>(stacks) + (i + 1) * kStack;
    t.sp = plat::MakeContext(top, ThreadMain, &t);
    return &t;
  }
  return nullptr;
}

void Run() {
  x.current = Pick();
  RealSwitch(&x.main_sp, x.current->sp, plat::GetFsBase());
}

void End() { Leave(); }

void Fail(const char* format, ...) {
  va_list list;
  va_start(list, format);
  vsnprintf(x.failure, sizeof x.failure, format, list);
  va_end(list);
  Leave();
}

void NoteFailure(const char* text) { snprintf(x.failure, sizeof x.failure, "%s", text); }
const char* Failure() { return x.failure[0] != '\0' ? x.failure : nullptr; }

void PrintTrace() {
  for (const Thread& t : x.threads) {
    constexpr const char* kNames[] = {"", "ready", "in futex", "in poller", "in a call", "ended"};
    if (t.state == State::kUnused) continue;
    fprintf(stderr, "T%ld %s", &t - x.threads, kNames[static_cast<int>(t.state)]);
    if (t.state == State::kFutex) fprintf(stderr, " %p", static_cast<const void*>(t.futex));
    fprintf(stderr, t.until != 0 ? " until %lu\n" : "\n", t.until - kBeginning);
  }
  const char* wanted = getenv("SIM_TRACE");
  uint64_t n = wanted != nullptr ? strtoull(wanted, nullptr, 10) : 50;
  if (n > kTraced) n = kTraced;
  fprintf(stderr, "the last %lu steps, ns from the start: thread, access, address, code\n", n);
  for (uint64_t i = 0; i < n; ++i) {
    const Step& s = x.trace[(x.traced + kTraced - n + i) % kTraced];
    if (s.what == nullptr) continue;
    fprintf(stderr, "%9lu T%-2u %-8s %14p ", s.now - kBeginning, s.thread, s.what,
            const_cast<void*>(s.at));
    fflush(stderr);
    char command[200];
    snprintf(
        command, sizeof command,
        "addr2line -Cfipse /proc/%d/exe %lx 2>&1 | grep -v -e hooks.h -e atomic.h | head -n 1 | "
        "sed 's/^ (inlined by) //; s/(.*) at/ at/' 1>&2",
        getpid(), reinterpret_cast<Addr>(s.pc) - 1);
    if (system(command) != 0) return;
  }
}

}  // namespace undergo::sim
