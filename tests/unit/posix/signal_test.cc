// SPDX-License-Identifier: Apache-2.0
// Signal handlers that allocate: a signal is delivered at each single instruction of an allocation,
// and no slot may be handed out twice or get lost.
//
// The trap flag steps through the call. The trap handler, which is not wrapped, counts instructions
// and at the wanted one leaves a second signal pending, which it blocks itself: the kernel delivers
// that one on return, in front of exactly the next instruction of the call. Its handler is
// installed through the wrapper under test and allocates.

#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "check.h"
#include "heap/fastpath.h"
#include "heap/malloc.h"
#include "heap/walk.h"
#include "plat/real.h"
#include "posix/posix.h"

using namespace undergo;

namespace {

// Which granules of the start of the heap begin an object that somebody holds. Signal handlers
// write it while nothing but the heap is interrupted.
constexpr size_t kShadowBytes = 256 * kMiB;
constexpr size_t kMostBytes = 32 * kMiB;
uint8_t held[kShadowBytes / heap::kGranule];
const char* trouble = nullptr;

// The first trouble is the one to look at.
void Trouble(const char* what) {
  if (trouble == nullptr) trouble = what;
}

size_t IndexOf(void* p) {
  if (p == nullptr) {
    Trouble("no memory");
    return 0;
  }
  Addr offset = reinterpret_cast<Addr>(p) - heap::arena.base;
  if (offset >= kShadowBytes || offset % heap::kGranule != 0) {
    Trouble("an address outside of what this test expects");
    return 0;
  }
  return offset / heap::kGranule;
}

void* Take(void* p) {
  size_t i = IndexOf(p);
  if (held[i] != 0) Trouble("a slot was handed out twice");
  held[i] = 1;
  return p;
}

void Give(void* p) {
  size_t i = IndexOf(p);
  if (held[i] != 1) Trouble("this test freed what it did not hold");
  held[i] = 0;
  heap::Free(p);
}

// What the handler does: a number of allocations of one size, of which it keeps some.
struct Plan {
  size_t size;
  int mallocs;
  int keep;
};
Plan plan;
std::vector<void*> kept;  // has room: the handler must not grow it
std::vector<void*> mine;

long steps, fire_at, fired;
long most = 1;  // signals in one call
greg_t trap_ip;
uint64_t rewinds;

constexpr greg_t kTrapFlag = 0x100;
constexpr long kSequenceLength = 8;  // instructions that a rewound malloc needs to get through

void OnTrap(int, siginfo_t*, void* context) {
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  trap_ip = registers[REG_RIP];
  if (++steps < fire_at) return;
  ++fired;
  fire_at = steps + 1;
  if (fired == most) registers[REG_EFL] &= ~kTrapFlag;
  syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1);
}

void OnSignal(int, siginfo_t*, void* context) {
  if (static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] != trap_ip) {
    ++rewinds;
    fire_at = steps + kSequenceLength;  // else it would be moved back for ever
  }
  void* mine[128];
  int n = plan.mallocs < 128 ? plan.mallocs : 128;
  for (int i = 0; i < n; ++i) mine[i] = Take(heap::Malloc(plan.size));
  for (int i = 0; i < n; ++i) {
    if (i < plan.keep && kept.size() < kept.capacity()) {
      kept.push_back(mine[i]);
    } else {
      Give(mine[i]);
    }
  }
}

void InstallHandlers() {
  real::Resolve();
  heap::mheap.SetHugePages(heap::HugePages::kOff);  // all of the heap at its lower end
  kept.reserve(1 << 17);
  mine.reserve(1 << 17);
  struct sigaction trap = {};
  trap.sa_sigaction = OnTrap;
  trap.sa_flags = SA_SIGINFO;
  sigfillset(&trap.sa_mask);
  cr_assert(real::sigaction(SIGTRAP, &trap, nullptr) == 0);
  struct sigaction signal = {};
  signal.sa_sigaction = OnSignal;
  signal.sa_flags = SA_SIGINFO;
  cr_assert(posix::sigaction(SIGUSR1, &signal, nullptr) == 0);
}

