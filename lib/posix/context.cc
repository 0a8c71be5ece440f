// SPDX-License-Identifier: Apache-2.0
// Contexts of ucontext.h. They carry signal masks, which libc gives to the kernel by itself.
//
// A G's mask is what the context to come says, from the moment before libc's call on. Until that
// has told the kernel the two differ, and the end of a context's function (uc_link) is not seen at
// all: so whoever has contexts with different masks is asked for it by each switch
// (G::mask_unsure).
#include <ucontext.h>

#include "posix/posix.h"
#include "posix/signal.h"
#include "posix/signal_mask.h"
#include "sched/masks.h"

namespace undergo::posix {

namespace {

void BeforeContext(const ucontext_t* to) {
  if (!sched::Active()) return;
  G* g = SignalSelf();
  if (g == nullptr) return;
  uint64_t mask;
  __builtin_memcpy(&mask, &to->uc_sigmask, sizeof mask);
  mask &= ~(Bit(SIGKILL) | Bit(SIGSTOP) | sched::kReservedSignals);
  if (mask == g->mask) return;
  {
    SignalSection section;
    g->mask_unsure = true;
    sched::SetMaskOf(g, mask);
  }
  // They come when libc's call opens the mask.
  if ((LoadRelaxed(&g->pending) & ~mask) != 0) PokeAfterHandler(g, mask);
}

}  // namespace

int setcontext(const ucontext_t* to) {
  if (real::setcontext == nullptr) real::Resolve();
  BeforeContext(to);
  return real::setcontext(to);
}

int swapcontext(ucontext_t* from, const ucontext_t* to) {
  if (real::swapcontext == nullptr) real::Resolve();
  BeforeContext(to);
  return real::swapcontext(from, to);
}

}  // namespace undergo::posix
