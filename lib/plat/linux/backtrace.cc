// SPDX-License-Identifier: Apache-2.0
// Unwinding by .eh_frame.
//
// Programs are compiled without frame pointers, so each step needs the call frame information of
// the code: a small program for an abstract machine that says how far the caller's frame is from
// the stack pointer, or from rbp, at this instruction. What is needed of it is little: the frame
// (CFA) is the stack pointer or rbp plus a constant, or the word at rbp plus a constant where a
// function aligns its stack; the return address is the word below it; rbp is unchanged or was saved
// at a distance from it. That fits into one word. A table remembers it for each return address, so
// allocations of a program that has warmed up cost a few loads for each frame.
//
// The loader tells without a lock which module has an address (_dl_find_object, glibc 2.35), and
// the module's .eh_frame_hdr is a sorted table. Stack words are read directly: a frame lies above
// the one before, and not far from it, else the walk ends.
//
// Sources: System V ABI for x86-64, DWARF 5 section 6.4, LSB on .eh_frame. Rejected: libgcc's and
// libunwind's unwinders (microseconds for each frame, locks, and they follow wild frame pointers
// without a test), frame pointers (libraries have none), reading the stack for addresses of code
// (wrong callers among the right ones).
#include "plat/backtrace.h"

#include <dlfcn.h>
#include <elf.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "plat/maps.h"
#include "plat/real.h"
#include "plat/vm.h"

// The linker's names for the bounds of this library.
extern "C" __attribute__((visibility("hidden"))) const Elf64_Ehdr __ehdr_start;
extern "C" __attribute__((visibility("hidden"))) const char _end;

namespace undergo::plat {

namespace {

constexpr uint32_t kRbp = 6, kRsp = 7, kReturn = 16;
constexpr size_t kMaxFrame = 256 * kKiB;  // a larger one ends the walk
// Where rbp is, besides offsets from the CFA, which are multiples of 8.
constexpr int32_t kSame = 1;      // unchanged
constexpr int32_t kAtItself = 2;  // the word that rbp points to

// How to get from a frame to its caller's.
struct Rule {
  enum Base : uint8_t { kStop, kFromSp, kFromBp, kAtBp };  // kAtBp: *(rbp + offset)
  Base base = kStop;
  int32_t offset = 0;     // bytes
  int32_t saved = kSame;  // rbp was saved at CFA + saved, or is unchanged
};

// A rule in one word; 0 is none. Offsets are multiples of 8 below 2^27.
uint64_t Pack(const Rule& r) {
  return uint64_t{r.base} | (uint64_t{static_cast<uint32_t>(r.offset) & 0xfffffff} << 4) |
         (uint64_t{static_cast<uint32_t>(r.saved)} << 32);
}
Rule Unpack(uint64_t w) {
  Rule r;
  r.base = static_cast<Rule::Base>(w & 15);
  r.offset = static_cast<int32_t>(static_cast<uint32_t>(w)) >> 4;
  r.saved = static_cast<int32_t>(w >> 32);
  return r;
}

// --- Memory of known rules ---

// The first word is the key XOR the second one: a pair that two threads wrote at once fits no key.
struct Entry {
  uint64_t key, rule;
};
constexpr uint32_t kEntryBits = 15;
constinit Entry* entries = nullptr;
constinit uint64_t generation = 0;  // in the keys; atomic

Entry* EntryOf(Addr pc) {
  Entry* table = LoadAcquire(&entries);  // pairs: the exchange below
  if (table == nullptr) {
    constexpr size_t kBytes = sizeof(Entry) << kEntryBits;
    auto* fresh = static_cast<Entry*>(MapPages(kBytes));
    if (fresh == nullptr) return nullptr;
    if (CasAcqRel(&entries, &table, fresh)) {  // pairs: the load above
      table = fresh;
    } else {
      Unmap(reinterpret_cast<Addr>(fresh), kBytes);
    }
  }
  return table + ((pc * 0x9e3779b97f4a7c15) >> (64 - kEntryBits));
}
uint64_t KeyOf(Addr pc) { return pc ^ (LoadRelaxed(&generation) << 48); }

// --- Call frame information ---

struct Reader {
  const uint8_t* at;
  const uint8_t* end;

