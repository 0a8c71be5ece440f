// SPDX-License-Identifier: Apache-2.0
// Reading what the kernel says about the process. Any thread may call it.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace undergo::diag {

// Reads a file of /proc into `text` and ends it; the length, negative when that fails.
long ReadProcFile(const char* path, char* text, size_t size);

// The number behind "\nNAME:\t" in /proc/self/status; all ones when it is not there.
uint64_t StatusField(const char* text, const char* name, uint32_t base);

}  // namespace undergo::diag
