// SPDX-License-Identifier: Apache-2.0
// Log lines and fatal errors.
#include "plat/log.h"

#include <fcntl.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/fmt.h"
#include "plat/syscall.h"

namespace undergo {

namespace plat {

static constinit const char* log_path = nullptr;  // set once by boot, before threads exist

void SetLogPath(const char* path) { log_path = path; }

void LogWrite(const char* text, size_t length) {
  long fd = 2;
  if (log_path != nullptr) {
    fd = Syscall(__NR_openat, AT_FDCWD, log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (IsError(fd)) fd = 2;
  }
  size_t done = 0;
  while (done < length) {
    long n = Syscall(__NR_write, fd, text + done, length - done);
    if (n == -4) continue;  // EINTR
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  if (fd != 2) Syscall(__NR_close, fd);
}

}  // namespace plat

void Fatal(const char* what, const char* file, int line) {
  char buffer[512];
  Fmt out(buffer, sizeof buffer);
  out.Str("undergo: ").Str(what).Str(" (").Str(file).Char(':').Dec(static_cast<uint64_t>(line));
  out.Str(")\n");
  plat::LogWrite(out.text(), out.length());
  abort();
}

}  // namespace undergo
