// SPDX-License-Identifier: Apache-2.0
// Threads by the clone system call alone.
//
// glibc must not know of them: it would count them, signal them in setuid(), wait for them at
// dlclose, and its pthread_create allocates. So each is made by hand: one mapping with a guard
// page, a stack, and above it a thread block as the x86-64 ABI wants it, with the initial image of
// this module's thread-local variables at the same distance from the thread pointer as everywhere
// in the process.
//
//   map                                                              map + size
//   | guard | stack ... Start | TLS of other modules (zero), ours | tp: self pointer, guards |
//
// The distance of our variables is found out without the loader's lock: the linker writes the
// offset of one of them inside the module's TLS segment into `undergo_tls_anchor_offset`, the
// compiler knows its distance from the thread pointer.
//
// The kernel writes the thread's id into its slot before the thread runs and clears it after the
// last instruction that touches the stack (CLONE_CHILD_CLEARTID): a slot whose id is zero again
// can be used for the next thread. Slots are taken by compare-and-swap, never under a lock: who
// spawns may be stopped at any instruction, and others must be able to spawn meanwhile.
#include "plat/thread.h"

#include <elf.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "plat/syscall.h"
#include "plat/vm.h"

extern "C" {
extern const Elf64_Ehdr __ehdr_start __attribute__((visibility("hidden")));
extern UNDERGO_TLS char undergo_tls_anchor __attribute__((visibility("hidden")));
UNDERGO_TLS char undergo_tls_anchor = 0;
extern const int64_t undergo_tls_anchor_offset __attribute__((visibility("hidden")));
}
asm(R"(
        .pushsection .rodata
        .balign 8
        .hidden undergo_tls_anchor_offset
        .globl undergo_tls_anchor_offset
undergo_tls_anchor_offset:
        .quad undergo_tls_anchor@dtpoff
        .popsection
)");

