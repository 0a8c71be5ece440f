// SPDX-License-Identifier: Apache-2.0
// Processes that share this one's memory (clone with CLONE_VM and without CLONE_THREAD).
//
// They are no threads of ours: no list names them, and their registers cannot be read. While one of
// them lives the world cannot be stopped.
#pragma once

#include <cstdint>

namespace undergo::world {

enum class Whose : uint8_t {
  kOurs,     // the caller belongs to the process that the records are of
  kCopy,     // to a copy of it, made by a fork that ran no handler
  kForeign,  // to another process in the same memory
};
// Of the calling thread.
Whose WhoseMemory();

// Once at start.
void MarkOwnMemory();
// In a copy, if that was done.
void MarkOwnMemoryAgain();

// The calling process shares the memory.
void NoteForeign();
// Whether one of those that were noted still does.
bool ForeignLives();

}  // namespace undergo::world