// Runs f one instruction at a time; signals come in front of instruction `at` and of those after
// it, `most` in all. The number of instructions up to the last signal.
template <typename F>
long Stepped(long at, F f) {
  steps = fired = 0;
  fire_at = at;
  __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() | kTrapFlag);
  f();
  __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() &
                                 ~static_cast<uint64_t>(kTrapFlag));
  return steps;
}

void DropKept() {
  for (void* p : kept) Give(p);
  kept.clear();
}

// Slots that the heap believes to be held are those that are.
void CheckHeap() {
  cr_assert(trouble == nullptr, "%s", trouble);
  size_t expected = 0, found = 0;
  for (size_t i = 0; i < std::size(held); ++i) expected += held[i];
  heap::ForEachSpan([&](const heap::Span* s) {
    if (s->state == heap::SpanState::kLarge) return;
    heap::ForEachAllocatedSlot(s, [&](uint32_t slot) {
      Addr a = heap::SpanAddr(s) + size_t{slot} * s->slot_size;
      size_t i = (a - heap::arena.base) / heap::kGranule;
      cr_assert(i < std::size(held) && held[i] == 1, "slot %#zx is lost", a);
      ++found;
    });
  });
  cr_assert(found == expected, "%zu slots held, the heap knows %zu", expected, found);
}

heap::Cursor* CursorOf(size_t size) {
  return &heap::thread_words.mcache->cursors[heap::ClassOf(size)];
}

// Leaves `bits` free slots in the cursor, or as many as one can hold after a malloc.
void LeaveInCursor(size_t size, uint32_t bits) {
  bits = std::min(bits, heap::kClasses[heap::ClassOf(size)].batch - 1u);
  mine.push_back(Take(heap::Malloc(size)));
  while (CountBits(CursorOf(size)->bits) < bits) mine.push_back(Take(heap::Malloc(size)));
  while (CountBits(CursorOf(size)->bits) > bits) mine.push_back(Take(heap::Malloc(size)));
}

void FreeMine() {
  for (void* p : mine) Give(p);
  mine.clear();
}

// A signal in front of each instruction of `call` in turn, which returns an object. `prepare`
// brings the heap into the same state each time; a long call is sampled, so that it takes seconds.
template <typename Prepare, typename Call, typename Look = void (*)(void*)>
void AtEachInstruction(
    Prepare prepare, Call call, Look look = [](void*) {}) {
  void* volatile got;
  prepare();
  const long length = Stepped(1L << 60, [&] { got = call(); });
  look(mine.emplace_back(Take(got)));
  cr_assert(length > 5, "not stepping: %ld", length);
  const long stride = std::max(1L, length * length / 400000);
  for (long where = 1;; where += where < 200 ? 1 : stride) {
    prepare();
    Stepped(where, [&] { got = call(); });
    look(mine.emplace_back(Take(got)));
    cr_assert(trouble == nullptr,
              "%s: signal at instruction %ld of %ld, handler of size %zu, %d - %d", trouble, where,
              length, plan.size, plan.mallocs, plan.keep);
    if (fired == 0) break;
    if (kept.size() * plan.size > kMostBytes) DropKept();
    if (mine.size() * plan.size > kMostBytes) FreeMine();
  }
  CheckHeap();
  DropKept();
  FreeMine();
  CheckHeap();
}

const size_t kSizes[] = {16, 48, 512, 5000, 16384, 20000, 65536};

}  // namespace

TestSuite(signal, .timeout = 110);

Test(signal, at_each_instruction_of_a_fast_malloc) {
  InstallHandlers();
  for (size_t size : kSizes) {
    for (Plan p : {Plan{size, 1, 1}, Plan{size, 1, 0}, Plan{size, 3, 2}, Plan{size, 100, 50}}) {
      plan = p;
      AtEachInstruction([=] { LeaveInCursor(size, 2); }, [=] { return heap::Malloc(size); });
    }
  }
  cr_expect(rewinds > 0, "no signal hit the sequence");
}

