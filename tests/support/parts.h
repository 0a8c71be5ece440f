// SPDX-License-Identifier: Apache-2.0
// Programs of several parts: each part is a function, named on the command line, or all of them
// run.
#ifndef UNDERGO_TESTS_PARTS_H_
#define UNDERGO_TESTS_PARTS_H_

#include "check.h"

typedef struct Part {
  const char* name;
  void (*run)(const char* name);
} Part;
// Says on stderr where it is: the runner shows that when a part fails or hangs.
__attribute__((unused)) static void RunPart(const Part* part) {
  char line[80];
  int n = snprintf(line, sizeof line, "part %s\n", part->name);
  if (write(2, line, (size_t)n) < 0) _exit(2);
  part->run(part->name);
}
__attribute__((unused)) static int RunParts(const Part* part, size_t count, int argc, char** argv) {
  for (int a = 1; a < argc; a++) {
    size_t i = 0;
    while (i < count && strcmp(part[i].name, argv[a]) != 0) i++;
    CHECK_MSG(i < count, "no part is called %s", argv[a]);
    RunPart(&part[i]);
  }
  for (size_t i = 0; argc == 1 && i < count; i++) RunPart(&part[i]);
  puts("all right");
  return 0;
}
#define RUN_PARTS(parts) RunParts(parts, sizeof(parts) / sizeof *(parts), argc, argv)

#endif  // UNDERGO_TESTS_PARTS_H_
