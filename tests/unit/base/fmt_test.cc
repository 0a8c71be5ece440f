// SPDX-License-Identifier: Apache-2.0
// Formatting: every form against the C library's, and what happens at the end of the buffer.

#include "base/fmt.h"

#include <criterion/criterion.h>

#include <cinttypes>
#include <cstdio>
#include <cstring>

using namespace undergo;

namespace {

const uint64_t kNumbers[] = {0,
                             1,
                             9,
                             10,
                             99,
                             100,
                             255,
                             4096,
                             4294967295u,
                             4294967296u,
                             999999999999u,
                             UINT64_MAX - 1,
                             UINT64_MAX};

}  // namespace

Test(fmt, numbers) {
  for (uint64_t n : kNumbers) {
    for (int width : {0, 1, 5, 20, 24}) {
      char ours[64], theirs[64];
      Fmt(ours, sizeof ours).Dec(n, width);
      snprintf(theirs, sizeof theirs, "%*" PRIu64, width, n);
      cr_expect(strcmp(ours, theirs) == 0, "'%s', wanted '%s'", ours, theirs);
    }
    char ours[64], theirs[64];
    Fmt(ours, sizeof ours).Hex(n);
    snprintf(theirs, sizeof theirs, "0x%" PRIx64, n);
    cr_expect(strcmp(ours, theirs) == 0, "'%s', wanted '%s'", ours, theirs);
  }
}

Test(fmt, fixed) {
  struct {
    uint64_t thousandths;
    int decimals;
    const char* text;
  } cases[] = {{1234, 2, "1.23"},  {1234, 3, "1.234"}, {1234, 0, "1"},  {999, 1, "0.9"},
               {1005, 3, "1.005"}, {50, 2, "0.05"},    {0, 3, "0.000"}, {123456000, 1, "123456.0"}};
  for (const auto& c : cases) {
    char text[32];
    Fmt(text, sizeof text).Fixed(c.thousandths, c.decimals);
    cr_expect(strcmp(text, c.text) == 0, "'%s', wanted '%s'", text, c.text);
  }
}

Test(fmt, text_and_columns) {
  char text[64];
  Fmt out(text, sizeof text);
  cr_expect(text[0] == '\0' && out.length() == 0);
  out.Str("ab").Char('c').PadTo(6).Str("defgh", 2).PadTo(3).Dec(7);
  cr_expect(strcmp(text, "abc   de7") == 0, "'%s'", text);
  cr_expect(out.length() == strlen(text) && out.text() == text);
}

Test(fmt, truncates_at_the_end_of_the_buffer) {
  for (size_t size = 1; size < 24; ++size) {
    char text[32];
    memset(text, '#', sizeof text);
    Fmt out(text, size);
    out.Str("abc").Dec(12345).PadTo(11).Hex(0xfeed).Char('!').Fixed(2500, 1);
    const char whole[] = "abc12345   0xfeed!2.5";
    size_t length = size - 1 < sizeof whole - 1 ? size - 1 : sizeof whole - 1;
    cr_expect(out.length() == length, "size %zu: length %zu", size, out.length());
    cr_expect(strncmp(text, whole, length) == 0 && text[length] == '\0', "'%.*s'", (int)size, text);
    for (size_t i = size; i < sizeof text; ++i)
      cr_assert(text[i] == '#', "size %zu: byte %zu", size, i);
  }
}
