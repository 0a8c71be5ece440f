// SPDX-License-Identifier: Apache-2.0
// Which threads the process has, by /proc/self/task.
//
// The link count of that folder is two more than the number of threads, which is cheap to read: a
// stop compares it with what is known and reads the list only when they differ. Threads that the
// list shows and nobody announced: raw clone, C11 threads, those that glibc makes inside itself,
// threads at their very beginning and end, and workers of the kernel (io_uring, vhost), which never
// run the program's code and could not be signalled.
#include <fcntl.h>
#include <sys/stat.h>

#include "base/fmt.h"
#include "plat/syscall.h"
#include "plat/thread.h"
#include "world/stop.h"

namespace undergo::world {

namespace {

constexpr const char* kTasks = "/proc/self/task";

struct KernelDirent {
  uint64_t inode;
  int64_t offset;
  uint16_t length;
  uint8_t type;
  char name[];
};

constinit uint32_t enumeration = 0;  // records_lock

int ParseTid(const char* name) {
  int tid = 0;
  for (; *name >= '0' && *name <= '9'; ++name) tid = tid * 10 + (*name - '0');
  return tid;
}

// Makes a record for a listed thread if it has none and is not one of ours.
void Meet(int tid, void (*found)(Record* r)) {
  Record* r = FindRecord(tid);
  if (r == nullptr) {
    if (IsWorker(tid)) return;
    r = NewRecord(tid);
    if (r == nullptr) return;  // the numbers will not agree: the stop is given up
    r->kind = HasNoUserCode(tid) ? RecordKind::kNoUserCode : RecordKind::kThread;
    found(r);
  }
  r->seen = enumeration;
}

// The list may lack a thread when others end while it is read: only the dead are dropped.
void DropDead() {
  for (Record* r = first_record; r != nullptr;) {
    Record* next = r->next;
    if (r->seen != enumeration && plat::IsGone(r->tid)) DropRecord(r);
    r = next;
  }
}

}  // namespace

long TaskCount() {
  struct stat st;
  long e = plat::Syscall(__NR_newfstatat, AT_FDCWD, kTasks, &st, 0);
  return plat::IsError(e) ? -1 : static_cast<long>(st.st_nlink) - 2;
}

bool ListTasks(void (*found)(Record* r)) {
  long fd = plat::Syscall(__NR_openat, AT_FDCWD, kTasks, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (plat::IsError(fd)) return false;
  int self = static_cast<int>(plat::Syscall(__NR_gettid));
  bool self_seen = false;
  ++enumeration;
  alignas(8) char buffer[2048];
  long n;
  while ((n = plat::Syscall(__NR_getdents64, fd, &buffer[0], sizeof buffer)) > 0) {
    for (long at = 0; at < n;) {
      auto* entry = reinterpret_cast<KernelDirent*>(buffer + at);
      at += entry->length;
      int tid = ParseTid(entry->name);
      if (tid == 0) continue;  // . and ..
      self_seen |= tid == self;
      if (tid != self || FindRecord(tid) != nullptr) Meet(tid, found);
    }
  }
  plat::Syscall(__NR_close, fd);
  // Somebody else's /proc: the numbers there are not ours.
  if (n < 0 || !self_seen) return false;
  DropDead();
  return true;
}

namespace {

constexpr size_t kTextSize = 512;

// A file of the thread, at most kTextSize - 1 bytes. Returns their number, 0 when it cannot be
// read.
size_t ReadTaskFile(int tid, const char* name, char* text) {
  Fmt path(text, kTextSize);
  path.Str(kTasks).Char('/').Dec(static_cast<uint64_t>(tid)).Char('/').Str(name);
  long fd = plat::Syscall(__NR_openat, AT_FDCWD, path.text(), O_RDONLY | O_CLOEXEC, 0);
  if (plat::IsError(fd)) return 0;
  long n = plat::Syscall(__NR_read, fd, text, kTextSize - 1);
  plat::Syscall(__NR_close, fd);
  text[n > 0 ? n : 0] = '\0';
  return n > 0 ? static_cast<size_t>(n) : 0;
}

// "tid (name) state ppid pgrp session tty tpgid flags ...": the name may hold anything. Where the
// state is, and where the name begins; null when the text is no such line.
const char* FindState(const char* text, size_t n, const char** name) {
  *name = text;
  while (**name != '(' && **name != '\0') ++*name;
  const char* at = text + n;
  while (at > *name && *at != ')') --at;
  return at == *name || at[1] != ' ' ? nullptr : at + 2;
}

}  // namespace

bool WaitsForCpu(Record* r) {
  constexpr uint64_t kNextToNothingNs = 1'000'000;
  char text[kTextSize];
  const char* name;
  const char* at = FindState(text, ReadTaskFile(r->tid, "stat", text), &name);
  if (at == nullptr || *at != 'R') return false;
  // Nanoseconds on a CPU come first. Kernels without the file cannot tell who runs.
  if (ReadTaskFile(r->tid, "schedstat", text) == 0) return false;
  uint64_t ran = 0;
  for (at = text; *at >= '0' && *at <= '9'; ++at) ran = ran * 10 + static_cast<uint64_t>(*at - '0');
  ++ran;  // 0 means not known
  if (r->ran_ns == 0) r->ran_ns = ran;
  return ran - r->ran_ns < kNextToNothingNs;
}

bool HasNoUserCode(int tid) {
  char text[kTextSize];
  const char* name;
  const char* at = FindState(text, ReadTaskFile(tid, "stat", text), &name);
  if (at == nullptr) return false;
  char state = *at;
  if (state == 'Z' || state == 'X') return true;
  for (int field = 0; field < 6 && *at != '\0'; ++at) field += *at == ' ';
  auto flags = static_cast<unsigned>(ParseTid(at));
  constexpr unsigned kIoWorker = 0x10, kUserWorker = 0x4000;
  bool named =
      __builtin_strncmp(name, "(iou-", 5) == 0 || __builtin_strncmp(name, "(vhost-", 7) == 0;
  return (flags & (kIoWorker | kUserWorker)) != 0 && named;
}

Fate FateOf(const Record* r) {
  if (plat::IsGone(r->tid) || plat::IsOwnThread(r->tid)) return Fate::kGone;
  return HasNoUserCode(r->tid) ? Fate::kNoUserCode : Fate::kAlive;
}

}  // namespace undergo::world
