// SPDX-License-Identifier: Apache-2.0
#include "gc/kernel_roots.h"
namespace undergo::gc {
__attribute__((weak)) bool ForEachKernelWord(void (*)(void*, uint64_t), void*) { return true; }
__attribute__((weak)) bool UsesIoUring() { return false; }
}  // namespace undergo::gc
