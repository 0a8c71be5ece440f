// SPDX-License-Identifier: Apache-2.0
// The counters against a shadow count.

#include "heap/heap_stats.h"

#include <criterion/criterion.h>

#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

namespace {

struct Counts {
  uint64_t mallocs[kNumClasses + 1], live[kNumClasses + 1];
  uint64_t live_bytes, total_bytes;
};
Counts counts;

uint32_t ClassOfBlock(const Block& b) {
  return b.size > kMaxSmallSize ? kLargeClass : ClassOf(b.size);
}
size_t BytesOf(const Block& b) {
  return b.size > kMaxSmallSize ? AlignUp(b.size, kOsPageSize) : kClasses[ClassOf(b.size)].size;
}

Block New(size_t size, uint64_t tag) {
  Block b = NewBlock(size, tag);
  counts.mallocs[ClassOfBlock(b)]++;
  counts.live[ClassOfBlock(b)]++;
  counts.live_bytes += BytesOf(b);
  counts.total_bytes += BytesOf(b);
  return b;
}

void Drop(const Block& b) {
  counts.live[ClassOfBlock(b)]--;
  counts.live_bytes -= BytesOf(b);
  DropBlock(b);
}

void ExpectEqual() {
  HeapStats s;
  ReadHeapStats(&s);
  uint64_t mallocs = 0, live = 0;
  for (uint32_t cls = 0; cls <= kNumClasses; ++cls) {
    cr_expect(s.classes[cls].mallocs == counts.mallocs[cls], "class %u: %zu mallocs, wanted %zu",
              cls, s.classes[cls].mallocs, counts.mallocs[cls]);
    cr_expect(s.classes[cls].live == counts.live[cls], "class %u: %zu live, wanted %zu", cls,
              s.classes[cls].live, counts.live[cls]);
    mallocs += counts.mallocs[cls];
    live += counts.live[cls];
  }
  cr_expect(s.mallocs == mallocs && s.live_objects == live && s.frees == mallocs - live);
  cr_expect(s.live_bytes == counts.live_bytes, "%zu, wanted %zu", s.live_bytes, counts.live_bytes);
  cr_expect(s.total_bytes == counts.total_bytes, "%zu, wanted %zu", s.total_bytes,
            counts.total_bytes);
  cr_expect(s.span_bytes >= s.live_bytes, "%zu < %zu", s.span_bytes, s.live_bytes);
  cr_expect(s.peak_span_bytes >= s.span_bytes, "%zu < %zu", s.peak_span_bytes, s.span_bytes);
  cr_expect(s.mapped_bytes >= s.span_bytes);
}

}  // namespace

TestSuite(heap_stats, .timeout = 60);

Test(heap_stats, nothing_yet) { ExpectEqual(); }

Test(heap_stats, random_against_a_shadow_count) {
  Random random = {41};
  std::vector<Block> blocks;
  for (uint64_t step = 0; step < 30000; ++step) {
    if (blocks.empty() || Below(&random, 100) < (step < 12000 ? 60 : 48)) {
      blocks.push_back(New(1 + Below(&random, Below(&random, 50) == 0 ? 300000 : 3000), step));
    } else {
      size_t i = Below(&random, blocks.size());
      Drop(blocks[i]);
      blocks[i] = blocks.back();
      blocks.pop_back();
    }
    if (step % 3000 == 0) ExpectEqual();
  }
  ExpectEqual();
  // By threads that end, past their end, and freed by others.
  OnThread([&] {
    for (uint64_t i = 0; i < 2000; ++i) blocks.push_back(New(1 + i % 5000, i));
    ExpectEqual();
  });
  ExpectEqual();
  std::thread([&] {
    DetachThread();
    for (uint64_t i = 0; i < 500; ++i) blocks.push_back(New(1 + i % 5000, i));
  }).join();
  ExpectEqual();
  {
    BusyScope busy;
    ReclaimAll();
  }
  ExpectEqual();
  for (const Block& b : blocks) Drop(b);
  ExpectEqual();
  HeapStats s;
  ReadHeapStats(&s);
  cr_expect(s.live_objects == 0 && s.live_bytes == 0);
  cr_expect(s.mcaches == 2, "%zu", s.mcaches);
}

Test(heap_stats, text) {
  for (uint64_t i = 0; i < 100; ++i) NewBlock(100, i);
  NewBlock(100000, 1);
  HeapStats s;
  ReadHeapStats(&s);
  static char text[kStatsTextSize];
  Fmt out(text, sizeof text);
  FormatStats(s, &out);
  cr_expect(out.length() < sizeof text - 1, "cut off");
  size_t lines = 0;
  for (char* line = text; *line != '\0'; ++lines) {
    cr_expect(strncmp(line, "undergo: ", 9) == 0, "'%.40s'", line);
    char* end = strchr(line, '\n');
    cr_assert(end != nullptr);
    line = end + 1;
  }
  cr_expect(lines >= 10);
  uint64_t live = 0, size = 0, mallocs = 0;
  cr_assert(sscanf(strstr(text, "live objects"), "live objects %zu", &live) == 1 && live == 101);
  const char* row = strstr(text, " 112 ");
  cr_assert(row != nullptr && sscanf(row, "%zu %zu %zu", &size, &mallocs, &live) == 3, "%s", text);
  cr_expect(mallocs == 100 && live == 100);
  cr_expect(strstr(text, "large") != nullptr);
}

// With every class in use the text still fits.
Test(heap_stats, text_of_all_classes_fits) {
  for (size_t size : SizesOfEachClass()) NewBlock(size, 1);
  NewBlock(100000, 1);
  HeapStats s;
  ReadHeapStats(&s);
  static char text[kStatsTextSize];
  Fmt out(text, sizeof text);
  FormatStats(s, &out);
  cr_expect(out.length() < sizeof text - 1 && text[out.length() - 1] == '\n');
}
