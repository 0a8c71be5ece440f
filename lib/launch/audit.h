// SPDX-License-Identifier: Apache-2.0
// undergo audit: runs the program under UNDERGO=gc=poison and judges whether it can be collected.
#pragma once

#include <string>

#include "launch/args.h"
#include "launch/env.h"

namespace undergo::launch {

inline constexpr int kAuditPassed = 0;
inline constexpr int kAuditHidden = 1;   // objects were used although nothing pointed to them
inline constexpr int kAuditUnknown = 3;  // nothing was collected
inline constexpr int kAuditFailed = 4;   // the program failed, without a hidden pointer being seen

// The settings that belong to an audit, unless the user chose otherwise.
void AddAuditSettings(Args* args, const Environment& environment);

// Runs the checked program and waits for it and all its children. Returns one of the above.
int RunAudit(const std::string& path, char** argv, Environment* environment);

}  // namespace undergo::launch
