// SPDX-License-Identifier: Apache-2.0
// Reads the affinity mask, the cgroup files and the machine's memory by raw system calls, with
// buffers on the stack only.

#include "boot/procs.h"

#include <fcntl.h>
#include <sys/sysinfo.h>

#include "plat/syscall.h"

namespace undergo::boot {

namespace {

constexpr size_t kMaxPath = 4096;
constexpr int kEnd = -1;  // of the file
constexpr long kEintr = 4;
constexpr int kLeastLimit = 2;  // CPUs that a limit counts as at the least

// A file read byte by byte through a small buffer.
class ByteReader {
 public:
  explicit ByteReader(const char* path)
      : fd_(plat::Syscall(__NR_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0)) {}
  ~ByteReader() {
    if (fd_ >= 0) plat::Syscall(__NR_close, fd_);
  }
  ByteReader(const ByteReader&) = delete;
  ByteReader& operator=(const ByteReader&) = delete;

  long error() const { return fd_ < 0 ? fd_ : 0; }

  int Next() {
    if (position_ == filled_ && !Fill()) return kEnd;
    return static_cast<unsigned char>(buffer_[position_++]);
  }

 private:
  bool Fill() {
    if (fd_ < 0) return false;
    long n = 0;
    do {
      n = plat::Syscall(__NR_read, fd_, buffer_, sizeof(buffer_));
    } while (n == -kEintr);
    position_ = 0;
    filled_ = n > 0 ? static_cast<size_t>(n) : 0;
    return filled_ > 0;
  }

  long fd_;
  size_t position_ = 0;
  size_t filled_ = 0;
  char buffer_[1024];
};

// Text built up to a fixed size; what does not fit makes it unusable rather than shorter.
template <size_t kSize>
struct FixedText {
  char data[kSize];
  size_t size = 0;
  bool overflow = false;

