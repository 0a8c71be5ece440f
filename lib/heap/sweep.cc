// SPDX-License-Identifier: Apache-2.0
// Sweep by bit algebra, probation, and what slots go through on their way to the program.
//
// A sweep touches no live object. For each word, garbage = valid & ~free & ~remote & ~cursor &
// ~marked, and one atomic OR of it into the remote bits frees up to 64 objects: the sweeper is
// just another thread that frees, and the owner takes the slots in with its next harvest. While a
// span is unswept nobody takes slots or harvests in it (EnsureSwept), so the bits that the sweeper
// reads change in one way only: the program frees. That such an object is garbage as well cannot
// be, unless its pointer was hidden; the two frees set the same bit.
//
// Probation: a conservative collector in somebody else's program must notice its own mistakes.
// Garbage is first condemned: it keeps its slot and contents for one more cycle and ten seconds. A
// condemned object that is freed by the program, that changes, or that is reachable again had a
// pointer that the marker cannot see; objects of its size class are then never reclaimed again.
// Contents are compared by one hash for all condemned objects of a span. Probation costs memory,
// so it has a budget for each cycle; what exceeds it is reclaimed at once.
//
// Rejected: clearing reclaimed slots while sweeping (it dirties pages and loads them into the wrong
// cache; the next owner is about to write them anyway), a hash for each object (a table as large as
// the marks), probation by span age lists (order between spans does not matter).
#include "heap/sweep.h"

#include "base/assert.h"
#include "heap/careful.h"
#include "heap/large.h"
#include "heap/mcache.h"
#include "heap/pin.h"
#include "heap/poison.h"
#include "heap/quarantine.h"
#include "heap/site.h"
#include "heap/walk.h"
#include "plat/syscall.h"

