// SPDX-License-Identifier: Apache-2.0
// The range of slots.
//
// The range has a fixed notional place of 16 TiB, room for a million stacks of 16 MiB. Nothing of
// it is reserved: pieces are mapped exactly there when they are needed (MAP_FIXED_NOREPLACE), next
// to each other, so that the kernel keeps them as one mapping. If somebody else sits where the next
// piece should be, the piece is skipped. `blocks` tells the slot size of each 16 MiB.
//
// Guards are markers in the page tables (MADV_GUARD_INSTALL, Linux 6.13), which need no mapping of
// their own: 65,530 mappings are all that a process may have. Older kernels get PROT_NONE.
// Rejected: one mapping for each stack (the same limit), a table from ids to Gs (a lookup in each
// call instead of an addition).
#include "sched/stack.h"

#include <linux/mman.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "plat/syscall.h"
#include "plat/vm.h"
#include "sync/mutex.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

namespace undergo::sched {

namespace {

constexpr Addr kRange = Addr{0x1000} << 32;  // 16 TiB from 16 TiB on
constexpr size_t kRangeSize = size_t{16} << 40;
constexpr uint32_t kBlockShift = 24;
constexpr int kGuardInstall = 102;  // MADV_GUARD_INSTALL, MADV_GUARD_REMOVE
constexpr int kGuardRemove = 103;

// Slot shift of each block; 0: none. Mapped by the first one: a program without threads has none.
constinit uint8_t* blocks = nullptr;
constexpr size_t kBlocks = kRangeSize >> kBlockShift;
constinit sync::Mutex lock;
constinit Addr next_block = kRange;                // lock
constinit Addr range_low = 0, range_high = 0;      // lock for writers, atomic
constinit G* free_slots[kMaxSlotShift + 1] = {};   // lock
constinit Addr fresh[kMaxSlotShift + 1] = {};      // lock; mapped, never used: next slot
constinit Addr fresh_end[kMaxSlotShift + 1] = {};  // lock
constinit G* all_slots = nullptr;                  // lock for writers, atomic
constinit SlotSizes sizes = {};                    // lock for writers, atomic
constinit bool guard_markers = true;               // the kernel has MADV_GUARD_INSTALL

G* GOfSlot(Addr slot, uint32_t shift) {
  return reinterpret_cast<G*>(slot + (Addr{1} << shift) - kGSize);
}

bool MapExactly(Addr at, size_t size) {
  long r = plat::Syscall(__NR_mmap, at, size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (plat::IsError(r)) return false;
  if (static_cast<Addr>(r) == at) {
    // A huge page for each touched stack would be a thousand times what the stack needs.
    plat::Syscall(__NR_madvise, at, size, MADV_NOHUGEPAGE);
    return true;
  }
  plat::Syscall(__NR_munmap, r, size);
  return false;
}

// Maps a piece for slots of this size: a block, or one slot if that is larger. Under a limit of the
// address space less: at the least one slot.
bool Refill(uint32_t shift) {
  if (blocks == nullptr) {
    auto* fresh = static_cast<uint8_t*>(plat::MapPages(kBlocks));
    if (fresh == nullptr) return false;
    StoreRelease(&blocks, fresh);  // pairs: ShiftOf
  }
  size_t slot = size_t{1} << shift;
  size_t piece = Max(slot, size_t{1} << kBlockShift);
  constexpr int kTries = 64;
  for (int i = 0; i < kTries; ++i) {
    Addr at = AlignUp(next_block, piece);
    if (at + piece > kRange + kRangeSize) return false;
    next_block = at + piece;
    for (size_t size = piece; size >= slot; size /= 2) {
      if (!MapExactly(at, size)) continue;
      for (Addr b = at; b < at + piece; b += Addr{1} << kBlockShift) {
        StoreRelease(&blocks[(b - kRange) >> kBlockShift], shift);  // pairs: SlotOf
      }
      fresh[shift] = at;
      fresh_end[shift] = at + size;
      if (range_low == 0) StoreRelaxed(&range_low, at);
      StoreRelaxed(&range_high, at + size);
      StoreRelaxed(&sizes.mapped, sizes.mapped + size);
      return true;
    }
  }
  return false;
}

}  // namespace

uint32_t SlotShiftFor(size_t size) {
  if (size > size_t{1} << kMaxSlotShift) return 0;
  uint32_t shift = kMinSlotShift;
  while (size_t{1} << shift < size) ++shift;
  return shift;
}

G* TakeSlot(uint32_t shift) {
  sync::MutexLock hold(lock);
  G* g = free_slots[shift];
  if (g == nullptr && fresh[shift] == fresh_end[shift] && !Refill(shift)) return nullptr;
  StoreRelaxed(&sizes.in_use, sizes.in_use + (uint64_t{1} << shift));
  if (g != nullptr) {
    free_slots[shift] = g->next;
    return g;
  }
  g = GOfSlot(fresh[shift], shift);
  fresh[shift] += Addr{1} << shift;
  g->slot_shift = static_cast<uint8_t>(shift);
  g->all_next = all_slots;
  StoreRelease(&all_slots, g);  // pairs: FirstSlot
  return g;
}

void GiveSlot(G* g) {
  sync::MutexLock hold(lock);
  g->next = free_slots[g->slot_shift];
  free_slots[g->slot_shift] = g;
  StoreRelaxed(&sizes.in_use, sizes.in_use - (uint64_t{1} << g->slot_shift));
}

bool SetGuard(G* g, Addr low, size_t size) {
  Addr old_low = g->guard_low;
  size_t old = g->guard_size;
  if (size == old && (size == 0 || low == old_low)) return true;
  g->guard_low = low;
  g->guard_size = size;
  if (guard_markers) {
    if (old != 0) plat::Syscall(__NR_madvise, old_low, old, kGuardRemove);
    if (size == 0) return true;
    if (!plat::IsError(plat::Syscall(__NR_madvise, low, size, kGuardInstall))) return true;
    guard_markers = false;
  }
  if (old != 0) plat::Syscall(__NR_mprotect, old_low, old, PROT_READ | PROT_WRITE);
  return size == 0 || !plat::IsError(plat::Syscall(__NR_mprotect, low, size, PROT_NONE));
}

// Of the block around an address of the range.
static uint32_t ShiftOf(Addr offset) {
  const uint8_t* table = LoadAcquire(&blocks);                               // pairs: Refill
  return table != nullptr ? LoadAcquire(&table[offset >> kBlockShift]) : 0;  // pairs: Refill
}

G* SlotOf(Addr thread, size_t block) {
  Addr offset = thread - kRange;
  if (offset >= kRangeSize) return nullptr;
  uint32_t shift = ShiftOf(offset);
  if (shift == 0) return nullptr;
  Addr slot = thread >> shift << shift;
  G* g = GOfSlot(slot, shift);
  return thread == reinterpret_cast<Addr>(g) - block ? g : nullptr;
}

G* SlotAround(Addr at, Addr* end) {
  *end = at < kRange ? kRange : ~Addr{0};
  if (at - kRange >= kRangeSize) return nullptr;
  uint32_t shift = ShiftOf(at - kRange);
  Addr unit = Addr{1} << (shift != 0 ? shift : kBlockShift);
  *end = AlignDown(at, unit) + unit;
  return shift != 0 ? GOfSlot(AlignDown(at, unit), shift) : nullptr;
}

G* FirstSlot() { return LoadAcquire(&all_slots); }  // pairs: TakeSlot

void SlotRange(Addr* low, Addr* high) {
  *low = LoadRelaxed(&range_low);
  *high = LoadRelaxed(&range_high);
}

SlotSizes ReadSlotSizes() { return {LoadRelaxed(&sizes.mapped), LoadRelaxed(&sizes.in_use)}; }

void DropSlots(const G* kept) {
  lock.ResetAfterFork();
  sizes.in_use = kept != nullptr ? uint64_t{1} << kept->slot_shift : 0;
  for (G*& list : free_slots) list = nullptr;
  for (G* g = all_slots; g != nullptr; g = g->all_next) {
    if (g == kept) continue;
    G fresh = {};
    fresh.slot_shift = g->slot_shift;
    fresh.guard_low = g->guard_low;
    fresh.guard_size = g->guard_size;
    fresh.all_next = g->all_next;
    fresh.next = free_slots[g->slot_shift];
    *g = fresh;
    free_slots[g->slot_shift] = g;
  }
}

}  // namespace undergo::sched
