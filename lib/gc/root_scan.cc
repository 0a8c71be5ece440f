// SPDX-License-Identifier: Apache-2.0
// Marking from the roots: stacks and registers of stopped threads, root ranges (roots.h), pinned
// objects, and what the kernel holds (kernel_roots.h, kernel_words.h).
#include "gc/cycle.h"
#include "gc/kernel_roots.h"
#include "gc/kernel_words.h"
#include "heap/pin.h"
#include "heap/sweep.h"
#include "plat/vm.h"
#include "world/world.h"

namespace undergo::gc {

constinit KernelWords kernel_words;

// A thread that comes here before the first stop and hands the word over after it comes again.
bool NoteKernelWord(const void* at) {
  if (!LoadRelaxed(&heap::gc_heap.marking)) return false;
  uint64_t word;
  if (plat::SafeRead(reinterpret_cast<Addr>(at), &word, sizeof word)) kernel_words.Add(word);
  return true;
}

namespace {

constexpr uint64_t kRootQuantum = 256 * kKiB;  // scanned between two looks at the clock
constexpr size_t kRootPiece = 32 * kMiB;       // of a root, taken by one worker in stop 2

struct CopyContext {
  Marker* marker;
  bool bytewise = false;
  Cycle* cycle = nullptr;  // where the program runs: work may be done after each piece
};

void ScanCopy(void* context, const void* data, Addr, size_t n) {
  auto* c = static_cast<CopyContext*>(context);
  if (c->bytewise) {
    c->marker->ScanRootsBytewise(data, n);
  } else {
    c->marker->ScanRoots(data, n);
  }
  if (c->cycle != nullptr) c->cycle->DrainBetween();
}

// The same for roots in which stacks of waiting threads may lie: without their dead parts.
void ScanRootCopy(void* context, const void* data, Addr address, size_t n) {
  if (world::parked_stack == nullptr) return ScanCopy(context, data, address, n);
  for (Addr at = address, end = address + n; at < end;) {
    world::ParkedStack stack = world::parked_stack(at);
    Addr from = Max(at, AlignDown(stack.live, 8)), to = Min(end, stack.end);
    if (from < to) {
      ScanCopy(context, static_cast<const char*>(data) + (from - address), from, to - from);
    }
    at = to;
  }
}

}  // namespace

bool Cycle::AddRoots(Addr from, Addr to) {
  if (extra_count_ == kMaxExtra) return false;
  extra_[extra_count_++] = {AlignUp(from, 8), AlignDown(to, 8)};
  return true;
}

bool Cycle::BuildRoots() {
  if (!roots_.Build()) return Fail("the mappings cannot be read");
  return !roots_.has_missed_module() ||
         Fail("a module that hides pointers was loaded unseen; its next dlopen helps");
}

// World stopped. Registers at once; stacks now if final, else they are noted for later.
void Cycle::ScanStopped(bool final) {
  stack_count_ = 0;
  if (!final) dead_count_ = 0;
  world::ForEachStopped([this, final](const world::StoppedThread& t) {
    if (t.frame != nullptr) marker().ScanRoots(t.frame, AlignDown(t.frame_size, 8));
    Addr sp = AlignDown(t.sp, 8), high = t.stack_high;
    marker().MarkWord(t.altstack);
    if (t.stack_low == t.stack_high) {
      // On a stack that we do not know: the mapping around it is a root as a whole. If it lies in
      // the heap, it is an object.
      marker().MarkWord(t.sp);
      return;
    }
    if (stack_count_ < kMaxStacks) storage_->stacks[stack_count_++] = {sp, high};
    if (final || stack_count_ == kMaxStacks) {
      times_.stack_bytes += high - sp;
      marker().ScanRoots(reinterpret_cast<void*>(sp), high - sp);
    }
    roots_.Subtract(t.stack_low, t.stack_high);
    if (!final && check_mark_ && dead_count_ < kMaxStacks) {
      storage_->dead[dead_count_++] = {t.stack_low, AlignDown(sp, kOsPageSize)};
    }
  });
}

// A stack of which the dead part was left out at the first stop may be a plain root now, as that of
// a kernel thread that runs a G. What was not written since then is as dead as it was.
void Cycle::LeaveOutDeadStacks() {
  struct Context {
    RootList* roots;
    Addr at;
  };
  for (uint32_t i = 0; i < dead_count_; ++i) {
    Range r = storage_->dead[i];
    Context context = {&roots_, r.from};
    auto written = [](void* p, Addr from, Addr to) {
      auto* c = static_cast<Context*>(p);
      c->roots->Subtract(c->at, from);
      c->at = to;
    };
    if (r.from < r.to && tracker_.Collect(r.from, r.to - r.from, false, written, &context)) {
      roots_.Subtract(context.at, r.to);
    }
  }
}

void Cycle::ScanRange(const RootRange& r) {
  CopyContext context = {&marker(), r.bytewise, this};
  if (!ReadRoot(r, buffer(), ScanRootCopy, &context)) {
    pool_.Fail("memory of the program cannot be read");
  }
}

void Cycle::MarkPinned() {
  heap::ForEachPinned([this](Addr object) { marker().MarkWord(object); });
}

// A root may be a table with millions of pointers: they are not put into the queue all at once.
void Cycle::DrainBetween() {
  if (throttle_ == nullptr) return;
  while (pool_.HasWork() && !pool_.failed() && !marker().Drain(kRootQuantum)) throttle_();
}

// Before the roots, as that tells who may write to memory unseen (ReadKernel).
bool Cycle::MarkKernel() {
  auto word = [](void* marker, uint64_t w) { static_cast<Marker*>(marker)->MarkWord(w); };
  return ReadKernel(word, &marker());
}

void Cycle::MarkRoots() {
  for (uint32_t i = 0; i < stack_count_; ++i) {
    // A running stack: what is missed or stale is seen again in the final stop.
    CopyContext context = {&marker(), false};
    ReadRange(storage_->stacks[i].from, storage_->stacks[i].to, buffer(), ScanCopy, &context);
  }
  for (size_t i = 0; i < roots_.size(); ++i) ScanRange(roots_[i]);
  for (uint32_t i = 0; i < extra_count_; ++i) {
    CopyContext context = {&marker(), false};
    ReadRange(extra_[i].from, extra_[i].to, buffer(), ScanCopy, &context);
  }
  MarkPinned();
  times_.globals_bytes = marker().counts().root_bytes;
}

// World stopped. The mappings as they are now: what is not tracked is read whole.
bool Cycle::PrepareRescan() {
  bool read = roots_.Rebuild();
  if (read) ScanStopped(true);
  MarkPinned();
  StoreRelease(&roots_ready_, 1u);  // pairs: RescanRoots
  return read;
}

// World stopped. Piece by piece, with the other workers.
void Cycle::RescanRoots(uint32_t worker) {
  while (LoadAcquire(&roots_ready_) == 0) CpuRelax();  // pairs: PrepareRescan
  CopyContext copy = {&storage_->markers[worker], false};
  // Never directly: guards that the program installed in page tables look like swapped pages.
  struct Context {
    ReadBatch batch;
    bool readable;
  } context = {{storage_->buffers[worker], ScanRootCopy, &copy}, true};
  auto run = [](void* p, Addr from, Addr to) {
    auto* c = static_cast<Context*>(p);
    c->readable &= c->batch.Read(from, to);
  };
  uint32_t mine = FetchAddRelaxed(&next_root_, 1u), piece = 0;
  for (size_t i = 0; i < roots_.size(); ++i) {
    const RootRange& r = roots_[i];
    if (copy.bytewise != r.bytewise) context.readable &= context.batch.Flush();
    copy.bytewise = r.bytewise;
    size_t size = r.bytewise ? r.to - r.from : kRootPiece;  // words may lie across the border
    for (Addr at = r.from; at < r.to; at += Min(size, r.to - at)) {
      if (piece++ != mine) continue;
      if (!tracker_.Collect(at, Min(size, r.to - at), false, run, &context) || !context.readable) {
        return StoreRelaxed(&lost_, 1u);
      }
      mine = FetchAddRelaxed(&next_root_, 1u);
    }
  }
  if (!context.batch.Flush() || !context.readable) StoreRelaxed(&lost_, 1u);
}

bool Cycle::RescanExtra() {
  bool readable = true;
  for (uint32_t i = 0; i < extra_count_; ++i) {
    CopyContext context = {&marker(), false};
    readable &= ReadRange(extra_[i].from, extra_[i].to, buffer(), ScanRootCopy, &context);
  }
  return readable;
}

// World stopped. What the kernel was given since the roots were read.
bool Cycle::RescanKernel() {
  if (kernel_words.ForEach([this](uint64_t word) { marker().MarkWord(word); })) return true;
  return MarkKernel();
}

}  // namespace undergo::gc
