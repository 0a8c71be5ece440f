// SPDX-License-Identifier: Apache-2.0
// Names of functions, without the loader's lock and without memory of the heap.
#pragma once

#include "base/fmt.h"
#include "base/types.h"

namespace undergo::diag {

// Names code of one process for as long as the object lives; one thread uses it.
class Symbols {
 public:
  Symbols();
  ~Symbols();
  Symbols(const Symbols&) = delete;
  Symbols& operator=(const Symbols&) = delete;

  // Appends two lines, as Go prints a frame: "name(...)" and a tab, the file and the offset in it.
  // `pc` is a return address if `returns`: what is named is the call before it.
  void Describe(Addr pc, bool returns, Fmt* out);

 private:
  struct Module;
  struct Known;

  Module* ModuleOf(Addr pc);
  Module* Open(Addr pc);
  const char* NameOf(const Module& m, Addr pc);

  Module* modules_ = nullptr;  // pages of this object; null: there is no memory for it
  uint32_t count_ = 0;
  Known* known_ = nullptr;
};

}  // namespace undergo::diag
