// SPDX-License-Identifier: Apache-2.0
// What the process may use. How many threads may run at one time when GOMAXPROCS does not say: Go
// 1.25's rule, which looks at the affinity mask and at the CPU quota of the process's own cgroup.
// And how much memory there is.
#pragma once

#include <cstddef>
#include <cstdint>

namespace undergo::boot {

// Where the kernel's view of the process is read; tests give a tree of their own.
struct CgroupFiles {
  const char* cgroup = "/proc/self/cgroup";
  const char* mountinfo = "/proc/self/mountinfo";
  const char* root = "";  // put before every mount point
};

struct CgroupDir {
  int version;      // 1 or 2
  char path[8192];  // of the directory, without a slash at the end
};

struct CpuQuota {
  int64_t quota_us;   // CPU time that the group may use in each period
  int64_t period_us;  // above zero
};

// The directory of this process's group for a controller such as "cpu": that of the version 1
// hierarchy of this controller if there is one, else that of version 2. False if there is neither
// or it is not mounted where this process can see it.
bool FindCgroup(const CgroupFiles& files, const char* controller, CgroupDir* out);

// Reads the first bytes of a file into `buffer` and terminates them; the count, or minus an errno.
long ReadSmallFile(const char* path, char* buffer, size_t size);

// False if the group has no CPU limit, or none that can be read. Limits of parent groups are not
// consulted, nor are shares and weights.
bool ReadCpuQuota(const CgroupFiles& files, CpuQuota* out);

struct MemoryLimit {
  uint64_t bytes;
  int version;  // of the cgroup hierarchy
};

// The same for memory.
bool ReadMemoryLimit(const CgroupFiles& files, MemoryLimit* out);

// Bytes of memory of this machine, or of the group, if that has less. 0 if it cannot be told.
uint64_t MemoryOfProcess();

// The number of CPUs in the affinity mask of the calling thread, at least 1.
int AffinityCpus();

// Go's rounding: a limit counts as no less than 2 CPUs and a part of a CPU as a whole one; a limit
// never raises the number.
int ProcsUnderQuota(int cpus, const CpuQuota& quota);

// The default of GOMAXPROCS. `use_cgroup` is false under GODEBUG=containermaxprocs=0.
int DefaultProcs(bool use_cgroup, const CgroupFiles& files = {});

}  // namespace undergo::boot
