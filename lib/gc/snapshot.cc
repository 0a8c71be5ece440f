// SPDX-License-Identifier: Apache-2.0
// A mark without write tracking and without a long stop: in a frozen copy of the process.
//
// The world is stopped, the kernel copies the page tables (plat/copy.h), the world runs. The copy
// sees memory as it was in the stop, for as long as it likes, and marks what is reachable there.
// What is unreachable in the copy was unreachable in the stop, and nothing that is unreachable can
// become reachable again: so there is nothing to be looked at a second time. Objects made since
// the stop are black. A last, short stop flips, as in every cycle.
//
//   parent                                           copy
//   clear marks                                      -
//   stop: cursors black; words that a copy would
//         not see; clone; start
//   allocates black, waits                           reset marks; roots, stacks, heap; report; end
//   merge the copy's marks; stop: flip; start        -
//
// Marks are the only result. The copy moves a shared table over its own table of marks, so that the
// marker finds it at the usual place, and the parent adds what it finds in there to its own, in
// which it has meanwhile marked what is black. The parent's table is never shared: the program's
// own children must not write to it. Spans that changed meanwhile get marks that mean nothing, on
// slots that are black or free anyway.
//
// A copy does not freeze everything. Read in the stop, as words for the copy:
//  * shared memory, and private views of it: it goes on changing;
//  * what the kernel holds: pipes are emptied by the parent, timers belong to the process, and
//  watches may be removed;
//  * memory that the program keeps from its children (MADV_DONTFORK, MADV_WIPEONFORK).
// The copy compares the mappings: if some of the parent's are missing, the snapshot is given up.
// A program with a userfaultfd of its own is not copied: the kernel may ask its handler, which is
// stopped, for leave.
//
// The cost: the stop lasts as long as the kernel needs for the page tables (about 30 ms for 1 GiB
// of small pages, 1 ms if they are huge), and then each page costs a copy at its first write.
// That is the fork collector of D's runtime, with the roots of this one. Rejected: fork() of libc
// (runs the program's handlers), vfork and threads (share memory), marks in shared memory always
// (a program that forks would share them between its processes).
#include "gc/snapshot.h"

#include "gc/cycle.h"
#include "heap/blacklist.h"
#include "heap/mheap.h"
#include "heap/sweep.h"
#include "heap/walk.h"
#include "plat/clock.h"
#include "plat/copy.h"
#include "plat/maps.h"
#include "plat/vm.h"
#include "world/world.h"

