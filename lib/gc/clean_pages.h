// SPDX-License-Identifier: Apache-2.0
// Pages of the heap that hold no pointer into it, and were not written since that was seen: large
// data without pointers is read once and not again in each cycle. clean_pages.cc tells why nothing
// is lost by that.
#pragma once

#include "base/atomic.h"
#include "gc/scan.h"
#include "heap/arena.h"

namespace undergo::gc {

// Objects from this size on are looked at page by page.
inline constexpr size_t kPagedObject = 16 * kKiB;

class CleanPages {
 public:
  static constexpr uint32_t kPerSlice = heap::kSliceSize / kOsPageSize;

  // Before the heap is armed for a mark. `tracking` names the userfaultfd that armed it, so that
  // what an earlier one noticed is forgotten. One thread; no marker runs.
  void Begin(const ScanTarget& target, uint64_t tracking);
  // These pages were written since the last cycle armed them. Between Begin and Armed.
  void WrittenBefore(Addr from, Addr to) { SetWritten(from, to); }
  // Before a mark: cycles find nothing, so the next one will be late.
  void SetRare(bool rare) { rare_ = rare; }
  // All of the heap is armed now.
  void Armed();
  // These were written during the mark. Who calls it looks at their marked objects afterwards.
  void Written(Addr from, Addr to) { SetWritten(from, to); }
  // World stopped, one thread: not all that were written are told. Then nothing may be skipped.
  void SetBlind(bool on) { blind_ = on; }

  // Both from a page boundary on, for markers on any thread. Up to the result nothing needs to be
  // read.
  Addr SkipFrom(Addr from, Addr end) const;
  // The first page from `from` on that need not be read, at most `end`; *exist: all before it did
  // exist when they were read the last time.
  Addr ReadUpTo(Addr from, Addr end, bool* exist) const;
  // The word, an address of the heap's range, may become or be a pointer.
  bool IsPointer(uint64_t word) const {
    return word - base_ < lower_size_ || word - upper_ < upper_size_;
  }
  // The page was read since it was armed; `no_pointer`: no word that begins in it or reaches into
  // it IsPointer. Markers, any thread.
  void NoteRead(Addr page, bool no_pointer);

  // The mark is over, at the flip's state of tracking: `valid` says that it was complete, and that
  // nobody writes to memory past the page tables.
  void End(bool valid);
  // Calls f(from, to) for the runs of [from, to) that need not stay armed until the next cycle.
  // After End.
  template <typename F>
  void ForEachUnkept(Addr from, Addr to, F f) const;
  // World stopped, before End: pages whose words contradict what is known of them.
  // GODEBUG=gccheckmark=1.
  uint64_t CountWrong(const ScanTarget& target) const;

 private:
  // Bits by page. Written by the coordinator, except where it says atomic.
  struct Slice {
    uint16_t clean;    // have no pointer, as an earlier cycle saw, and were armed since
    uint16_t written;  // atomic; in this cycle, since they were armed
    uint16_t read;     // atomic; in this cycle
    uint16_t fresh;    // atomic; those of them that have no pointer
    uint16_t known;    // existed in the last cycle
    bool kept;         // the slice stayed armed since the last cycle
    uint8_t failures;  // how often it was armed in vain
    uint8_t wait;      // cycles at whose end it is not kept
  };

  bool Reserve(uint32_t slices);
  void SetWritten(Addr from, Addr to);
  // Pages of the slice of `a` that need not be read.
  uint16_t Skippable(Addr a, const Slice& s) const;
  Slice* Find(Addr a) const {
    uint32_t slice = heap::SliceOf(a);
    return slice < count_ ? &slices_[slice] : nullptr;
  }

  Slice* slices_ = nullptr;  // own pages, by slice of the lower region
  uint32_t count_ = 0;       // slices with an entry
  uint32_t capacity_ = 0;
  bool blind_ = false;     // see SetBlind
  bool rare_ = false;      // cycles are
  bool pays_ = false;      // most of what was kept last was not written until it was armed again
  uint64_t tracking_ = 0;  // whose arming `clean` relies on; 0: nobody's
  // Words outside of these two are no pointers, and will be none while the entries are valid.
  Addr base_ = 0, upper_ = 0;
  size_t lower_size_ = 0, upper_size_ = 0;  // bytes
};

template <typename F>
void CleanPages::ForEachUnkept(Addr from, Addr to, F f) const {
  Addr run = from, at = from;
  for (; at < to; at += heap::kSliceSize) {
    const Slice* s = Find(at);
    if (s == nullptr || !s->kept) continue;
    if (run < at) f(run, at);
    run = at + heap::kSliceSize;
  }
  if (run < to) f(run, to);
}

}  // namespace undergo::gc
