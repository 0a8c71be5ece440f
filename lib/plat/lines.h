// SPDX-License-Identifier: Apache-2.0
// Text files of the kernel, line by line, without allocation. Reads of /proc return a page at most,
// so a larger buffer would not make fewer calls.
#pragma once

#include <fcntl.h>

#include "base/types.h"
#include "plat/syscall.h"

namespace undergo::plat {

class LineReader {
 public:
  explicit LineReader(const char* path)
      : fd_(Syscall(__NR_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0)),
        error_(IsError(fd_) ? fd_ : 0) {}
  ~LineReader() {
    if (fd_ >= 0) Syscall(__NR_close, fd_);
  }
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // The next line without its newline, null at the end. Overlong lines are cut.
  char* Next() {
    while (error_ == 0) {
      for (size_t i = start_; i < end_; ++i) {
        if (buffer_[i] != '\n') continue;
        buffer_[i] = '\0';
        char* line = buffer_ + start_;
        start_ = i + 1;
        if (!cutting_) return line;
        cutting_ = false;  // this was the rest of an overlong line
      }
      if (start_ == 0 && end_ == sizeof buffer_) {
        bool first = !cutting_;
        cutting_ = true;
        end_ = 0;
        buffer_[sizeof buffer_ - 1] = '\0';
        if (first) return buffer_;
      }
      for (size_t i = start_; i < end_; ++i) buffer_[i - start_] = buffer_[i];
      end_ -= start_;
      start_ = 0;
      long n = Syscall(__NR_read, fd_, buffer_ + end_, sizeof buffer_ - end_);
      if (n == -4) continue;  // EINTR
      if (n < 0) error_ = n;
      if (n <= 0) return nullptr;
      end_ += static_cast<size_t>(n);
    }
    return nullptr;
  }

  // The file could not be opened, or not be read to its end: minus an error number, else 0.
  long error() const { return error_; }
  bool failed() const { return error_ != 0; }

 private:
  long fd_;
  long error_;
  char buffer_[4096 + 256];
  size_t start_ = 0;
  size_t end_ = 0;
  bool cutting_ = false;  // the beginning of the current line was shown already
};

// Skips `prefix` if the text begins with it.
inline bool SkipPrefix(const char** text, const char* prefix) {
  const char* at = *text;
  for (; *prefix != '\0'; ++prefix, ++at) {
    if (*at != *prefix) return false;
  }
  *text = at;
  return true;
}

// The hexadecimal number at *text, which may have no digit; *text moves behind it.
inline uint64_t ParseHex(const char** text) {
  uint64_t v = 0;
  for (;; ++*text) {
    char c = **text;
    if (c >= '0' && c <= '9') {
      v = v * 16 + static_cast<uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      v = v * 16 + static_cast<uint64_t>(c - 'a' + 10);
    } else {
      return v;
    }
  }
}

}  // namespace undergo::plat
