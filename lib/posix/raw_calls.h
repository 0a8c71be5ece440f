// SPDX-License-Identifier: Apache-2.0
// Calls of syscall() that wait, that are about descriptors, or about signal masks.
#pragma once

namespace undergo::posix {

// Does what libc's function of that name does under the scheduler. False: not one of these, or the
// calling thread has no G. The result is as libc's: -1 and errno.
bool DescriptorSyscall(long number, const long a[6], long* result);

}  // namespace undergo::posix
