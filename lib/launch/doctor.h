// SPDX-License-Identifier: Apache-2.0
// `undergo doctor`: what this machine offers and what undergo makes of it.
#pragma once

#include "boot/options.h"

namespace undergo::launch {

// Prints the table on standard output. A facility that is missing is a row, never a failure.
void PrintDoctor(const boot::Options& options);

}  // namespace undergo::launch
