// SPDX-License-Identifier: Apache-2.0
// Memory of a library that is loaded later: globals and thread-local words.
#include <stddef.h>

enum { kWords = 64 };
static void* zeroed[kWords];
static void* initialised[kWords] = {&zeroed};
static __thread void* local[kWords];

void** KeeperWords(int kind) { return kind == 0 ? zeroed : kind == 1 ? initialised : local; }