Test(signal, at_each_instruction_of_a_malloc_that_refills) {
  InstallHandlers();
  for (size_t size : kSizes) {
    for (Plan p : {Plan{size, 1, 1}, Plan{size, 5, 3}, Plan{size, 100, 1}}) {
      plan = p;
      AtEachInstruction([=] { LeaveInCursor(size, 0); }, [=] { return heap::Malloc(size); });
    }
  }
}

Test(signal, at_each_instruction_of_a_free) {
  InstallHandlers();
  for (size_t size : kSizes) {
    for (Plan p : {Plan{size, 1, 1}, Plan{size, 2, 0}, Plan{size, 100, 60}}) {
      plan = p;
      AtEachInstruction(
          [=] {
            // Now and then so many that the free is the one that a full span waits for.
            for (size_t i = 0; i < 40; ++i) mine.push_back(Take(heap::Malloc(size)));
            for (size_t i = 0; i < 20; ++i) {
              Give(mine.back());
              mine.pop_back();
            }
          },
          [] {
            void* p = mine.back();
            mine.pop_back();
            held[IndexOf(p)] = 0;
            heap::Free(p);
            return heap::Malloc(16);
          });
    }
  }
}

Test(signal, a_cleared_object_is_clear_when_a_handler_came_in_between) {
  InstallHandlers();
  for (size_t size : {16, 512}) {
    // The handler's objects leave dirt behind, and its refills exchange fresh memory for used.
    for (Plan p : {Plan{size, 1, 0}, Plan{size, 100, 30}}) {
      plan = p;
      for (uint32_t left : {0, 2}) {
        AtEachInstruction(
            [=] {
              LeaveInCursor(size, left);
              for (size_t i = 0; i < 4 && mine.size() > 1; ++i) {
                memset(mine.back(), 0xa5, size);
                Give(mine.back());
                mine.pop_back();
              }
              LeaveInCursor(size, left);
            },
            [=] { return heap::MallocZeroed(size); },
            [=](void* p) {
              auto* bytes = static_cast<char*>(p);
              cr_assert(bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0, "size %zu", size);
              memset(bytes, 0x5a, size);
            });
      }
    }
  }
}

// Many signals in each call of a random program: all states meet. Without a bound on their number
// the handler could take each fresh cursor away for ever.
Test(signal, storm) {
  InstallHandlers();
  Random random = {7};
  for (int round = 0; round < 4000; ++round) {
    most = static_cast<long>(1 + Below(&random, 40));
    long at = static_cast<long>(1 + Below(&random, Below(&random, 2) == 0 ? 20 : 300));
    size_t size = kSizes[Below(&random, std::size(kSizes))];
    plan = {kSizes[Below(&random, std::size(kSizes))], static_cast<int>(1 + Below(&random, 4)), 0};
    if (Below(&random, 2) == 0) plan.size = size;
    plan.keep = static_cast<int>(Below(&random, static_cast<size_t>(plan.mallocs) + 1));
    void* got = nullptr;
    void* victim = nullptr;
    if (!mine.empty() && Below(&random, 2) == 0) {
      size_t i = Below(&random, mine.size());
      victim = mine[i];
      mine[i] = mine.back();
      mine.pop_back();
    }
    if (victim == nullptr) {
      Stepped(at, [&] { got = heap::Malloc(size); });
    } else {
      held[IndexOf(victim)] = 0;
      if (Below(&random, 3) == 0) {
        Stepped(at, [&] { got = heap::Realloc(victim, size, nullptr); });
      } else {
        Stepped(at, [&] { heap::Free(victim); });
      }
    }
    if (got != nullptr) mine.push_back(Take(got));
    cr_assert(trouble == nullptr, "%s", trouble);
    if (kept.size() > 2000) DropKept();
    if (mine.size() > 500) FreeMine();
  }
  CheckHeap();
  DropKept();
  FreeMine();
  CheckHeap();
  cr_expect(rewinds > 0, "no signal hit the sequence");
}

// What a program reads back is what it set, by whichever of the installers.
namespace {

void Plain(int) {}
volatile int plain_calls;
void CountPlain(int) { plain_calls = plain_calls + 1; }
volatile void* seen_address;
void WithInfo(int, siginfo_t* info, void*) { seen_address = info->si_addr; }

}  // namespace

