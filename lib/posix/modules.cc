// SPDX-License-Identifier: Apache-2.0
// Redirection of modules that hide pointers.
//
// Some libraries hold addresses of their objects in a form that no collector can read. What they
// allocate must count as reachable, and nobody else should pay for that. So the words through which
// such a module calls malloc and its relatives (its global offset table, and pointers to functions
// in its data) are set to wrappers that pin each object. That is done before the program's first
// instruction for the modules that it is linked with, and after each dlopen for those that came
// with it. Constructors of a module that dlopen brings run before; what they allocate is not
// pinned.
//
// The real dlopen must be entered with its caller's return address where the search for the file
// depends on that (plat/dlopen.h); nothing runs after it then. So the collector also looks at the
// paths of mapped files, which it reads anyway: when it meets a module that nobody redirected, it
// gives the cycle up. The next dlopen redirects the module and pins all objects that exist.
//
// Rejected: comparing the caller's address in malloc (everybody pays), the loader's audit interface
// (a second copy of libc, slower symbol binding), asking for the modules at the begin of a cycle
// (the loader's lock may be held by a thread that waits for us).
#include "posix/modules.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sys/mman.h>

#include "base/atomic.h"
#include "gc/roots.h"
#include "heap/pin.h"
#include "plat/backtrace.h"
#include "plat/dlopen.h"
#include "plat/real.h"
#include "plat/syscall.h"
#include "posix/pinned_calls.h"
#include "posix/program.h"

// The linker's names for the bounds of this library.
extern "C" __attribute__((visibility("hidden"))) const Elf64_Ehdr __ehdr_start;
extern "C" __attribute__((visibility("hidden"))) const char _end;

