// SPDX-License-Identifier: Apache-2.0
// Modules whose objects are never collected (abi/modules.def and UNDERGO=nocollect=): their imports
// of allocation functions are redirected to wrappers that pin the objects (heap/pin.h).
#pragma once

#include "base/types.h"

namespace undergo::posix {

// Redirects those that are loaded, and from now on each one when it is loaded. `extra` holds
// further names, separated by colons; it stays valid. Called once, before the program's first
// instruction.
void StartModules(const char* extra);

// Whether the file that is mapped as program text at `text` is such a module and was not
// redirected: it came on a way that nobody saw. Its objects are not to be collected then. Any
// thread, no libc.
bool IsMissedModule(Addr text, const char* path);

// Some other object's malloc serves the program, or a part of it: its executable brings its own.
bool HasOwnMalloc();

// Exposed for tests: whether the base name of `path` belongs to a module called `name`.
bool ModuleMatches(const char* path, const char* name, size_t size);

}  // namespace undergo::posix
