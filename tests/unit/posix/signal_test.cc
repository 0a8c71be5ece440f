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
uint8_t held[kShadowBytes / heap::kGranule];
const char* trouble = nullptr;

size_t IndexOf(void* p) {
  Addr offset = reinterpret_cast<Addr>(p) - heap::arena.base;
  if (p == nullptr || offset >= kShadowBytes || offset % heap::kGranule != 0) {
    trouble = "an address outside of what this test expects";
    return 0;
  }
  return offset / heap::kGranule;
}

void* Take(void* p) {
  size_t i = IndexOf(p);
  if (held[i] != 0) trouble = "a slot was handed out twice";
  held[i] = 1;
  return p;
}

void Give(void* p) {
  size_t i = IndexOf(p);
  if (held[i] != 1) trouble = "this test freed what it did not hold";
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
bool storm;
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
  if (!storm) registers[REG_EFL] &= ~kTrapFlag;
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

// Runs f one instruction at a time; the signal comes in front of instruction `at`, and in a storm
// of each one after that too. The number of instructions.
template <typename F>
long Stepped(long at, F f) {
  steps = fired = 0;
  fire_at = at;
  __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() | kTrapFlag);
  f();
  __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~static_cast<uint64_t>(kTrapFlag));
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

// Leaves `bits` free slots in the cursor.
void LeaveInCursor(size_t size, uint32_t bits) {
  mine.push_back(Take(heap::Malloc(size)));
  while (CountBits(CursorOf(size)->bits) < bits) mine.push_back(Take(heap::Malloc(size)));
  while (CountBits(CursorOf(size)->bits) > bits) mine.push_back(Take(heap::Malloc(size)));
}

void FreeMine() {
  for (void* p : mine) Give(p);
  mine.clear();
}

// A signal in front of each instruction of `call` in turn, which returns an object. `prepare` brings
// the heap into the same state each time; a long call is sampled, so that it takes seconds.
template <typename Prepare, typename Call>
void AtEachInstruction(Prepare prepare, Call call) {
  void* volatile got;
  prepare();
  const long length = Stepped(1L << 60, [&] { got = call(); });
  mine.push_back(Take(got));
  cr_assert(length > 5, "not stepping: %ld", length);
  const long stride = std::max(1L, length * length / 400000);
  for (long where = 1;; where += where < 200 ? 1 : stride) {
    prepare();
    Stepped(where, [&] { got = call(); });
    mine.push_back(Take(got));
    cr_assert(trouble == nullptr, "%s: signal at instruction %ld", trouble, where);
    if (fired == 0) break;
    if (kept.size() > 5000) DropKept();
    if (mine.size() > 20000) FreeMine();
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
