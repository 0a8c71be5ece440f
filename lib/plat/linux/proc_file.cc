// SPDX-License-Identifier: Apache-2.0
#include "plat/proc_file.h"

#include <fcntl.h>

#include "plat/syscall.h"

namespace undergo::plat {

long ReadProcFile(const char* path, char* text, size_t size) {
  long fd = Syscall(__NR_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
  if (IsError(fd)) return -1;
  size_t length = 0;
  long n;
  while ((n = Syscall(__NR_read, fd, text + length, size - 1 - length)) > 0) {
    length += static_cast<size_t>(n);
  }
  Syscall(__NR_close, fd);
  text[length] = '\0';
  return n < 0 ? -1 : static_cast<long>(length);
}

uint64_t StatusField(const char* text, const char* name, uint32_t base) {
  size_t size = __builtin_strlen(name);
  for (const char* at = text; *at != '\0'; ++at) {
    if (*at != '\n' || __builtin_strncmp(at + 1, name, size) != 0) continue;
    at += 1 + size;
    while (*at == ':' || *at == '\t' || *at == ' ') ++at;
    uint64_t value = 0;
    for (;; ++at) {
      bool digit = *at >= '0' && *at <= '9', letter = *at >= 'a' && *at <= 'f';
      if (!digit && !(letter && base == 16)) return value;
      value = value * base + static_cast<uint64_t>(digit ? *at - '0' : *at - 'a' + 10);
    }
  }
  return ~uint64_t{0};
}

}  // namespace undergo::plat
