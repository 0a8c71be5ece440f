// SPDX-License-Identifier: Apache-2.0
#include "heap/blacklist.h"

#include "plat/vm.h"

namespace undergo::heap {

constinit Blacklist blacklist;

void Blacklist::Begin() {
  uint32_t older = 1 - newer_;
  // Fresh pages read as zero. If the kernel refuses, old entries stay: address space, no more.
  if (any_[older] && plat::Discard(reinterpret_cast<Addr>(bits_[older]), sizeof bits_[older])) {
    StoreRelaxed(&any_[older], false);
  }
  StoreRelaxed(&newer_, older);
}

}  // namespace undergo::heap
