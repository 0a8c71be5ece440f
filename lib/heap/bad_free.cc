// SPDX-License-Identifier: Apache-2.0
// The report about a bad free.
#include "heap/bad_free.h"

#include <stdlib.h>

#include "base/fmt.h"
#include "heap/arena.h"
#include "plat/backtrace.h"
#include "plat/log.h"
#include "plat/maps.h"

namespace undergo::heap {

constinit HeapClient heap_client = {};
constinit bool tolerate_bad_free = false;

namespace {

const char* KindName(BadFree kind) {
  switch (kind) {
    case BadFree::kDouble: return "double free";
    case BadFree::kDoubleLate: return "double free, noticed late,";
    case BadFree::kInterior: return "interior pointer";
    case BadFree::kWild: return "invalid pointer";
    case BadFree::kDoubleLarge: return "double free";
    case BadFree::kFreed: return "freed object";
  }
  return "bad free";
}

void DescribeObject(BadFree kind, Addr a, Fmt* out) {
  const Span* s = FindSpan(a);
  if (s == nullptr || s->state == SpanState::kLarge) {
    out->Str(kind == BadFree::kWild ? ", no object of this heap" : ", large object");
    if (s != nullptr && kind == BadFree::kInterior) out->Str(" at ").Hex(SpanAddr(s));
    return;
  }
  out->Str(", size class ").Dec(s->slot_size);
  if (kind == BadFree::kInterior) {
    Addr offset = a - SpanAddr(s);
    out->Str(", ").Dec(offset % s->slot_size).Str(" bytes into the object at ");
    out->Hex(a - offset % s->slot_size);
  }
}

// The caller, and who called it as far as can be seen. A free that is noticed late has no caller:
// whoever runs now has nothing to do with it.
void DescribeCaller(void* caller, Fmt* out) {
  constexpr uint32_t kFrames = 8;
  Addr pcs[kFrames];
  auto first = reinterpret_cast<Addr>(caller);
  if (first == 0) {
    out->Str("unknown");
    return;
  }
  uint32_t count = plat::Backtrace(pcs, kFrames);
  uint32_t from = 0;
  while (from < count && pcs[from] != first) ++from;
  if (from == count) pcs[from = 0] = first, count = 1;
  plat::DescribeBacktrace(pcs + from, count - from, out);
}

}  // namespace

void ReportBadFree(BadFree kind, const void* p, const char* function, void* caller) {
  char buffer[2048];
  Fmt out(buffer, sizeof buffer);
  out.Str("undergo: ").Str(function).Str("(): ").Str(KindName(kind)).Char(' ');
  out.Hex(reinterpret_cast<Addr>(p));
  DescribeObject(kind, reinterpret_cast<Addr>(p), &out);
  out.Str(", caller ");
  DescribeCaller(caller, &out);
  if (!tolerate_bad_free) out.Str("; UNDERGO=badfree=ignore goes on");
  out.Char('\n');
  plat::LogWrite(out.text(), out.length());
  if (!tolerate_bad_free) abort();
}

}  // namespace undergo::heap
