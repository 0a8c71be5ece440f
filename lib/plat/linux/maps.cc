// SPDX-License-Identifier: Apache-2.0
// Reader of /proc/self/maps, and of /proc/self/smaps, which has the same lines and more between.
#include "plat/maps.h"

#include <errno.h>

#include "plat/lines.h"
#include "plat/vm.h"

namespace undergo::plat {

namespace {

bool ParseLine(const char* at, Mapping* m) {
  m->start = ParseHex(&at);
  if (*at++ != '-') return false;
  m->end = ParseHex(&at);
  if (at[0] != ' ' || at[1] == '\0' || at[2] == '\0' || at[3] == '\0' || at[4] == '\0')
    return false;
  m->readable = at[1] == 'r';
  m->writable = at[2] == 'w';
  m->executable = at[3] == 'x';
  m->shared = at[4] == 's';
  at += 5;
  while (*at == ' ') ++at;
  m->file_offset = ParseHex(&at);
  for (int field = 0; field < 2; ++field) {  // device, inode
    while (*at == ' ') ++at;
    while (*at != ' ' && *at != '\0') ++at;
  }
  while (*at == ' ') ++at;
  m->path = at;
  return true;
}

// The number of a line "Name:   123 kB" in bytes, if it has this name.
void ParseSize(const char* line, const char* name, size_t* bytes) {
  if (!SkipPrefix(&line, name)) return;
  while (*line == ' ') ++line;
  size_t kilobytes = 0;
  for (; *line >= '0' && *line <= '9'; ++line) {
    kilobytes = kilobytes * 10 + static_cast<size_t>(*line - '0');
  }
  *bytes = kilobytes * kKiB;
}

// The sizes of a mapping follow its line: it is shown when the next one begins.
void VisitWithSizes(LineReader* lines, bool (*visit)(void* context, const Mapping& m),
                    void* context) {
  Mapping m = {};
  char path[256];
  bool any = false;
  while (char* line = lines->Next()) {
    if (line[0] >= 'A' && line[0] <= 'Z') {
      ParseSize(line, "Anonymous:", &m.anonymous);
      ParseSize(line, "Swap:", &m.swapped);
      continue;
    }
    if (any && !visit(context, m)) return;
    m = {};
    any = ParseLine(line, &m);
    if (any) {
      Fmt(path, sizeof path).Str(m.path);
      m.path = path;
    }
  }
  if (any) visit(context, m);
}

struct Wanted {
  Addr address;
  Fmt* out;
};

bool Describe(void* context, const Mapping& m) {
  auto* wanted = static_cast<Wanted*>(context);
  if (wanted->address < m.start || wanted->address >= m.end) return true;
  if (m.path[0] != '\0') {
    const char* name = m.path;
    for (const char* p = m.path; *p != '\0'; ++p) {
      if (*p == '/') name = p + 1;
    }
    wanted->out->Str(" (").Str(name).Char('+').Hex(wanted->address - m.start + m.file_offset);
    wanted->out->Char(')');
  }
  return false;
}

}  // namespace

bool ForEachMapping(bool (*visit)(void* context, const Mapping& m), void* context,
                    MapSource source) {
  bool sizes = source == MapSource::kSizes;
  LineReader lines(sizes ? "/proc/self/smaps" : "/proc/self/maps");
  if (lines.failed()) return false;
  Mapping m = {};
  if (sizes) {
    VisitWithSizes(&lines, visit, context);
  } else {
    while (char* line = lines.Next()) {
      if (ParseLine(line, &m) && !visit(context, m)) break;
    }
  }
  return !lines.failed();
}

bool MapsText::Reserve(size_t bytes) {
  if (bytes <= capacity_) return true;
  size_t more = Max(capacity_ * 2, 64 * kKiB);
  auto* fresh = static_cast<char*>(MapPages(more));
  if (fresh == nullptr) return false;
  if (text_ != nullptr) {
    __builtin_memcpy(fresh, text_, size_);
    Unmap(reinterpret_cast<Addr>(text_), capacity_);
  }
  text_ = fresh;
  capacity_ = more;
  return true;
}

bool MapsText::Read() {
  size_ = 0;
  long fd = Syscall(__NR_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
  if (IsError(fd)) return false;
  long n = 1;
  while (n > 0 && Reserve(size_ + kOsPageSize)) {
    n = Syscall(__NR_read, fd, text_ + size_, capacity_ - size_);
    if (n > 0) size_ += static_cast<size_t>(n);
    if (n == -EINTR) n = 1;
  }
  Syscall(__NR_close, fd);
  return n == 0;
}

bool MapsText::operator==(const MapsText& other) const {
  return size_ == other.size_ && __builtin_memcmp(text_, other.text_, size_) == 0;
}

void MapsText::ForEach(bool (*visit)(void* context, const Mapping& m), void* context) {
  Mapping m = {};
  bool more = true;
  for (char *line = text_, *end = text_ + size_; more && line < end;) {
    auto* stop = static_cast<char*>(__builtin_memchr(line, '\n', static_cast<size_t>(end - line)));
    if (stop == nullptr) return;
    *stop = '\0';
    if (ParseLine(line, &m)) more = visit(context, m);
    *stop = '\n';
    line = stop + 1;
  }
}

void DescribeAddress(Addr a, Fmt* out) {
  out->Hex(a);
  Wanted wanted = {a, out};
  ForEachMapping(Describe, &wanted);
}

}  // namespace undergo::plat