namespace undergo::heap {

constinit uint32_t heap_sweepgen = 2;
constinit GcHeap gc_heap;
constinit SweepCounts sweep_counts = {};
constinit ViolationHook on_violation = nullptr;
constinit AllocationHook on_allocation = nullptr;
constinit LargeHook before_large = nullptr;
constinit size_t size_rounding = kGranule - 1;

namespace {

constexpr uint8_t kClobber = 0xde;

Addr SlotAddr(const Span* s, uint32_t w, uint64_t bit) {
  return SpanAddr(s) + (size_t{w} * 64 + LowestBit(bit)) * s->slot_size;
}

uint64_t HashObject(Addr a, size_t size, uint64_t hash) {
  auto* words = reinterpret_cast<const uint64_t*>(a);
  for (size_t i = 0; i < size / 8; ++i) {
    hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15;
    hash ^= hash >> 29;
  }
  return hash;
}

uint64_t HashCondemned(const Span* s) {
  const uint64_t* condemned = MarkBits(s, Plane::kCondemned);
  uint64_t hash = 0;
  for (uint32_t w = 0; w < s->words(); ++w) {
    for (uint64_t bits = condemned[w]; bits != 0; bits &= bits - 1) {
      hash = HashObject(SlotAddr(s, w, bits), s->slot_size, hash);
    }
  }
  return hash;
}

void ZeroPlane(Span* s, Plane plane, uint32_t flag) {
  if ((s->gc_flags & flag) != 0) return;
  __builtin_memset(MarkBits(s, plane), 0, s->words() * sizeof(uint64_t));
  s->gc_flags |= flag;
}

void Violation(const char* what, Span* s, uint32_t w, uint64_t bits) {
  for (; bits != 0; bits &= bits - 1) {
    ReportHiddenUse(what, s, w * 64 + LowestBit(bits), nullptr, 0);
  }
}

void CountCondemned(const Span* s, int64_t objects) {
  FetchAddRelaxed(&sweep_counts.condemned_objects, static_cast<uint64_t>(objects));
  FetchAddRelaxed(&sweep_counts.condemned_bytes, static_cast<uint64_t>(objects * s->slot_size));
}

// What happens to the garbage of one span.
struct Verdict {
  bool release_old;    // what is on probation may go
  bool condemn_fresh;  // new garbage goes on probation; else it goes at once
};

bool TakeBudget(size_t bytes) {
  auto n = static_cast<int64_t>(bytes);
  if (FetchAddRelaxed(&gc_heap.probation_left, -n) >= n) return true;
  FetchAddRelaxed(&gc_heap.probation_left, n);
  return false;
}

// All condemned objects of the span come back.
void Resurrect(Span* s) {
  uint64_t* condemned = MarkBits(s, Plane::kCondemned);
  uint64_t* marks = MarkBits(s, Plane::kMarked);
  for (uint32_t w = 0; w < s->words(); ++w) {
    uint64_t bits = condemned[w];
    if (bits == 0) continue;
    marks[w] |= bits;
    CountCondemned(s, -static_cast<int64_t>(CountBits(bits)));
    FetchAddRelaxed(&sweep_counts.resurrected, uint64_t{CountBits(bits)});
    condemned[w] = 0;
  }
  s->gc_flags &= ~kHasCondemned;
}

// The program wrote to a condemned object. Which one it was is not known, so the first one stands
// for all.
void ResurrectChanged(Span* s) {
  const uint64_t* condemned = MarkBits(s, Plane::kCondemned);
  uint32_t w = 0;
  while (condemned[w] == 0) ++w;
  Violation("or a neighbour was written to", s, w, condemned[w] & -condemned[w]);
  Resurrect(s);
}

void FillSlots(Span* s, uint32_t w, uint64_t bits, uint8_t byte) {
  while (bits != 0) {
    // Neighbours together.
    uint64_t above = bits + (bits & -bits);  // a run of ones at the bottom becomes a carry
    uint64_t run = bits & ~above;
    __builtin_memset(reinterpret_cast<void*>(SlotAddr(s, w, bits)), byte,
                     size_t{s->slot_size} * CountBits(run));
    bits &= above;
  }
}

void FreeSlots(Span* s, uint32_t w, uint64_t bits) {
  ZeroPlane(s, Plane::kReclaimed, kHasReclaimed);
  if (gc_heap.clobber) FillSlots(s, w, bits, kClobber);
  MarkBits(s, Plane::kReclaimed)[w] |= bits;
  FetchOrAcqRel(&s->remote_bits[w], bits);  // pairs: HarvestRemote
  FetchAddRelaxed(&sweep_counts.reclaimed_objects, uint64_t{CountBits(bits)});
  FetchAddRelaxed(&sweep_counts.reclaimed_bytes, uint64_t{CountBits(bits)} * s->slot_size);
}

// One word. Returns slots freed.
uint32_t SweepWord(Span* s, uint32_t w, Verdict verdict, uint32_t* condemned_now) {
  uint64_t* marks = MarkBits(s, Plane::kMarked);
  uint64_t allocated = AllocatedBits(s, w);
  uint64_t garbage = allocated & ~LoadRelaxed(&marks[w]);
  uint64_t keep = LoadRelaxed(&marks[w]) & (allocated | CursorBits(s, w));
  uint64_t old = (s->gc_flags & kHasCondemned) != 0 ? MarkBits(s, Plane::kCondemned)[w] : 0;
  if ((garbage | old) == 0) {
    StoreRelaxed(&marks[w], keep);
    return 0;
  }
  uint64_t hidden = old & ~allocated;
  if (hidden != 0) Violation("was freed by the program", s, w, hidden);
  uint64_t back = old & allocated & ~garbage;
  FetchAddRelaxed(&sweep_counts.resurrected, uint64_t{CountBits(back)});
  FetchAddRelaxed(&sweep_counts.garbage_objects, uint64_t{CountBits(garbage)});
  FetchAddRelaxed(&sweep_counts.garbage_bytes, uint64_t{CountBits(garbage)} * s->slot_size);
  uint64_t doomed =
      (verdict.release_old ? garbage & old : 0) | (verdict.condemn_fresh ? 0 : garbage & ~old);
  uint64_t condemned = garbage & ~doomed;
  if (condemned != 0 || old != 0) {
    ZeroPlane(s, Plane::kCondemned, kHasCondemned);
    MarkBits(s, Plane::kCondemned)[w] = condemned;
    CountCondemned(s, static_cast<int64_t>(CountBits(condemned)) - CountBits(old));
  }
  *condemned_now += CountBits(condemned);
  StoreRelaxed(&marks[w], keep | condemned);
  if (doomed != 0) FreeSlots(s, w, doomed);
  return CountBits(doomed);
}

Verdict Decide(Span* s) {
  if (gc_heap.mode != ReclaimMode::kReclaim) return {false, true};
  if (LoadRelaxed(&gc_heap.spared[s->cls]) != 0) return {false, true};
  if (gc_heap.no_probation) return {true, false};
  bool old = (s->gc_flags & kHasCondemned) == 0 || gc_heap.now_ms - s->probation_ms >= kProbationMs;
  return {old, TakeBudget(size_t{s->slots} * s->slot_size)};
}

// The program changed the protection of a part of the span: none of its objects is looked at, and
// none is handed out again, as its pages may be of no use.
void KeepAll(Span* s) {
  UnpoisonSpan(s);
  uint64_t* marks = MarkBits(s, Plane::kMarked);
  for (uint32_t w = 0; w < s->words(); ++w) {
    StoreRelaxed(&marks[w], AllocatedBits(s, w) | (LoadRelaxed(&marks[w]) & CursorBits(s, w)));
    if ((s->gc_flags & kHasCondemned) == 0) continue;
    uint64_t* condemned = MarkBits(s, Plane::kCondemned) + w;
    CountCondemned(s, -static_cast<int64_t>(CountBits(*condemned)));
    *condemned = 0;
  }
  s->gc_flags &= ~kHasCondemned;
}

// Those that were pinned since the flip are not marked.
void KeepPinned(Span* s) {
  uint64_t* marks = MarkBits(s, Plane::kMarked);
  for (uint32_t w = 0; w < s->words(); ++w) {
    StoreRelaxed(&marks[w], LoadRelaxed(&marks[w]) | PinnedBits(s, w));
  }
}

// Of the unmarked objects those go that the program freed; the rest counts as live.
uint32_t ReleaseQuarantined(Span* s) {
  uint64_t* marks = MarkBits(s, Plane::kMarked);
  uint32_t slots = 0;
  for (uint32_t w = 0; w < s->words(); ++w) {
    uint64_t allocated = AllocatedBits(s, w), marked = LoadRelaxed(&marks[w]);
    uint64_t garbage = allocated & ~marked, doomed = garbage & QuarantinedBits(s, w);
    FetchAddRelaxed(&sweep_counts.garbage_objects, uint64_t{CountBits(garbage)});
    FetchAddRelaxed(&sweep_counts.garbage_bytes, uint64_t{CountBits(garbage)} * s->slot_size);
    StoreRelaxed(&marks[w], (marked & (allocated | CursorBits(s, w))) | (garbage & ~doomed));
    if (doomed != 0) FreeSlots(s, w, doomed);
    slots += CountBits(doomed);
  }
  return slots;
}

uint32_t SweepWords(Span* s) {
  DirectReads reads;
  if (SpanIsCareful(s)) {
    KeepAll(s);
    return 0;
  }
  if (LoadRelaxed(&s->has_pins) != 0) KeepPinned(s);
  if (gc_heap.mode == ReclaimMode::kPoison) {
    PoisonSpan(s);
    return 0;
  }
  if (QuarantineOn()) return ReleaseQuarantined(s);
  bool watched = (s->gc_flags & kHasCondemned) != 0;
  if (watched && HashCondemned(s) != s->probation_hash) {
    ResurrectChanged(s);
    watched = false;
  }
  Verdict verdict = Decide(s);
  uint32_t freed = 0, condemned = 0;
  for (uint32_t w = 0; w < s->words(); ++w) freed += SweepWord(s, w, verdict, &condemned);
  if (condemned == 0) {
    s->gc_flags &= ~kHasCondemned;
    if (verdict.condemn_fresh) {
      FetchAddRelaxed(&gc_heap.probation_left, static_cast<int64_t>(s->slots) * s->slot_size);
    }
  } else {
    s->probation_hash = HashCondemned(s);
    if (!watched || verdict.release_old) s->probation_ms = gc_heap.now_ms;
  }
  return freed;
}

void CountLargeCondemned(const Span* s, int64_t sign) {
  FetchAddRelaxed(&sweep_counts.condemned_objects, static_cast<uint64_t>(sign));
  FetchAddRelaxed(&sweep_counts.condemned_bytes,
                  static_cast<uint64_t>(sign * static_cast<int64_t>(s->large_bytes)));
}

bool Claim(Span* s, uint32_t goal) {
  uint32_t seen = LoadRelaxed(&s->sweepgen);
  if (seen == goal || seen == goal - 1) return false;
  return CasAcqRel(&s->sweepgen, &seen, goal - 1);  // pairs: other sweepers
}

bool HasScannedBits(const Span* s) { return s->magic != 0 && IsQueuedClass(kClasses[s->cls]); }

// What is marked needs no scan. The slice may be in a queue: that is not touched.
void ResetScanned(const Span* s) {
  if (!HasScannedBits(s)) return;
  uint32_t slice = SliceOfSpan(s);
  const uint64_t* marks = MarkedBits(slice);
  uint64_t* scanned = ScannedBits(slice);
  for (uint32_t w = 0; w < s->words(); ++w) StoreRelaxed(&scanned[w], LoadRelaxed(&marks[w]));
}

}  // namespace

void ReportHiddenUse(const char* what, const Span* s, uint32_t slot, const Addr* by,
                     uint32_t frames) {
  FetchAddRelaxed(&sweep_counts.hidden_frees, uint64_t{1});
  if (gc_heap.mode == ReclaimMode::kReclaim) StoreRelaxed(&gc_heap.spared[s->cls], 1u);
  bool large = LoadRelaxed(&s->state) == SpanState::kLarge;
  HiddenUse use = {what,
                   SpanAddr(s) + size_t{slot} * s->slot_size,
                   large ? s->large_bytes : s->slot_size,
                   SiteOf(s, slot),
                   by,
                   frames};
  if (on_violation != nullptr) on_violation(use);
}

SweepResult SweepSpan(Span* s) {
  uint32_t goal = LoadAcquire(&heap_sweepgen);  // pairs: the collector's flip
  if (s->state == SpanState::kLarge || !Claim(s, goal)) return {false, 0};
  uint32_t slots = SweepWords(s);
  StoreRelease(&s->sweepgen, goal);  // pairs: NeedsSweep
  if (slots != 0) MarkReady(s);
  return {true, slots};
}

size_t SweepLarge(Span* s) {
  uint32_t goal = LoadAcquire(&heap_sweepgen);  // pairs: the collector's flip
  if (s->state != SpanState::kLarge) return 0;
  // Before the claim: if the program frees the object now and the span becomes a new one, that has
  // the new generation, and the claim fails.
  bool garbage =
      LoadRelaxed(&s->large_state) == kLargeLive &&
      (LoadRelaxed(&MarkBits(s, Plane::kMarked)[0]) & 1) == 0 && !SpanIsCareful(s) &&
      (LoadRelaxed(&s->has_pins) == 0 || LoadRelaxed(RareBits(s, RarePlane::kPinned)) == 0);
  if (!Claim(s, goal)) return 0;
  size_t size = s->large_bytes;
  bool old = (s->gc_flags & kHasCondemned) != 0;
  bool ripe = gc_heap.no_probation || (old && gc_heap.now_ms - s->probation_ms >= kProbationMs) ||
              (!old && !TakeBudget(size));
  bool release = garbage && ripe && gc_heap.mode == ReclaimMode::kReclaim &&
                 LoadRelaxed(&gc_heap.spared[kLargeClass]) == 0;
  if (QuarantineOn()) release = garbage && IsQuarantined(s, 0);
  if (garbage && old && gc_heap.mode == ReclaimMode::kPoison && !LargeIsIntact(s)) {
    ReportHiddenUse("was written to", s, 0, nullptr, 0);
    Pin(reinterpret_cast<void*>(SpanAddr(s)));
    garbage = false;
  }
  if (garbage) {
    FetchAddRelaxed(&sweep_counts.garbage_objects, uint64_t{1});
    FetchAddRelaxed(&sweep_counts.garbage_bytes, uint64_t{size});
  }
  bool condemned = garbage && !release && !QuarantineOn();
  if (condemned != old) {
    CountLargeCondemned(s, condemned ? 1 : -1);
    if (old && !garbage) FetchAddRelaxed(&sweep_counts.resurrected, uint64_t{1});
    s->probation_ms = gc_heap.now_ms;
    if (gc_heap.mode == ReclaimMode::kPoison) condemned ? PoisonLarge(s) : UnpoisonLarge(s);
  }
  s->gc_flags = condemned ? s->gc_flags | kHasCondemned : s->gc_flags & ~kHasCondemned;
  StoreRelease(&s->sweepgen, goal);  // pairs: NeedsSweep
  if (!release) return 0;
  if (!FreeLarge(s)) return 0;  // the program was faster
  FetchAddRelaxed(&sweep_counts.reclaimed_objects, uint64_t{1});
  FetchAddRelaxed(&sweep_counts.reclaimed_bytes, uint64_t{size});
  return size;
}

void KeepHalfSwept(Span* s) {
  if (s->sweepgen != heap_sweepgen - 1) return;
  if (s->state != SpanState::kLarge) {
    KeepAll(s);
  } else if (gc_heap.mode == ReclaimMode::kPoison) {
    UnpoisonLarge(s);
    if ((s->gc_flags & kHasCondemned) != 0) CountLargeCondemned(s, -1);
    s->gc_flags &= ~kHasCondemned;
  }
  s->sweepgen = heap_sweepgen;
}

void EnsureSweptSlow(Span* s) {
  SweepSpan(s);
  uint32_t goal = LoadRelaxed(&heap_sweepgen);
  for (uint32_t spins = 0; LoadAcquire(&s->sweepgen) != goal; ++spins) {  // pairs: SweepSpan
    CpuRelax();
    if (spins % 256 == 255) plat::Syscall(__NR_sched_yield);
  }
}

// The order keeps the old contents of the slots from being read.
void MarkWithoutScan(const Span* s, uint32_t w, uint64_t bits) {
  uint32_t slice = SliceOfSpan(s);
  if (HasScannedBits(s)) FetchOrAcqRel(&ScannedBits(slice)[w], bits);  // pairs: Marker::TakeRuns
  FetchOrAcqRel(&MarkedBits(slice)[w], bits);                          // pairs: the marker's own
  NoteMarks(slice, s->slices);
}

void GcNewSpan(Span* s) {
  s->gc_flags = 0;
  StoreRelaxed(&s->sweepgen, LoadRelaxed(&heap_sweepgen));
  if (!gc_heap.enabled) return;
  if (LoadRelaxed(&s->has_pins) != 0) ClearAllPins(s);
  if (QuarantineOn()) ClearAllQuarantined(s);
  __builtin_memset(MarkBits(s, Plane::kMarked), 0, s->words() * sizeof(uint64_t));
  ResetScanned(s);
  uint8_t kind = s->magic != 0 ? static_cast<uint8_t>(1 + s->cls) : uint8_t{0};
  StoreRelease(KindOf(SliceOfSpan(s)), kind);  // pairs: Marker::Visit
}

void GcForgetSpan(Span* s) {
  if (!gc_heap.enabled) return;
  StoreRelaxed(KindOf(SliceOfSpan(s)), uint8_t{0});
  if ((s->gc_flags & kHasCondemned) != 0) {
    const uint64_t* condemned = MarkBits(s, Plane::kCondemned);
    for (uint32_t w = 0; w < s->words(); ++w) {
      if (condemned[w] == 0) continue;
      Violation("was freed by the program", s, w, condemned[w]);
      CountCondemned(s, -static_cast<int64_t>(CountBits(condemned[w])));
    }
    UnpoisonSpan(s);
    s->gc_flags = 0;
  }
  // In a mark phase the plane does not tell what was counted; the flip counts anew.
  if (gc_heap.marking) return;
  uint64_t* marks = MarkBits(s, Plane::kMarked);
  uint64_t counted = 0;
  for (uint32_t w = 0; w < s->words(); ++w) counted += CountBits(marks[w] & s->ValidBits(w));
  FetchAddRelaxed(&gc_heap.live_bytes, -counted * s->slot_size);
}

size_t GcTakeSlots(Span* s, uint32_t w, uint64_t bits, bool* cleared) {
  *cleared = false;
  if (UNDERGO_UNLIKELY(LoadRelaxed(&s->has_pins) != 0)) ClearPins(s, w, bits);
  if (UNDERGO_UNLIKELY(QuarantineOn())) ClearQuarantined(s, w, bits);
  uint64_t* marks = MarkBits(s, Plane::kMarked);
  bool black = gc_heap.black;
  uint64_t fresh = black ? bits : bits & ~LoadRelaxed(&marks[w]);
  if (LoadRelaxed(&gc_heap.marking)) {
    MarkWithoutScan(s, w, bits);
  } else if (fresh != 0) {
    FetchOrAcqRel(&marks[w], fresh);  // pairs: SweepSpan
    // A mark phase may have begun since the look at `marking`.
    NoteMarks(SliceOfSpan(s), s->slices);
  }
  if (UNDERGO_UNLIKELY(s->gc_flags != 0)) {
    if ((s->gc_flags & kHasCondemned) != 0) {
      uint64_t* condemned = MarkBits(s, Plane::kCondemned);
      uint64_t hidden = condemned[w] & bits;
      if (hidden != 0) {
        if (gc_heap.mode == ReclaimMode::kPoison) {
          PoisonTaken(s, w, hidden);
        } else {
          Violation("was freed by the program", s, w, hidden);
          condemned[w] &= ~hidden;
          CountCondemned(s, -static_cast<int64_t>(CountBits(hidden)));
          Resurrect(s);
        }
      }
    }
    if ((s->gc_flags & kHasReclaimed) != 0) {
      uint64_t* reclaimed = MarkBits(s, Plane::kReclaimed);
      uint64_t stale = reclaimed[w] & bits;
      if (stale != 0) {
        if (!gc_heap.clobber) FillSlots(s, w, stale, 0);
        *cleared = stale == bits && !gc_heap.clobber;
        reclaimed[w] &= ~stale;
      }
    }
  }
  // What the program's own frees left in the slots would keep garbage alive: objects that are never
  // written whole point to dropped ones, these to others, and in the end nothing is ever found.
  if (UNDERGO_UNLIKELY(LoadRelaxed(&gc_heap.leaky)) && !*cleared && !gc_heap.clobber &&
      !SpanIsCareful(s)) {
    uint32_t used = s->fresh_slot > w * 64 ? Min(s->fresh_slot - w * 64, 64u) : 0;
    FillSlots(s, w, bits & LowMask(used), 0);
    *cleared = true;
  }
  size_t bytes = size_t{CountBits(fresh)} * s->slot_size;
  if (black) FetchAddRelaxed(&gc_heap.black_bytes, uint64_t{bytes});
  return bytes;
}

void GcLargeUsed(Span* s, const char* what) {
  if ((LoadRelaxed(&s->gc_flags) & kHasCondemned) == 0) return;
  s->gc_flags &= ~kHasCondemned;
  CountLargeCondemned(s, -1);
  ReportHiddenUse(what, s, 0, nullptr, 0);
  UnpoisonLarge(s);
}

void GcLargeChanged(Span* s, size_t before, size_t after) {
  if (!gc_heap.enabled) return;
  if (before != 0 && after == 0) GcLargeUsed(s, "was freed by the program");
  if (before == 0) {
    s->gc_flags = 0;
    if (LoadRelaxed(&s->has_pins) != 0) ClearAllPins(s);
    if (QuarantineOn()) ClearAllQuarantined(s);
    StoreRelaxed(&s->sweepgen, LoadRelaxed(&heap_sweepgen));
    StoreRelaxed(&MarkBits(s, Plane::kMarked)[0], gc_heap.black ? 1u : 0u);
  }
  // Its new part, too: the marker may have seen it before.
  if (LoadRelaxed(&gc_heap.marking) && after > before) NoteLarge(s);
  if (gc_heap.black && after > before) {
    FetchAddRelaxed(&gc_heap.black_bytes, uint64_t{after - before});
  }
  FetchAddRelaxed(&gc_heap.live_bytes, uint64_t{after} - before);
}

size_t UncountFreed(Span* s) {
  if (LoadRelaxed(&s->state) == SpanState::kLarge) return 0;
  uint64_t* marks = MarkBits(s, Plane::kMarked);
  size_t slots = 0;
  for (uint32_t w = 0; w < s->words(); ++w) {
    uint64_t free = LoadRelaxed(&s->free_bits[w]) | LoadRelaxed(&s->remote_bits[w]);
    uint64_t stale = LoadRelaxed(&marks[w]) & free & s->ValidBits(w);
    if (stale == 0) continue;
    slots += CountBits(FetchAndAcqRel(&marks[w], ~stale) & stale);  // pairs: GcTakeSlots
  }
  size_t bytes = slots * s->slot_size;
  FetchAddRelaxed(&gc_heap.live_bytes, -uint64_t{bytes});
  return bytes;
}

size_t RecountMarks(Span* s) {
  uint64_t* marks = MarkBits(s, Plane::kMarked);
  if (s->state == SpanState::kLarge) {
    StoreRelaxed(&marks[0], 1u);
    return s->large_bytes;
  }
  size_t slots = 0;
  for (uint32_t w = 0; w < s->words(); ++w) {
    uint64_t held = AllocatedBits(s, w) | CursorBits(s, w);
    StoreRelaxed(&marks[w], held);
    slots += CountBits(held);
  }
  return slots * s->slot_size;
}

void ResetMarks(Span* s) {
  uint64_t* marks = MarkBits(s, Plane::kMarked);
  if (s->state == SpanState::kLarge) {
    StoreRelaxed(&marks[0], 0u);
    return;
  }
  uint64_t any = 0;
  for (uint32_t w = 0; w < s->words(); ++w) {
    uint64_t free = LoadRelaxed(&s->free_bits[w]) | LoadRelaxed(&s->remote_bits[w]);
    StoreRelaxed(&marks[w], free);
    any |= free & s->ValidBits(w);
  }
  // They may be on their way out already, to a thread that noted marks before ForgetMarks (the late
  // heap takes a slot after GcTakeSlots).
  if (any != 0) NoteMarks(SliceOfSpan(s), s->slices);
  ResetScanned(s);
}

void MarkFreeSlots(Span* s) {
  if (s->state == SpanState::kLarge) return;
  uint64_t* marks = MarkBits(s, Plane::kMarked);
  for (uint32_t w = 0; w < s->words(); ++w) {
    uint64_t free = LoadRelaxed(&s->free_bits[w]) | LoadRelaxed(&s->remote_bits[w]);
    StoreRelaxed(&marks[w], LoadRelaxed(&marks[w]) | free);
  }
}

}  // namespace undergo::heap