  bool More() const { return at < end; }
  template <typename T>
  T Get() {
    T v{};
    if (static_cast<size_t>(end - at) < sizeof v) {
      at = end;
      return v;
    }
    __builtin_memcpy(&v, at, sizeof v);
    at += sizeof v;
    return v;
  }
  uint64_t Unsigned() {  // LEB128
    uint64_t v = 0;
    for (uint32_t shift = 0; at < end; shift += 7) {
      uint8_t byte = *at++;
      if (shift < 64) v |= uint64_t{byte & 0x7fu} << shift;
      if ((byte & 0x80) == 0) break;
    }
    return v;
  }
  int64_t Signed() {
    uint64_t v = 0;
    uint32_t shift = 0;
    while (at < end) {
      uint8_t byte = *at++;
      if (shift < 64) v |= uint64_t{byte & 0x7fu} << shift;
      shift += 7;
      if ((byte & 0x80) != 0) continue;
      if (shift < 64 && (byte & 0x40) != 0) v |= ~uint64_t{0} << shift;
      break;
    }
    return static_cast<int64_t>(v);
  }
  void Skip(uint64_t n) { at = n < static_cast<uint64_t>(end - at) ? at + n : end; }
};

constexpr uint8_t kPcRelative4 = 0x1b, kDataRelative4 = 0x3b;  // DW_EH_PE_*, of four bytes, signed

struct Cie {
  uint64_t code_align;
  int64_t data_align;
  bool signal_frame;
  Reader program;
};

// The common part of descriptions. False: of a kind that x86-64 compilers do not make.
bool ReadCie(const uint8_t* at, Cie* cie) {
  Reader r = {at, at + 4};
  uint32_t length = r.Get<uint32_t>();
  if (length == 0xffffffff) return false;
  r.end = at + 4 + length;
  r.Get<uint32_t>();  // id
  uint8_t version = r.Get<uint8_t>();
  auto* augmentation = reinterpret_cast<const char*>(r.at);
  r.Skip(__builtin_strlen(augmentation) + 1);
  cie->code_align = r.Unsigned();
  cie->data_align = r.Signed();
  uint64_t return_register = version == 1 ? r.Get<uint8_t>() : r.Unsigned();
  cie->signal_frame = false;
  if (return_register != kReturn || augmentation[0] != 'z') return false;
  uint64_t size = r.Unsigned();
  Reader data = {r.at, r.at + size};
  r.Skip(size);
  for (const char* a = augmentation + 1; *a != '\0'; ++a) {
    if (*a == 'R') {
      if (data.Get<uint8_t>() != kPcRelative4) return false;
    } else if (*a == 'P') {
      uint8_t encoding = data.Get<uint8_t>();
      bool four = (encoding & 0xf) == 0x3 || (encoding & 0xf) == 0xb;
      data.Skip(four ? 4 : 8);
    } else if (*a == 'L') {
      data.Get<uint8_t>();
    } else if (*a == 'S') {
      cie->signal_frame = true;
    } else {
      return false;
    }
  }
  cie->program = r;
  return true;
}

// The abstract machine. Registers other than rbp and the return address do not matter.
struct Machine {
  struct State {
    Rule cfa;
    int32_t rbp = kSame;
    bool has_return = false;  // at CFA - 8, as everywhere
  };
  State now, initial;
  State saved[8];
  uint32_t depth = 0;
  bool lost = false;

