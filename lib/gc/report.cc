// SPDX-License-Identifier: Apache-2.0
// The leak report: see the header. In this mode all garbage stays condemned, so the plane tells.
#include "gc/report.h"

#include "base/fmt.h"
#include "heap/site.h"
#include "heap/sweep.h"
#include "heap/walk.h"
#include "plat/log.h"
#include "plat/vm.h"

namespace undergo::gc {

namespace {

struct Totals {
  uint64_t bytes, objects;
};

Totals CountGarbage(Totals* by_site) {
  Totals all = {};
  heap::ForEachSpan([&](heap::Span* s) {
    if ((s->gc_flags & heap::kHasCondemned) == 0) return;
    auto add = [&](uint32_t slot, size_t bytes) {
      Totals* t = &by_site[heap::SiteOf(s, slot)];
      t->bytes += bytes;
      t->objects++;
      all.bytes += bytes;
      all.objects++;
    };
    if (LoadRelaxed(&s->state) == heap::SpanState::kLarge) return add(0, s->large_bytes);
    const uint64_t* condemned = heap::MarkBits(s, heap::Plane::kCondemned);
    for (uint32_t w = 0; w < s->words(); ++w) {
      for (uint64_t bits = condemned[w]; bits != 0; bits &= bits - 1) {
        add(w * 64 + LowestBit(bits), s->slot_size);
      }
    }
  });
  return all;
}

Fmt& Amount(const Totals& t, Fmt* out) {
  return out->Dec(t.bytes)
      .Str(" bytes in ")
      .Dec(t.objects)
      .Str(" object")
      .Str(t.objects == 1 ? "" : "s");
}

}  // namespace

void ReportGarbage(uint32_t sites, bool always) {
  static Totals last = {};
  constexpr size_t kBytes = heap::kMaxSites * sizeof(Totals);
  auto* by_site = static_cast<Totals*>(plat::MapPages(kBytes));
  if (by_site == nullptr) return;
  Totals all = CountGarbage(by_site);
  bool news = all.objects != last.objects || all.bytes != last.bytes;
  last = all;
  char line[2048];
  if (news || always) {
    Fmt out(line, sizeof line);
    Amount(all, &out.Str("undergo: report: ")).Str(" cannot be reached\n");
    plat::LogWrite(out.text(), out.length());
  }
  for (uint32_t n = 0; n < sites && (news || always); ++n) {
    uint32_t top = 0;
    for (uint32_t id = 1; id < heap::kMaxSites; ++id) {
      if (by_site[id].bytes > by_site[top].bytes) top = id;
    }
    if (by_site[top].objects == 0) break;
    Fmt out(line, sizeof line - 1);
    Amount(by_site[top], &out.Str("undergo: report: ")).Str(" from ");
    heap::DescribeSite(top, &out);
    out.Char('\n');
    plat::LogWrite(out.text(), out.length());
    by_site[top] = {};
  }
  plat::Unmap(reinterpret_cast<Addr>(by_site), kBytes);
}

}  // namespace undergo::gc
