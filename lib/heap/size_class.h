// SPDX-License-Identifier: Apache-2.0
// Size classes: request size to class, class to slot size and span shape.
//
// Multiples of 16 up to 128, then eight steps per doubling up to 64 KiB: 80 classes, at most 12.5 %
// of a request above 128 bytes is rounding. Every size is a multiple of 16, so each slot has the
// ABI's alignment. Slots up to 16 KiB lie in spans of one 64 KiB slice, larger ones in spans of two
// or four slices: never fewer than four slots. A tail too short for a slot is address space only.
// All tables are computed at compile time.
#pragma once

#include <array>

#include "base/types.h"

namespace undergo::heap {

inline constexpr size_t kSliceShift = 16;
inline constexpr size_t kSliceSize = size_t{1} << kSliceShift;
inline constexpr size_t kGranule = 16;
inline constexpr size_t kMaxOneSliceSize = 16 * kKiB;
inline constexpr size_t kMaxSmallSize = 64 * kKiB;
inline constexpr uint32_t kNumClasses = 80;
inline constexpr uint32_t kLargeClass = kNumClasses;  // class number of an object with its own span
inline constexpr uint32_t kMaxSlots = kSliceSize / kGranule;
inline constexpr uint32_t kMaxWords = kMaxSlots / 64;

// Memory that one load of a cursor spans, unless that is less than two slots.
inline constexpr size_t kCursorBytes = 32 * kKiB;

struct SizeClass {
  uint32_t size;     // bytes of a slot
  uint32_t magic;    // ceil(2^32 / size): slot index by multiplication in one-slice spans
  uint16_t slots;    // per span
  uint16_t words;    // 64-slot words per span
  uint16_t slices;   // per span
  uint16_t batch;    // neighbouring slots that a cursor takes at a time
  uint16_t revisit;  // frees after which a full span is worth visiting again
  uint16_t notify;   // remote frees in one word after which its owner is told
};

namespace internal {

constexpr uint32_t ClassSize(uint32_t cls) {
  if (cls < 8) return (cls + 1) * 16;
  uint32_t step = (cls - 8) % 8;
  uint32_t base = 128u << ((cls - 8) / 8);
  return base + base / 8 * (step + 1);
}

constexpr SizeClass MakeClass(uint32_t cls) {
  SizeClass c{};
  c.size = ClassSize(cls);
  c.magic = static_cast<uint32_t>(((uint64_t{1} << 32) + c.size - 1) / c.size);
  c.slices = c.size <= kMaxOneSliceSize ? 1 : c.size <= 2 * kMaxOneSliceSize ? 2 : 4;
  c.slots = static_cast<uint16_t>(c.slices * kSliceSize / c.size);
  c.words = static_cast<uint16_t>((c.slots + 63) / 64);
  // A cursor spans little memory, so that what is freed is handed out again while it is cached.
  uint32_t batch = static_cast<uint32_t>(kCursorBytes / c.size);
  c.batch = static_cast<uint16_t>(batch > 64 ? 64 : batch < 2 ? 2 : batch);
  c.revisit = static_cast<uint16_t>(c.slots >= 16 ? c.slots / 8 : 1);
  uint32_t in_word = c.slots < 64 ? c.slots : 64;
  c.notify = static_cast<uint16_t>(in_word >= 16 ? in_word / 8 : 1);
  return c;
}

constexpr std::array<SizeClass, kNumClasses> MakeClasses() {
  std::array<SizeClass, kNumClasses> t{};
  for (uint32_t i = 0; i < kNumClasses; ++i) t[i] = MakeClass(i);
  return t;
}

// One entry more than there are small sizes: with the slack byte the largest of them is large.
constexpr std::array<uint8_t, kMaxSmallSize / kGranule + 2> MakeSizeToClass() {
  std::array<uint8_t, kMaxSmallSize / kGranule + 2> t{};
  uint32_t cls = 0;
  for (size_t i = 0; i < t.size(); ++i) {
    if (i * kGranule > (cls < kNumClasses ? ClassSize(cls) : ~size_t{0})) ++cls;
    t[i] = static_cast<uint8_t>(cls);
  }
  return t;
}

}  // namespace internal

inline constexpr std::array<SizeClass, kNumClasses> kClasses = internal::MakeClasses();
inline constexpr std::array<uint8_t, kMaxSmallSize / kGranule + 2> kSizeToClass =
    internal::MakeSizeToClass();

static_assert(kClasses[kNumClasses - 1].size == kMaxSmallSize);
static_assert(kClasses[63].size == kMaxOneSliceSize && kClasses[0].slots == kMaxSlots);

// With the collector each small object has a byte more than was asked for, so that a pointer to its
// end (an empty range, an end iterator) does not belong to its neighbour. Slots that are multiples
// of pages are exempt, for page-aligned objects that fill theirs. What ClassOf adds before it
// rounds down: kGranule - 1 without the slack byte. Set at start, before there are threads; what
// the loader allocated before has no such byte.
extern constinit size_t size_rounding;
inline size_t Slack() { return size_rounding - (kGranule - 1); }

// For size <= kMaxSmallSize; zero gets the smallest class. kLargeClass when nothing is left for the
// slack byte.
inline uint32_t ClassOf(size_t size) { return kSizeToClass[(size + size_rounding) / kGranule]; }

// Bytes of a slot that the program may use.
inline uint32_t UsableOf(uint32_t cls) {
  uint32_t size = kClasses[cls].size;
  return size % kOsPageSize == 0 ? size : size - static_cast<uint32_t>(Slack());
}

}  // namespace undergo::heap
