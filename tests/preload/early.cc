// SPDX-License-Identifier: Apache-2.0
// Allocation before anything is ready: in the preinit array, in
// constructors of every priority, and in constructors of C++ statics; all freed later.
// run:
#include <string>

#include "check.h"

namespace {
void* from_preinit[40];
void* from_constructor[40];

void Take(void** to, size_t seed) {
  for (size_t i = 0; i < 40; i++) {
    const size_t n = 1 + i * seed;
    to[i] = i % 3 ? malloc(n) : calloc(1, n);
    CHECK(to[i]);
    Fill(to[i], n, i);
  }
}
void Give(void** from, size_t seed) {
  for (size_t i = 0; i < 40; i++) {
    CHECK(Verify(from[i], 1 + i * seed, i) == 1 + i * seed);
    free(from[i]);
  }
}
void Preinit() { Take(from_preinit, 777); }
__attribute__((section(".preinit_array"), used)) void (*const preinit)() = Preinit;
__attribute__((constructor(101))) void First() { Take(from_constructor, 10001); }
std::string global = std::string(5000, 'g') + getenv("PATH");
}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 1 && argv[0]);
  Give(from_preinit, 777);
  Give(from_constructor, 10001);
  CHECK(global.size() > 5000);
  puts("early right");
  return 0;
}