namespace undergo::gc {

namespace {

constexpr uint64_t kFirstNapNs = 100'000;
constexpr uint64_t kLastNapNs = 2'000'000;
constexpr uint64_t kExecNapNs = 100'000;
constexpr uint64_t kSilenceNs = 30'000'000'000;  // of a copy that makes no progress: killed
constexpr uint64_t kQuantum = 256 * kKiB;        // scanned between two reports
constexpr const char* kExecs = "the program is about to start another one in its place";

struct NotInherited {
  static constexpr uint32_t kMax = 64;
  uint32_t count;  // atomic
  struct {
    Addr from, to;  // `to` is written last; 0: not yet there
  } ranges[kMax];
};
constinit NotInherited not_inherited = {};

}  // namespace

bool WordList::Push(uint64_t word) {
  if (count_ == capacity_) {
    size_t bytes = Max(capacity_ * sizeof(uint64_t) * 2, 64 * kKiB);
    auto* fresh = static_cast<uint64_t*>(plat::MapPages(bytes));
    if (fresh == nullptr) return false;
    if (words_ != nullptr) {
      __builtin_memcpy(fresh, words_, count_ * sizeof(uint64_t));
      plat::Unmap(reinterpret_cast<Addr>(words_), capacity_ * sizeof(uint64_t));
    }
    words_ = fresh;
    capacity_ = bytes / sizeof(uint64_t);
  }
  words_[count_++] = word;
  return true;
}

void NoteNotInherited(Addr from, size_t size) {
  Addr to = AlignUp(from + size, kOsPageSize);
  uint32_t n = Min(LoadAcquire(&not_inherited.count), NotInherited::kMax);  // pairs: the addition
  for (uint32_t i = 0; i < n; ++i) {
    if (not_inherited.ranges[i].from == from && LoadRelaxed(&not_inherited.ranges[i].to) == to) {
      return;
    }
  }
  uint32_t i = FetchAddAcqRel(&not_inherited.count, 1u);  // pairs: ForEachNotInherited
  if (i >= NotInherited::kMax) {
    StoreRelaxed(&not_inherited.count, NotInherited::kMax + 1);
    return;
  }
  not_inherited.ranges[i].from = from;
  StoreRelease(&not_inherited.ranges[i].to, to);  // pairs: ForEachNotInherited
}

bool ForEachNotInherited(bool (*f)(void* context, Addr from, Addr to), void* context) {
  uint32_t n = LoadAcquire(&not_inherited.count);  // pairs: NoteNotInherited
  if (n > NotInherited::kMax) return false;
  for (uint32_t i = 0; i < n; ++i) {
    Addr to = LoadAcquire(&not_inherited.ranges[i].to);  // pairs: NoteNotInherited
    if (to != 0 && !f(context, not_inherited.ranges[i].from, to)) return false;
  }
  return true;
}

bool Snapshot::Map() {
  size_t at = AlignUp(sizeof(SnapshotReport), kOsPageSize);
  for (heap::Region r : {heap::Region::kLower, heap::Region::kUpper}) {
    Addr from = heap::arena.marks + size_t{heap::RegionBegin(r)} * heap::kMarkStride;
    Addr to = heap::arena.marks + size_t{heap::mheap.end(r)} * heap::kMarkStride;
    Part& part = parts_[static_cast<int>(r)];
    part.table = AlignDown(from, kOsPageSize);
    part.size = to > from ? AlignUp(to, kOsPageSize) - part.table : 0;
    part.twin = at;
    at += part.size;
  }
  report_ = static_cast<SnapshotReport*>(plat::MapShared(at));
  if (report_ == nullptr) return false;
  size_ = at;
  for (Part& part : parts_) part.twin += reinterpret_cast<Addr>(report_);
  return true;
}

bool Snapshot::EnterCopy() {
  for (const Part& part : parts_) {
    if (part.size != 0 && !plat::MoveOver(part.twin, part.table, part.size)) return false;
  }
  return true;
}

void Snapshot::MergeMarks() const {
  heap::ForEachSpan([this](heap::Span* s) {
    uint64_t* marks = heap::MarkBits(s, heap::Plane::kMarked);
    Addr at = reinterpret_cast<Addr>(marks);
    for (const Part& part : parts_) {
      if (at - part.table >= part.size) continue;  // made since
      auto* twin = reinterpret_cast<const uint64_t*>(part.twin + (at - part.table));
      uint32_t words = s->words();
      for (uint32_t w = 0; w < words; ++w) {
        if (twin[w] != 0) FetchOrAcqRel(&marks[w], twin[w]);  // pairs: SweepSpan, GcTakeSlots
      }
    }
  });
}

void Snapshot::Unmap() {
  if (report_ != nullptr) plat::Unmap(reinterpret_cast<Addr>(report_), size_);
  report_ = nullptr;
}

// --- the cycle ---

namespace {

struct WordSink {
  WordList* words;
  const ScanTarget* target;
  bool bytewise;
  bool ok;

  void Add(uint64_t word) {
    if (word - target->base < target->size) ok &= words->Push(word);
  }
  void Scan(const void* data, size_t bytes) {
    uint64_t found[ScanRoom(kScanBlock)];
    auto* at = static_cast<const uint64_t*>(data);
    for (size_t left = bytes / 8; left != 0;) {
      size_t n = Min(left, kScanBlock);
      size_t count = scan(at, n, *target, found);
      for (size_t i = 0; i < count; ++i) Add(found[i]);
      at += n;
      left -= n;
      if (left == 0) break;
      ForEachAcross(reinterpret_cast<Addr>(at), [this](uint64_t word) { Add(word); });
    }
  }
  void ScanBytes(const void* data, size_t bytes) {
    auto* p = static_cast<const char*>(data);
    for (size_t i = 0; i + 8 <= bytes; ++i) {
      uint64_t word;
      __builtin_memcpy(&word, p + i, sizeof word);
      Add(word);
    }
  }
  static void Chunk(void* self, const void* data, Addr, size_t n) {
    auto* sink = static_cast<WordSink*>(self);
    if (sink->bytewise) {
      sink->ScanBytes(data, n);
    } else {
      sink->Scan(data, n);
    }
  }
};

// Whether [from, to) of the parent is mapped in the copy as well. Both lists are sorted.
struct Coverage {
  const RootList* roots;
  size_t next;    // the first range that is not covered to its end
  Addr covered;   // up to where it is
  bool complete;  // none was skipped

