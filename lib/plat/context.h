// SPDX-License-Identifier: Apache-2.0
// Switching between stacks on one kernel thread.
//
// A saved context is an address on its own stack, below which nothing of it lies:
//
//   sp + 0   x87 control word (2 bytes, then 2 unused), MXCSR (4 bytes)
//   sp + 8   GS base
//   sp + 16  r15, r14, r13, r12, rbx, rbp
//   sp + 64  where to go on
//
// Everything else is caller-saved by the ABI. Costs about 20 ns, most of it the FS base.
#pragma once

#include "base/types.h"

extern "C" {
// Saves the running context at *save, goes on with the context at `load` under the thread pointer
// `fs`. Returns when somebody switches back. Needs the fsgsbase instructions.
__attribute__((visibility("hidden"))) void undergo_switch(undergo::Addr* save, undergo::Addr load,
                                                          undergo::Addr fs);
// Where a context made by MakeContext begins: calls r12 with rbx as its argument.
__attribute__((visibility("hidden"))) void undergo_context_start();
}

namespace undergo::plat {

// Whether the CPU and the kernel permit fsgsbase; the answer never changes.
bool CanSwitch();

// A context that calls entry(arg) on the stack below `top` (16-byte aligned), with the floating
// point control words and the GS base of the caller. entry must not return.
Addr MakeContext(Addr top, void (*entry)(void*), void* arg);

inline Addr GetFsBase() {
  Addr fs;
  asm volatile("rdfsbase %0" : "=r"(fs));
  return fs;
}
inline void SetFsBase(Addr fs) { asm volatile("wrfsbase %0" : : "r"(fs) : "memory"); }

}  // namespace undergo::plat