  void SetCfa(uint64_t reg, int64_t offset) {
    now.cfa.base = reg == kRsp ? Rule::kFromSp : reg == kRbp ? Rule::kFromBp : Rule::kStop;
    now.cfa.offset = static_cast<int32_t>(offset);
  }
  void SetSaved(uint64_t reg, int64_t offset) {
    if (reg == kRbp) now.rbp = static_cast<int32_t>(offset);
    if (reg == kReturn) now.has_return = offset == -8;
  }
  void Restore(uint64_t reg) {
    if (reg == kRbp) now.rbp = initial.rbp;
    if (reg == kReturn) now.has_return = initial.has_return;
  }
  void Lose(uint64_t reg) {
    if (reg == kReturn) now.has_return = false;
    if (reg == kRbp) lost = true;
  }
  // The one expression that compilers use for the frame: the word at rbp + offset.
  void Expression(Reader e) {
    now.cfa.base = Rule::kStop;
    if (e.Get<uint8_t>() != 0x70 + kRbp) return;  // DW_OP_breg6
    int64_t offset = e.Signed();
    if (e.Get<uint8_t>() != 0x06 || e.More()) return;  // DW_OP_deref
    now.cfa.base = Rule::kAtBp;
    now.cfa.offset = static_cast<int32_t>(offset);
  }
  void Run(Reader r, const Cie& cie, Addr location, Addr pc);
};

// Up to the state at `pc`.
void Machine::Run(Reader r, const Cie& cie, Addr location, Addr pc) {
  auto advance = [&](uint64_t delta) {
    location += delta * cie.code_align;
    return location <= pc;
  };
  while (r.More() && !lost) {
    uint8_t op = r.Get<uint8_t>();
    uint8_t low = op & 0x3f;
    switch (op >> 6) {
      case 1:
        if (!advance(low)) return;
        continue;
      case 2: SetSaved(low, static_cast<int64_t>(r.Unsigned()) * cie.data_align); continue;
      case 3: Restore(low); continue;
      default: break;
    }
    switch (op) {
      case 0x00: break;  // nop
      case 0x02:
        if (!advance(r.Get<uint8_t>())) return;
        break;
      case 0x03:
        if (!advance(r.Get<uint16_t>())) return;
        break;
      case 0x04:
        if (!advance(r.Get<uint32_t>())) return;
        break;
      case 0x05: {  // offset_extended
        uint64_t reg = r.Unsigned();
        SetSaved(reg, static_cast<int64_t>(r.Unsigned()) * cie.data_align);
        break;
      }
      case 0x06: Restore(r.Unsigned()); break;
      case 0x07: Lose(r.Unsigned()); break;  // undefined
      case 0x08: SetSaved(r.Unsigned(), kSame); break;
      case 0x09:  // in another register
        Lose(r.Unsigned());
        r.Unsigned();
        break;
      case 0x0a:  // remember_state
        if (depth == 8) lost = true;
        if (!lost) saved[depth++] = now;
        break;
      case 0x0b:
        if (depth == 0) lost = true;
        if (!lost) now = saved[--depth];
        break;
      case 0x0c: {  // def_cfa
        uint64_t reg = r.Unsigned();
        SetCfa(reg, static_cast<int64_t>(r.Unsigned()));
        break;
      }
      case 0x0d: SetCfa(r.Unsigned(), now.cfa.offset); break;
      case 0x0e: now.cfa.offset = static_cast<int32_t>(r.Unsigned()); break;
      case 0x0f: {  // def_cfa_expression
        uint64_t size = r.Unsigned();
        Expression({r.at, r.at + size});
        r.Skip(size);
        break;
      }
      case 0x10:  // expression, val_expression
      case 0x16: {
        uint64_t reg = r.Unsigned();
        uint64_t size = r.Unsigned();
        // rbp where a function aligned its stack: saved where it points now.
        bool at_rbp =
            op == 0x10 && reg == kRbp && size == 2 && r.at[0] == 0x70 + kRbp && r.at[1] == 0;
        if (at_rbp) {
          now.rbp = kAtItself;
        } else {
          Lose(reg);
        }
        r.Skip(size);
        break;
      }
      case 0x11: {  // offset_extended_sf
        uint64_t reg = r.Unsigned();
        SetSaved(reg, r.Signed() * cie.data_align);
        break;
      }
      case 0x12: {  // def_cfa_sf
        uint64_t reg = r.Unsigned();
        SetCfa(reg, r.Signed() * cie.data_align);
        break;
      }
      case 0x13: now.cfa.offset = static_cast<int32_t>(r.Signed() * cie.data_align); break;
      case 0x2e: r.Unsigned(); break;  // GNU_args_size
      default: lost = true;
    }
  }
}

// The description of the function around pc in a module's .eh_frame_hdr; null when there is none.
const uint8_t* FindDescription(const uint8_t* header, Addr pc) {
  if (header[0] != 1 || header[1] != kPcRelative4 || header[2] != 0x03 ||
      header[3] != kDataRelative4)
    return nullptr;
  uint32_t count;
  __builtin_memcpy(&count, header + 8, sizeof count);
  struct Row {
    int32_t start, description;  // relative to the header
  };
  auto* rows = reinterpret_cast<const Row*>(header + 12);
  auto wanted = static_cast<int64_t>(pc - reinterpret_cast<Addr>(header));
  uint32_t low = 0, high = count;  // the first row that starts after pc
  while (low < high) {
    uint32_t middle = (low + high) / 2;
    if (rows[middle].start <= wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low == 0 ? nullptr : header + rows[low - 1].description;
}

Rule ReadRule(const uint8_t* description, Addr pc) {
  Reader r = {description, description + 8};
  uint32_t length = r.Get<uint32_t>();
  if (length == 0 || length == 0xffffffff) return {};
  r.end = description + 4 + length;
  const uint8_t* cie_at = r.at;
  cie_at -= r.Get<uint32_t>();
  Cie cie;
  if (!ReadCie(cie_at, &cie) || cie.signal_frame) return {};
  Addr begin = reinterpret_cast<Addr>(r.at);
  begin += static_cast<Addr>(int64_t{r.Get<int32_t>()});
  if (pc - begin >= r.Get<uint32_t>()) return {};
  r.Skip(r.Unsigned());
  Machine m;
  m.Run(cie.program, cie, 0, ~Addr{0});
  m.initial = m.now;
  m.Run(r, cie, begin, pc);
  if (m.lost || !m.now.has_return || m.now.cfa.offset % 8 != 0) return {};
  Rule rule = m.now.cfa;
  rule.saved = m.now.rbp;
  return rule;
}

Rule FindRule(Addr pc) {
#ifdef DLFO_STRUCT_HAS_EH_DBASE
  dl_find_object module;
  if (real::undergo_real__dl_find_object == nullptr) return {};
  if (real::undergo_real__dl_find_object(reinterpret_cast<void*>(pc), &module) != 0) return {};
  auto* header = static_cast<const uint8_t*>(module.dlfo_eh_frame);
  const uint8_t* description = header != nullptr ? FindDescription(header, pc) : nullptr;
  if (description != nullptr) return ReadRule(description, pc);
#else
  (void)pc;
#endif
  return {};
}

Rule RuleFor(Addr pc) {
  Entry* e = EntryOf(pc);
  if (e == nullptr) return FindRule(pc);
  uint64_t rule = LoadRelaxed(&e->rule);
  if ((LoadRelaxed(&e->key) ^ rule) == KeyOf(pc)) return Unpack(rule);
  Rule fresh = FindRule(pc);
  rule = Pack(fresh);
  StoreRelaxed(&e->key, KeyOf(pc) ^ rule);
  StoreRelaxed(&e->rule, rule);
  return fresh;
}

// --- The walk ---

struct Frame {
  Addr pc, sp, bp;
};

uint64_t WordAt(Addr a) { return *reinterpret_cast<const uint64_t*>(a); }
bool OnStack(const Frame& f, Addr a) { return a - f.sp < kMaxFrame && a % 8 == 0; }

bool Step(Frame* f, Addr pc) {
  Rule rule = RuleFor(pc);
  Addr offset = static_cast<Addr>(int64_t{rule.offset});
  Addr cfa;
  switch (rule.base) {
    case Rule::kFromSp: cfa = f->sp + offset; break;
    case Rule::kFromBp: cfa = f->bp + offset; break;
    case Rule::kAtBp:
      if (!OnStack(*f, f->bp + offset)) return false;
      cfa = WordAt(f->bp + offset);
      break;
    default: return false;
  }
  if (!OnStack(*f, cfa) || cfa < f->sp + 8) return false;
  if (rule.saved == kAtItself) {
    if (!OnStack(*f, f->bp)) return false;
    f->bp = WordAt(f->bp);
  } else if (rule.saved != kSame) {
    Addr at = cfa + static_cast<Addr>(int64_t{rule.saved});
    if (!OnStack(*f, at)) return false;
    f->bp = WordAt(at);
  }
  f->pc = WordAt(cfa - 8);
  f->sp = cfa;
  return f->pc != 0;
}

bool IsOurs(Addr pc) {
  Addr from = reinterpret_cast<Addr>(&__ehdr_start);
  return pc - from < reinterpret_cast<Addr>(&_end) - from;
}

uint32_t Walk(Frame f, Addr* pcs, uint32_t max) {
  constexpr uint32_t kOwnFrames = 16;
  uint32_t count = 0;
  bool exact = true;  // pc is an instruction, not a return address
  for (uint32_t steps = 0; count < max && steps < max + kOwnFrames; ++steps) {
    if (!IsOurs(f.pc)) pcs[count++] = f.pc;
    if (!Step(&f, exact ? f.pc : f.pc - 1)) break;
    exact = false;
  }
  return count;
}

}  // namespace

UNDERGO_NOINLINE uint32_t Backtrace(Addr* pcs, uint32_t max) {
  Frame f;
  asm volatile("leaq (%%rip), %0; movq %%rsp, %1; movq %%rbp, %2"
               : "=&r"(f.pc), "=&r"(f.sp), "=&r"(f.bp));
  return Walk(f, pcs, max);
}

uint32_t BacktraceFrom(Addr pc, Addr sp, Addr bp, Addr* pcs, uint32_t max) {
  return Walk({pc, sp, bp}, pcs, max);
}

void ForgetFrames() { FetchAddRelaxed(&generation, uint64_t{1}); }

void DescribeBacktrace(const Addr* pcs, uint32_t count, Fmt* out) {
  if (count == 0) out->Str("an unknown place");
  for (uint32_t i = 0; i < count; ++i) {
    if (i != 0) out->Str(" < ");
    DescribeAddress(pcs[i], out);
  }
}

}  // namespace undergo::plat
