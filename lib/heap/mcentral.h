// SPDX-License-Identifier: Apache-2.0
// MCentral: for each size class, the partly free spans that no mcache owns.
#pragma once

#include "heap/span.h"
#include "sync/mutex.h"

namespace undergo::heap {

class MCentral {
 public:
  // A span with free slots in free_bits; its owner is `mc` now and its state kCurrent's to set.
  // Null when there is none. BusyScope held.
  Span* Take(MCache* mc);
  // Takes over a span from its owner, who must have set countdown and lists aside. A span without
  // any object goes back to the page heap. BusyScope held.
  void Give(Span* s);
  // Gives spans without any object back to the page heap. BusyScope held.
  void ReleaseEmpty();

  Span* ready = nullptr;  // remote frees into spans of mcentral; pairs: MarkReady / Drain
  sync::Mutex lock;

 private:
  void DrainLocked();

  Span* partial_ = nullptr;  // lock; circular, oldest first
};

extern constinit MCentral mcentrals[kNumClasses];

}  // namespace undergo::heap
