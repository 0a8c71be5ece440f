// SPDX-License-Identifier: Apache-2.0
// How writes of the program during a mark are noticed (facility.cc).
#pragma once

#include "base/types.h"

namespace undergo::gc {

// The best first.
enum class Facility : uint8_t {
  kWriteProtect,  // userfaultfd
  kSnapshot,      // the mark runs in a frozen copy of the process
  kStopped,       // not at all: the whole mark runs with the world stopped
};
inline constexpr int kFacilities = 3;

// For the trace.
const char* FacilityName(Facility f);

}  // namespace undergo::gc