namespace undergo::posix {

namespace {

struct Name {
  const char* text;
  size_t size;
};
constexpr const char* kNames[] = {
#define UNDERGO_MODULE(name) name,
#include "abi/modules.def"
};
constinit const char* extra_names = "";

// Bounds of redirected modules, in no order; written under the loader's lock. One that was unloaded
// may stay: whatever comes to lie there is redirected at its own dlopen.
struct Bounds {
  Addr from, to;
};
constexpr uint32_t kMaxRedirected = 64;
constinit Bounds redirected[kMaxRedirected] = {};
constinit uint32_t missed = 0;  // atomic; 1: the collector met a module that was not redirected

// Is there such a name, in the table or among the extra ones?
template <typename F>
bool AnyName(F f) {
  for (const char* name : kNames) {
    if (f(Name{name, __builtin_strlen(name)})) return true;
  }
  for (const char* at = extra_names; *at != '\0';) {
    size_t size = 0;
    while (at[size] != '\0' && at[size] != ':') ++size;
    if (size != 0 && f(Name{at, size})) return true;
    at += size;
    if (*at == ':') ++at;
  }
  return false;
}

bool IsListed(const char* path) {
  return AnyName([path](Name n) { return ModuleMatches(path, n.text, n.size); });
}

bool IsRedirected(Addr address) {
  for (const Bounds& b : redirected) {
    if (address - b.from < LoadAcquire(&b.to) - b.from) return true;  // pairs: Remember
  }
  return false;
}
void Remember(Bounds bounds) {
  for (Bounds& b : redirected) {
    if (b.to != 0) continue;
    b.from = bounds.from;
    StoreRelease(&b.to, bounds.to);  // pairs: IsRedirected
    return;
  }
}

// What of a module's dynamic section is needed.
struct Dynamic {
  Addr base;
  Bounds bounds;
  const char* strings;
  const Elf64_Sym* symbols;
  struct {
    const Elf64_Rela* first;
    size_t bytes;
  } tables[2];
  Addr relro_from, relro_to;  // whole pages
};

bool ReadDynamic(const dl_phdr_info& info, Dynamic* d) {
  *d = {};
  d->base = info.dlpi_addr;
  const Elf64_Dyn* at = nullptr;
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    const auto& p = info.dlpi_phdr[i];
    if (p.p_type == PT_DYNAMIC) at = reinterpret_cast<const Elf64_Dyn*>(d->base + p.p_vaddr);
    if (p.p_type == PT_LOAD) {
      if (d->bounds.to == 0) d->bounds.from = AlignDown(d->base + p.p_vaddr, kOsPageSize);
      d->bounds.to = d->base + p.p_vaddr + p.p_memsz;
    }
    if (p.p_type != PT_GNU_RELRO) continue;
    d->relro_from = AlignDown(d->base + p.p_vaddr, kOsPageSize);
    d->relro_to = AlignDown(d->base + p.p_vaddr + p.p_memsz, kOsPageSize);
  }
  if (at == nullptr) return false;
  // The loader has replaced offsets by addresses, except in sections that cannot be written.
  auto address = [d](Addr a) { return a < d->base ? a + d->base : a; };
  for (; at->d_tag != DT_NULL; ++at) {
    switch (at->d_tag) {
      case DT_STRTAB: d->strings = reinterpret_cast<const char*>(address(at->d_un.d_ptr)); break;
      case DT_SYMTAB:
        d->symbols = reinterpret_cast<const Elf64_Sym*>(address(at->d_un.d_ptr));
        break;
      case DT_JMPREL:
        d->tables[0].first = reinterpret_cast<const Elf64_Rela*>(address(at->d_un.d_ptr));
        break;
      case DT_PLTRELSZ: d->tables[0].bytes = at->d_un.d_val; break;
      case DT_RELA:
        d->tables[1].first = reinterpret_cast<const Elf64_Rela*>(address(at->d_un.d_ptr));
        break;
      case DT_RELASZ: d->tables[1].bytes = at->d_un.d_val; break;
      default: break;
    }
  }
  return d->strings != nullptr && d->symbols != nullptr;
}

void RedirectWord(const Dynamic& d, const Elf64_Rela& r) {
  uint64_t type = ELF64_R_TYPE(r.r_info);
  if (type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT && type != R_X86_64_64) return;
  const Elf64_Sym& symbol = d.symbols[ELF64_R_SYM(r.r_info)];
  if (symbol.st_shndx != SHN_UNDEF || symbol.st_name == 0) return;
  void* original;
  void* replacement = ReplacementOf(d.strings + symbol.st_name, &original);
  if (replacement == nullptr) return;
  auto* word = reinterpret_cast<void**>(d.base + r.r_offset);
  // Words that are bound later hold something else than the function's address.
  bool lazy = type == R_X86_64_JUMP_SLOT;
  if (LoadRelaxed(word) != replacement && (lazy || LoadRelaxed(word) == original)) {
    StoreRelease(word, replacement);  // pairs: the module's calls
  }
}

bool Protect(const Dynamic& d, int prot) {
  if (d.relro_from >= d.relro_to) return true;
  return !plat::IsError(
      plat::Syscall(__NR_mprotect, d.relro_from, d.relro_to - d.relro_from, prot));
}

void Redirect(const dl_phdr_info& info) {
  Dynamic d;
  if (!ReadDynamic(info, &d) || !Protect(d, PROT_READ | PROT_WRITE)) return;
  for (const auto& table : d.tables) {
    for (size_t i = 0; i < table.bytes / sizeof(Elf64_Rela); ++i) RedirectWord(d, table.first[i]);
  }
  Protect(d, PROT_READ);
  if (!IsRedirected(d.bounds.from)) Remember(d.bounds);
}

// Counts the listed modules in *context, or redirects them if that is null.
int Visit(dl_phdr_info* info, size_t, void* context) {
  char self[256];
  const char* path = info->dlpi_name;
  if (path == nullptr) return 0;
  if (path[0] == '\0') {
    // The executable has no name here.
    long n = plat::Syscall(__NR_readlink, "/proc/self/exe", &self[0], sizeof self - 1);
    if (plat::IsError(n)) return 0;
    self[n] = '\0';
    path = self;
  }
  if (!IsListed(path)) return 0;
  if (context == nullptr) {
    Redirect(*info);
  } else {
    ++*static_cast<uint32_t*>(context);
  }
  return 0;
}

void RedirectAll() {
  uint32_t count = 0;
  dl_iterate_phdr(Visit, &count);
  if (count == 0) return;
  ResolvePinnedCalls();  // not under the loader's lock
  dl_iterate_phdr(Visit, nullptr);
}

void AfterDlopen() {
  plat::ForgetFrames();
  RedirectAll();
  if (ExchangeAcqRel(&missed, 0u) != 0) heap::PinAll();  // pairs: IsMissedModule
}

// The module that contains an address; null when there is none or it cannot be asked.
const link_map* ModuleOf(const void* address) {
#ifdef DLFO_STRUCT_HAS_EH_DBASE
  dl_find_object found;
  auto find = real::undergo_real__dl_find_object;
  if (find == nullptr || find(const_cast<void*>(address), &found) != 0) return nullptr;
  return found.dlfo_link_map;
#else
  (void)address;
  return nullptr;
#endif
}

// Search paths of the caller, and of who loaded it, are the only things that dlopen reads off its
// caller's address: namespaces other than ours do not call us.
bool PlanDlopen(const char* path, int, const void* caller) {
  if (path == nullptr) return false;
  bool slash = false;
  for (const char* p = path; *p != '\0'; ++p) {
    if (*p == '$') return false;
    slash |= *p == '/';
  }
  const link_map* m = ModuleOf(caller);
  if (m == nullptr || m->l_ld == nullptr) return false;
  for (const Elf64_Dyn* d = m->l_ld; d->d_tag != DT_NULL; ++d) {
    if (d->d_tag == DT_RPATH || (d->d_tag == DT_RUNPATH && !slash)) return false;
  }
  return true;
}

}  // namespace

bool ModuleMatches(const char* path, const char* name, size_t size) {
  const char* base = path;
  for (const char* p = path; *p != '\0'; ++p) {
    if (*p == '/') base = p + 1;
  }
  if (__builtin_strncmp(base, name, size) != 0) return false;
  char next = base[size];
  return next == '\0' || next == '.' || next == '-' || (next >= '0' && next <= '9');
}

void StartModules(const char* extra) {
  extra_names = extra;
  gc::is_missed_module = IsMissedModule;
  RedirectAll();
  undergo_dlopen_done = AfterDlopen;
  undergo_dlopen_plan = PlanDlopen;
}

bool IsMissedModule(Addr text, const char* path) {
  if (!IsListed(path) || IsRedirected(text)) return false;
  StoreRelease(&missed, 1u);  // pairs: AfterDlopen
  return true;
}

bool HasOwnMalloc() {
  Addr from = reinterpret_cast<Addr>(&__ehdr_start), to = reinterpret_cast<Addr>(&_end);
  for (const char* symbol : {"malloc", "free", "realloc", "calloc"}) {
    auto f = reinterpret_cast<Addr>(dlsym(RTLD_DEFAULT, symbol));
    if (f == 0 || f - from < to - from) continue;
    // An executable at a fixed address that needs the function's address has a stub, which the
    // loader takes for the function everywhere; it leads here.
    if (!InExecutable(f) || !ProgramImports(symbol)) return true;
  }
  return false;
}

}  // namespace undergo::posix
