// SPDX-License-Identifier: Apache-2.0
// Questions to the kernel, each answered by trying.
#pragma once

#include <string>

namespace undergo::launch {

// Each returns 0 if the facility is there and else an errno number that says why it is not.
int ProbeUserfaultfd();        // as an unprivileged process may open it
int ProbeAsyncWriteProtect();  // with userfaultfd, of pages that are not there yet, too
int ProbePagemapScan();
int ProbeGuardInstall();
int ProbeMembarrier();  // private expedited
int ProbeRseq();
int ProbeCycleCounter();  // a hardware counter by perf_event_open

// Runs a probe in a child process, as a seccomp filter may kill whoever asks, and returns what it
// returns, or minus the signal that ended the child.
int ProbeInChild(int (*probe)());

// A small file's text without the newline at its end; empty if it cannot be read.
std::string ReadLine(const std::string& path);

}  // namespace undergo::launch
