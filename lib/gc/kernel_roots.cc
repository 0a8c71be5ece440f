// SPDX-License-Identifier: Apache-2.0
// Reads back from /proc what the kernel holds for the program.
//
//   /proc/self/fd          links that tell the kind of each descriptor
//   /proc/self/fdinfo/N    of an epoll descriptor: a line "tfd: 5 events: 19 data: 7f00..." for
//   each
//                          watch, also for those that are disabled or whose descriptor was closed
//   /proc/self/timers      a line "signal: 10/00007f00..." for each timer
//
// Compared with a table filled by interposed functions this sees watches made by raw system calls,
// by descriptors that were passed or duplicated, and before the library was loaded.
#include "gc/kernel_roots.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/fmt.h"
#include "plat/lines.h"
#include "plat/maps.h"
#include "plat/syscall.h"

namespace undergo::gc {

namespace {

using plat::SkipPrefix;

bool StartsWith(const char* s, const char* prefix) { return SkipPrefix(&s, prefix); }

// As getdents64 lays it out.
struct DirEntry {
  uint64_t inode;
  int64_t offset;
  uint16_t length;
  uint8_t type;
  char name[];
};

int ToNumber(const char* digits) {
  int n = 0;
  for (; *digits != '\0'; ++digits) n = n * 10 + (*digits - '0');
  return n;
}

// There may be thousands, and what their links say is made at each look.
bool IsSocket(int fd) {
  struct stat s;
  return !plat::IsError(plat::Syscall(__NR_fstat, fd, &s)) && S_ISSOCK(s.st_mode);
}

// Calls visit(context, number, target) for each descriptor but sockets, which hold nothing that is
// looked for here, until it returns false; then false, as when the list cannot be read.
bool ForEachDescriptor(bool (*visit)(void* context, const char* number, const char* target),
                       void* context) {
  long dir =
      plat::Syscall(__NR_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (plat::IsError(dir)) return false;
  alignas(DirEntry) char buffer[2048];
  long n;
  bool go_on = true;
  while (go_on && (n = plat::Syscall(__NR_getdents64, dir, &buffer[0], sizeof buffer)) > 0) {
    for (long at = 0; go_on && at < n;) {
      auto* entry = reinterpret_cast<const DirEntry*>(buffer + at);
      at += entry->length;
      if (entry->name[0] == '.' || IsSocket(ToNumber(entry->name))) continue;
      char target[64];
      long length = plat::Syscall(__NR_readlinkat, dir, entry->name, &target[0], sizeof target - 1);
      if (length < 0) continue;  // closed meanwhile
      target[length] = '\0';
      go_on = visit(context, entry->name, target);
    }
  }
  plat::Syscall(__NR_close, dir);
  return go_on && n >= 0;
}

struct Words {
  void (*f)(void* context, uint64_t word);
  void* context;
  bool want_direct_writes;
  Pipes* pipes;  // null: they are not wanted
  KernelUse use;
};

// "tfd:        5 events:       19 data: 7f0123456780  pos:0 ..."
bool ReadWatches(const Words& words, const char* number) {
  char path[64];
  Fmt(path, sizeof path).Str("/proc/self/fdinfo/").Str(number);
  plat::LineReader lines(path);
  while (const char* line = lines.Next()) {
    if (!SkipPrefix(&line, "tfd:")) continue;
    while (*line != '\0' && !SkipPrefix(&line, " data:")) ++line;
    while (*line == ' ') ++line;
    words.f(words.context, plat::ParseHex(&line));
  }
  return !lines.failed() || lines.error() == -ENOENT;  // closed meanwhile
}

// "signal: 10/00007f0123456780"
bool ReadTimers(const Words& words) {
  plat::LineReader lines("/proc/self/timers");
  while (const char* line = lines.Next()) {
    if (!SkipPrefix(&line, "signal: ")) continue;
    while (*line != '\0' && *line != '/') ++line;
    if (*line != '\0') ++line;
    words.f(words.context, plat::ParseHex(&line));
  }
  // Kernels without checkpoint and restore do not have the file and cannot tell at all.
  return !lines.failed() || lines.error() == -ENOENT;
}

// A file that is read without the page cache: the device writes to memory by itself.
bool IsDirect(const char* number, const char* target) {
  if (target[0] != '/') return false;
  long flags = plat::Syscall(__NR_fcntl, ToNumber(number), F_GETFL);
  return plat::IsError(flags) ? flags != -EBADF : (flags & O_DIRECT) != 0;
}

bool LookAtDescriptor(void* context, const char* number, const char* target) {
  auto* words = static_cast<Words*>(context);
  if (words->want_direct_writes && !words->use.direct_writes) {
    words->use.direct_writes = WritesDirectly(target) || IsDirect(number, target);
  }
  if (words->pipes != nullptr && StartsWith(target, "pipe:[")) {
    words->pipes->Note(ToNumber(number), target);
  }
  if (StartsWith(target, "anon_inode:[io_uring]")) words->use.io_uring = true;
  if (StartsWith(target, "anon_inode:[userfaultfd]")) words->use.userfaultfds++;
  return !StartsWith(target, "anon_inode:[eventpoll]") || ReadWatches(*words, number);
}

}  // namespace

namespace {
// What begins like these in /dev.
constexpr const char* kHarmlessDevices[] = {"null",   "zero", "full",    "random",  "urandom",
                                            "tty",    "pts",  "ptmx",    "console", "shm/",
                                            "mqueue", "fuse", "net/tun", "kmsg"};
}  // namespace

bool WritesDirectly(const char* target) {
  // The first are the rings of AIO and of packet sockets, as mappings.
  if (StartsWith(target, "/[aio]") || StartsWith(target, "anon_inode:[vfio")) return true;
  if (!SkipPrefix(&target, "/dev/")) return false;
  for (const char* harmless : kHarmlessDevices) {
    if (StartsWith(target, harmless)) return false;
  }
  return true;
}

bool ForEachKernelWord(void (*f)(void* context, uint64_t word), void* context, KernelUse* use,
                       bool want_direct_writes, Pipes* list) {
  Words words = {f, context, want_direct_writes, list, {}};
  if (list != nullptr) list->Begin();
  bool ok = ForEachDescriptor(LookAtDescriptor, &words) && ReadTimers(words);
  if (list != nullptr) list->Finish();
  if (use != nullptr) *use = words.use;
  return ok;
}

bool UsesIoUring() {
  auto no_ring = [](void*, const char*, const char* target) {
    return !StartsWith(target, "anon_inode:[io_uring]");
  };
  if (!ForEachDescriptor(no_ring, nullptr)) return true;
  bool mapped = false;
  auto look = [](void* context, const plat::Mapping& m) {
    *static_cast<bool*>(context) |= StartsWith(m.path, "anon_inode:[io_uring]");
    return true;
  };
  return !plat::ForEachMapping(look, &mapped) || mapped;
}

}  // namespace undergo::gc
