// SPDX-License-Identifier: Apache-2.0
// Finds the program that the user named and tells whether LD_PRELOAD can reach it.
#pragma once

#include <string>

namespace undergo::launch {

// The path that execvp would run. Gives up with 127 or 126 if there is none.
std::string FindProgram(const std::string& name, const char* search_path);

// Gives up, with a line that says why and the status that goes with it, unless the file will run
// with our library in it. A script is judged by its interpreters, and env by the program that it
// starts.
void CheckProgram(const std::string& path, const char* search_path);

// Runs the checked file as execvp does: a text without #! is a script for /bin/sh. Does not return.
[[noreturn]] void Run(const std::string& path, char** argv, char** environment);

}  // namespace undergo::launch
