// SPDX-License-Identifier: Apache-2.0
// Allocation sites: for each object the call chain that made it. Only in the modes that report
// objects; then every allocation takes the slow path, and the fast paths do not change.
#pragma once

#include "base/fmt.h"
#include "heap/span.h"

namespace undergo::heap {

inline constexpr uint32_t kSiteFrames = 8;

struct Site {
  uint64_t hash;    // of the chain; 0: entry not in use. Atomic
  uint32_t frames;  // atomic; 0 until the chain is there
  uint32_t uses;    // atomic; proofs of hidden pointers, for heap/poison.cc
  Addr pcs[kSiteFrames];
};

inline constexpr uint32_t kMaxSites = 1 << 16;
inline constexpr uint32_t kNoSite = 0;

extern constinit bool sites_on;

// Starts to record. False when there is no address space for the table: all objects are from an
// unknown site then. Called once, while there is one thread.
bool EnableSites();
// The new object at p was made by the callers of this function.
void RecordSite(const void* p);
// The site of a slot's object, or of the last one that was there; kNoSite when not known.
uint32_t SiteOf(const Span* s, uint32_t slot);
uint32_t SiteOf(Addr object);
Site* SiteById(uint32_t id);  // id below kMaxSites, not kNoSite
void DescribeSite(uint32_t id, Fmt* out);

}  // namespace undergo::heap
