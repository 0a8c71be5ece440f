// SPDX-License-Identifier: Apache-2.0
// How the launcher gives up: one line on standard error and an exit status that a shell would use.
#pragma once

#include <string>

namespace undergo::launch {

inline constexpr int kBadRequest = 2;  // a bad argument, or a program that cannot run under us
inline constexpr int kNotExecutable = 126;
inline constexpr int kNotFound = 127;

// Prints "undergo: " and the message on one line and exits.
[[noreturn]] void Die(int status, const std::string& message);

// The text in double quotes, with anything that would spoil a line replaced.
std::string Quoted(const std::string& text);

}  // namespace undergo::launch