namespace undergo::plat {

namespace {

constexpr size_t kStackSize = 256 * kKiB;
constexpr size_t kThreadBlock = kOsPageSize;  // room above the thread pointer: glibc's own fields
constexpr int kMaxOwnThreads = 256;

enum SlotState : uint32_t { kFree, kTaken, kRunning };

struct Slot {
  uint32_t state;  // SlotState; kRunning: the slot is free again as soon as tid is 0
  int tid;         // written by the kernel: set at birth, cleared at death
  Addr map;        // the thread's memory, kept for the next one; 0: none. Owner of kTaken
  size_t size;     // bytes of it
};
constinit Slot slots[kMaxOwnThreads] = {};

struct Start {
  void (*fn)(void*);
  void* arg;
  char name[16];
};

struct TlsImage {
  const void* data;
  size_t file_size;
  Addr before_tp;  // distance of the block's start below the thread pointer
};

Addr ThreadPointer() {
  Addr tp;
  asm("movq %%fs:0, %0" : "=r"(tp));
  return tp;
}

TlsImage FindTls() {
  TlsImage image = {};
  Addr base = reinterpret_cast<Addr>(&__ehdr_start);
  auto* header = reinterpret_cast<const Elf64_Phdr*>(base + __ehdr_start.e_phoff);
  Addr lowest = ~Addr{0};
  for (int i = 0; i < __ehdr_start.e_phnum; ++i) {
    if (header[i].p_type == PT_LOAD && header[i].p_vaddr < lowest) lowest = header[i].p_vaddr;
  }
  for (int i = 0; i < __ehdr_start.e_phnum; ++i) {
    if (header[i].p_type != PT_TLS) continue;
    image.data = reinterpret_cast<const void*>(base - lowest + header[i].p_vaddr);
    image.file_size = header[i].p_filesz;
  }
  Addr block =
      reinterpret_cast<Addr>(&undergo_tls_anchor) - static_cast<Addr>(undergo_tls_anchor_offset);
  image.before_tp = ThreadPointer() - block;
  return image;
}

// The thread block at `tp`; the memory below it is zero or was used by an earlier thread.
void MakeThreadBlock(Addr tp, const TlsImage& image) {
  auto* block = reinterpret_cast<char*>(tp - image.before_tp);
  __builtin_memset(block, 0, image.before_tp);
  __builtin_memcpy(block, image.data, image.file_size);
  auto* words = reinterpret_cast<Addr*>(tp);
  auto* ours = reinterpret_cast<const Addr*>(ThreadPointer());
  words[0] = words[2] = tp;  // the ABI's self pointer, and glibc's
  words[5] = ours[5];        // stack protector
  words[6] = ours[6];        // pointer guard
}

void Entry(const Start* start) {
  // Only the library sends it: setuid() has to reach this thread, too (world/remote_call.h).
  constexpr uint64_t kAllBut33 = ~(uint64_t{1} << 32);
  Syscall(__NR_rt_sigprocmask, SIG_SETMASK, &kAllBut33, nullptr, sizeof kAllBut33);
  Syscall(__NR_prctl, PR_SET_NAME, &start->name[0]);
  start->fn(start->arg);
}

// In the child the stack holds Entry and its argument. Its outermost frame has no caller.
long Clone(Addr stack, Slot* slot, Addr tp) {
  constexpr unsigned long kFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
                                   CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
                                   CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
  long result;
  register int* child_tid asm("r10") = &slot->tid;
  register Addr tls asm("r8") = tp;
  asm volatile(
      "syscall\n\t"
      "testq %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "xorl %%ebp, %%ebp\n\t"
      "popq %%rax\n\t"
      "popq %%rdi\n\t"
      "call *%%rax\n\t"
      "movl %[exit], %%eax\n\t"
      "xorl %%edi, %%edi\n\t"
      "syscall\n\t"
      "hlt\n"
      "1:"
      : "=a"(result)
      : "a"(__NR_clone), "D"(kFlags), "S"(stack), "d"(&slot->tid), "r"(child_tid),
        "r"(tls), [exit] "i"(__NR_exit)
      : "rcx", "r11", "memory");
  return result;
}

// Takes the slot if nobody has it or its thread is gone.
bool TakeSlot(Slot* s) {
  uint32_t state = LoadAcquire(&s->state);  // pairs: LeaveSlot
  if (state == kTaken || (state == kRunning && LoadAcquire(&s->tid) != 0)) return false;
  return CasAcqRel(&s->state, &state, kTaken);  // pairs: LeaveSlot
}

void LeaveSlot(Slot* s, SlotState state) { StoreRelease(&s->state, state); }  // pairs: TakeSlot

void FreeMemory(Slot* s) {
  if (s->map != 0) Unmap(s->map, s->size);
  s->map = 0;
}

// A slot with memory of the wanted size; what further dead threads left is given back.
Slot* PrepareSlot(size_t size) {
  Slot* mine = nullptr;
  for (Slot& s : slots) {
    bool untouched = LoadRelaxed(&s.state) == kFree && s.map == 0;
    if (mine != nullptr && untouched) continue;
    if (!TakeSlot(&s)) continue;
    if (mine == nullptr) {
      mine = &s;
      continue;
    }
    FreeMemory(&s);
    LeaveSlot(&s, kFree);
  }
  if (mine == nullptr || mine->map != 0) return mine;
  auto map = reinterpret_cast<Addr>(Reserve(size, 0));
  if (map != 0 && !Commit(map + kOsPageSize, size - kOsPageSize)) {
    Unmap(map, size);
    map = 0;
  }
  if (map == 0) {
    LeaveSlot(mine, kFree);
    return nullptr;
  }
  mine->map = map;
  mine->size = size;
  return mine;
}

}  // namespace

long SpawnThread(void (*fn)(void*), void* arg, const char* name) {
  TlsImage image = FindTls();
  size_t tls = AlignUp(image.before_tp, kOsPageSize);
  Slot* slot = PrepareSlot(kOsPageSize + kStackSize + tls + kThreadBlock);
  if (slot == nullptr) return -12;  // ENOMEM
  Addr tp = slot->map + slot->size - kThreadBlock;
  MakeThreadBlock(tp, image);
  Addr top = tp - tls;
  auto* start = reinterpret_cast<Start*>(top - AlignUp(sizeof(Start), 16));
  *start = {fn, arg, {}};
  for (size_t i = 0; i < sizeof start->name - 1 && name[i] != '\0'; ++i) start->name[i] = name[i];
  auto* stack = reinterpret_cast<Addr*>(start) - 2;
  stack[0] = reinterpret_cast<Addr>(&Entry);
  stack[1] = reinterpret_cast<Addr>(start);

  // The thread starts with the mask of its maker.
  uint64_t all = ~uint64_t{0}, before = 0;
  Syscall(__NR_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof all);
  long tid = Clone(reinterpret_cast<Addr>(stack), slot, tp);
  Syscall(__NR_rt_sigprocmask, SIG_SETMASK, &before, nullptr, sizeof before);
  if (IsError(tid)) {
    FreeMemory(slot);
    LeaveSlot(slot, kFree);
    return tid;
  }
  LeaveSlot(slot, kRunning);
  return tid;
}

void KeepOffOwnCpu(const long* tids, uint32_t count, int* cpu) {
  constexpr uint32_t kMaxCpus = 8192;
  uint32_t now = 0;
  if (IsError(Syscall(__NR_getcpu, &now, nullptr, nullptr)) || static_cast<int>(now) == *cpu)
    return;
  uint64_t mask[kMaxCpus / 64] = {}, others = 0;
  long bytes = Syscall(__NR_sched_getaffinity, 0, sizeof mask, mask);
  if (bytes <= 0 || now >= kMaxCpus) return;
  mask[now / 64] &= ~(uint64_t{1} << (now % 64));
  for (uint64_t word : mask) others |= word;
  if (others == 0) return;
  for (uint32_t i = 0; i < count; ++i) Syscall(__NR_sched_setaffinity, tids[i], bytes, mask);
  *cpu = static_cast<int>(now);
}

bool IsGone(int tid) {
  return tid == 0 || Syscall(__NR_tgkill, Syscall(__NR_getpid), tid, 0) == -ESRCH;
}

bool IsOwnThread(int tid) {
  for (const Slot& s : slots) {
    if (LoadRelaxed(&s.tid) == tid) return true;
  }
  return false;
}

void ForEachOwnThread(void (*visit)(void* context, int tid), void* context) {
  for (const Slot& s : slots) {
    int tid = LoadRelaxed(&s.tid);
    if (tid != 0) visit(context, tid);
  }
}

uint32_t OwnThreadCount() {
  uint32_t n = 0;
  for (const Slot& s : slots) n += LoadRelaxed(&s.tid) != 0;
  return n;
}

void ForEachOwnStack(void (*visit)(void* context, Addr low, Addr high), void* context) {
  for (const Slot& s : slots) {
    if (LoadAcquire(&s.state) == kRunning)
      visit(context, s.map, s.map + s.size);  // pairs: LeaveSlot
  }
}

void ForgetOwnThreads() {
  for (Slot& s : slots) {
    if (s.state == kFree && s.tid == 0 && s.map == 0) continue;  // its page is not copied for that
    if (s.state != kRunning) s.map = 0;  // its maker was at work on it: lost
    FreeMemory(&s);
    s = {};
  }
}

}  // namespace undergo::plat
