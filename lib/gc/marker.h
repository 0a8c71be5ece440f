// SPDX-License-Identifier: Apache-2.0
// Marker: finds objects from words, marks them and scans them. One thread uses a Marker; several
// Markers work on the same heap.
#pragma once

#include "base/types.h"
#include "gc/clean_pages.h"
#include "gc/scan.h"
#include "gc/span_queue.h"
#include "gc/work_queue.h"
#include "heap/arena.h"

namespace undergo::gc {

struct MarkCounts {
  uint64_t marked_bytes;  // objects that were reached
  uint64_t marked_objects;
  uint64_t scanned_bytes;    // of objects, once each, and what of them was skipped
  uint64_t skipped_bytes;    // by CleanPages
  uint64_t rescanned_bytes;  // of objects on pages that were written
  uint64_t root_bytes;       // of everything else
};

class Marker {
 public:
  constexpr Marker() = default;

  // Before each mark phase. The pool is shared with all others, and so is `clean`, null in phases
  // that read everything.
  void Start(WorkPool* pool, const ScanTarget& target, CleanPages* clean);

  // A word that may be the address of an object, any of its bytes or its end.
  void MarkWord(uint64_t word);
  // Memory outside the heap, or copied from there. `data` is aligned to 8.
  void ScanRoots(const void* data, size_t bytes);
  void ScanRootsBytewise(const void* data, size_t bytes);
  // What of the marked objects lies in these pages of the heap.
  void ScanPages(Addr from, Addr to);

  // Scans until nothing is left here and in the pool (true), or until `limit` bytes were scanned.
  bool Drain(uint64_t limit);
  // Hands all local work to the pool.
  void Flush();
  // Hands the half of it to the pool that is likely to be the larger one, unless others have work.
  void Share();

  const MarkCounts& counts() const { return counts_; }

 private:
  static constexpr uint32_t kDepth = 2048;
  static constexpr uint32_t kAhead = 32;  // objects whose memory is on its way to the cache
  static constexpr uint32_t kBatch = 8;   // of them are requested together

  // A pointer on its way to its mark bit.
  struct Candidate {
    uint64_t* word;
    uint32_t slot;   // of its span
    uint32_t slice;  // of a span that may be queued; kNoSlice: the object itself is to be
    Addr base;
    uint32_t size;
  };
  static constexpr uint32_t kLookahead = 32;  // a half of them is requested together

  // Words that a block of a span may add, and those of blocks before it that wait to be visited.
  static constexpr size_t kFound = ScanRoom(kScanBlock) + 256;

  void Push(uint64_t item);
  void Spill(uint32_t keep);
  bool Refill();
  uint32_t Request(uint32_t head, uint32_t tail);
  void ScanItem(uint64_t item);
  void ScanObject(Addr a, size_t bytes);
  void ScanCareful(Addr a, size_t bytes);
  void ScanLarge(Addr from);
  void ScanMedium(Addr object, Addr end);
  void ScanPaged(Addr object, Addr end, Addr from, Addr to, bool sparse);
  void ScanWholePages(Addr object, Addr end, Addr from, Addr to);
  bool ScanPage(Addr page, bool before, bool after);
  void ScanWords(const uint64_t* words, size_t count);
  void MarkSmall(uint32_t slice, uint32_t slot, Addr base, uint32_t size, bool queued);
  uint32_t TakeRuns(uint32_t slice, const heap::SizeClass& k);
  void ScanRuns(Addr base, uint32_t size);
  bool ScanNextSpan();
  void SpillSpans(uint32_t most);
  void Visit(uint64_t word);
  void TestAndMark(const Candidate& c);
  void RequestMarkWords();
  void FinishCandidates();
  void MarkSlow(Addr a);

  WorkPool* pool_ = nullptr;
  CleanPages* clean_ = nullptr;
  ScanTarget target_ = {};
  uint32_t upper_begin_ = 0;  // first slice of the upper region
  MarkCounts counts_ = {};
  uint32_t candidates_head_ = 0, candidates_tail_ = 0;  // of candidates_
  Candidate candidates_[kLookahead] = {};               // wait for their mark words
  uint64_t ring_[kAhead] = {};  // of Drain; not on the stacks of assists, which are roots
  SpanQueue spans_;
  // Neighbours that are to be scanned: the first slot, and how many.
  struct Run {
    uint16_t first, slots;
  };
  uint32_t run_count_ = 0;                  // in runs_
  Run runs_[heap::kQueuedWords * 32] = {};  // of the span that is being scanned
  uint32_t depth_ = 0;
  uint64_t stack_[kDepth] = {};
  uint64_t found_[kFound] = {};
};

}  // namespace undergo::gc
