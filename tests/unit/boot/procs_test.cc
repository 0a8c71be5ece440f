// SPDX-License-Identifier: Apache-2.0
// The default of GOMAXPROCS on trees of cgroup files that the test makes itself.

#include "boot/procs.h"

#include <criterion/criterion.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

using namespace undergo::boot;

namespace {

// A directory that stands for "/" and goes away with the test.
class Tree {
 public:
  Tree() {
    char name[] = "/tmp/undergo-procs-XXXXXX";
    cr_assert(mkdtemp(name) != nullptr);
    root_ = name;
    cgroup_ = root_ + "/cgroup";
    mountinfo_ = root_ + "/mountinfo";
  }
  ~Tree() { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path full = root_ + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text;
  }
  void Cgroup(const std::string& text) { Write("/cgroup", text); }
  void Mounts(const std::string& text) { Write("/mountinfo", text); }

  CgroupFiles files() const { return {cgroup_.c_str(), mountinfo_.c_str(), root_.c_str()}; }

  // "none", or quota and period.
  std::string Quota() const {
    CpuQuota quota{};
    if (!ReadCpuQuota(files(), &quota)) return "none";
    return std::to_string(quota.quota_us) + "/" + std::to_string(quota.period_us);
  }

 private:
  std::string root_, cgroup_, mountinfo_;
};

constexpr char kV2Mount[] =
    "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
    "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate\n";
constexpr char kV1Mounts[] =
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

void ExpectEqual(const std::string& got, const std::string& want, int line) {
  cr_expect(got == want, "line %d: got %s, want %s", line, got.c_str(), want.c_str());
}
#define EXPECT_QUOTA(tree, want) ExpectEqual((tree).Quota(), want, __LINE__)

int Rounded(int cpus, int64_t quota_us, int64_t period_us) {
  return ProcsUnderQuota(cpus, CpuQuota{quota_us, period_us});
}

}  // namespace

