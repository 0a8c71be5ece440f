// SPDX-License-Identifier: Apache-2.0
// Symbol tables, read from the files.
//
// Problem: a dump is wanted most when something hangs, maybe with the loader's lock held, and the
// functions of the program itself are in no table that the loader knows (.dynsym).
//
// The loader tells without a lock which module is around an address (_dl_find_object). Its file is
// mapped and its .symtab read, else its .dynsym. A file that was replaced since the program
// started has another beginning than what is in memory: then there is no name, rather than a wrong
// one. Addresses repeat from thread to thread, so what was found is remembered.
//
// Rejected: dladdr (takes the loader's lock, knows exported functions only), debug information
// (lines would be nice; the parser would be larger than all of this).
#include "diag/symbols.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "plat/real.h"
#include "plat/syscall.h"
#include "plat/vm.h"

namespace undergo::diag {

struct Symbols::Module {
  Addr low, high;  // where it is mapped
  Addr bias;       // of its addresses against those in the file
  char path[512];
  const uint8_t* file;  // null: no file, or another one
  size_t size;
  const Elf64_Sym* symbols;
  size_t symbol_count;
  const char* names;
  size_t names_size;
};

struct Symbols::Known {
  Addr pc;  // 0: none
  const char* name;
};

namespace {

constexpr uint32_t kMaxModules = 256;
constexpr uint32_t kKnownBits = 12;
constexpr size_t kCompared = 1024;  // bytes of a file's beginning: headers, notes

// What lies at `offset` of the file, null when it is not all there.
template <typename T>
const T* At(const uint8_t* file, size_t size, uint64_t offset, uint64_t count) {
  if (offset > size || count > (size - offset) / sizeof(T) || offset % alignof(T) != 0) {
    return nullptr;
  }
  return reinterpret_cast<const T*>(file + offset);
}

const uint8_t* MapFile(const char* path, size_t* size) {
  long fd = plat::Syscall(__NR_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NOCTTY, 0);
  if (plat::IsError(fd)) return nullptr;
  struct stat st;
  long map = -1;
  if (!plat::IsError(plat::Syscall(__NR_fstat, fd, &st)) && S_ISREG(st.st_mode) &&
      st.st_size > static_cast<long>(kCompared)) {
    *size = static_cast<size_t>(st.st_size);
    map = plat::Syscall(__NR_mmap, 0, *size, PROT_READ, MAP_PRIVATE, fd, 0);
  }
  plat::Syscall(__NR_close, fd);
  return plat::IsError(map) ? nullptr : reinterpret_cast<const uint8_t*>(map);
}

bool IsSame(const uint8_t* file, Addr memory) {
  uint8_t begin[kCompared];
  return plat::SafeRead(memory, begin, sizeof begin) &&
         __builtin_memcmp(file, begin, sizeof begin) == 0 &&
         __builtin_memcmp(file, ELFMAG, SELFMAG) == 0;
}

void CopyPath(const char* from, char* to, size_t size) {
  to[0] = '\0';
  for (size_t i = 0; i + 1 < size; ++i) {
    if (!plat::SafeRead(reinterpret_cast<Addr>(from) + i, to + i, 1) || to[i] == '\0') break;
    to[i + 1] = '\0';
  }
}

}  // namespace

Symbols::Symbols() {
  size_t size = kMaxModules * sizeof(Module) + (sizeof(Known) << kKnownBits);
  auto* memory = static_cast<uint8_t*>(plat::MapPages(AlignUp(size, kOsPageSize)));
  if (memory == nullptr) return;
  modules_ = reinterpret_cast<Module*>(memory);
  known_ = reinterpret_cast<Known*>(memory + kMaxModules * sizeof(Module));
}

Symbols::~Symbols() {
  for (uint32_t i = 0; i < count_; ++i) {
    if (modules_[i].file != nullptr) {
      plat::Unmap(reinterpret_cast<Addr>(modules_[i].file), modules_[i].size);
    }
  }
  size_t size = kMaxModules * sizeof(Module) + (sizeof(Known) << kKnownBits);
  if (modules_ != nullptr) {
    plat::Unmap(reinterpret_cast<Addr>(modules_), AlignUp(size, kOsPageSize));
  }
}

Symbols::Module* Symbols::Open(Addr pc) {
#ifdef DLFO_STRUCT_HAS_EH_DBASE
  dl_find_object found;
  struct link_map map;
  if (real::undergo_real__dl_find_object == nullptr || count_ == kMaxModules ||
      real::undergo_real__dl_find_object(reinterpret_cast<void*>(pc), &found) != 0 ||
      !plat::SafeRead(reinterpret_cast<Addr>(found.dlfo_link_map), &map, sizeof map)) {
    return nullptr;
  }
  Module* m = &modules_[count_++];
  m->low = reinterpret_cast<Addr>(found.dlfo_map_start);
  m->high = reinterpret_cast<Addr>(found.dlfo_map_end);
  m->bias = map.l_addr;
  CopyPath(map.l_name, m->path, sizeof m->path);
  const char* path = m->path;
  if (path[0] == '\0') {  // the program
    path = "/proc/self/exe";
    long n = plat::Syscall(__NR_readlink, path, &m->path[0], sizeof m->path - 1);
    m->path[plat::IsError(n) ? 0 : n] = '\0';
  }
  m->file = MapFile(path, &m->size);
  if (m->file == nullptr) return m;
  if (!IsSame(m->file, m->low)) return m;
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(m->file);
  const auto* sections = At<Elf64_Shdr>(m->file, m->size, header->e_shoff, header->e_shnum);
  constexpr uint32_t kTables[] = {SHT_DYNSYM, SHT_SYMTAB};  // the last one counts
  for (uint32_t type : kTables) {
    for (uint32_t i = 0; sections != nullptr && i < header->e_shnum; ++i) {
      const Elf64_Shdr& s = sections[i];
      if (s.sh_type != type || s.sh_link >= header->e_shnum) continue;
      const Elf64_Shdr& names = sections[s.sh_link];
      const auto* symbols =
          At<Elf64_Sym>(m->file, m->size, s.sh_offset, s.sh_size / sizeof(Elf64_Sym));
      const auto* text = At<char>(m->file, m->size, names.sh_offset, names.sh_size);
      if (symbols == nullptr || text == nullptr || names.sh_size == 0 ||
          text[names.sh_size - 1] != '\0') {
        continue;
      }
      m->symbols = symbols;
      m->symbol_count = s.sh_size / sizeof(Elf64_Sym);
      m->names = text;
      m->names_size = names.sh_size;
    }
  }
  return m;
#else
  (void)pc;
  return nullptr;
#endif
}

Symbols::Module* Symbols::ModuleOf(Addr pc) {
  for (uint32_t i = 0; i < count_; ++i) {
    if (pc >= modules_[i].low && pc < modules_[i].high) return &modules_[i];
  }
  return Open(pc);
}

const char* Symbols::NameOf(const Module& m, Addr pc) {
  Known* k = &known_[(pc * 0x9e3779b97f4a7c15) >> (64 - kKnownBits)];
  if (k->pc == pc) return k->name;
  const char* name = nullptr;
  for (size_t i = 0; i < m.symbol_count; ++i) {
    const Elf64_Sym& s = m.symbols[i];
    uint32_t type = ELF64_ST_TYPE(s.st_info);
    if ((type != STT_FUNC && type != STT_GNU_IFUNC) || s.st_shndx == SHN_UNDEF) continue;
    if (pc - m.bias - s.st_value >= s.st_size || s.st_name >= m.names_size) continue;
    name = m.names + s.st_name;
    if (ELF64_ST_BIND(s.st_info) != STB_LOCAL) break;  // of several names the public one
  }
  *k = {pc, name};
  return name;
}

void Symbols::Describe(Addr pc, bool returns, Fmt* out) {
  Addr at = returns ? pc - 1 : pc;
  Module* m = modules_ != nullptr ? ModuleOf(at) : nullptr;
  if (m == nullptr) {
    out->Str("?(...)\n\t").Hex(pc).Char('\n');
    return;
  }
  const char* name = NameOf(*m, at);
  out->Str(name != nullptr ? name : "?").Str("(...)\n\t");
  out->Str(m->path[0] != '\0' ? m->path : "?").Char('+').Hex(pc - m->bias).Char('\n');
}

}  // namespace undergo::diag
