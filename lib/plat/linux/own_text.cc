// SPDX-License-Identifier: Apache-2.0
#include "plat/own_text.h"

#include <elf.h>

extern "C" {
extern const Elf64_Ehdr __ehdr_start __attribute__((visibility("hidden")));
}

namespace undergo::plat {

void OwnText(Addr* low, Addr* high) {
  Addr base = reinterpret_cast<Addr>(&__ehdr_start);
  auto* header = reinterpret_cast<const Elf64_Phdr*>(base + __ehdr_start.e_phoff);
  Addr lowest = ~Addr{0};
  *low = ~Addr{0};
  *high = 0;
  for (int i = 0; i < __ehdr_start.e_phnum; ++i) {
    const Elf64_Phdr& h = header[i];
    if (h.p_type != PT_LOAD) continue;
    if (h.p_vaddr < lowest) lowest = h.p_vaddr;
    if ((h.p_flags & PF_X) == 0) continue;
    if (h.p_vaddr < *low) *low = h.p_vaddr;
    if (h.p_vaddr + h.p_memsz > *high) *high = h.p_vaddr + h.p_memsz;
  }
  *low += base - lowest;
  *high += base - lowest;
}

}  // namespace undergo::plat
