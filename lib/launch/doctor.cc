// SPDX-License-Identifier: Apache-2.0
// Prints one row per facility: what it is, what this machine has, what undergo does with it.

#include "launch/doctor.h"

#include <gnu/libc-version.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "boot/procs.h"
#include "launch/probe.h"

namespace undergo::launch {

namespace {

struct Row {
  std::string what, value, use;
};
using Rows = std::vector<Row>;

constexpr char kUnknown[] = "unknown";

std::string OrUnknown(const std::string& text) { return text.empty() ? kUnknown : text; }

std::string Bytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (unit < 4 && bytes >= 1024 && bytes % 1024 == 0) {
    bytes /= 1024;
    ++unit;
  }
  return std::to_string(bytes) + " " + kUnits[unit];
}

// The word in brackets of a line such as "always [madvise] never".
std::string Chosen(const std::string& line) {
  const size_t open = line.find('[');
  const size_t close = line.find(']');
  if (open == std::string::npos || close == std::string::npos || close < open) return line;
  return line.substr(open + 1, close - open - 1);
}

std::string Answer(int error) {
  if (error == 0) return "yes";
  const char* name = error < 0 ? sigabbrev_np(-error) : strerrorname_np(error);
  if (name == nullptr) return "no";
  return std::string("no (") + (error < 0 ? "SIG" : "") + name + ")";
}

std::string Available(const char* part, bool available) {
  return std::string("for the ") + part + (available ? ": available" : ": not available");
}

void AddSystem(Rows* rows) {
  utsname names;
  if (uname(&names) == 0) {
    rows->push_back({"kernel", std::string(names.sysname) + " " + names.release, ""});
    const bool known = strcmp(names.machine, "x86_64") == 0;
    rows->push_back({"machine", names.machine, known ? "supported" : "not supported"});
  }
  rows->push_back({"glibc", gnu_get_libc_version(), ""});
  const long page = sysconf(_SC_PAGESIZE);
  rows->push_back({"page size", Bytes(static_cast<uint64_t>(page)),
                   page == 4096 ? "supported" : "not supported"});
}

std::string HugePageUse(const std::string& mode, boot::ThpMode wish) {
  if (mode.empty() || mode == "never") return "allocator: no huge pages";
  switch (wish) {
    case boot::ThpMode::kOff: return "allocator: no huge pages (thp=off)";
    case boot::ThpMode::kAlways: return "allocator: huge pages everywhere (thp=always)";
    case boot::ThpMode::kAuto: break;
  }
  return "allocator: huge pages for large, mostly full regions";
}

void AddMemory(const boot::Options& options, Rows* rows) {
  const std::string thp = "/sys/kernel/mm/transparent_hugepage/";
  const std::string mode = Chosen(ReadLine(thp + "enabled"));
  rows->push_back({"huge pages (THP)", OrUnknown(mode), HugePageUse(mode, options.thp)});
  rows->push_back({"THP defragmentation", OrUnknown(Chosen(ReadLine(thp + "defrag"))), ""});

  const std::string overcommit = ReadLine("/proc/sys/vm/overcommit_memory");
  rows->push_back({"overcommit mode", OrUnknown(overcommit),
                   overcommit == "2" ? "allocator: as large a reservation as is granted"
                                     : "allocator: one large reservation"});
  rlimit space;
  if (getrlimit(RLIMIT_AS, &space) == 0) {
    const bool unlimited = space.rlim_cur == RLIM_INFINITY;
    rows->push_back({"address space limit", unlimited ? "none" : Bytes(space.rlim_cur),
                     unlimited ? "allocator: one large reservation"
                               : "allocator: reservations that fit the limit"});
  }
}

void AddCgroup(const boot::Options& options, Rows* rows) {
  boot::MemoryLimit memory_limit;
  std::string memory = "none";
  if (boot::ReadMemoryLimit({}, &memory_limit)) {
    memory =
        Bytes(memory_limit.bytes) + " (version " + std::to_string(memory_limit.version) + ")";
  }
  rows->push_back({"cgroup memory limit", memory, ""});

  boot::CpuQuota quota;
  const bool limited = boot::ReadCpuQuota({}, &quota);
  rows->push_back({"cgroup CPU limit",
                   limited ? std::to_string(quota.quota_us) + " us in " +
                                 std::to_string(quota.period_us) + " us"
                           : "none",
                   ""});
  rows->push_back({"CPUs in affinity mask", std::to_string(boot::AffinityCpus()), ""});
  const bool given = options.gomaxprocs > 0;
  const int procs =
      given ? options.gomaxprocs : boot::DefaultProcs(options.godebug.containermaxprocs != 0);
  rows->push_back({"GOMAXPROCS", std::to_string(procs) + (given ? " (set)" : " (default)"),
                   "for the scheduler"});
}

void AddCpu(Rows* rows) {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
  constexpr unsigned long kFsgsbase = 1 << 1;  // HWCAP2_FSGSBASE
  const bool fsgsbase = (getauxval(AT_HWCAP2) & kFsgsbase) != 0;
  rows->push_back({"AVX2", avx2 ? "yes" : "no", Available("collector", avx2)});
  rows->push_back({"AVX-512 F and BW", avx512 ? "yes" : "no", Available("collector", avx512)});
  rows->push_back({"FSGSBASE", fsgsbase ? "yes" : "no", Available("scheduler", fsgsbase)});
}

void AddProbe(const char* what, int (*probe)(), const char* part, Rows* rows) {
  const int error = ProbeInChild(probe);
  rows->push_back({what, Answer(error), Available(part, error == 0)});
}

void AddKernelFacilities(Rows* rows) {
  AddProbe("userfaultfd", ProbeUserfaultfd, "collector", rows);
  AddProbe("  asynchronous write-protect", ProbeAsyncWriteProtect, "collector", rows);
  AddProbe("PAGEMAP_SCAN", ProbePagemapScan, "collector", rows);
  AddProbe("MADV_GUARD_INSTALL", ProbeGuardInstall, "scheduler", rows);
  AddProbe("membarrier (expedited)", ProbeMembarrier, "scheduler", rows);
  AddProbe("rseq", ProbeRseq, "scheduler", rows);
}

void AddRestrictions(Rows* rows) {
  const std::string scope = ReadLine("/proc/sys/kernel/yama/ptrace_scope");
  const bool no_yama = scope.empty() && access("/proc/sys/kernel", F_OK) == 0;
  rows->push_back({"ptrace scope", no_yama ? "0 (no Yama)" : OrUnknown(scope), ""});
  const int seccomp = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
  rows->push_back({"seccomp", seccomp == 0 ? "off" : seccomp > 0 ? "filter" : kUnknown, ""});
  rows->push_back(
      {"perf_event_paranoid", OrUnknown(ReadLine("/proc/sys/kernel/perf_event_paranoid")), ""});
  AddProbe("perf hardware counters", ProbeCycleCounter, "benchmarks", rows);
}

}  // namespace

void PrintDoctor(const boot::Options& options) {
  Rows rows = {{"what", "this machine", "undergo"}};
  AddSystem(&rows);
  AddMemory(options, &rows);
  AddCgroup(options, &rows);
  AddCpu(&rows);
  AddKernelFacilities(&rows);
  AddRestrictions(&rows);
  size_t what_width = 0;
  size_t value_width = 0;
  for (const Row& row : rows) {
    what_width = std::max(what_width, row.what.size());
    value_width = std::max(value_width, row.value.size());
  }
  for (Row& row : rows) {
    row.what.resize(what_width, ' ');
    row.value.resize(value_width, ' ');
    std::string line = row.what + "  " + row.value + "  " + row.use;
    line.resize(line.find_last_not_of(' ') + 1);
    puts(line.c_str());
  }
}

}  // namespace undergo::launch
