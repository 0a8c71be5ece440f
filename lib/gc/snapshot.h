// SPDX-License-Identifier: Apache-2.0
// The copy of the process in which a mark runs, seen from both sides (see snapshot.cc).
#pragma once

#include "base/types.h"
#include "gc/marker.h"
#include "heap/arena.h"

namespace undergo::gc {

// A growing list of words, in own pages.
class WordList {
 public:
  void Clear() { count_ = 0; }
  bool Push(uint64_t word);  // false: no memory
  size_t size() const { return count_; }
  uint64_t operator[](size_t i) const { return words_[i]; }

 private:
  uint64_t* words_ = nullptr;
  size_t count_ = 0;
  size_t capacity_ = 0;
};

// What the copy tells: in memory that both share. Written by the copy, read by the parent.
struct SnapshotReport {
  uint32_t done;            // atomic; 1: all that follows is final
  uint32_t failed;          // the marks are not complete, for this reason:
  const char* reason;       // a constant string
  uint32_t not_inherited;   // because memory of the parent is missing in the copy
  MarkCounts counts;        // while it marks: so far, each word atomic
  uint64_t stack_bytes;     // scanned
  uint64_t globals_bytes;   // scanned
  uint64_t cpu_ns;          // taken by the copy, so far; atomic
  uint64_t missed_objects;  // gccheckmark: found by a second look only
  // Black-listed slices, as many as there is room for.
  static constexpr uint32_t kMaxSlices = 32 * 1024;
  uint32_t slice_count;
  uint32_t slices[kMaxSlices];
};

class Snapshot {
 public:
  // World stopped: maps the report and a second table of marks for the heap as it is. False: no
  // memory.
  bool Map();
  // In the copy: marks go to the table that the parent sees, which is empty. False: refused.
  bool EnterCopy();
  // Parent: what the copy marked is added to the heap's marks. Objects may come and go meanwhile.
  void MergeMarks() const;
  void Unmap();

  SnapshotReport* report() const { return report_; }
  bool IsMapped() const { return report_ != nullptr; }

 private:
  // A part of the heap's table of marks, by whole pages, and its twin.
  struct Part {
    Addr table;
    size_t size;
    Addr twin;
  };
  SnapshotReport* report_ = nullptr;
  size_t size_ = 0;  // of all that Map mapped
  Part parts_[heap::kRegions] = {};
};

// Memory that a child of fork does not have or finds empty (MADV_DONTFORK, MADV_WIPEONFORK), called
// before the kernel is told. A mark in a copy looks at it beforehand. Safe in signal handlers.
void NoteNotInherited(Addr from, size_t size);
// Calls f for each; false when there were too many to remember.
bool ForEachNotInherited(bool (*f)(void* context, Addr from, Addr to), void* context);

}  // namespace undergo::gc
