// SPDX-License-Identifier: Apache-2.0
// syscall(SYS_futex) of the program.
#pragma once

namespace undergo::posix {

// With the scheduler running. True: *result is what the kernel would answer (minus an error
// number). False: the kernel has to be asked; the call may block.
bool Futex(const long args[6], long* result);

}  // namespace undergo::posix