Test(signal, reads_back_what_was_set) {
  struct sigaction act = {}, old = {};
  act.sa_handler = Plain;
  act.sa_flags = SA_RESTART;
  sigaddset(&act.sa_mask, SIGHUP);
  cr_assert(posix::sigaction(SIGUSR2, &act, &old) == 0);
  cr_expect(old.sa_handler == SIG_DFL);
  cr_assert(posix::sigaction(SIGUSR2, nullptr, &old) == 0);
  cr_expect(old.sa_handler == Plain);
  cr_expect((old.sa_flags & SA_SIGINFO) == 0 && (old.sa_flags & SA_RESTART) != 0);
  cr_expect(sigismember(&old.sa_mask, SIGHUP) == 1 && sigismember(&old.sa_mask, SIGINT) == 0);

  act.sa_sigaction = WithInfo;
  act.sa_flags = SA_SIGINFO;
  cr_assert(posix::sigaction(SIGUSR2, &act, &old) == 0);
  cr_expect(old.sa_handler == Plain && (old.sa_flags & SA_SIGINFO) == 0);
  cr_expect(reinterpret_cast<void*>(posix::signal(SIGUSR2, SIG_IGN)) ==
            reinterpret_cast<void*>(WithInfo));
  cr_expect(posix::signal(SIGUSR2, Plain) == SIG_IGN);
  cr_expect(posix::signal(SIGUSR2, SIG_DFL) == Plain);
  cr_expect(posix::signal(SIGUSR2, SIG_DFL) == SIG_DFL);
}

Test(signal, handlers_get_the_arguments_of_the_kernel) {
  cr_assert(posix::signal(SIGUSR2, CountPlain) == SIG_DFL);
  raise(SIGUSR2);
  raise(SIGUSR2);
  cr_expect(plain_calls == 2);
  struct sigaction act = {};
  act.sa_sigaction = WithInfo;
  act.sa_flags = SA_SIGINFO | SA_RESETHAND;
  cr_assert(posix::sigaction(SIGSEGV, &act, nullptr) == 0);
  siginfo_t info = {};
  info.si_code = SI_QUEUE;
  info.si_addr = &act;
  cr_assert(syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGSEGV, &info) == 0);
  cr_expect(seen_address == &act);
  struct sigaction old;
  cr_assert(posix::sigaction(SIGSEGV, nullptr, &old) == 0);
  cr_expect(old.sa_handler == SIG_DFL, "SA_RESETHAND was lost");
}

Test(signal, one_shot_and_bad_numbers) {
  cr_assert(posix::sysv_signal(SIGUSR2, CountPlain) == SIG_DFL);
  raise(SIGUSR2);
  cr_expect(plain_calls == 1);
  struct sigaction old;
  cr_assert(posix::sigaction(SIGUSR2, nullptr, &old) == 0);
  cr_expect(old.sa_handler == SIG_DFL);
  for (int sig : {0, -1, 65, 1000, SIGKILL, SIGSTOP}) {
    errno = 0;
    cr_expect(posix::signal(sig, Plain) == SIG_ERR && errno == EINVAL, "signal %d", sig);
    struct sigaction act = {};
    act.sa_handler = Plain;
    errno = 0;
    cr_expect(posix::sigaction(sig, &act, nullptr) == -1 && errno == EINVAL, "sigaction %d", sig);
  }
}

// The restart table of this very binary, which contains malloc many times.
extern "C" {
extern const int32_t __start_undergo_restart[];
extern const int32_t __stop_undergo_restart[];
}

Test(signal, restart_table) {
  size_t entries = 0;
  for (const int32_t* p = __start_undergo_restart; p < __stop_undergo_restart; p += 2) {
    Addr start = reinterpret_cast<Addr>(p) + static_cast<Addr>(intptr_t{p[0]});
    Addr end = reinterpret_cast<Addr>(p + 1) + static_cast<Addr>(intptr_t{p[1]});
    cr_assert(start < end && end - start < 64, "entry %zu: %#zx to %#zx", entries, start, end);
    ++entries;
  }
  cr_expect(entries >= 5, "%zu entries", entries);
}