  void Clear() {
    size = 0;
    overflow = false;
  }
  void Add(char c) {
    if (size + 1 < kSize) {
      data[size++] = c;
    } else {
      overflow = true;
    }
  }
  bool Is(const char* other) const {
    size_t i = 0;
    for (; i < size; ++i) {
      if (other[i] == '\0' || other[i] != data[i]) return false;
    }
    return !overflow && other[i] == '\0';
  }
};

using PathText = FixedText<kMaxPath>;
using WordText = FixedText<32>;

// Reads up to `stop` or the end of the line, whichever comes first, and returns what it stopped at.
template <size_t kSize>
int ReadUntil(ByteReader& in, char stop, FixedText<kSize>* out) {
  out->Clear();
  for (;;) {
    const int c = in.Next();
    if (c == kEnd || c == '\n' || c == stop) return c;
    out->Add(static_cast<char>(c));
  }
}

void SkipLine(ByteReader& in, int last) {
  while (last != '\n' && last != kEnd) last = in.Next();
}

// Reads the rest of a comma-separated list up to `stop`; tells whether `word` is one of its
// elements.
bool ListHolds(ByteReader& in, char stop, const char* word, int* last) {
  WordText element;
  bool found = false;
  element.Clear();
  for (;;) {
    const int c = in.Next();
    const bool ends = c == kEnd || c == '\n' || c == stop;
    if (!ends && c != ',') {
      element.Add(static_cast<char>(c));
      continue;
    }
    found = found || element.Is(word);
    element.Clear();
    if (ends) {
      *last = c;
      return found;
    }
  }
}

// The group of this process for the controller, and the version of its hierarchy; 0 if there is
// none. Lines are hierarchy:controllers:path; version 2 has hierarchy 0 and names no controller.
int FindGroup(const char* file, const char* controller, PathText* group) {
  ByteReader in(file);
  WordText hierarchy;
  PathText path;
  int version = 0;
  for (;;) {
    int last = ReadUntil(in, ':', &hierarchy);
    if (last == kEnd) return version;
    if (last == '\n') continue;
    const bool holds = ListHolds(in, ':', controller, &last);
    if (last != ':') continue;
    last = ReadUntil(in, '\n', &path);
    if (path.overflow || path.size == 0 || path.data[0] != '/') continue;
    if (holds && !hierarchy.Is("0")) {
      *group = path;
      return 1;
    }
    if (hierarchy.Is("0")) {
      *group = path;
      version = 2;
    }
  }
}

// In mountinfo a blank, a tab, a newline and a backslash stand as backslash and three octal digits.
bool Unescape(PathText* path) {
  size_t to = 0;
  for (size_t from = 0; from < path->size; ++from) {
    char c = path->data[from];
    if (c == '\\') {
      if (from + 3 >= path->size) return false;
      int code = 0;
      for (int i = 0; i < 3; ++i) {
        const char digit = path->data[++from];
        if (digit < '0' || digit > '7') return false;
        code = code * 8 + (digit - '0');
      }
      c = static_cast<char>(code);
    }
    path->data[to++] = c;
  }
  path->size = to;
  return !path->overflow;
}

// The length of the part of `group` that a mount whose root is `root` shows as its own root
// directory; false if the group lies outside that mount.
bool MountShows(const PathText& root, const PathText& group, size_t* hidden) {
  *hidden = root.size == 1 ? 0 : root.size;  // the root "/" hides nothing
  if (*hidden > group.size) return false;
  if (__builtin_memcmp(root.data, group.data, *hidden) != 0) return false;
  return *hidden == 0 || group.size == *hidden || group.data[*hidden] == '/';
}

// Whether the rest of a mountinfo line, after the mount point, is that of the hierarchy we look
// for: options, optional fields, a dash, type, source, options of the file system.
bool IsHierarchy(ByteReader& in, int version, const char* controller, int* last) {
  WordText word;
  do {
    *last = ReadUntil(in, ' ', &word);
  } while (*last == ' ' && !word.Is("-"));
  if (*last != ' ') return false;
  *last = ReadUntil(in, ' ', &word);
  if (version == 2) return word.Is("cgroup2");
  if (!word.Is("cgroup") || *last != ' ') return false;
  *last = ReadUntil(in, ' ', &word);
  return *last == ' ' && ListHolds(in, ' ', controller, last);
}

// The mount point under which the group is visible, and how much of the group's path it hides.
bool FindMount(const char* file, int version, const char* controller, const PathText& group,
               PathText* mount, size_t* hidden) {
  ByteReader in(file);
  WordText word;
  PathText root;
  for (;;) {
    int last = ' ';
    for (int i = 0; i < 3 && last == ' '; ++i) last = ReadUntil(in, ' ', &word);
    if (last == ' ') last = ReadUntil(in, ' ', &root);
    if (last == ' ') last = ReadUntil(in, ' ', mount);
    const bool found = last == ' ' && IsHierarchy(in, version, controller, &last);
    SkipLine(in, last);
    if (found && Unescape(&root) && Unescape(mount) && MountShows(root, group, hidden)) return true;
    if (last == kEnd) return false;
  }
}

bool ParseNumber(const char** text, int64_t* out) {
  const char* p = *text;
  const bool negative = *p == '-';
  if (negative) ++p;
  if (*p < '0' || *p > '9') return false;
  int64_t value = 0;
  for (; *p >= '0' && *p <= '9'; ++p) {
    if (__builtin_mul_overflow(value, int64_t{10}, &value)) return false;
    if (__builtin_add_overflow(value, int64_t{*p - '0'}, &value)) return false;
  }
  *out = negative ? -value : value;
  *text = p;
  return true;
}

// Reads `name` in the directory; false if the path is too long or the file cannot be read.
bool ReadIn(const CgroupDir& dir, const char* name, char* buffer, size_t size) {
  FixedText<sizeof(dir.path) + 64> path;
  for (const char* p = dir.path; *p != '\0'; ++p) path.Add(*p);
  path.Add('/');
  for (const char* p = name; *p != '\0'; ++p) path.Add(*p);
  path.data[path.size] = '\0';
  return !path.overflow && ReadSmallFile(path.data, buffer, size) > 0;
}

}  // namespace

long ReadSmallFile(const char* path, char* buffer, size_t size) {
  ByteReader in(path);
  size_t n = 0;
  int c = 0;
  while (n + 1 < size && (c = in.Next()) != kEnd) buffer[n++] = static_cast<char>(c);
  buffer[n] = '\0';
  return in.error() != 0 ? in.error() : static_cast<long>(n);
}

bool FindCgroup(const CgroupFiles& files, const char* controller, CgroupDir* out) {
  PathText group;
  PathText mount;
  size_t hidden = 0;
  out->version = FindGroup(files.cgroup, controller, &group);
  if (out->version == 0) return false;
  if (!FindMount(files.mountinfo, out->version, controller, group, &mount, &hidden)) return false;
  FixedText<sizeof(out->path)> path;
  for (const char* p = files.root; *p != '\0'; ++p) path.Add(*p);
  for (size_t i = 0; i < mount.size; ++i) path.Add(mount.data[i]);
  for (size_t i = hidden; i < group.size; ++i) path.Add(group.data[i]);
  while (path.size > 0 && path.data[path.size - 1] == '/') --path.size;
  if (path.overflow) return false;
  __builtin_memcpy(out->path, path.data, path.size);
  out->path[path.size] = '\0';
  return true;
}

bool ReadCpuQuota(const CgroupFiles& files, CpuQuota* out) {
  CgroupDir dir;
  char quota_text[64];
  char period_text[64];
  if (!FindCgroup(files, "cpu", &dir)) return false;
  const char* quota = quota_text;
  const char* period = period_text;
  if (dir.version == 1) {
    if (!ReadIn(dir, "cpu.cfs_quota_us", quota_text, sizeof(quota_text))) return false;
    if (!ReadIn(dir, "cpu.cfs_period_us", period_text, sizeof(period_text))) return false;
    if (!ParseNumber(&quota, &out->quota_us)) return false;
  } else {
    // "max 100000" or "50000 100000".
    if (!ReadIn(dir, "cpu.max", quota_text, sizeof(quota_text))) return false;
    if (!ParseNumber(&quota, &out->quota_us) || *quota != ' ') return false;
    period = quota + 1;
  }
  return ParseNumber(&period, &out->period_us) && out->quota_us >= 0 && out->period_us > 0;
}

bool ReadMemoryLimit(const CgroupFiles& files, MemoryLimit* out) {
  CgroupDir dir;
  char text[64];
  if (!FindCgroup(files, "memory", &dir)) return false;
  const char* name = dir.version == 1 ? "memory.limit_in_bytes" : "memory.max";
  if (!ReadIn(dir, name, text, sizeof(text))) return false;
  const char* p = text;
  int64_t bytes = 0;
  if (!ParseNumber(&p, &bytes) || bytes < 0) return false;  // "max"
  *out = {static_cast<uint64_t>(bytes), dir.version};
  // Version 1 shows "no limit" as the largest number of whole pages.
  return out->bytes < uint64_t{1} << 62;
}

uint64_t MemoryOfProcess() {
  struct sysinfo info;
  if (plat::IsError(plat::Syscall(__NR_sysinfo, &info))) return 0;
  const uint64_t all = uint64_t{info.totalram} * info.mem_unit;
  MemoryLimit limit;
  return ReadMemoryLimit({}, &limit) && limit.bytes < all ? limit.bytes : all;
}

int AffinityCpus() {
  uint64_t mask[1024];  // 65536 CPUs, more than the kernel can be built for
  const long bytes = plat::Syscall(__NR_sched_getaffinity, 0, sizeof(mask), mask);
  if (plat::IsError(bytes)) return 1;
  int cpus = 0;
  for (size_t i = 0; i < static_cast<size_t>(bytes) / sizeof(mask[0]); ++i) {
    for (uint64_t rest = mask[i]; rest != 0; rest &= rest - 1) ++cpus;
  }
  return cpus > 0 ? cpus : 1;
}

int ProcsUnderQuota(int cpus, const CpuQuota& quota) {
  int64_t limit = quota.quota_us / quota.period_us;
  if (quota.quota_us % quota.period_us != 0) ++limit;
  if (limit < kLeastLimit) limit = kLeastLimit;
  return limit < cpus ? static_cast<int>(limit) : cpus;
}

int DefaultProcs(bool use_cgroup, const CgroupFiles& files) {
  const int cpus = AffinityCpus();
  // Six files are not opened at each program's start for nothing.
  if (!use_cgroup || cpus <= kLeastLimit) return cpus;
  CpuQuota quota;
  return ReadCpuQuota(files, &quota) ? ProcsUnderQuota(cpus, quota) : cpus;
}

}  // namespace undergo::boot
