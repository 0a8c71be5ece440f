// SPDX-License-Identifier: Apache-2.0
// The marker.
//
// Marks lie out of line, in the plane kMarked by slot number, so marking writes to no object: no
// page of the heap becomes dirty, none is copied after a fork. A word is looked up by arithmetic:
// slice, size class of the slice, slot by one multiplication. The class stands in a table of one
// byte for each slice (heap::KindOf), which stays in the cache where span headers do not. Free
// slots were marked when the phase began (heap::ResetMarks), so one bit test tells both "seen
// already" and "no object".
//
// What costs time is waiting for memory. Objects taken from the stack pass through a short ring:
// their first lines are requested on entry and scanned some objects later. The same goes for the
// mark word that a found pointer leads to. Measured on a shuffled tree of 4 million nodes each of
// the two steps halves the time of a mark. Requests come in batches: a processor may hold one back,
// and all that follows it, until its address is translated, and where no translation is at hand
// that takes as long as the memory itself, twice so in a virtual machine. Next to each other
// requests wait together; one for each object, with a scan between them, wait one after the other:
// that took 1.6 times as long. A list gains nothing: its next node is known only when this one was
// read.
//
// A mutator may free or reuse anything meanwhile. Then a queued address has a new meaning; the span
// is looked up again before a scan, and a scan never leaves the slices of the span. What is marked
// or scanned in vain that way is kept for one cycle more, nothing worse.
//
// Small objects are not queued one by one. When one is marked, its span gets into a first in, first
// out queue (gc/span_queue.h), unless it waits there; when its turn comes, all its objects that are
// marked and not yet scanned are scanned together, neighbours as one piece (TakeRuns). Meanwhile
// many have been found: a span of a shuffled tree of 16.8 million nodes comes up eight times, for a
// hundred of its 819 nodes each. A second plane of bits tells what was scanned or, as it was free
// at the beginning or handed out since, needs no scan. What a span has too few of goes to the stack
// of objects, whose memory is requested beside that of others. So does an object that is found
// while nothing else waits: a list goes on at once. A span that comes up with one object only costs
// no look at its bits: two lists at the same time take three times as long without that.
//
// Large objects are scanned in pieces, the rest is queued, so that others can help; pages of theirs
// that do not exist are not read. Who looks for work in vain says so (WorkPool::AwaitWork), and is
// given the older half of the objects that others have, or some of their spans.
//
// Rejected: a queue of limited room with the rest in the pool, last in, first out (spans came up
// with few objects: a shuffled mark took three times as long); requesting all lines of a span in
// order (gains at few densities, loses at others); huge pages for the planes (no gain).
//
// Source: the span queue is that of Go's marker of 2025, "Green Tea", with its bits out of line.
#include "gc/marker.h"

#include "base/assert.h"
#include "gc/roots.h"
#include "heap/blacklist.h"
#include "heap/careful.h"
#include "heap/mcache.h"
#include "heap/walk.h"
#include "plat/pagemap.h"

