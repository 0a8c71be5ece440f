// SPDX-License-Identifier: Apache-2.0
// Poison: see the header.
//
// A page is open, guarded or exposed. Guarded: it has no access rights, and bytes of dead objects
// on it are as the program left them. Exposed: it was guarded, somebody needed it, and the next
// sweep guards or opens it. On open pages each byte of a dead object is kPoison. Only a page on
// which every slot is dead is guarded, as dead slots are the only ones that nobody hands out.
//
// A guarded page is exposed by the sweeper, by the owner of the span, or by any thread that touches
// it, at the same time: an atomic step of its state, and then the rights. Who made the step may be
// waiting for the kernel, or is a thread of the parent that a fork left behind just then. So
// whoever finds a page exposed gives the rights once more: a thread whose fault it was, the sweeper
// before it writes, the child of a fork for all pages. A second time does no harm. The marker reads
// what is not open by copying (heap/careful.h).
//
// Rejected: a second mapping of the heap, so that the library may read what the program may not
// (memory would have to be shared, and fork would not copy it); watching reads of partly dead pages
// by single steps (far too slow).
#include "heap/poison.h"

#include <sys/mman.h>

#include "base/assert.h"
#include "heap/careful.h"
#include "heap/mcache.h"
#include "heap/pin.h"
#include "heap/sweep.h"
#include "heap/walk.h"
#include "plat/syscall.h"
#include "plat/vm.h"

