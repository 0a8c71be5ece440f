// SPDX-License-Identifier: Apache-2.0
// Which pages were written since they were armed: the kernel is the collector's write barrier.
#pragma once

#include "base/types.h"

namespace undergo::plat {

using RangeVisitor = void (*)(void* context, Addr from, Addr to);
using RangeFilter = bool (*)(void* context, Addr from, Addr to);

// Tracking by userfaultfd write-protection in asynchronous mode and PAGEMAP_SCAN (Linux 6.7). All
// ranges are whole pages. Arm, Collect, Disarm and Unregister may be called by several threads at
// once; Open, Close, the canary and AbandonInChild by one. Three rules of use:
// * A page that appears in an armed range later (first touch, after MADV_DONTNEED) counts as
//   written, so nothing is lost by arming present pages only.
// * Memory that is mapped after Arm is not tracked; Collect reports its present pages each time.
// * munmap takes the record of its pages along.
class DirtyTracker {
 public:
  // False, with a Reason(), when the kernel or a seccomp filter refuses. Idempotent.
  bool Open();
  // Ends all tracking: no page stays write-protected.
  void Close();
  bool IsOpen() const { return uffd_ >= 0; }
  // Why the last Open, Arm, Collect or canary failed: a constant string.
  const char* Reason() const;

  // Counts successful calls of Open: what was armed through an earlier one is not tracked any more.
  uint64_t opened() const { return opened_; }

  // Registers the range if needed and write-protects its pages; on a registered range it only
  // protects again. Calls f, if given, for each run of pages that were not protected before. False:
  // nothing is mapped there, a part of the range cannot be tracked (the program registered it with
  // a userfaultfd of its own), or tracking was lost.
  bool Arm(Addr from, size_t size, RangeVisitor f = nullptr, void* context = nullptr);
  // The same for a range that was armed before, through what is open now, and may still have armed
  // pages.
  bool ArmAgain(Addr from, size_t size, RangeVisitor f, void* context);
  // Registers the range and protects nothing: all of its present pages count as written.
  bool Extend(Addr from, size_t size);
  // The descriptors are still those that Open made, and this is the process that made them.
  bool IsUsable() { return DescriptorsAreOurs(); }
  // Calls f for each run of pages written since they were armed. With `rearm` these are armed again
  // in the same step; without it, the caller has asked IsUsable since the world stopped. Present
  // pages without tracking are reported always. False: tracking was lost (what was reported is
  // right but not complete).
  bool Collect(Addr from, size_t size, bool rearm, RangeVisitor f, void* context);
  // Collect without `rearm`, for memory without many holes: faster there, and slower among holes.
  // Runs of written pages and holes of which `matters` says no are passed over.
  bool CollectDense(Addr from, size_t size, RangeFilter matters, RangeVisitor f, void* context);
  // Takes the write protection away: no more faults, all pages count as written.
  void Disarm(Addr from, size_t size);
  // Disarm, and the kernel forgets the range.
  void Unregister(Addr from, size_t size);

  // Tracking works: both descriptors are the files that were opened, and a page of ours that is
  // armed and written is seen as written. False when the program closed all descriptors, put
  // another file under our numbers, or installed a filter that refuses the calls.
  bool CanaryOk() { return ArmCanary() && CanaryHeld(); }
  // Its two halves. The first costs ten times the second: other CPUs have to forget the page. Once
  // for each CanaryHeld.
  bool ArmCanary();
  bool CanaryHeld();

  // In a child after fork: tracking is gone (it belongs to the parent's memory) and the
  // descriptors are closed. Open() may be called again.
  void AbandonInChild();

 private:
  // A file as fstat sees it, to know it again behind a descriptor number.
  struct FileId {
    uint64_t device = 0;
    uint64_t inode = 0;
    bool operator==(const FileId&) const = default;
  };
  static bool IdOf(int fd, FileId* id);
  bool Fail(const char* reason);
  bool Register(Addr from, size_t size);
  bool Protect(Addr from, size_t size, RangeVisitor f, void* context);
  bool OpenUserfaultfd();
  bool OpenPagemap();
  bool DescriptorsAreOurs();
  void CloseDescriptors();

  int uffd_ = -1;                      // these: written by Open, Close, AbandonInChild
  int pagemap_ = -1;                   // -1: closed
  long pid_ = 0;                       // of the process whose memory both speak about
  FileId uffd_id_;                     //
  FileId pagemap_id_;                  //
  uint64_t opened_ = 0;                //
  bool armed_ = false;                 // something besides the canary may be armed
  bool reopened_ = false;              // pages may carry bits of an earlier userfaultfd
  Addr canary_ = 0;                    // a page of our own, kept for ever; 0 before the first Open
  const char* reason_ = "not opened";  // last failure; any thread, relaxed
};

}  // namespace undergo::plat
