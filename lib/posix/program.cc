// SPDX-License-Identifier: Apache-2.0
// Reads the dynamic section of the executable.
#include "posix/program.h"

#include <link.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/auxv.h>

#include "base/types.h"
#include "plat/syscall.h"

namespace undergo::posix {

namespace {

struct Search {
  const char* symbol;
  bool found;
};

struct Tables {
  const Elf64_Sym* symbols = nullptr;
  const char* strings = nullptr;
  const Elf64_Rela* rela[2] = {};
  size_t count[2] = {};
};

// The loader has made the addresses in the section absolute.
Tables TablesOf(const Elf64_Dyn* d) {
  Tables t;
  for (; d->d_tag != DT_NULL; ++d) {
    Addr at = d->d_un.d_ptr;
    switch (d->d_tag) {
      case DT_SYMTAB: t.symbols = reinterpret_cast<const Elf64_Sym*>(at); break;
      case DT_STRTAB: t.strings = reinterpret_cast<const char*>(at); break;
      case DT_RELA: t.rela[0] = reinterpret_cast<const Elf64_Rela*>(at); break;
      case DT_RELASZ: t.count[0] = d->d_un.d_val / sizeof(Elf64_Rela); break;
      case DT_JMPREL: t.rela[1] = reinterpret_cast<const Elf64_Rela*>(at); break;
      case DT_PLTRELSZ: t.count[1] = d->d_un.d_val / sizeof(Elf64_Rela); break;
      default: break;
    }
  }
  return t;
}

// The first object is the executable.
int LookAtFirst(struct dl_phdr_info* info, size_t, void* context) {
  auto* search = static_cast<Search*>(context);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    if (info->dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
    Addr at = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
    Tables t = TablesOf(reinterpret_cast<const Elf64_Dyn*>(at));
    if (t.symbols == nullptr || t.strings == nullptr) break;
    for (int k = 0; k < 2; ++k) {
      for (size_t n = 0; n < t.count[k] && t.rela[k] != nullptr; ++n) {
        const Elf64_Sym& s = t.symbols[ELF64_R_SYM(t.rela[k][n].r_info)];
        search->found |= __builtin_strcmp(t.strings + s.st_name, search->symbol) == 0;
      }
    }
  }
  return 1;
}

int FindGomp(struct dl_phdr_info* info, size_t, void*) {
  constexpr char kName[] = "libgomp.so.";
  const char* base = info->dlpi_name;
  for (const char* p = base; *p != '\0'; ++p) {
    if (*p == '/') base = p + 1;
  }
  return __builtin_strncmp(base, kName, sizeof kName - 1) == 0;
}

}  // namespace

void QuietOpenMp(int procs) {
  cpu_set_t cpus;
  long n = plat::Syscall(__NR_sched_getaffinity, 0, sizeof cpus, &cpus);
  // It makes as many threads as there are CPUs, and spins when it sees no more than those.
  if (plat::IsError(n) || CPU_COUNT_S(static_cast<size_t>(n), &cpus) <= procs) return;
  if (dl_iterate_phdr(FindGomp, nullptr) == 0) return;
  if (getenv("OMP_WAIT_POLICY") != nullptr || getenv("GOMP_SPINCOUNT") != nullptr) return;
  setenv("OMP_WAIT_POLICY", "passive", 0);
}

bool ProgramImports(const char* symbol) {
  Search search = {symbol, false};
  dl_iterate_phdr(LookAtFirst, &search);
  return search.found;
}

bool InExecutable(Addr a) {
  auto* header = reinterpret_cast<const Elf64_Phdr*>(getauxval(AT_PHDR));
  unsigned long count = getauxval(AT_PHNUM);
  Addr bias = 0;
  for (unsigned long i = 0; i < count; ++i) {
    if (header[i].p_type == PT_PHDR) bias = reinterpret_cast<Addr>(header) - header[i].p_vaddr;
  }
  for (unsigned long i = 0; i < count; ++i) {
    const Elf64_Phdr& p = header[i];
    if (p.p_type == PT_LOAD && a - (bias + p.p_vaddr) < p.p_memsz) return true;
  }
  return false;
}

}  // namespace undergo::posix
