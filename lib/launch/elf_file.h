// SPDX-License-Identifier: Apache-2.0
// What the head of an ELF file says about running it.
#pragma once

#include <cstdint>
#include <string>

namespace undergo::launch {

enum class ElfProblem {
  kNone,
  kUnreadable,  // see errno
  kNotElf,
  kMalformed,
  k32Bit,
  kForeignMachine,
};

struct ElfFile {
  ElfProblem problem = ElfProblem::kNone;
  int machine = 0;     // EM_..., if the header could be read
  int type = 0;        // ET_...
  std::string loader;  // of PT_INTERP; empty in a static program
};

ElfFile ReadElf(const std::string& path);

}  // namespace undergo::launch
