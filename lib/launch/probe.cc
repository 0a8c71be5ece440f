// SPDX-License-Identifier: Apache-2.0
// Tries kernel facilities on memory and descriptors of its own and leaves nothing behind. Constants
// that are younger than the headers of the oldest supported system are written out here.

#include "launch/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>

#include "boot/procs.h"

namespace undergo::launch {

namespace {

constexpr int kUserModeOnly = 1;              // UFFD_USER_MODE_ONLY
constexpr uint64_t kWpUnpopulated = 1 << 13;  // UFFD_FEATURE_WP_UNPOPULATED
constexpr uint64_t kWpAsync = 1 << 15;        // UFFD_FEATURE_WP_ASYNC
constexpr int kGuardInstall = 102;            // MADV_GUARD_INSTALL

struct PagemapScan {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
struct PageRegion {
  uint64_t start, end, categories;
};
constexpr uint64_t kPageIsPresent = 1 << 3;

// One page of fresh memory, for as long as the object lives.
class Page {
 public:
  Page()
      : size_(static_cast<size_t>(sysconf(_SC_PAGESIZE))),
        address_(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
  }
  ~Page() {
    if (address_ != MAP_FAILED) munmap(address_, size_);
  }
  Page(const Page&) = delete;
  Page& operator=(const Page&) = delete;

  bool ok() const { return address_ != MAP_FAILED; }
  void* address() const { return address_; }
  size_t size() const { return size_; }

 private:
  size_t size_;
  void* address_;
};

int ErrnoIf(bool failed) { return failed ? errno : 0; }

// Opens a userfaultfd and asks for its features.
int UffdFeatures(uint64_t* features) {
  const long fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | kUserModeOnly);
  if (fd < 0) return errno;
  uffdio_api api;
  memset(&api, 0, sizeof(api));
  api.api = UFFD_API;
  const int error = ErrnoIf(ioctl(static_cast<int>(fd), UFFDIO_API, &api) != 0);
  *features = api.features;
  close(static_cast<int>(fd));
  return error;
}

}  // namespace

int ProbeInChild(int (*probe)()) {
  const pid_t child = fork();
  if (child < 0) return errno;
  if (child == 0) _exit(probe());  // errno numbers fit an exit status
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return errno;
  }
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int ProbeUserfaultfd() {
  uint64_t features = 0;
  return UffdFeatures(&features);
}

int ProbeAsyncWriteProtect() {
  uint64_t features = 0;
  const int error = UffdFeatures(&features);
  if (error != 0) return error;
  constexpr uint64_t kNeeded = kWpUnpopulated | kWpAsync;
  return (features & kNeeded) == kNeeded ? 0 : ENOSYS;
}

int ProbePagemapScan() {
  const Page page;
  if (!page.ok()) return ENOMEM;
  const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  PageRegion region;
  PagemapScan scan;
  memset(&scan, 0, sizeof(scan));
  scan.size = sizeof(scan);
  scan.start = reinterpret_cast<uint64_t>(page.address());
  scan.end = scan.start + page.size();
  scan.vec = reinterpret_cast<uint64_t>(&region);
  scan.vec_len = 1;
  scan.category_mask = kPageIsPresent;
  scan.return_mask = kPageIsPresent;
  const int error = ErrnoIf(ioctl(fd, _IOWR('f', 16, PagemapScan), &scan) < 0);
  close(fd);
  return error;
}

int ProbeGuardInstall() {
  const Page page;
  if (!page.ok()) return ENOMEM;
  return ErrnoIf(madvise(page.address(), page.size(), kGuardInstall) != 0);
}

int ProbeMembarrier() {
  const long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
  if (commands < 0) return errno;
  return (commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0 ? 0 : ENOSYS;
}

int ProbeRseq() {
  // The kernel looks at the arguments only if it knows the call; these cannot be right.
  syscall(SYS_rseq, 0, 0, 0, 0);
  return errno == EINVAL ? 0 : errno;
}

int ProbeCycleCounter() {
  perf_event_attr attributes;
  memset(&attributes, 0, sizeof(attributes));
  attributes.size = sizeof(attributes);
  attributes.type = PERF_TYPE_HARDWARE;
  attributes.config = PERF_COUNT_HW_CPU_CYCLES;
  attributes.disabled = 1;
  attributes.exclude_kernel = 1;
  attributes.exclude_hv = 1;
  const long fd = syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
  if (fd < 0) return errno;
  close(static_cast<int>(fd));
  return 0;
}

std::string ReadLine(const std::string& path) {
  char text[512];
  if (boot::ReadSmallFile(path.c_str(), text, sizeof(text)) <= 0) return "";
  std::string line = text;
  return line.substr(0, line.find('\n'));
}

}  // namespace undergo::launch
