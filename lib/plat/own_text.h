// SPDX-License-Identifier: Apache-2.0
// Where the library's own instructions lie.
#pragma once

#include "base/types.h"

namespace undergo::plat {

// Bounds of the executable segments of the module that this code is linked into.
void OwnText(Addr* low, Addr* high);

}  // namespace undergo::plat
