// SPDX-License-Identifier: Apache-2.0
// Careful slices.
//
// Programs protect and unmap parts of what malloc gave them. The collector reads and clears objects
// on other threads at the same time, and a fault there would kill the program. So the wrappers of
// mprotect and its relatives tell before they act. Two things have to be ordered: readers that ask
// later must see the slice as careful, and readers that asked before must have finished.
//
// The second is a grace period. Readers count themselves in one of two counters; who makes a slice
// careful waits until it has seen each of them at zero once. New readers are sent to the other
// counter meanwhile, so that a counter does not stay above zero for ever. Several may wait at once,
// and nobody takes a lock, so a signal handler may do it too.
//
// A thread that is inside the heap itself (a handler above an assisting thread) does not wait: it
// could be waiting for itself. It is a handler that protects memory which was never protected
// before, while its own thread marks; the window is a few instructions of another marker.
//
// Rejected: asking the kernel for the protection before each read (a microsecond for an object of
// 64 bytes); recovering from the fault (takes a SIGSEGV handler away from the program).
#include "heap/careful.h"

#include "heap/poison.h"
#include "heap/thread_words.h"
#include "plat/syscall.h"
#include "plat/vm.h"

namespace undergo::heap {

constinit CarefulMap careful_map;

namespace {

struct Grace {
  uint32_t epoch = 0;         // atomic; its lowest bit chooses the counter of new readers
  uint32_t readers[2] = {0};  // atomic
};
constinit Grace grace;

uint64_t* Bits() {
  uint64_t* bits = LoadAcquire(&careful_map.bits);  // pairs: the exchange below
  if (bits != nullptr || careful_map.all) return bits;
  auto* fresh = static_cast<uint64_t*>(plat::MapPages(kMaxSlices / 8));
  if (fresh == nullptr) {
    StoreRelaxed(&careful_map.all, true);
    return nullptr;
  }
  if (CasAcqRel(&careful_map.bits, &bits, fresh)) return fresh;  // pairs: the load above
  plat::Unmap(reinterpret_cast<Addr>(fresh), kMaxSlices / 8);
  return bits;
}

// All readers that were there at the call are gone.
void WaitForReaders() {
  if (thread_words.busy != 0) return;
  for (uint32_t i = 0; i < 2; ++i) {
    uint32_t epoch = LoadRelaxed(&grace.epoch);
    if ((epoch & 1) == i) CasAcqRel(&grace.epoch, &epoch, epoch + 1);         // pairs: DirectReads
    for (uint32_t spins = 1; LoadAcquire(&grace.readers[i]) != 0; ++spins) {  // pairs: ~DirectReads
      CpuRelax();
      if (spins % 64 == 0) plat::Syscall(__NR_sched_yield);
    }
  }
}

}  // namespace

void MakeCareful(Addr from, size_t size) {
  Addr low = Max(from, arena.base);
  Addr high = Min(from + size, arena.base + LoadAcquire(&arena.size));  // pairs: ArenaCommitLocked
  if (arena.base == 0 || from + size < from || low >= high) return;
  UnpoisonRange(low, high);
  uint64_t* bits = Bits();
  bool news = bits == nullptr;
  for (uint32_t slice = SliceOf(low); bits != nullptr && slice <= SliceOf(high - 1); ++slice) {
    uint64_t bit = uint64_t{1} << (slice % 64);
    if ((FetchOrAcqRel(&bits[slice / 64], bit) & bit) == 0) news = true;  // pairs: readers
  }
  if (!news) return;
  // A full barrier: a reader either is counted when the wait below begins, or sees this.
  __atomic_store_n(&careful_map.any, true, __ATOMIC_SEQ_CST);  // pairs: DirectReads
  WaitForReaders();
}

bool SliceIsCarefulSlow(uint32_t slice) {
  uint64_t* bits = LoadAcquire(&careful_map.bits);  // pairs: Bits
  if (bits == nullptr) return LoadRelaxed(&careful_map.all);
  return LoadRelaxed(&careful_map.all) ||
         ((LoadAcquire(&bits[slice / 64]) >> (slice % 64)) & 1) != 0;  // pairs: MakeCareful
}

bool RangeIsCarefulSlow(Addr from, Addr to) {
  for (uint32_t slice = SliceOf(from); from < to && slice <= SliceOf(to - 1); ++slice) {
    if (SliceIsCarefulSlow(slice)) return true;
  }
  return RangeIsGuarded(from, to);
}

bool SpanIsCareful(const Span* s) {
  uint32_t first = SliceOfSpan(s), count = LoadRelaxed(&s->slices);
  for (uint32_t i = 0; i < count; ++i) {
    if (SliceIsCareful(first + i)) return true;
  }
  return false;
}

DirectReads::DirectReads() : counter_(&grace.readers[LoadRelaxed(&grace.epoch) & 1]) {
  // A locked instruction: what is read afterwards is read after others can see the count.
  FetchAddAcqRel(counter_, 1u);  // pairs: MakeCareful
}

DirectReads::~DirectReads() { FetchAddAcqRel(counter_, ~0u); }  // pairs: WaitForReaders

void ResetDirectReadsInChild() {
  StoreRelaxed(&grace.readers[0], 0u);
  StoreRelaxed(&grace.readers[1], 0u);
}

}  // namespace undergo::heap
