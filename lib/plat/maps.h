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

// The same list as the kernel writes it, all of it, to be compared with that of another moment.
class MapsText {
 public:
  // False when it cannot be read to its end, or there is no memory.
  bool Read();
  bool operator==(const MapsText& other) const;
  // As ForEachMapping, plainly; also again and again.
  void ForEach(bool (*visit)(void* context, const Mapping& m), void* context);

 private:
  bool Reserve(size_t bytes);

  char* text_ = nullptr;  // own pages, kept
  size_t size_ = 0;
  size_t capacity_ = 0;
};

// Appends "0xADDRESS (module+0xoffset)" as far as it can be found out.
void DescribeAddress(Addr a, Fmt* out);

}  // namespace undergo::plat
