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
  bool shared;
  const char* path;  // "" for anonymous memory; valid during the call
  // With MapSource::kSizes only, in bytes; else 0.
  size_t anonymous;  // in memory: pages of the process that no file has
  size_t swapped;    // swapped out, shared memory included
};

// Sizes make the kernel look at every page of the process: milliseconds for each GiB.
enum class MapSource : uint8_t { kPlain, kSizes };

// Calls visit(context, mapping) for each mapping, until it returns false. False when the list
// cannot be read to its end. Mappings that others change meanwhile may appear as they were or as
// they are; addresses never go down from one call to the next.
bool ForEachMapping(bool (*visit)(void* context, const Mapping& m), void* context,
                    MapSource source = MapSource::kPlain);

// Appends "0xADDRESS (module+0xoffset)" as far as it can be found out.
void DescribeAddress(Addr a, Fmt* out);

}  // namespace undergo::plat