Test(procs, rounding_is_that_of_go) {
  cr_expect(Rounded(8, 50'000, 100'000) == 2);  // half a CPU
  cr_expect(Rounded(8, 0, 100'000) == 2);
  cr_expect(Rounded(8, 100'000, 100'000) == 2);
  cr_expect(Rounded(8, 200'000, 100'000) == 2);
  cr_expect(Rounded(8, 200'001, 100'000) == 3);
  cr_expect(Rounded(8, 250'000, 100'000) == 3);
  cr_expect(Rounded(8, 300'000, 100'000) == 3);
  cr_expect(Rounded(4, 800'000, 100'000) == 4);  // never more than the affinity mask
  cr_expect(Rounded(1, 50'000, 100'000) == 1);   // even where the limit counts as 2
  cr_expect(Rounded(8, INT64_MAX, 1) == 8);
}

Test(procs, version_2) {
  Tree tree;
  tree.Cgroup("0::/user.slice/app.scope\n");
  tree.Mounts(kV2Mount);
  EXPECT_QUOTA(tree, "none");
  tree.Write("/sys/fs/cgroup/user.slice/app.scope/cpu.max", "150000 100000\n");
  EXPECT_QUOTA(tree, "150000/100000");
  tree.Write("/sys/fs/cgroup/user.slice/app.scope/cpu.max", "max 100000\n");
  EXPECT_QUOTA(tree, "none");
}

Test(procs, version_2_at_the_root_of_a_namespace) {
  Tree tree;
  tree.Cgroup("0::/\n");
  tree.Mounts(kV2Mount);
  tree.Write("/sys/fs/cgroup/cpu.max", "500000 100000\n");
  EXPECT_QUOTA(tree, "500000/100000");
}

Test(procs, parents_are_not_consulted) {
  Tree tree;
  tree.Cgroup("0::/parent/leaf\n");
  tree.Mounts(kV2Mount);
  tree.Write("/sys/fs/cgroup/parent/cpu.max", "10000 100000\n");
  tree.Write("/sys/fs/cgroup/parent/leaf/cpu.max", "max 100000\n");
  EXPECT_QUOTA(tree, "none");
}

Test(procs, version_1_has_precedence) {
  Tree tree;
  tree.Cgroup("0::/two\n5:cpuset:/set\n3:cpu,cpuacct:/one\n1:name=systemd:/s\n");
  tree.Mounts(kV1Mounts);
  tree.Write("/sys/fs/cgroup/unified/two/cpu.max", "900000 100000\n");
  tree.Write("/sys/fs/cgroup/cpu,cpuacct/one/cpu.cfs_quota_us", "250000\n");
  tree.Write("/sys/fs/cgroup/cpu,cpuacct/one/cpu.cfs_period_us", "100000\n");
  EXPECT_QUOTA(tree, "250000/100000");
  tree.Write("/sys/fs/cgroup/cpu,cpuacct/one/cpu.cfs_quota_us", "-1\n");
  EXPECT_QUOTA(tree, "none");
}

Test(procs, version_2_is_used_where_version_1_has_no_cpu_controller) {
  Tree tree;
  tree.Cgroup("5:cpuset,cpuacct:/set\n0::/two\n");
  tree.Mounts(kV1Mounts);
  tree.Write("/sys/fs/cgroup/unified/two/cpu.max", "900000 100000\n");
  EXPECT_QUOTA(tree, "900000/100000");
}

Test(procs, a_mount_whose_root_is_the_group_itself) {
  Tree tree;  // a container without a cgroup namespace
  tree.Cgroup("4:cpu:/docker/abc\n");
  tree.Mounts(
      "31 23 0:27 / /decoy rw - tmpfs tmpfs rw,cpu\n"
      "33 31 0:30 /docker/ab /elsewhere rw - cgroup cgroup rw,cpu\n"
      "32 23 0:27 / /decoy rw - cgroup cgroup\n"
      "34 31 0:30 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n");
  tree.Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "300000\n");
  tree.Write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_QUOTA(tree, "300000/100000");
}

Test(procs, escaped_mount_points) {
  Tree tree;
  tree.Cgroup("0::/g\n");
  tree.Mounts("31 23 0:28 / /odd\\040name\\134x rw - cgroup2 none rw\n");
  tree.Write("/odd name\\x/g/cpu.max", "400000 100000\n");
  EXPECT_QUOTA(tree, "400000/100000");
}

Test(procs, controllers_are_whole_words) {
  Tree tree;
  tree.Cgroup("4:cpuacct,xcpu:/g\n");
  tree.Mounts("34 31 0:30 / /c rw - cgroup cgroup rw,cpuacct,xcpu\n");
  tree.Write("/c/g/cpu.cfs_quota_us", "300000\n");
  tree.Write("/c/g/cpu.cfs_period_us", "100000\n");
  EXPECT_QUOTA(tree, "none");
}

Test(procs, other_controllers_are_found_too) {
  Tree tree;
  tree.Cgroup("4:memory:/m\n3:cpu:/c\n");
  tree.Mounts(
      "34 31 0:30 / /cg/cpu rw - cgroup cgroup rw,cpu\n"
      "35 31 0:31 / /cg/memory rw - cgroup cgroup rw,memory\n");
  CgroupDir dir;
  cr_assert(FindCgroup(tree.files(), "memory", &dir));
  cr_expect(dir.version == 1);
  cr_expect(std::string(dir.path) == std::string(tree.files().root) + "/cg/memory/m");
}

Test(procs, long_lines_and_unfinished_files) {
  Tree tree;
  tree.Cgroup("9:name=" + std::string(9000, 'n') + ":/" + std::string(9000, 'p') + "\n0::/g");
  tree.Mounts("30 23 0:1 / /" + std::string(9000, 'm') +
              " rw - overlay o rw,lowerdir=" + std::string(60000, 'l') + "\n\nnonsense\n1 2 3\n" +
              "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
  tree.Write("/sys/fs/cgroup/g/cpu.max", "400000 100000");
  EXPECT_QUOTA(tree, "400000/100000");
}

Test(procs, nonsense_is_no_limit) {
  Tree tree;
  EXPECT_QUOTA(tree, "none");
  tree.Cgroup("0::/g\n");
  EXPECT_QUOTA(tree, "none");
  tree.Mounts(kV2Mount);
  for (const char* text : {"", "\n", "100000", "100000 ", "100000 0\n", "-5 100000\n", "x y\n",
                           "99999999999999999999 100000\n", "100000 x\n", "100000x100000\n"}) {
    tree.Write("/sys/fs/cgroup/g/cpu.max", text);
    EXPECT_QUOTA(tree, "none");
  }
  tree.Cgroup("0:/g\n");
  EXPECT_QUOTA(tree, "none");
  tree.Write("/sys/fs/cgroup/cpu.max", "100000 100000\n");
  tree.Cgroup("0::" + std::string(5000, '/') + "\n");
  EXPECT_QUOTA(tree, "none");
}

Test(procs, limit_of_memory) {
  Tree tree;
  MemoryLimit limit = {};
  cr_expect(!ReadMemoryLimit(tree.files(), &limit));
  tree.Cgroup("0::/g\n");
  tree.Mounts(kV2Mount);
  for (const char* text : {"", "max\n", "-5\n", "99999999999999999999\n"}) {
    tree.Write("/sys/fs/cgroup/g/memory.max", text);
    cr_expect(!ReadMemoryLimit(tree.files(), &limit), "%s", text);
  }
  tree.Write("/sys/fs/cgroup/g/memory.max", "268435456\n");
  cr_expect(ReadMemoryLimit(tree.files(), &limit) && limit.bytes == 268435456 &&
            limit.version == 2);
  tree.Cgroup("0::/g\n7:memory:/one\n");
  tree.Mounts("40 31 0:37 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
  tree.Write("/sys/fs/cgroup/memory/one/memory.limit_in_bytes", "9223372036854771712\n");
  cr_expect(!ReadMemoryLimit(tree.files(), &limit));
  tree.Write("/sys/fs/cgroup/memory/one/memory.limit_in_bytes", "1048576\n");
  cr_expect(ReadMemoryLimit(tree.files(), &limit) && limit.bytes == 1048576 && limit.version == 1);
  cr_expect(MemoryOfProcess() > 0);
}

Test(procs, affinity) {
  cpu_set_t all;
  cr_assert(sched_getaffinity(0, sizeof(all), &all) == 0);
  cr_expect(AffinityCpus() == CPU_COUNT(&all));
  int first = 0;
  while (!CPU_ISSET(first, &all)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  cr_assert(sched_setaffinity(0, sizeof(one), &one) == 0);
  cr_expect(AffinityCpus() == 1);
}

Test(procs, default_joins_mask_and_quota) {
  Tree tree;
  const int cpus = AffinityCpus();
  tree.Cgroup("0::/g\n");
  tree.Mounts(kV2Mount);
  tree.Write("/sys/fs/cgroup/g/cpu.max", "10000 100000\n");
  cr_expect(DefaultProcs(true, tree.files()) == (cpus < 2 ? cpus : 2));
  cr_expect(DefaultProcs(false, tree.files()) == cpus);
  tree.Write("/sys/fs/cgroup/g/cpu.max", "max 100000\n");
  cr_expect(DefaultProcs(true, tree.files()) == cpus);
}
