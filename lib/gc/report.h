// SPDX-License-Identifier: Apache-2.0
// UNDERGO=gc=report: what a collector would reclaim, by allocation site.
#pragma once

#include "base/types.h"

namespace undergo::gc {

// Prints totals of the unreachable objects and the sites with the most bytes, at most `sites`. With
// `always` also when there is none or the totals are those of the last time. After a sweep.
void ReportGarbage(uint32_t sites, bool always);

}  // namespace undergo::gc
