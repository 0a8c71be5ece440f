// SPDX-License-Identifier: Apache-2.0
// Counters that `undergo audit` shares with all processes of the program: one page of a file that
// only the launcher knows by name (UNDERGO_AUDIT=PATH in the environment).
#pragma once

#include <cstdint>

namespace undergo::gc {

struct AuditCounters {
  static constexpr uint64_t kMagic = 0x7469647561646e75;  // "undaudit"
  uint64_t magic;
  // Atomic, since the audit began.
  uint32_t processes;   // that ran under the library, children of fork included
  uint32_t collectors;  // of them with a collector
  uint32_t cycles;      // collections, without those at an exit
  uint32_t abandoned;   // given up
  uint32_t poisoned;    // objects
  uint32_t uses;        // of objects to which nothing pointed
};

// Maps the page; without it nothing is counted. At start, on the first thread.
void OpenAudit(const char* path);
// Null when there is no audit.
AuditCounters* Audit();

}  // namespace undergo::gc
