// SPDX-License-Identifier: Apache-2.0
// What waits in pipes of which the process has both ends: threads that send each other pointers.
#pragma once

#include "base/atomic.h"
#include "base/types.h"
#include "gc/roots.h"

namespace undergo::gc {

enum class PipeRead : uint8_t {
  kDone,
  kStale,   // pipes were made or moved since the list was made
  kFailed,  // a pipe holds something that cannot be looked at
};

// All but Made belongs to the coordinator.
class Pipes {
 public:
  static constexpr uint32_t kMax = 512;  // ends of each kind; what is beyond is not looked at

  // The list, anew: Begin, Note for each descriptor that is a pipe ("pipe:[inode]"), Finish.
  void Begin();
  void Note(int fd, const char* target);
  void Finish();
  // World stopped, and before anything else is read. f gets all that is in the pipes of the list,
  // as ReadRange gives it (without an address): a pointer may begin at any byte.
  PipeRead Read(char* buffer, ChunkVisitor f, void* context);

  // The program has a new pipe. Any thread.
  void Made() { FetchAddRelaxed(&made_, 1u); }

 private:
  struct End {
    int fd;
    uint64_t inode;
  };
  bool Copy(int fd, size_t bytes, char* buffer, ChunkVisitor f, void* context);

  uint32_t made_ = 0;         // atomic
  uint32_t made_before_ = 0;  // made_ when the list was begun
  uint32_t readers_ = 0, writers_ = 0;
  int own_[2] = {-1, -1};  // during Read
  End reader_[kMax] = {};
  uint64_t writer_[kMax] = {};  // inodes
};
extern constinit Pipes pipes;

}  // namespace undergo::gc
