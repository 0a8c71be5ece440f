// SPDX-License-Identifier: Apache-2.0
// Formatting into a caller's buffer: no allocation, no locale, safe in a signal handler.
#pragma once

#include "base/types.h"

namespace undergo {

// Appends text to a fixed buffer and truncates silently at its end; always NUL-terminated.
class Fmt {
 public:
  Fmt(char* buffer, size_t size) : buffer_(buffer), size_(size) { buffer_[0] = '\0'; }

  Fmt& Str(const char* s);
  Fmt& Str(const char* s, size_t n);
  Fmt& Char(char c) { return Str(&c, 1); }
  Fmt& Dec(uint64_t v, int width = 0);             // right-aligned in `width`
  Fmt& Hex(uint64_t v);                            // with 0x
  Fmt& Fixed(uint64_t thousandths, int decimals);  // 1234 with 2 decimals is "1.23"
  Fmt& PadTo(size_t column);                       // spaces up to this length of the text so far

  const char* text() const { return buffer_; }
  size_t length() const { return length_; }

 private:
  char* buffer_;
  size_t size_;
  size_t length_ = 0;
};

}  // namespace undergo
