// SPDX-License-Identifier: Apache-2.0
// Lines of files: breaks at every place of the buffer, overlong lines, failures.

#include "plat/lines.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <string>

using namespace undergo;

namespace {

struct File {
  explicit File(const std::string& text) {
    int fd = mkstemp(name);
    cr_assert(fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    close(fd);
  }
  ~File() { unlink(name); }
  char name[32] = "/tmp/undergo-lines-XXXXXX";
};

}  // namespace

Test(lines, all_of_them) {
  std::string text;
  for (size_t i = 0; i < 3000; ++i) text += std::to_string(i) + std::string(i % 37, 'x') + '\n';
  File file(text);
  plat::LineReader lines(file.name);
  for (size_t i = 0; i < 3000; ++i) {
    const char* line = lines.Next();
    cr_assert(line != nullptr && line == std::to_string(i) + std::string(i % 37, 'x'));
  }
  cr_expect(lines.Next() == nullptr && lines.error() == 0);
}

Test(lines, overlong_lines_keep_their_beginning) {
  for (size_t length = 4000; length < 14000; length += 37) {
    File file("first\n" + std::string(length, 'y') + "\nlast\n");
    plat::LineReader lines(file.name);
    cr_assert(strcmp(lines.Next(), "first") == 0);
    const char* line = lines.Next();
    cr_assert(line != nullptr && strncmp(line, std::string(4000, 'y').c_str(), 4000) == 0);
    line = lines.Next();
    cr_assert(line != nullptr && strcmp(line, "last") == 0, "length %zu: '%s'", length, line);
    cr_assert(lines.Next() == nullptr);
  }
}

Test(lines, failures) {
  plat::LineReader missing("/nonexistent/file");
  cr_expect(missing.error() == -ENOENT && missing.Next() == nullptr);
  plat::LineReader folder("/tmp");
  cr_expect(folder.error() == 0);
  cr_expect(folder.Next() == nullptr && folder.error() == -EISDIR);
}

Test(lines, parsing) {
  const char* text = "7f01aBC";
  cr_expect(plat::ParseHex(&text) == 0x7f01a && *text == 'B');
  const char* line = "signal: 10/7f";
  cr_expect(plat::SkipPrefix(&line, "signal: ") && strcmp(line, "10/7f") == 0);
  cr_expect(not(plat::SkipPrefix(&line, "11")) && strcmp(line, "10/7f") == 0);
  cr_expect(not(plat::SkipPrefix(&line, "10/7ff")));
}
