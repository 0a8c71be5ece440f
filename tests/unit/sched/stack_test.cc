// SPDX-License-Identifier: Apache-2.0
// Slots: sizes, ids back to Gs, guards, reuse.

#include "sched/stack.h"

#include <criterion/criterion.h>
#include <setjmp.h>
#include <signal.h>

#include <set>

#include "sched/tcb.h"

using namespace undergo;
using namespace undergo::sched;

namespace {

sigjmp_buf back;
void OnFault(int) { siglongjmp(back, 1); }

bool Faults(Addr at) {
  signal(SIGSEGV, OnFault);
  if (sigsetjmp(back, 1) != 0) return true;
  *reinterpret_cast<volatile char*>(at) = 1;
  return false;
}

}  // namespace

Test(stack, small_stacks_get_room_for_the_scheduler) {
  cr_expect(SlotShiftFor(16 * kKiB) == 14);
  cr_expect(SlotShiftFor(64 * kKiB) == 16);
  cr_expect(SlotShiftFor(64 * kKiB + 1) == 17);
  cr_expect(SlotShiftFor(8 * kMiB) == 23);
  cr_expect(SlotShiftFor(~size_t{0} / 2) == 0);
}

Test(stack, an_id_leads_to_its_slot_and_nothing_else_does) {
  std::set<G*> seen;
  for (uint32_t shift : {15u, 16u, 16u, 23u, 26u}) {
    G* g = TakeSlot(shift);
    cr_assert(g != nullptr && g->slot_shift == shift && seen.insert(g).second);
    cr_expect(SlotBase(g) % (Addr{1} << shift) == 0);
    cr_expect(reinterpret_cast<Addr>(g + 1) <= SlotEnd(g));
    Addr id = reinterpret_cast<Addr>(g) - kPthreadSize;
    cr_expect(SlotOf(id, kPthreadSize) == g);
    cr_expect(SlotOf(id + 8, kPthreadSize) == nullptr);
    cr_expect(SlotOf(SlotBase(g), kPthreadSize) == nullptr);
    Addr end;
    cr_expect(SlotAround(SlotBase(g) + 123, &end) == g && end == SlotEnd(g));
    *reinterpret_cast<volatile char*>(SlotBase(g)) = 1;  // all of it is usable memory
  }
  cr_expect(SlotOf(0, kPthreadSize) == nullptr);
  cr_expect(SlotOf(~Addr{0}, kPthreadSize) == nullptr);
  cr_expect(SlotOf(reinterpret_cast<Addr>(&seen), kPthreadSize) == nullptr);
}

Test(stack, slots_are_used_again) {
  G* g = TakeSlot(17);
  GiveSlot(g);
  cr_expect(TakeSlot(17) == g);
}

Test(stack, guards_fault_and_can_be_taken_away) {
  G* g = TakeSlot(18);
  Addr low = SlotBase(g);
  cr_assert(SetGuard(g, low, 2 * kOsPageSize));
  cr_expect(Faults(low) && Faults(low + 2 * kOsPageSize - 1) && !Faults(low + 2 * kOsPageSize));
  cr_assert(SetGuard(g, low, kOsPageSize));
  cr_expect(Faults(low) && !Faults(low + kOsPageSize));
  cr_assert(SetGuard(g, low, 0));
  cr_expect(!Faults(low));
}

Test(stack, many_slots_are_few_mappings) {
  for (int i = 0; i < 5000; ++i) {
    G* g = TakeSlot(16);
    cr_assert(g != nullptr && SetGuard(g, SlotBase(g), kOsPageSize));
  }
  Addr low, high;
  SlotRange(&low, &high);
  cr_expect(high - low >= 5000 * 64 * kKiB);
}
