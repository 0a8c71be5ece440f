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
// the two steps halves the time of a mark. A list gains nothing: its next node is known only when
// this one was read.
//
// A mutator may free or reuse anything meanwhile. Then a queued address has a new meaning; the span
// is looked up again before a scan, and a scan never leaves the slices of the span. What is marked
// or scanned in vain that way is kept for one cycle more, nothing worse.
//
// Large objects are scanned in pieces, the rest is queued, so that others can help; pages of theirs
// that do not exist are not read. Depth first, the stack of a tree is never deep: who looks for
// work in vain says so (WorkPool::AwaitWork), and is given the older half of what others have.
//
// Rejected: queueing spans instead of objects, so that all marked objects of a span are scanned
// together (measured on lists and trees: with prefetching it gains little, as objects of a span
// seldom become known at the same time when the order is depth first).
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
constexpr uint32_t kShared = 4;         // objects that are worth a chunk for others

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

void Marker::Flush() {
  FinishCandidates();
  Spill(0);
}

void Marker::Share() {
  if (depth_ >= kShared && !pool_->HasWork()) Spill(depth_ / 2);
}

bool Marker::Refill() {
  WorkChunk* c = pool_->Take();
  if (c == nullptr) return false;
  __builtin_memcpy(stack_, c->items, c->count * sizeof(uint64_t));
  depth_ = static_cast<uint32_t>(c->count);
  pool_->Recycle(c);
  return true;
}

UNDERGO_INLINE void Marker::TestAndMark(const Candidate& c) {
  uint64_t bit = uint64_t{1} << c.bit;
  if ((LoadRelaxed(c.word) & bit) != 0) return;
  if ((FetchOrAcqRel(c.word, bit) & bit) != 0) return;  // pairs: other markers
  counts_.marked_bytes += c.size;
  counts_.marked_objects++;
  Push(c.base);
}

UNDERGO_INLINE void Marker::MarkSmall(uint32_t slice, uint32_t slot, Addr base, uint32_t size) {
  uint64_t* word = heap::MarkedBits(slice) + slot / 64;
  __builtin_prefetch(word);
  Candidate old = candidates_[candidates_head_ % kLookahead];
  bool full = candidates_head_ - candidates_tail_ == kLookahead;
  candidates_[candidates_head_++ % kLookahead] = {word, slot % 64, base, size};
  if (!full) return;
  ++candidates_tail_;
  TestAndMark(old);
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
    counts_.marked_bytes += s->large_bytes;
    counts_.marked_objects++;
    Push(start | kRest);
    return;
  }
  uint32_t size = LoadRelaxed(&s->slot_size);
  if (size == 0) return;
  uint32_t slot = static_cast<uint32_t>(a - start) / size;
  if (slot < s->slots) MarkSmall(heap::SliceOfSpan(s), slot, start + size_t{slot} * size, size);
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
  MarkSmall(slice, slot, word - in_slice + size_t{slot} * k.size, k.size);
}

// Pointers that are still on their way.
void Marker::FinishCandidates() {
  while (candidates_tail_ != candidates_head_) {
    TestAndMark(candidates_[candidates_tail_++ % kLookahead]);
  }
}

void Marker::MarkWord(uint64_t word) { Visit(word); }

void Marker::ScanWords(const uint64_t* words, size_t count) {
  while (count > 0) {
    size_t n = Min(count, kBlockWords);
    size_t found = scan(words, n, target_, found_);
    for (size_t i = 0; i < found; ++i) Visit(found_[i]);
    words += n;
    count -= n;
    if (count == 0) return;
    uint64_t between;  // the word whose halves lie in two blocks
    __builtin_memcpy(&between, reinterpret_cast<const char*>(words) - 4, sizeof between);
    Visit(between);
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
    size_t n = Min(bytes - at, sizeof found_ / sizeof found_[0] - 16);
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
  auto look_at = [&look](Addr at) {
    uint64_t word;
    __builtin_memcpy(&word, reinterpret_cast<const char*>(at), sizeof word);
    look(word);
  };
  if (before) look_at(page - 4);
  for (Addr at = page; at < page + kOsPageSize; at += kBlockWords * 8) {
    if (at != page) look_at(at - 4);
    size_t found = scan(reinterpret_cast<const uint64_t*>(at), kBlockWords, target_, found_);
    for (size_t i = 0; i < found; ++i) look(found_[i]);
  }
  if (after) look_at(page + kOsPageSize - 4);
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

bool Marker::Drain(uint64_t limit) {
  heap::DirectReads reads;
  auto read = [this] { return counts_.scanned_bytes - counts_.skipped_bytes; };
  uint64_t end = read() + limit;
  uint32_t head = 0, tail = 0;
  for (;;) {
    while (head - tail < kAhead && depth_ != 0) {
      uint64_t item = stack_[--depth_];
      __builtin_prefetch(reinterpret_cast<void*>(item & ~kRest));
      __builtin_prefetch(reinterpret_cast<void*>((item & ~kRest) + 64));
      ring_[head++ % kAhead] = item;
    }
    if (head == tail) {
      FinishCandidates();
      if (depth_ != 0 || Refill()) continue;
      return true;
    }
    ScanItem(ring_[tail++ % kAhead]);
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