namespace undergo::gc {

namespace {

constexpr size_t kPiece = 128 * kKiB;   // of a large object
constexpr size_t kSparse = 256 * kKiB;  // from this size on, missing pages are looked for
constexpr uint64_t kRest = 1;           // item bit 0
constexpr uint64_t kSpan = 2;           // item bit 1: the rest is a slice
constexpr uint32_t kSpanShift = 2;
constexpr uint32_t kShared = 4;        // objects that are worth a chunk for others
constexpr uint32_t kSharedSpans = 16;  // that go to others at a time
constexpr uint32_t kFewObjects = 8;    // of a span
constexpr uint32_t kRunsAhead = 12;    // requested of a span

heap::Span* SpanOf(Addr a) { return heap::SpanAtSlice(heap::SliceOf(a)); }

}  // namespace

void Marker::Start(WorkPool* pool, const ScanTarget& target, CleanPages* clean) {
  pool_ = pool;
  clean_ = clean;
  target_ = target;
  upper_begin_ = heap::RegionBegin(heap::Region::kUpper);
  counts_ = {};
  depth_ = 0;
  candidates_head_ = candidates_tail_ = 0;
  spans_.Forget();
}

void Marker::Push(uint64_t item) {
  if (UNDERGO_UNLIKELY(depth_ == kDepth)) Spill(kDepth / 2);
  // Without memory for the queue the mark is incomplete: the pool says so, the cycle is given up.
  if (depth_ < kDepth) stack_[depth_++] = item;
}

// The oldest items go: they are the most likely to have large subgraphs.
void Marker::Spill(uint32_t keep) {
  uint32_t from = 0, end = depth_ - keep;
  while (from < end) {
    WorkChunk* c = pool_->NewChunk();
    if (c == nullptr) break;
    uint32_t n = static_cast<uint32_t>(Min(end - from, WorkChunk::kItems));
    __builtin_memcpy(c->items, stack_ + from, n * sizeof(uint64_t));
    c->count = n;
    pool_->Put(c);
    from += n;
  }
  __builtin_memmove(stack_, stack_ + from, (depth_ - from) * sizeof(uint64_t));
  depth_ -= from;
}

// Spans of the queue, the oldest ones, until it is empty or `most` are gone.
void Marker::SpillSpans(uint32_t most) {
  while (!spans_.empty() && most > 0) {
    WorkChunk* c = pool_->NewChunk();
    if (c == nullptr) return;
    for (; c->count < WorkChunk::kItems && !spans_.empty() && most > 0; --most) {
      c->items[c->count++] = uint64_t{spans_.Take()} << kSpanShift | kSpan;
    }
    pool_->Put(c);
  }
}

void Marker::Flush() {
  FinishCandidates();
  Spill(0);
  SpillSpans(~0u);
}

// A half stays, or this marker would do nothing but give and take while others ask in vain: those
// in a stopped thread.
void Marker::Share() {
  if (pool_->HasWork()) return;
  if (depth_ >= kShared) return Spill(depth_ / 2);
  SpillSpans(Min(spans_.count() / 2, kSharedSpans));
}

bool Marker::Refill() {
  WorkChunk* c = pool_->Take();
  if (c == nullptr) return false;
  for (uint64_t i = 0; i < c->count; ++i) {
    uint64_t item = c->items[i];
    if ((item & kSpan) != 0) {
      spans_.Append(static_cast<uint32_t>(item >> kSpanShift));
    } else {
      stack_[depth_++] = item;
    }
  }
  pool_->Recycle(c);
  return true;
}

UNDERGO_INLINE void Marker::TestAndMark(const Candidate& c) {
  uint64_t bit = uint64_t{1} << c.slot % 64;
  if ((LoadRelaxed(c.word) & bit) != 0) return;
  if ((FetchOrAcqRel(c.word, bit) & bit) != 0) return;  // pairs: other markers
  counts_.marked_bytes += c.size;
  counts_.marked_objects++;
  // With nothing else to do there is nothing to wait for: a list goes on at once.
  bool idle = depth_ == 0 && spans_.empty();
  if (c.slice != heap::kNoSlice && !idle) return spans_.Put(c.slice, c.slot);
  uint32_t slice = heap::SliceOf(c.base);
  heap::NoteMarks(slice, heap::SliceOf(c.base + c.size - 1) - slice + 1);
  Push(c.base);
}

UNDERGO_INLINE void Marker::MarkSmall(uint32_t slice, uint32_t slot, Addr base, uint32_t size,
                                      bool queued) {
  uint64_t* word = heap::MarkedBits(slice) + slot / 64;
  uint32_t with = queued ? slice : heap::kNoSlice;
  candidates_[candidates_head_++ % kLookahead] = {word, slot, with, base, size};
  if (UNDERGO_UNLIKELY(candidates_head_ % (kLookahead / 2) == 0)) RequestMarkWords();
}

// Of the half that has just become full; the words of the other half have arrived.
void Marker::RequestMarkWords() {
  uint32_t end = candidates_head_;
  for (uint32_t i = end - kLookahead / 2; i != end; ++i) {
    __builtin_prefetch(candidates_[i % kLookahead].word);
  }
  while (end - candidates_tail_ > kLookahead / 2) {
    TestAndMark(candidates_[candidates_tail_++ % kLookahead]);
  }
}

// Spans of several slices, and large objects.
void Marker::MarkSlow(Addr a) {
  heap::Span* s = heap::FindSpan(a);
  if (s == nullptr) return heap::blacklist.Add(heap::SliceOf(a));
  Addr start = heap::SpanAddr(s);
  if (LoadRelaxed(&s->state) == heap::SpanState::kLarge) {
    if (LoadRelaxed(&s->large_state) != heap::kLargeLive) return;
    uint64_t* word = heap::MarkBits(s, heap::Plane::kMarked);
    if ((LoadRelaxed(word) & 1) != 0) return;
    if ((FetchOrAcqRel(word, uint64_t{1}) & 1) != 0) return;  // pairs: other markers
    heap::NoteLarge(s);
    counts_.marked_bytes += s->large_bytes;
    counts_.marked_objects++;
    Push(start | kRest);
    return;
  }
  uint32_t size = LoadRelaxed(&s->slot_size);
  if (size == 0) return;
  uint32_t slot = static_cast<uint32_t>(a - start) / size;
  if (slot >= s->slots) return;
  MarkSmall(heap::SliceOfSpan(s), slot, start + size_t{slot} * size, size, false);
}

UNDERGO_INLINE void Marker::Visit(uint64_t word) {
  uint64_t offset = word - target_.base;
  if (offset >= target_.size) return;
  // Random data names slices all over the range. Their headers have no memory yet: not to be read.
  uint32_t slice = static_cast<uint32_t>(offset >> heap::kSliceShift);
  if (slice >= heap::mheap.end(heap::Region::kLower) &&
      (slice < upper_begin_ || slice >= heap::mheap.end(heap::Region::kUpper))) {
    return heap::blacklist.Add(slice);
  }
  uint32_t kind = LoadAcquire(heap::KindOf(slice));  // pairs: GcNewSpan
  if (UNDERGO_UNLIKELY(kind == 0)) return MarkSlow(word);
  const heap::SizeClass& k = heap::kClasses[kind - 1];
  uint32_t in_slice = static_cast<uint32_t>(offset & (heap::kSliceSize - 1));
  uint32_t slot = static_cast<uint32_t>((uint64_t{in_slice} * k.magic) >> 32);
  if (slot >= k.slots) return;
  MarkSmall(slice, slot, word - in_slice + size_t{slot} * k.size, k.size, heap::IsQueuedClass(k));
}

// Pointers that are still on their way.
void Marker::FinishCandidates() {
  for (uint32_t i = candidates_tail_; i != candidates_head_; ++i) {
    const Candidate& c = candidates_[i % kLookahead];
    __builtin_prefetch(c.word);
    if (c.slice != heap::kNoSlice) __builtin_prefetch(heap::QueueEntryOf(c.slice));
  }
  while (candidates_tail_ != candidates_head_) {
    TestAndMark(candidates_[candidates_tail_++ % kLookahead]);
  }
}

void Marker::MarkWord(uint64_t word) { Visit(word); }

void Marker::ScanWords(const uint64_t* words, size_t count) {
  while (count > 0) {
    size_t n = Min(count, kScanBlock);
    size_t found = scan(words, n, target_, found_);
    for (size_t i = 0; i < found; ++i) Visit(found_[i]);
    words += n;
    count -= n;
    if (count == 0) return;
    ForEachAcross(reinterpret_cast<Addr>(words), [this](uint64_t word) { Visit(word); });
  }
}

void Marker::ScanRoots(const void* data, size_t bytes) {
  counts_.root_bytes += bytes;
  ScanWords(static_cast<const uint64_t*>(data), bytes / 8);
}

void Marker::ScanRootsBytewise(const void* data, size_t bytes) {
  counts_.root_bytes += bytes;
  auto* p = static_cast<const uint8_t*>(data);
  for (size_t at = 0; at + 8 <= bytes;) {
    // Blocks overlap by seven bytes: a word may begin at each of them.
    size_t n = Min(bytes - at, sizeof found_ / sizeof found_[0]);
    size_t found = ScanBytewise(p + at, n, target_, found_);
    for (size_t i = 0; i < found; ++i) Visit(found_[i]);
    at += n > 7 ? n - 7 : n;
  }
}

// The program may have protected a part, or put something else in its place.
UNDERGO_COLD void Marker::ScanCareful(Addr a, size_t bytes) {
  uint64_t buffer[256];
  auto look = [](void* self, const void* data, Addr, size_t n) {
    static_cast<Marker*>(self)->ScanWords(static_cast<const uint64_t*>(data), n / 8);
  };
  if (!ReadRange(a, a + bytes, buffer, look, this, sizeof buffer)) {
    pool_->Fail("a part of the heap that the program protected cannot be read");
  }
}

void Marker::ScanObject(Addr a, size_t bytes) {
  counts_.scanned_bytes += bytes;
  if (heap::RangeIsCareful(a, a + bytes)) return ScanCareful(a, bytes);
  ScanWords(reinterpret_cast<const uint64_t*>(a), bytes / 8);
}

// Reads a page for itself: whether it has a word that is or may become a pointer, those included
// that lie across its borders, where the object goes on (`before`, `after`).
bool Marker::ScanPage(Addr page, bool before, bool after) {
  bool pointer = false;
  auto look = [this, &pointer](uint64_t word) {
    pointer |= clean_->IsPointer(word);
    Visit(word);
  };
  if (before) ForEachAcross(page, look);
  for (Addr at = page; at < page + kOsPageSize; at += kScanBlock * 8) {
    if (at != page) ForEachAcross(at, look);
    size_t found = scan(reinterpret_cast<const uint64_t*>(at), kScanBlock, target_, found_);
    for (size_t i = 0; i < found; ++i) look(found_[i]);
  }
  if (after) ForEachAcross(page + kOsPageSize, look);
  return pointer;
}

void Marker::ScanWholePages(Addr object, Addr end, Addr from, Addr to) {
  if (heap::RangeIsCareful(Max(object, from - 8), Min(end, to + 8))) {
    Addr first = Max(object, from - 8);
    return ScanObject(first, Min(to + 8, end) - first);
  }
  counts_.scanned_bytes += to - from;
  for (Addr page = from; page < to; page += kOsPageSize) {
    clean_->NoteRead(page, !ScanPage(page, page > object, page + kOsPageSize < end));
  }
}

// Pages [from, to) of the object at [object, end) that are not known to be without pointers;
// `sparse`: some may not exist.
void Marker::ScanPaged(Addr object, Addr end, Addr from, Addr to, bool sparse) {
  struct Context {
    Marker* self;
    Addr object, end;
  } context = {this, object, end};
  auto visit = [](void* p, Addr a, Addr b) {
    auto* c = static_cast<Context*>(p);
    c->self->ScanWholePages(c->object, c->end, a, b);
  };
  while (from < to) {
    Addr at = clean_->SkipFrom(from, to);
    counts_.skipped_bytes += at - from;
    counts_.scanned_bytes += at - from;
    if (at == to) return;
    bool exist;
    from = clean_->ReadUpTo(at, to, &exist);
    if (!sparse || exist || !plat::ForEachWrittenToPageRun(at, from - at, visit, &context)) {
      visit(&context, at, from);
    }
  }
}

void Marker::ScanLarge(Addr from) {
  heap::Span* s = heap::FindSpan(from);
  if (s == nullptr || LoadRelaxed(&s->state) != heap::SpanState::kLarge) return;
  Addr start = heap::SpanAddr(s);
  Addr end = start + Min(s->large_bytes, size_t{s->slices} << heap::kSliceShift);
  if (from >= end) return;
  bool sparse = s->large_bytes >= kSparse;
  if (clean_ != nullptr) {
    // What nobody needs to read does not come in pieces.
    Addr at = clean_->SkipFrom(from, end);
    counts_.skipped_bytes += at - from;
    counts_.scanned_bytes += at - from;
    from = at;
    if (from == end) return;
  }
  size_t n = Min(static_cast<size_t>(end - from), kPiece);
  if (from + n < end) Push((from + n) | kRest);
  if (clean_ != nullptr) return ScanPaged(start, end, from, from + n, sparse);
  // Eight bytes more: a pointer may lie across the border of pieces or runs.
  struct Context {
    Marker* self;
    Addr end;
  } context = {this, end};
  auto visit = [](void* p, Addr a, Addr b) {
    auto* c = static_cast<Context*>(p);
    c->self->ScanObject(a, Min(b + 8, c->end) - a);
  };
  if (sparse && plat::ForEachWrittenToPageRun(from, n, visit, &context)) return;
  visit(&context, from, from + n);
}

// A slot that has whole pages: these by themselves, for others to skip.
void Marker::ScanMedium(Addr object, Addr end) {
  Addr from = AlignUp(object, kOsPageSize), to = AlignDown(end, kOsPageSize);
  if (object < from) ScanObject(object, from + 8 - object);
  ScanPaged(object, end, from, to, false);
  if (to < end) ScanObject(to - 8, end + 8 - to);
}

void Marker::ScanItem(uint64_t item) {
  if ((item & kRest) != 0) return ScanLarge(item & ~kRest);
  Addr slice_end = AlignDown(item, heap::kSliceSize) + heap::kSliceSize;
  uint32_t kind = LoadAcquire(heap::KindOf(heap::SliceOf(item)));  // pairs: GcNewSpan
  if (UNDERGO_LIKELY(kind != 0)) {
    size_t size = Min(size_t{heap::kClasses[kind - 1].size}, static_cast<size_t>(slice_end - item));
    if (clean_ != nullptr && size >= kPagedObject) return ScanMedium(item, item + size);
    return ScanObject(item, size);
  }
  heap::Span* s = SpanOf(item);
  // Later slices of a span have a header too: free, and else as its last owner left it.
  if (UNDERGO_UNLIKELY(LoadRelaxed(&s->magic) == 0 ||
                       LoadRelaxed(&s->state) == heap::SpanState::kFree)) {
    s = heap::FindSpan(item);
    if (s == nullptr || LoadRelaxed(&s->state) == heap::SpanState::kLarge) return;
    slice_end = heap::SpanAddr(s) + (size_t{s->slices} << heap::kSliceShift);
  }
  size_t size = Min(size_t{LoadRelaxed(&s->slot_size)}, static_cast<size_t>(slice_end - item));
  if (clean_ != nullptr && size >= kPagedObject) return ScanMedium(item, item + size);
  ScanObject(item, size);
}

// Takes what is to be scanned of a span out of its marks, as runs of neighbours; how many objects.
// Somebody else may do the same at this time.
uint32_t Marker::TakeRuns(uint32_t slice, const heap::SizeClass& k) {
  const uint64_t* marks = heap::MarkedBits(slice);
  uint64_t* scanned = heap::ScannedBits(slice);
  uint32_t objects = 0;
  run_count_ = 0;
  for (uint32_t w = 0; w < k.words; ++w) {
    uint64_t bits = LoadRelaxed(&marks[w]) & ~LoadRelaxed(&scanned[w]);
    if (bits == 0) continue;
    bits &= ~FetchOrAcqRel(&scanned[w], bits);  // pairs: other markers
    objects += CountBits(bits);
    while (bits != 0) {
      uint64_t run = bits & ~(bits + (bits & -bits));
      runs_[run_count_++] = {static_cast<uint16_t>(w * 64 + LowestBit(bits)),
                             static_cast<uint16_t>(CountBits(run))};
      bits &= ~run;
    }
  }
  return objects;
}

void Marker::ScanRuns(Addr base, uint32_t size) {
  if (heap::RangeIsCareful(base, base + heap::kSliceSize)) {
    for (uint32_t i = 0; i < run_count_; ++i) {
      ScanObject(base + size_t{runs_[i].first} * size, size_t{runs_[i].slots} * size);
    }
    return;
  }
  size_t found = 0;
  for (uint32_t i = 0; i < run_count_; ++i) {
    Addr ahead = base + size_t{runs_[Min(i + kRunsAhead, run_count_ - 1)].first} * size;
    __builtin_prefetch(reinterpret_cast<void*>(ahead));
    __builtin_prefetch(reinterpret_cast<void*>(ahead + 64));
    Addr at = base + size_t{runs_[i].first} * size;
    Addr end = at + size_t{runs_[i].slots} * size;
    counts_.scanned_bytes += end - at;
    for (;;) {
      size_t n = Min(static_cast<size_t>(end - at) / 8, kScanBlock);
      found += scan(reinterpret_cast<const uint64_t*>(at), n, target_, found_ + found);
      if (found > kFound - ScanRoom(kScanBlock)) {
        for (size_t f = 0; f < found; ++f) Visit(found_[f]);
        found = 0;
      }
      at += n * 8;
      if (at == end) break;
      ForEachAcross(at, [this](uint64_t word) { Visit(word); });
    }
  }
  for (size_t f = 0; f < found; ++f) Visit(found_[f]);
}

// The oldest span of the queue: few objects go to the stack, to be requested beside those of other
// spans; many are scanned now. The only one is not noted as scanned: where nodes come up one by one
// that would be a line more for each. False: many were scanned.
bool Marker::ScanNextSpan() {
  uint32_t slice = spans_.Take();
  uint32_t waited = SpanQueue::Leave(slice);
  if (!spans_.empty() && spans_.ManyAtHead()) {
    __builtin_prefetch(heap::MarkedBits(spans_.head()));
    __builtin_prefetch(heap::ScannedBits(spans_.head()));
  }
  uint32_t kind = LoadAcquire(heap::KindOf(slice));                              // pairs: GcNewSpan
  if (kind == 0 || !heap::IsQueuedClass(heap::kClasses[kind - 1])) return true;  // another span now
  const heap::SizeClass& k = heap::kClasses[kind - 1];
  Addr base = heap::SliceAddr(slice);
  if (waited != heap::kManyWait) {
    UNDERGO_ASSERT(waited != 0);
    if (waited <= k.slots) Push(base + size_t{waited - 1} * k.size);
    return true;
  }
  if (TakeRuns(slice, k) > kFewObjects) {
    ScanRuns(base, k.size);
    return false;
  }
  for (uint32_t i = 0; i < run_count_; ++i) {
    for (uint32_t j = 0; j < runs_[i].slots; ++j) {
      Push(base + size_t{runs_[i].first + j} * k.size);
    }
  }
  return true;
}

// Fills the ring; the new end of it. Objects that come up one by one have to wait together, too.
uint32_t Marker::Request(uint32_t head, uint32_t tail) {
  while (head - tail < kAhead) {
    if (depth_ == 0) {
      if (spans_.empty() || !ScanNextSpan()) break;
      if (depth_ == 0) continue;
    }
    uint64_t item = stack_[--depth_];
    __builtin_prefetch(reinterpret_cast<void*>(item & ~kRest));
    __builtin_prefetch(reinterpret_cast<void*>((item & ~kRest) + 64));
    ring_[head++ % kAhead] = item;
  }
  return head;
}

bool Marker::Drain(uint64_t limit) {
  heap::DirectReads reads;
  auto read = [this] { return counts_.scanned_bytes - counts_.skipped_bytes; };
  uint64_t end = read() + limit;
  uint32_t head = 0, tail = 0;
  for (;;) {
    if (head - tail <= kAhead - kBatch) head = Request(head, tail);
    if (head != tail) {
      ScanItem(ring_[tail++ % kAhead]);
    } else if (depth_ == 0 && spans_.empty()) {
      FinishCandidates();
      if (depth_ == 0 && spans_.empty() && !Refill()) return true;
    }
    if (UNDERGO_UNLIKELY(read() >= end)) break;
    if (UNDERGO_UNLIKELY(pool_->IsWanted() || depth_ > kDepth / 4)) Share();
  }
  while (head != tail) Push(ring_[tail++ % kAhead]);
  return false;
}

// Marked objects that the program holds, or parts of them, between two page boundaries.
void Marker::ScanPages(Addr from, Addr to) {
  heap::DirectReads reads;
  uint64_t scanned = counts_.scanned_bytes;
  while (from < to) {
    heap::Span* s = heap::FindSpan(from);
    Addr slice_end = AlignDown(from, heap::kSliceSize) + heap::kSliceSize;
    if (s == nullptr) {
      from = slice_end;
      continue;
    }
    Addr start = heap::SpanAddr(s);
    Addr end = Min(to, start + (Addr{s->slices} << heap::kSliceShift));
    const uint64_t* marks = heap::MarkBits(s, heap::Plane::kMarked);
    if (LoadRelaxed(&s->state) == heap::SpanState::kLarge) {
      Addr first = Max(start, from - 8), stop = Min(end + 8, start + s->large_bytes);
      if ((LoadRelaxed(&marks[0]) & 1) != 0 && first < stop) ScanObject(first, stop - first);
    } else if (size_t size = LoadRelaxed(&s->slot_size); size != 0) {
      uint32_t last = static_cast<uint32_t>(Min((end - 1 - start) / size, s->slots - 1u));
      for (uint32_t slot = static_cast<uint32_t>((from - start) / size); slot <= last; ++slot) {
        uint32_t w = slot / 64;
        uint64_t live = (LoadRelaxed(&marks[w]) & heap::AllocatedBits(s, w)) >> (slot % 64);
        if (live == 0) {
          slot |= 63;  // none in the rest of the word
          continue;
        }
        slot += LowestBit(live);
        if (slot > last) break;
        Addr base = start + size * slot;
        // Eight bytes more on each side: a pointer may lie across the border of pages.
        Addr a = Max(base, from - 8), b = Min(base + size, end + 8);
        if (a < b) ScanObject(a, b - a);
      }
    }
    from = end > from ? end : slice_end;
  }
  // Not progress: the pacer expects each object once.
  counts_.rescanned_bytes += counts_.scanned_bytes - scanned;
  counts_.scanned_bytes = scanned;
}

}  // namespace undergo::gc