  static bool Visit(void* self, const plat::Mapping& m) {
    auto* c = static_cast<Coverage*>(self);
    for (; c->next < c->roots->size(); c->covered = 0) {
      const RootRange& r = (*c->roots)[c->next];
      Addr at = Max(c->covered, r.from);
      if (m.end <= at) return true;
      if (m.start > at && !r.shared && !IsKnown(at, Min(m.start, r.to))) c->complete = false;
      c->covered = m.end;
      if (m.end < r.to) return true;
      ++c->next;
    }
    return false;
  }
  bool Finish() {
    for (; next < roots->size(); ++next, covered = 0) {
      const RootRange& r = (*roots)[next];
      if (!r.shared && !IsKnown(Max(covered, r.from), r.to)) complete = false;
    }
    return complete;
  }
  // Told by NoteNotInherited: its words were read in the stop.
  static bool IsKnown(Addr from, Addr to) {
    struct Range {
      Addr from, to;
    } range = {from, to};
    auto cut = [](void* p, Addr known_from, Addr known_to) {
      auto* r = static_cast<Range*>(p);
      if (known_from <= r->from && known_to > r->from) r->from = known_to;
      return r->from < r->to;
    };
    // Neighbours may have been noted in any order.
    Addr before;
    do {
      before = range.from;
      if (!ForEachNotInherited(cut, &range)) return range.from >= range.to;
    } while (range.from != before);
    return false;
  }
};

void ReportSlices(SnapshotReport* report) {
  if (!heap::blacklist.any()) return;
  for (uint32_t w = 0; w < heap::kMaxSlices / 64; ++w) {
    for (uint64_t bits = heap::blacklist.NewWord(w); bits != 0; bits &= bits - 1) {
      if (report->slice_count == SnapshotReport::kMaxSlices) return;
      report->slices[report->slice_count++] = w * 64 + LowestBit(bits);
    }
  }
}

void ClearMarks(heap::Span* s) {
  uint64_t* marks = heap::MarkBits(s, heap::Plane::kMarked);
  for (uint32_t w = 0; w < s->words(); ++w) StoreRelaxed(&marks[w], uint64_t{0});
}

void StoreCounts(SnapshotReport* report, const MarkCounts& c) {
  StoreRelaxed(&report->counts.marked_bytes, c.marked_bytes);
  StoreRelaxed(&report->counts.marked_objects, c.marked_objects);
  StoreRelaxed(&report->counts.scanned_bytes, c.scanned_bytes);
  StoreRelaxed(&report->counts.root_bytes, c.root_bytes);
  StoreRelaxed(&report->cpu_ns, plat::NowNs(CLOCK_PROCESS_CPUTIME_ID));
}

}  // namespace

// World stopped, in the parent.
bool Cycle::ReadLiveRoots() {
  live_words_.Clear();
  WordSink sink = {&live_words_, &target_, false, true};
  auto word = [](void* s, uint64_t w) { static_cast<WordSink*>(s)->Add(w); };
  auto bytes = [](void* s, const void* data, Addr, size_t n) {
    static_cast<WordSink*>(s)->ScanBytes(data, n);
  };
  if (!ReadKernel(word, &sink) || !ReadPipes(bytes, &sink, word)) return false;
  bool read = true;
  for (size_t i = 0; i < roots_.size(); ++i) {
    const RootRange& r = roots_[i];
    if (!r.shared && !r.file_pages) continue;
    sink.bytewise = r.bytewise;
    read &= ReadRoot(r, buffer(), WordSink::Chunk, &sink);
  }
  sink.bytewise = false;
  struct Context {
    Cycle* cycle;
    WordSink* sink;
    bool read;
  } context = {this, &sink, true};
  auto range = [](void* p, Addr from, Addr to) {
    auto* c = static_cast<Context*>(p);
    c->read &=
        ReadRange(AlignDown(from, 8), to, c->cycle->storage_->buffers[0], WordSink::Chunk, c->sink);
    return true;
  };
  if (!ForEachNotInherited(range, &context)) {
    return FailTracking("children inherit too little of the program's memory");
  }
  read &= context.read;
  return (read || Fail("memory of the program cannot be read")) &&
         (sink.ok || Fail("no memory for words in shared memory"));
}

// A copy that is alive at an exec would become a child of the new program, which knows nothing of
// it, and stay there as a zombie. Either the coordinator sees the count in the stop in which it
// would make a copy, or the copy is seen here.
void Cycle::BeginExec() {
  FetchAddAcqRel(&execs_, 1u);                               // pairs: TakeSnapshot, AwaitCopy
  while (LoadAcquire(&copy_) != 0) plat::NapNs(kExecNapNs);  // pairs: RemoveCopy
}

// The copy is no more when this returns.
void Cycle::RemoveCopy(bool kill) {
  if (copy_ == 0) return;
  if (kill) plat::KillCopy(copy_);
  plat::CopyHasEnded(copy_, true);
  StoreRelease(&copy_, 0L);  // pairs: BeginExec
}

// World stopped.
bool Cycle::TakeSnapshot() {
  heap::gc_heap.black = true;
  if (on_black_ != nullptr) on_black_();
  StoreRelaxed(&heap::gc_heap.black_bytes, uint64_t{0});
  BlackenCursors();
  if (!BuildRoots()) return false;
  if (!ReadLiveRoots()) return false;
  if (!snapshot_.Map()) return FailTracking("no memory for the marks of a snapshot");
  if (LoadAcquire(&execs_) != 0) return Fail(kExecs);  // pairs: BeginExec
  long copy = plat::CopyProcess();
  if (copy == 0) {
    MarkCopy();
    plat::EndCopy();
  }
  if (copy < 0) return FailTracking("clone is refused");
  StoreRelease(&copy_, copy);  // pairs: BeginExec
  return true;
}

// In the copy. The world is stopped for ever.
void Cycle::MarkCopy() {
  SnapshotReport* report = snapshot_.report();
  auto fail = [report](const char* why) {
    report->failed = 1;
    report->reason = why;
    StoreRelease(&report->done, 1u);  // pairs: AwaitCopy
  };
  Coverage coverage = {&roots_, 0, 0, true};
  if (!plat::ForEachMapping(Coverage::Visit, &coverage)) {
    return fail("the mappings of a snapshot cannot be read");
  }
  if (!coverage.Finish()) {
    report->not_inherited = 1;
    return fail("a snapshot lacks some memory of the program");
  }
  if (!snapshot_.EnterCopy()) return fail("the marks of a snapshot cannot be mapped");
  ResetAllMarks();
  BlackenCursors();
  ScanStopped(true);
  ReadFrozenRoots();
  StoreCounts(report, counts());
  while (!marker().Drain(kQuantum)) StoreCounts(report, counts());
  if (pool_.failed()) return fail(pool_.reason());
  if (check_mark_) {
    uint64_t before = counts().marked_objects;
    ScanStopped(true);
    ReadFrozenRoots();
    marker().Drain(~uint64_t{0} >> 1);
    report->missed_objects = counts().marked_objects - before;
  }
  ReportSlices(report);
  report->stack_bytes = times_.stack_bytes;
  StoreCounts(report, counts());
  StoreRelease(&report->done, 1u);  // pairs: AwaitCopy
}

// In the copy: roots that are frozen, and the words that are not.
void Cycle::ReadFrozenRoots() {
  for (size_t i = 0; i < live_words_.size(); ++i) marker().MarkWord(live_words_[i]);
  for (size_t i = 0; i < roots_.size(); ++i) {
    if (!roots_[i].shared) ScanRange(roots_[i]);
  }
  MarkPinned();
  for (uint32_t i = 0; i < extra_count_; ++i) {
    RootRange all = {};
    all.from = extra_[i].from;
    all.to = extra_[i].to;
    all.writable = all.readable = all.file_pages = all.swapped = true;
    ScanRange(all);
  }
  snapshot_.report()->globals_bytes = marker().counts().root_bytes - times_.stack_bytes;
}

bool Cycle::AwaitCopy(ThrottleHook throttle) {
  SnapshotReport* report = snapshot_.report();
  uint64_t last_cpu = 0, last_progress = plat::NowNs();
  for (uint64_t nap = kFirstNapNs;; nap = Min(nap * 2, kLastNapNs)) {
    bool ended = plat::CopyHasEnded(copy_, false);
    if (ended) StoreRelease(&copy_, 0L);          // pairs: BeginExec
    bool done = LoadAcquire(&report->done) != 0;  // pairs: MarkCopy
    snapshot_counts_ = report->counts;
    times_.copy_ns = LoadRelaxed(&report->cpu_ns);
    if (done) break;
    if (ended) return FailTracking("the copy of the process was killed");
    uint64_t now = plat::NowNs();
    if (times_.copy_ns != last_cpu) last_progress = now;
    last_cpu = times_.copy_ns;
    if (LoadAcquire(&execs_) != 0) return Fail(kExecs);  // pairs: BeginExec
    if (now - last_progress > kSilenceNs) return FailTracking("the copy of the process hangs");
    throttle();
    plat::NapNs(nap);
  }
  if (report->not_inherited != 0) return FailTracking(report->reason);
  if (report->failed != 0) return Fail(report->reason);
  for (uint32_t i = 0; i < report->slice_count; ++i) heap::blacklist.Add(report->slices[i]);
  times_.stack_bytes = report->stack_bytes;
  times_.globals_bytes = report->globals_bytes;
  if (report->missed_objects != 0) ReportMissed(report->missed_objects, "a frozen copy");
  return true;
}

bool Cycle::SnapshotMark(ThrottleHook throttle) {
  heap::gc_heap.marking = true;
  // What is handed out between here and the stop may be marked in vain, for a cycle.
  heap::ForEachSpan([](heap::Span* s) { ClearMarks(s); });
  if (!StopWorld()) return false;
  bool done = TakeSnapshot();
  times_.stop1_ns = StartWorld();
  done = done && AwaitCopy(throttle);
  if (done) snapshot_.MergeMarks();
  done = done && StopWorld();
  if (done) {
    Flip();
    times_.stop2_ns = StartWorld();
  }
  SetEnded();
  RemoveCopy(!done);
  snapshot_.Unmap();
  return done;
}

}  // namespace undergo::gc
