// SPDX-License-Identifier: Apache-2.0
// Where the library's own lines go: standard error, or the file named by UNDERGO=log=PATH.
#pragma once

#include "base/types.h"

namespace undergo::plat {

// Writes whole lines in one system call. The file is opened for each call, so that no descriptor
// of ours is ever visible to the program.
void LogWrite(const char* text, size_t length);
// `path` must stay valid; null means standard error.
void SetLogPath(const char* path);

}  // namespace undergo::plat
