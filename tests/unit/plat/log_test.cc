// SPDX-License-Identifier: Apache-2.0
// Lines go to standard error or to the file that was named; Fatal says where it happened.

#include "plat/log.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "base/assert.h"

using namespace undergo;

namespace {

// What a child wrote to standard error, and its wait status.
template <typename F>
std::string ErrorOutput(F f, int* status) {
  int ends[2];
  cr_assert(pipe(ends) == 0);
  pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    f();
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char buffer[512];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, (size_t)n);
  close(ends[0]);
  waitpid(child, status, 0);
  return text;
}

}  // namespace

Test(log, standard_error) {
  int status;
  std::string text = ErrorOutput([] { plat::LogWrite("one\ntwo\n", 8); }, &status);
  cr_expect(text == "one\ntwo\n" && status == 0, "'%s'", text.c_str());
}

Test(log, appends_to_a_file_and_keeps_no_descriptor) {
  char path[] = "/tmp/undergo-log-test.XXXXXX";
  int fd = mkstemp(path);
  cr_assert(fd >= 0 && write(fd, "before\n", 7) == 7);
  int free_before = dup(0);
  close(free_before);
  plat::SetLogPath(path);
  plat::LogWrite("a line\n", 7);
  plat::LogWrite("more\n", 5);
  int free_after = dup(0);
  cr_expect(free_before == free_after);
  plat::SetLogPath(nullptr);
  char text[64] = "";
  cr_assert(pread(fd, text, sizeof text - 1, 0) > 0);
  cr_expect(strcmp(text, "before\na line\nmore\n") == 0, "'%s'", text);
  unlink(path);
}

Test(log, a_file_that_cannot_be_opened_means_standard_error) {
  int status;
  std::string text = ErrorOutput(
      [] {
        plat::SetLogPath("/nonexistent/folder/file");
        plat::LogWrite("still here\n", 11);
      },
      &status);
  cr_expect(text == "still here\n", "'%s'", text.c_str());
}

Test(log, fatal) {
  int status;
  std::string text = ErrorOutput([] { Fatal("no sense", "some/file.cc", 42); }, &status);
  cr_expect(text == "undergo: no sense (some/file.cc:42)\n", "'%s'", text.c_str());
  cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  text = ErrorOutput([] { UNDERGO_CHECK(1 + 1 == 3); }, &status);
  cr_expect(text.find("undergo: internal error: 1 + 1 == 3 (") == 0, "'%s'", text.c_str());
  cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}