namespace undergo::heap {

namespace {

constexpr uint8_t kPoison = 0xdb;
constexpr uint64_t kPoisonWord = 0xdbdbdbdbdbdbdbdb;
// Each run of guarded pages can cost two mappings, of which the kernel grants 65530.
constexpr int64_t kMaxGuardRuns = 12'000;

enum PageState : uint32_t { kOpen = 0, kGuarded = 1, kExposed = 1 << 16 };
constexpr uint32_t kAnyState = kGuarded | kExposed;
constinit uint32_t* states = nullptr;  // atomic, by slice; the state of page i is shifted by i
constinit int64_t guard_runs = 0;      // atomic; runs guarded less runs exposed

uint32_t PageIndex(Addr a) { return static_cast<uint32_t>((a % kSliceSize) / kOsPageSize); }
uint32_t StateOf(Addr a) {
  return (LoadAcquire(&states[SliceOf(a)]) >> PageIndex(a)) & kAnyState;  // pairs: Step
}
// One step of a page's state. False: it was in another one than `from`.
bool Step(Addr a, PageState from, PageState to) {
  uint32_t* word = &states[SliceOf(a)];
  uint32_t old = LoadAcquire(word), shift = PageIndex(a);  // pairs: the exchange below
  while (((old >> shift) & kAnyState) == from) {
    if (CasAcqRel(word, &old, old ^ ((from ^ to) << shift))) return true;  // pairs: StateOf
  }
  return false;
}

bool SetRights(Addr from, Addr to, int prot) {
  return !plat::IsError(plat::Syscall(__NR_mprotect, from, to - from, prot));
}

// To exposed pages, which may be without them still.
void GiveRights(Addr from, Addr to) {
  for (Addr a = from; a < to; a += kOsPageSize) {
    Addr end = a;
    while (end < to && StateOf(end) == kExposed) end += kOsPageSize;
    if (end == a) continue;
    SetRights(a, end, PROT_READ | PROT_WRITE);
    a = end;
  }
}

// Whole pages, none of them guarded. False: they are exposed, if anything.
bool Guard(Addr from, Addr to) {
  if (states == nullptr || LoadRelaxed(&guard_runs) >= kMaxGuardRuns) return false;
  for (Addr a = from; a < to; a += kOsPageSize) {
    if (!Step(a, kOpen, kGuarded)) Step(a, kExposed, kGuarded);
  }
  StoreRelease(&careful_map.any, true);  // pairs: RangeIsCareful
  if (SetRights(from, to, PROT_NONE)) {
    FetchAddRelaxed(&guard_runs, int64_t{1});
    return true;
  }
  for (Addr a = from; a < to; a += kOsPageSize) Step(a, kGuarded, kExposed);
  return false;
}

// Guarded pages become exposed ones; on return all of these have their rights.
void Expose(Addr from, Addr to) {
  if (states == nullptr) return;
  from = AlignDown(from, kOsPageSize);
  int64_t runs = 0;
  bool before = false;
  for (Addr a = from; a < to; a += kOsPageSize) {
    bool exposed = Step(a, kGuarded, kExposed);
    if (exposed && !before) ++runs;
    before = exposed;
  }
  GiveRights(from, to);
  FetchAddRelaxed(&guard_runs, -runs);
}

// Exposed pages, which must have their rights, become open ones.
void Open(Addr from, Addr to) {
  if (states == nullptr) return;
  for (Addr a = from; a < to; a += kOsPageSize) Step(a, kExposed, kOpen);
}

Addr SlotAddr(const Span* s, uint32_t slot) { return SpanAddr(s) + size_t{slot} * s->slot_size; }

// Calls f(from, to, state) for the parts of an object on pages that are not guarded.
template <typename F>
void ForEachUsablePart(Addr from, Addr to, F f) {
  while (from < to) {
    Addr end = Min(to, AlignDown(from, kOsPageSize) + kOsPageSize);
    uint32_t state = states != nullptr ? StateOf(from) : kOpen;
    if (state != kGuarded) f(from, end, state);
    from = end;
  }
}

void Fill(Addr from, Addr to) {
  __builtin_memset(reinterpret_cast<void*>(from), kPoison, to - from);
}

// All multiples of 8: slots are multiples of 16.
bool IsIntact(Addr from, Addr to) {
  bool intact = true;
  ForEachUsablePart(from, to, [&](Addr a, Addr b, uint32_t state) {
    if (state == kExposed) return;
    for (; a < b; a += 8) intact &= *reinterpret_cast<const uint64_t*>(a) == kPoisonWord;
  });
  return intact;
}

void CountCondemned(int64_t objects, int64_t bytes) {
  FetchAddRelaxed(&sweep_counts.condemned_objects, static_cast<uint64_t>(objects));
  FetchAddRelaxed(&sweep_counts.condemned_bytes, static_cast<uint64_t>(bytes));
}

void EachUsed(const char* what, const Span* s, uint32_t w, uint64_t bits) {
  for (; bits != 0; bits &= bits - 1)
    ReportHiddenUse(what, s, w * 64 + LowestBit(bits), nullptr, 0);
}

// Which of the objects that were dead are so still, and which join them. Dead ones are left in the
// plane kCondemned, those that are new there also in `fresh`.
uint32_t FindDead(Span* s, uint64_t* fresh) {
  uint64_t* condemned = MarkBits(s, Plane::kCondemned);
  uint64_t* marks = MarkBits(s, Plane::kMarked);
  uint32_t dead = 0;
  for (uint32_t w = 0; w < s->words(); ++w) {
    uint64_t allocated = AllocatedBits(s, w), marked = LoadRelaxed(&marks[w]), old = condemned[w];
    EachUsed("was freed by the program", s, w, old & ~allocated);
    uint64_t still = old & allocated & ~marked;
    for (uint64_t bits = still; bits != 0; bits &= bits - 1) {
      uint64_t bit = bits & -bits;
      Addr a = SlotAddr(s, w * 64 + LowestBit(bits));
      if (IsIntact(a, a + s->slot_size)) continue;
      EachUsed("was written to", s, w, bit);
      Pin(reinterpret_cast<void*>(a));
      still &= ~bit;
    }
    fresh[w] = allocated & ~marked & ~old;
    uint64_t now = still | fresh[w];
    condemned[w] = now;
    StoreRelaxed(&marks[w], (marked & (allocated | CursorBits(s, w))) | (old & allocated) | now);
    int64_t change = int64_t{CountBits(now)} - int64_t{CountBits(old)};
    if (change != 0) CountCondemned(change, change * int64_t{s->slot_size});
    FetchAddRelaxed(&sweep_counts.resurrected, uint64_t{CountBits(old & allocated & ~still)});
    FetchAddRelaxed(&sweep_counts.garbage_objects, uint64_t{CountBits(now)});
    FetchAddRelaxed(&sweep_counts.garbage_bytes, uint64_t{CountBits(now)} * s->slot_size);
    dead += CountBits(now);
  }
  return dead;
}

// Every slot that has a byte on the page is dead.
bool PageIsDead(const Span* s, Addr page) {
  const uint64_t* condemned = MarkBits(s, Plane::kCondemned);
  size_t offset = page - SpanAddr(s);
  uint32_t first = static_cast<uint32_t>(offset / s->slot_size);
  uint32_t last = static_cast<uint32_t>((offset + kOsPageSize - 1) / s->slot_size);
  if (first >= s->slots) return false;
  for (uint32_t slot = first; slot <= last && slot < s->slots; ++slot) {
    if (((condemned[slot / 64] >> (slot % 64)) & 1) == 0) return false;
  }
  return true;
}

void GuardDeadPages(Span* s) {
  if (states == nullptr) return;
  Addr end = SpanAddr(s) + (size_t{s->slices} << kSliceShift);
  Addr run = 0;
  for (Addr page = SpanAddr(s);; page += kOsPageSize) {
    bool dead = page < end && PageIsDead(s, page);
    bool guarded = page < end && StateOf(page) == kGuarded;
    bool guard = dead && !guarded;
    if (!guard && run != 0) {
      Guard(run, page);
      run = 0;
    }
    if (page == end) return;
    if (guard && run == 0) run = page;
    if (!dead && guarded) Expose(page, page + kOsPageSize);
  }
}

void FillDead(Span* s, const uint64_t* fresh) {
  const uint64_t* condemned = MarkBits(s, Plane::kCondemned);
  for (uint32_t w = 0; w < s->words(); ++w) {
    for (uint64_t bits = condemned[w]; bits != 0; bits &= bits - 1) {
      bool all = (fresh[w] & bits & -bits) != 0;
      Addr a = SlotAddr(s, w * 64 + LowestBit(bits));
      ForEachUsablePart(a, a + s->slot_size, [all](Addr from, Addr to, uint32_t state) {
        if (state == kExposed) GiveRights(AlignDown(from, kOsPageSize), to);
        if (all || state == kExposed) Fill(from, to);
      });
    }
  }
}

}  // namespace

void StartPoison() {
  states = static_cast<uint32_t*>(plat::MapPages(size_t{kMaxSlices} * sizeof(uint32_t)));
}

void RepairPoisonInChild() {
  if (states == nullptr) return;
  ForEachSpan(
      [](Span* s) { GiveRights(SpanAddr(s), SpanAddr(s) + (size_t{s->slices} << kSliceShift)); });
}

void PoisonSpan(Span* s) {
  if ((s->gc_flags & kHasCondemned) == 0) {
    __builtin_memset(MarkBits(s, Plane::kCondemned), 0, s->words() * sizeof(uint64_t));
  }
  uint64_t fresh[kMaxWords];
  bool had = (s->gc_flags & kHasCondemned) != 0;
  uint32_t dead = FindDead(s, fresh);
  if (dead == 0 && !had) return;
  s->gc_flags = dead != 0 ? s->gc_flags | kHasCondemned : s->gc_flags & ~kHasCondemned;
  GuardDeadPages(s);
  FillDead(s, fresh);
  Addr end = SpanAddr(s) + (size_t{s->slices} << kSliceShift);
  if (states != nullptr) GiveRights(SpanAddr(s), end);
  Open(SpanAddr(s), end);
}

void PoisonLarge(Span* s) {
  Addr start = SpanAddr(s);
  if (!Guard(start, start + AlignUp(s->large_bytes, kOsPageSize)))
    Fill(start, start + s->large_bytes);
}

void UnpoisonLarge(Span* s) { UnpoisonSpan(s); }

bool LargeIsIntact(Span* s) { return IsIntact(SpanAddr(s), SpanAddr(s) + s->large_bytes); }

void PoisonTaken(Span* s, uint32_t w, uint64_t bits) {
  MarkBits(s, Plane::kCondemned)[w] &= ~bits;
  CountCondemned(-int64_t{CountBits(bits)}, -int64_t{CountBits(bits)} * s->slot_size);
  EachUsed("was freed by the program", s, w, bits);
  for (; bits != 0; bits &= bits - 1) {
    Addr a = SlotAddr(s, w * 64 + LowestBit(bits));
    Expose(a, a + s->slot_size);
  }
}

void UnpoisonSpan(Span* s) {
  UnpoisonRange(SpanAddr(s), SpanAddr(s) + (size_t{s->slices} << kSliceShift));
}

void UnpoisonRange(Addr from, Addr to) {
  from = Max(from, arena.base);
  to = Min(to, arena.base + LoadAcquire(&arena.size));  // pairs: ArenaCommitLocked
  if (from >= to) return;
  Expose(from, to);
  Open(AlignDown(from, kOsPageSize), to);
}

bool RangeIsGuarded(Addr from, Addr to) {
  if (states == nullptr) return false;
  for (Addr a = from; a < to; a = AlignDown(a, kOsPageSize) + kOsPageSize) {
    if (StateOf(a) != kOpen) return true;
  }
  return false;
}

bool ClaimFault(Addr a, const Addr* by, uint32_t frames) {
  if (states == nullptr) return false;
  Span* s = FindSpan(a);
  if (s == nullptr) return false;
  Addr page = AlignDown(a, kOsPageSize);
  if (StateOf(a) == kGuarded) {
    Object o;
    bool known = FindObject(a, &o);
    if (known && o.allocated && !IsPinned(reinterpret_cast<void*>(o.base))) {
      Pin(reinterpret_cast<void*>(o.base));
      ReportHiddenUse("was touched", s, o.slot, by, frames);
    }
    // A large object comes back as a whole.
    bool large = LoadRelaxed(&s->state) == SpanState::kLarge;
    Expose(large ? SpanAddr(s) : page, large ? SpanAddr(s) + s->large_bytes : page + kOsPageSize);
    return true;
  }
  return StateOf(a) == kExposed && SetRights(page, page + kOsPageSize, PROT_READ | PROT_WRITE);
}

}  // namespace undergo::heap
