// SPDX-License-Identifier: Apache-2.0
// Address space and pages. Every function is async-signal-safe, keeps errno and never allocates.
#pragma once

#include "base/types.h"

namespace undergo::plat {

// Address space without access or memory, at `hint` when that is free; null when refused.
void* Reserve(size_t size, Addr hint);
// Readable, never charged to a memory limit until it is committed.
void* ReserveReadable(size_t size, Addr hint);
// Makes reserved pages readable and writable; false when the system refuses (ENOMEM).
bool Commit(Addr at, size_t size);
// Fresh writable pages exactly there; false when anything is mapped there or memory is refused.
bool MapAt(Addr at, size_t size);
// Fresh zero pages anywhere; null when refused.
void* MapPages(size_t size);
// The same, shared with processes that are forked from now on; charged as it is touched.
void* MapShared(size_t size);
// What is mapped at `from` replaces what is mapped at `to`. False when the kernel refused.
bool MoveOver(Addr from, Addr to, size_t size);
void Unmap(Addr at, size_t size);
// Gives the memory back; the pages read as zero afterwards. False when the kernel refused.
bool Discard(Addr at, size_t size);
// The kernel may take the memory when it needs some: until then the pages keep what they held, and
// count as resident. False when the kernel cannot do it.
bool DiscardLazily(Addr at, size_t size);
// Transparent huge pages for the range: wanted or never.
bool AdviseHugePages(Addr at, size_t size, bool wanted);
// True when every page of the range is mapped (it may still be inaccessible).
bool IsMapped(Addr at, size_t size);
// Copies without faulting: false when the source cannot be read.
bool SafeRead(Addr from, void* to, size_t size);

// Resident memory of the whole process; 0 when /proc does not tell.
size_t ResidentBytes();

// RLIMIT_AS is finite: address space itself is scarce.
bool AddressSpaceLimited();
// RLIMIT_DATA is finite: private memory that could be written to is scarce, touched or not.
bool DataLimited();

// Test seam: when set, called before each request for memory or address space; true makes it fail.
using FailureHook = bool (*)();
extern constinit FailureHook vm_failure_hook;

}  // namespace undergo::plat
