// SPDX-License-Identifier: Apache-2.0
// glibc's administration of malloc: mallopt, mallinfo, malloc_trim, malloc_info, malloc_stats.
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>

#include "base/compiler.h"
#include "base/fmt.h"
#include "heap/heap_stats.h"
#include "heap/malloc.h"
#include "plat/log.h"

UNDERGO_ALLOW_PLAIN_ALIASES

namespace heap = undergo::heap;

namespace {

// An int that does not overflow: programs compare these fields.
int Saturate(size_t v) { return v > INT_MAX ? INT_MAX : static_cast<int>(v); }

// malloc_info prints one class or the whole heap in glibc's words.
void PrintClasses(FILE* out, const heap::HeapStats& s) {
  fputs("<sizes>\n", out);
  for (uint32_t cls = 0; cls < heap::kNumClasses; ++cls) {
    const heap::ClassStats& c = s.classes[cls];
    if (c.spans == 0) continue;
    size_t size = heap::kClasses[cls].size;
    size_t from = cls == 0 ? 1 : heap::kClasses[cls - 1].size + 1;
    size_t free = c.spans * heap::kClasses[cls].slots -
                  undergo::Min(c.live, c.spans * heap::kClasses[cls].slots);
    fprintf(out, "  <size from=\"%zu\" to=\"%zu\" total=\"%zu\" count=\"%zu\"/>\n", from, size,
            free * size, free);
  }
  fputs("</sizes>\n", out);
}

}  // namespace

extern "C" {

// Accepts what glibc accepts; none of its parameters has a meaning here.
UNDERGO_EXPORT int mallopt(int, int) { return 1; }

UNDERGO_EXPORT struct mallinfo2 mallinfo2(void) {
  heap::HeapStats s;
  heap::ReadHeapStats(&s);
  const heap::ClassStats& large = s.classes[heap::kLargeClass];
  struct mallinfo2 m = {};
  m.arena = s.span_bytes + s.dirty_free_bytes;
  m.ordblks = s.span_bytes != 0;
  m.hblks = large.live;
  m.uordblks = s.live_bytes;
  m.fordblks = m.arena - undergo::Min(m.arena, s.live_bytes);
  m.keepcost = s.dirty_free_bytes;
  return m;
}

UNDERGO_EXPORT struct mallinfo mallinfo(void) {
  struct mallinfo2 m = mallinfo2();
  return {Saturate(m.arena),    Saturate(m.ordblks), Saturate(m.smblks),  Saturate(m.hblks),
          Saturate(m.hblkhd),   Saturate(m.usmblks), Saturate(m.fsmblks), Saturate(m.uordblks),
          Saturate(m.fordblks), Saturate(m.keepcost)};
}

UNDERGO_EXPORT int malloc_trim(size_t) { return heap::Trim() ? 1 : 0; }

UNDERGO_EXPORT int malloc_info(int options, FILE* out) {
  if (options != 0) return EINVAL;
  heap::HeapStats s;
  heap::ReadHeapStats(&s);
  size_t system = s.span_bytes + s.dirty_free_bytes;
  size_t free = system - undergo::Min(system, s.live_bytes);
  fputs("<malloc version=\"1\">\n<heap nr=\"0\">\n", out);
  PrintClasses(out, s);
  fprintf(
      out,
      "<total type=\"fast\" count=\"0\" size=\"0\"/>\n"
      "<total type=\"rest\" count=\"%zu\" size=\"%zu\"/>\n"
      "<system type=\"current\" size=\"%zu\"/>\n<system type=\"max\" size=\"%zu\"/>\n"
      "<aspace type=\"total\" size=\"%zu\"/>\n<aspace type=\"mprotect\" size=\"%zu\"/>\n</heap>\n",
      size_t{free != 0}, free, system, s.peak_span_bytes, s.mapped_bytes, s.mapped_bytes);
  fprintf(out,
          "<total type=\"fast\" count=\"0\" size=\"0\"/>\n"
          "<total type=\"rest\" count=\"%zu\" size=\"%zu\"/>\n"
          "<total type=\"mmap\" count=\"%zu\" size=\"0\"/>\n"
          "<system type=\"current\" size=\"%zu\"/>\n<system type=\"max\" size=\"%zu\"/>\n"
          "<aspace type=\"total\" size=\"%zu\"/>\n<aspace type=\"mprotect\" "
          "size=\"%zu\"/>\n</malloc>\n",
          size_t{free != 0}, free, size_t{s.classes[heap::kLargeClass].live}, system,
          s.peak_span_bytes, s.mapped_bytes, s.mapped_bytes);
  return 0;
}

UNDERGO_EXPORT void malloc_stats(void) {
  heap::HeapStats s;
  heap::ReadHeapStats(&s);
  char text[heap::kStatsTextSize];
  undergo::Fmt out(text, sizeof text);
  heap::FormatStats(s, &out);
  undergo::plat::LogWrite(out.text(), out.length());
}

int __libc_mallopt(int, int) UNDERGO_ALIAS(mallopt);
struct mallinfo __libc_mallinfo(void) UNDERGO_ALIAS(mallinfo);

}  // extern "C"
