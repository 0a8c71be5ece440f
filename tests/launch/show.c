// SPDX-License-Identifier: Apache-2.0
// Prints what a program under the launcher sees: its arguments and the variables that concern us.
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
  static const char* const names[] = {"LD_PRELOAD", "UNDERGO",    "GODEBUG",
                                      "GOGC",       "GOMEMLIMIT", "GOMAXPROCS"};
  for (int i = 0; i < argc; ++i) printf("argv%d=%s\n", i, argv[i]);
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); ++i) {
    const char* value = getenv(names[i]);
    printf("%s=%s\n", names[i], value != NULL ? value : "(unset)");
  }
  return argc > 1 ? atoi(argv[1]) : 0;
}
