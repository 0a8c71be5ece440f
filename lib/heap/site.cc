// SPDX-License-Identifier: Apache-2.0
// Allocation sites: see the header.
//
// Each slot has a number in a table by slice and slot, without memory until a span is there. Equal
// chains have one number: an entry of a hash table that is only ever filled. A number of a freed
// slot stays, so a report about a freed object still names where it came from.
#include "heap/site.h"

#include "heap/arena.h"
#include "heap/mcache.h"
#include "heap/sweep.h"
#include "heap/walk.h"
#include "plat/backtrace.h"
#include "plat/vm.h"

namespace undergo::heap {

constinit bool sites_on = false;

namespace {

constexpr uint32_t kProbes = 64;
constexpr size_t kNumbersSize = size_t{kMaxSlices} * kMaxSlots * sizeof(uint32_t);
constinit uint32_t* numbers = nullptr;  // kMaxSlots for each slice
constinit Site* sites = nullptr;

uint32_t* NumberOf(const Span* s, uint32_t slot) {
  return numbers + size_t{SliceOfSpan(s)} * kMaxSlots + slot;
}

uint64_t HashChain(const Addr* pcs, uint32_t count) {
  uint64_t hash = count + 1;
  for (uint32_t i = 0; i < count; ++i) {
    hash = (hash ^ pcs[i]) * 0x9e3779b97f4a7c15;
    hash ^= hash >> 31;
  }
  return hash | 1;
}

uint32_t Intern(const Addr* pcs, uint32_t count) {
  uint64_t hash = HashChain(pcs, count);
  for (uint32_t i = 0; i < kProbes; ++i) {
    uint32_t id = static_cast<uint32_t>((hash >> 32) + i) % kMaxSites;
    if (id == kNoSite) continue;
    Site* site = &sites[id];
    uint64_t seen = LoadAcquire(&site->hash);  // pairs: the exchange below
    if (seen == hash) return id;
    if (seen != 0) continue;
    if (!CasAcqRel(&site->hash, &seen, hash)) {  // pairs: the load above
      if (seen == hash) return id;
      continue;
    }
    __builtin_memcpy(site->pcs, pcs, count * sizeof(Addr));
    StoreRelease(&site->frames, count);  // pairs: DescribeSite
    return id;
  }
  return kNoSite;
}

}  // namespace

bool EnableSites() {
  auto* table = static_cast<uint32_t*>(plat::Reserve(kNumbersSize, 0));
  if (table == nullptr) return false;
  auto* all = static_cast<Site*>(plat::MapPages(kMaxSites * sizeof(Site)));
  if (all == nullptr || !plat::Commit(reinterpret_cast<Addr>(table), kNumbersSize)) {
    plat::Unmap(reinterpret_cast<Addr>(table), kNumbersSize);
    return false;
  }
  numbers = table;
  sites = all;
  sites_on = true;
  // From now on cursors hold one slot, which is taken at once: all allocations are slow ones.
  gc_heap.single_slots = true;
  MCache* mc = thread_words.mcache;
  if (mc == &empty_mcache) return true;
  BusyScope busy;
  sync::MutexLock hold(mc->lock);
  FlushLocked(mc);
  return true;
}

void RecordSite(const void* p) {
  const Span* s = FindSpan(reinterpret_cast<Addr>(p));
  if (s == nullptr) return;
  Addr pcs[kSiteFrames];
  uint32_t id = Intern(pcs, plat::Backtrace(pcs, kSiteFrames));
  size_t offset = reinterpret_cast<Addr>(p) - SpanAddr(s);
  uint32_t slot = s->state == SpanState::kLarge ? 0 : static_cast<uint32_t>(offset / s->slot_size);
  StoreRelaxed(NumberOf(s, slot), id);
}

uint32_t SiteOf(const Span* s, uint32_t slot) {
  return sites_on ? LoadRelaxed(NumberOf(s, slot)) : kNoSite;
}

uint32_t SiteOf(Addr object) {
  Object o;
  return FindObject(object, &o) ? SiteOf(o.span, o.slot) : kNoSite;
}

Site* SiteById(uint32_t id) { return &sites[id]; }

void DescribeSite(uint32_t id, Fmt* out) {
  uint32_t frames = id == kNoSite ? 0 : LoadAcquire(&sites[id].frames);  // pairs: Intern
  plat::DescribeBacktrace(frames == 0 ? nullptr : sites[id].pcs, frames, out);
}

}  // namespace undergo::heap
