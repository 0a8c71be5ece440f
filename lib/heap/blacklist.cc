// SPDX-License-Identifier: Apache-2.0
#include "heap/blacklist.h"

#include "plat/vm.h"

namespace undergo::heap {

constinit Blacklist blacklist;

void Blacklist::Begin() {
  // Where address space is scarce, nobody asks (MHeap::AllocInLocked).
  if (bits_ == nullptr && !ArenaIsUnreserved()) {
    bits_ = static_cast<uint64_t*>(plat::ReserveReadable(kSize, 0));
  }
  uint32_t older = 1 - newer_;
  // Fresh pages read as zero. If the kernel refuses, old entries stay: address space, no more.
  if (any_[older] &&
      plat::Discard(reinterpret_cast<Addr>(bits_ + older * kWords), kWords * sizeof(uint64_t))) {
    StoreRelaxed(&any_[older], false);
  }
  StoreRelaxed(&newer_, older);
}

bool Blacklist::MakeWritable(size_t piece) {
  if (bits_ == nullptr) return false;
  Addr all = reinterpret_cast<Addr>(bits_);
  uint64_t made = uint64_t{1} << piece;
  if (!plat::DataLimited() && plat::Commit(all, kSize)) {
    made = ~uint64_t{0};
  } else if (!plat::Commit(all + piece * kPiece, kPiece)) {
    return false;
  }
  FetchOrAcqRel(&writable_, made);  // pairs: Writable
  return true;
}

}  // namespace undergo::heap
