// SPDX-License-Identifier: Apache-2.0
// What the kernel keeps for each of its threads, and only the thread itself can change.
#pragma once

namespace undergo::posix {

// The running thread is about to change such a thing: from now on its kernel thread is its own.
void KeepKernelThread();
// Whether this option of prctl is such a thing.
bool IsOfKernelThread(int prctl_option);
// System calls made by syscall() that concern threads. False: none of them; else *result is what
// syscall() returns, and errno is set.
bool ThreadSyscall(long number, const long a[6], long* result);

}  // namespace undergo::posix
