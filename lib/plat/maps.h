// SPDX-License-Identifier: Apache-2.0
// The list of mappings of this process, read without allocation.
#pragma once

#include "base/fmt.h"
#include "base/types.h"

namespace undergo::plat {

struct Mapping {
  Addr start, end;
  Addr file_offset;
  bool readable, writable, executable;
  const char* path;  // "" for anonymous memory; valid during the call
};

// Calls visit(context, mapping) for each mapping, until it returns false. False when the list
// cannot be read.
bool ForEachMapping(bool (*visit)(void* context, const Mapping& m), void* context);

// Appends "0xADDRESS (module+0xoffset)" as far as it can be found out.
void DescribeAddress(Addr a, Fmt* out);

}  // namespace undergo::plat
