// SPDX-License-Identifier: Apache-2.0
// Questions to the kernel, each answered by trying. An errno number says why something is missing;
// 0 says that it is there.
#pragma once

#include <cstdint>
#include <string>

namespace undergo::launch {

// userfaultfd as an unprivileged process may open it; its feature bits if that works.
int ProbeUserfaultfd(uint64_t* features);
inline constexpr uint64_t kUffdWpUnpopulated = 1 << 13;
inline constexpr uint64_t kUffdWpAsync = 1 << 15;

int ProbePagemapScan();
int ProbeGuardInstall();
int ProbeMembarrier();  // private expedited
int ProbeRseq();
int ProbeCycleCounter();  // a hardware counter by perf_event_open

// A small file's text without the newline at its end; empty if it cannot be read.
std::string ReadLine(const std::string& path);

}  // namespace undergo::launch
