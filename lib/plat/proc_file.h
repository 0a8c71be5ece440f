// SPDX-License-Identifier: Apache-2.0
// Reading what the kernel says about the process. Any thread may call it.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace undergo::plat {

// Reads a file of /proc into `text`, as far as it fits, and ends it; the length, negative when that
// fails.
long ReadProcFile(const char* path, char* text, size_t size);

// The number behind "\nNAME:\t" in a status file, read by `base` 10 or 16; all ones when it is not
// there.
uint64_t StatusField(const char* text, const char* name, uint32_t base);

}  // namespace undergo::plat
