// SPDX-License-Identifier: Apache-2.0
// What modules that hide pointers call in place of the functions of abi/pinned.def.
#pragma once

namespace undergo::posix {

// Looks up the functions behind the wrappers. Called once, before ReplacementOf.
void ResolvePinnedCalls();
// The wrapper of a symbol, and in *original what the symbol meant before; null when it has none.
void* ReplacementOf(const char* symbol, void** original);

}  // namespace undergo::posix
