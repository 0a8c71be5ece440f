// SPDX-License-Identifier: Apache-2.0
// Formatting into a caller's buffer.
#include "base/fmt.h"

namespace undergo {

Fmt& Fmt::Str(const char* s, size_t n) {
  for (size_t i = 0; i < n && length_ + 1 < size_; ++i) buffer_[length_++] = s[i];
  buffer_[length_] = '\0';
  return *this;
}

Fmt& Fmt::Str(const char* s) {
  size_t n = 0;
  while (s[n] != '\0') ++n;
  return Str(s, n);
}

Fmt& Fmt::Dec(uint64_t v, int width) {
  char digits[20];
  int n = 0;
  do {
    digits[19 - n++] = static_cast<char>('0' + v % 10);
    v /= 10;
  } while (v != 0);
  for (int i = n; i < width; ++i) Char(' ');
  return Str(digits + 20 - n, static_cast<size_t>(n));
}

Fmt& Fmt::Hex(uint64_t v) {
  char digits[16];
  int n = 0;
  do {
    digits[15 - n++] = "0123456789abcdef"[v & 15];
    v >>= 4;
  } while (v != 0);
  return Str("0x", 2).Str(digits + 16 - n, static_cast<size_t>(n));
}

Fmt& Fmt::Fixed(uint64_t thousandths, int decimals) {
  Dec(thousandths / 1000);
  if (decimals == 0) return *this;
  Char('.');
  uint64_t rest = thousandths % 1000;
  for (uint64_t unit = 100; decimals-- > 0 && unit > 0; unit /= 10) {
    Char(static_cast<char>('0' + rest / unit));
    rest %= unit;
  }
  return *this;
}

Fmt& Fmt::PadTo(size_t column) {
  while (length_ < column && length_ + 1 < size_) Char(' ');
  return *this;
}

}  // namespace undergo
