// SPDX-License-Identifier: Apache-2.0
// Thread blocks by a pattern.
//
// Problem: libc makes a struct pthread only together with a kernel thread. But most of one is the
// same for every thread, ld.so exports the function that makes the TLS around it, and
// libthread_db's descriptors name the offsets that debuggers need. So one real thread is made, its
// struct pthread is kept as the pattern, and a block is a copy of it whose pointers into itself are
// moved along, with TLS by _dl_allocate_tls, linked into the list of threads on stacks of their
// own, which dlopen and dlclose walk. A slot's block stays in that list for ever: ended threads
// have the id 0.
//
// What libc does not describe is known for glibc 2.36 by offset; every offset that has a descriptor
// or shows in a function's result is compared at start. On any difference threads stay kernel
// threads.
//
// Rejected: a real pthread_create whose kernel thread leaves at once (36 us, and its dead id has to
// be replaced as well), reading debug information (not installed).
// Source: glibc's nptl/allocatestack.c and pthread_create.c for what a fresh and a reused block
// need.
#include "sched/tcb.h"

#include <dlfcn.h>
#include <resolv.h>

#include "base/assert.h"
#include "heap/fastpath.h"
#include "plat/syscall.h"
#include "sched/stack.h"
#include "sync/mutex.h"

namespace undergo::sched {

namespace {

struct ListHead {
  ListHead* next;
  ListHead* prev;
};

// dtv[-1].count: entries behind it; dtv[i].to_free: memory of a dynamic TLS block.
struct DtvEntry {
  union {
    size_t count;
    void* value;
  };
  void* to_free;
};

struct Key {
  uintptr_t sequence;  // odd: in use
  void (*destructor)(void*);
};
struct KeyData {
  uintptr_t sequence;
  void* data;
};
constexpr uint32_t kKeysPerBlock = 32, kKeyBlocks = 32;

// Offsets beyond those of tcb.h.
enum Offset : size_t {
  kTcb = 0,
  kDtv = 8,
  kSelf = 16,
  kGscope = 28,
  kList = 704,
  kRobustPrev = 728,
  kRobustHead = 736,
  kRobustPending = 752,
  kCleanup = 760,
  kFlags = 780,
  kFirstKeys = 784,
  kKeyTable = 1296,
  kKeysUsed = 1552,
  kReportEvents = 1553,
  kUserStack = 1554,
  kStoppedStart = 1555,
  kSetupFailed = 1556,
  kLock = 1560,
  kSetxidFutex = 1564,
  kJoinId = 1568,
  kPriority = 1584,
  kPolicy = 1588,
  kStart = 1592,
  kArg = 1600,
  kNextEvent = 1632,
  kException = 1648,
  kStackBlock = 1680,
  kStackSize = 1688,
  kGuardSize = 1696,
  kReportedGuard = 1704,
  kPriorityProtect = 1712,
  kResolver = 1720,
  kC11 = 2296,
  kExiting = 2297,
  kExitLock = 2300,
  kTlsState = 2304,
  kRseqStart = 2336,
  kRseqCpu = 2340,
  kRseqCs = 2344,
};

// What of libc is used. Written once.
struct Libc {
  void* (*allocate_tls)(void* block);
  void* (*init_tls)(void* block, bool init);
  void (*get_tls_info)(size_t* size, size_t* align);
  void (*call_tls_dtors)();
  void (*ctype_init)();
  const Key* keys;
  uint32_t* thread_count;  // threads of libc's that live
  ListHead* stack_user;    // blocks on stacks of their own
  uint32_t* stacks_lock;   // of that list, glibc's low-level lock
  uintptr_t* in_flight;    // the list element that is being linked, for fork
  size_t tls_size;         // static TLS and struct pthread
  ptrdiff_t resolver;      // offset of __resp in TLS
  ptrdiff_t words;         // offset of thread_words in TLS
};
constinit Libc libc = {};
alignas(64) constinit char pattern[kPthreadSize] = {};
constinit Addr pattern_block = 0;
constinit uint32_t last_tid = 0;  // atomic

constexpr int kNoRseq = -2;  // RSEQ_CPU_ID_REGISTRATION_FAILED: libc asks the kernel then
constexpr uint32_t kFirstTid = 0x400001;                // above every id that a kernel can give
constexpr uint32_t kTidCount = 0x0fffffff - kFirstTid;  // what the name of a CPU clock can hold

// Descriptors of libthread_db: bits, elements, offset.
bool DescriptorIs(const char* name, size_t offset) {
  auto* d = static_cast<const uint32_t*>(dlsym(RTLD_DEFAULT, name));
  return d != nullptr && d[2] == offset;
}

template <typename T>
bool Find(T* to, const char* name) {
  void* p = dlsym(RTLD_DEFAULT, name);
  __builtin_memcpy(to, &p, sizeof p);
  return p != nullptr;
}

Addr OwnBlock() { return reinterpret_cast<Addr>(__builtin_thread_pointer()); }

// glibc's low-level lock has the states of sync::Mutex.
class StacksLock {
 public:
  StacksLock() : mutex_(reinterpret_cast<sync::Mutex*>(libc.stacks_lock)) { mutex_->Lock(); }
  ~StacksLock() { mutex_->Unlock(); }
  StacksLock(const StacksLock&) = delete;
  StacksLock& operator=(const StacksLock&) = delete;

 private:
  sync::Mutex* mutex_;
};

void LinkBlock(Addr block) {
  StacksLock hold;
  auto* element = Field<ListHead>(block, kList);
  StoreRelease(libc.in_flight, reinterpret_cast<uintptr_t>(element) | 1);  // pairs: fork
  element->next = libc.stack_user->next;
  element->prev = libc.stack_user;
  libc.stack_user->next->prev = element;
  StoreRelease(&libc.stack_user->next, element);  // pairs: fork
  StoreRelease(libc.in_flight, uintptr_t{0});     // pairs: fork
}

void CopyPattern(Addr block) {
  __builtin_memcpy(reinterpret_cast<void*>(block), pattern, kPthreadSize);
  for (size_t at = 0; at < kPthreadSize; at += sizeof(Addr)) {
    auto* word = Field<Addr>(block, at);
    if (*word - pattern_block < kPthreadSize) *word += block - pattern_block;
  }
}

void ClearThreadState(Addr block) {
  *CancelField(block) = 0;
  *Field<void*>(block, kCleanup) = nullptr;
  *UnwindField(block) = nullptr;
  *Field<void*>(block, kNextEvent) = nullptr;
  *Field<int>(block, kSetupFailed) = 0;
  *Field<bool>(block, kReportEvents) = false;
  *Field<bool>(block, kExiting) = false;
  *Field<int>(block, kExitLock) = 0;
  *Field<int>(block, kLock) = 0;
  *Field<int>(block, kSetxidFutex) = 0;
  *Field<void*>(block, kJoinId) = nullptr;
  *Field<void*>(block, kPriorityProtect) = nullptr;
  *ResultField(block) = nullptr;
  *Field<Addr>(block, kRobustHead) = *Field<Addr>(block, kRobustPrev) = block + kRobustHead;
  *Field<void*>(block, kRobustPending) = nullptr;
  *Field<bool>(block, kKeysUsed) = false;
  __builtin_memset(Field<char>(block, kFirstKeys), 0, kKeysPerBlock * sizeof(KeyData));
  __builtin_memset(Field<char>(block, kException), 0, 32);
}

// The dynamic TLS of the thread before goes; static TLS is made new.
void RenewTls(Addr block) {
  auto* dtv = *Field<DtvEntry*>(block, kDtv);
  size_t count = dtv[-1].count;
  for (size_t i = 0; i < count; ++i) {
    if (dtv[1 + i].to_free != nullptr) heap::Free(dtv[1 + i].to_free);
  }
  __builtin_memset(dtv, 0, (count + 1) * sizeof *dtv);
  libc.init_tls(reinterpret_cast<void*>(block), true);
}

int NewTid() {
  uint32_t n = __atomic_add_fetch(&last_tid, 1, __ATOMIC_RELAXED);
  return static_cast<int>(kFirstTid + n % kTidCount);
}

void RunKeyDestructors(Addr block) {
  for (int round = 0; round < PTHREAD_DESTRUCTOR_ITERATIONS; ++round) {
    bool again = false;
    if (!*Field<bool>(block, kKeysUsed)) return;
    *Field<bool>(block, kKeysUsed) = false;
    for (uint32_t b = 0; b < kKeyBlocks; ++b) {
      auto* data = Field<KeyData*>(block, kKeyTable)[b];
      if (data == nullptr) continue;
      for (uint32_t i = 0; i < kKeysPerBlock; ++i) {
        void* value = data[i].data;
        if (value == nullptr) continue;
        data[i].data = nullptr;
        const Key& key = libc.keys[b * kKeysPerBlock + i];
        if (data[i].sequence == key.sequence && key.destructor != nullptr) {
          key.destructor(value);
          again |= *Field<bool>(block, kKeysUsed);
        }
      }
    }
    if (!again) return;
  }
}

void FreeKeyBlocks(Addr block) {
  for (uint32_t b = 1; b < kKeyBlocks; ++b) {
    auto** data = &Field<KeyData*>(block, kKeyTable)[b];
    if (*data == nullptr) continue;
    heap::Free(*data);
    *data = nullptr;
  }
}

}  // namespace

const char* CheckLibc() {
  // Ids begin anywhere: those of two processes that share mutexes should differ.
  plat::Syscall(__NR_getrandom, &last_tid, sizeof last_tid, 1 /* GRND_NONBLOCK */);
  const uint32_t* size;
  if (!Find(&size, "_thread_db_sizeof_pthread") || *size != kPthreadSize ||
      !DescriptorIs("_thread_db_pthread_tid", 720) ||
      !DescriptorIs("_thread_db_pthread_list", kList) ||
      !DescriptorIs("_thread_db_pthread_specific", kKeyTable) ||
      !DescriptorIs("_thread_db_pthread_cancelhandling", 776) ||
      !DescriptorIs("_thread_db_pthread_start_routine", kStart) ||
      !DescriptorIs("_thread_db_pthread_dtvp", kDtv) ||
      !DescriptorIs("_thread_db_pthread_schedpolicy", kPolicy) ||
      !DescriptorIs("_thread_db_pthread_report_events", kReportEvents) ||
      !DescriptorIs("_thread_db_pthread_nextevent", kNextEvent)) {
    return "this C library has another layout of threads than glibc 2.36";
  }
  char* global;
  auto* user =
      static_cast<const uint32_t*>(dlsym(RTLD_DEFAULT, "_thread_db_rtld_global__dl_stack_user"));
  if (user == nullptr || !Find(&global, "_rtld_global") ||
      !Find(&libc.allocate_tls, "_dl_allocate_tls") ||
      !Find(&libc.init_tls, "_dl_allocate_tls_init") ||
      !Find(&libc.get_tls_info, "_dl_get_tls_static_info") ||
      !Find(&libc.call_tls_dtors, "__call_tls_dtors") || !Find(&libc.ctype_init, "__ctype_init") ||
      !Find(&libc.keys, "__pthread_keys") || !Find(&libc.thread_count, "__nptl_nthreads")) {
    return "this C library does not export what threads are made of";
  }
  // list, cache's list, its size, element in flight, lock
  libc.stack_user = reinterpret_cast<ListHead*>(global + user[2]);
  libc.in_flight = reinterpret_cast<uintptr_t*>(global + user[2] + 40);
  libc.stacks_lock = reinterpret_cast<uint32_t*>(global + user[2] + 48);
  size_t align;
  libc.get_tls_info(&libc.tls_size, &align);
  if (align > 64 || libc.tls_size < kPthreadSize) {
    return "its thread-local variables need an unusual alignment";
  }
  if (*libc.in_flight != 0 || *libc.stacks_lock > 1) {
    return "this C library has another layout of its loader than glibc 2.36";
  }
  return nullptr;
}

const char* TakePattern() {
  Addr block = OwnBlock();
  constexpr const char* kUnknown =
      "a thread of this C library does not look like one of glibc 2.36";
  int tid = static_cast<int>(plat::Syscall(__NR_gettid));
  if (*Field<Addr>(block, kTcb) != block || *Field<Addr>(block, kSelf) != block ||
      *TidField(block) != tid || *Field<Addr>(block, kRobustPrev) != block + kRobustHead ||
      *RobustHeadField(block) != Field<void>(block, kRobustHead) ||
      reinterpret_cast<Addr>(__res_state()) != block + kResolver) {
    return kUnknown;
  }
  Addr here = reinterpret_cast<Addr>(__builtin_frame_address(0));
  Addr low = *Field<Addr>(block, kStackBlock);
  size_t size = *Field<size_t>(block, kStackSize);
  if (here <= low || here >= low + size || block >= low + size) return kUnknown;
  auto* list = Field<ListHead>(block, kList);
  if (list->next->prev != list || list->prev->next != list) return kUnknown;

  libc.words = reinterpret_cast<char*>(&heap::thread_words) - reinterpret_cast<char*>(block);
  for (size_t down = sizeof(Addr); down <= libc.tls_size - kPthreadSize; down += sizeof(Addr)) {
    if (*reinterpret_cast<Addr*>(block - down) == block + kResolver) {
      libc.resolver = -static_cast<ptrdiff_t>(down);
    }
  }
  if (libc.resolver == 0) return kUnknown;
  __builtin_memcpy(pattern, reinterpret_cast<void*>(block), kPthreadSize);
  pattern_block = block;
  // What is this thread's own.
  Addr p = reinterpret_cast<Addr>(&pattern[0]);
  *Field<void*>(p, kDtv) = nullptr;
  __builtin_memset(Field<char>(p, kKeyTable), 0, kKeyBlocks * sizeof(void*));
  *Field<Addr>(p, kKeyTable) = block + kFirstKeys;
  *Field<bool>(p, kUserStack) = true;
  *Field<bool>(p, kStoppedStart) = false;
  *Field<uint32_t>(p, kGscope) = 0;
  __builtin_memset(Field<char>(p, kTlsState), 0, 16);
  *Field<uint32_t>(p, kRseqStart) = 0;
  *Field<int>(p, kRseqCpu) = kNoRseq;
  *Field<uint64_t>(p, kRseqCs) = 0;
  return nullptr;
}

size_t BlockSize() { return AlignUp(libc.tls_size, 64); }

bool MakeBlock(G* g) {
  bool fresh = g->fs == 0;
  Addr block = fresh ? reinterpret_cast<Addr>(g) - kPthreadSize : g->fs;
  if (fresh) {
    CopyPattern(block);
    ClearThreadState(block);
    if (libc.allocate_tls(reinterpret_cast<void*>(block)) == nullptr) return false;
    g->fs = block;
    g->words = reinterpret_cast<heap::ThreadWords*>(block + static_cast<Addr>(libc.words));
    LinkBlock(block);
  } else {
    ClearThreadState(block);
    RenewTls(block);
  }
  *reinterpret_cast<Addr*>(block + static_cast<Addr>(libc.resolver)) = block + kResolver;
  g->tid = NewTid();
  *TidField(block) = g->tid;
  return true;
}

void DescribeThread(G* g) {
  Addr block = g->fs;
  // glibc compares frames by their distance from the stack's end.
  *Field<Addr>(block, kStackBlock) = g->stack_low - g->guard_size;
  *Field<size_t>(block, kStackSize) = g->stack_size + g->guard_size;
  *Field<size_t>(block, kGuardSize) = *Field<size_t>(block, kReportedGuard) = g->guard_size;
  *Field<Addr>(block, kStart) = reinterpret_cast<Addr>(g->start);
  *Field<void*>(block, kArg) = g->arg;
  *Field<bool>(block, kC11) = g->c11;
  *Field<int>(block, kPolicy) = g->policy;
  *Field<int>(block, kPriority) = g->priority;
  if (g->detached == 1) *Field<Addr>(block, kJoinId) = block;
}

void ResetBlockList() {
  *libc.stacks_lock = 0;
  *libc.in_flight = 0;
  libc.stack_user->next = libc.stack_user->prev = libc.stack_user;
  if (*Field<bool>(OwnBlock(), kUserStack)) LinkBlock(OwnBlock());
}

bool LastOfLibc() {
  return libc.thread_count == nullptr ||
         __atomic_sub_fetch(libc.thread_count, 1, __ATOMIC_ACQ_REL) == 0;  // pairs: itself
}

void DropRseq() {
  constexpr uint32_t kSize = 32, kUnregister = 1, kSignature = 0x53053053;  // as glibc registered
  Addr block = OwnBlock();
  plat::Syscall(__NR_rseq, block + kRseqStart, kSize, kUnregister, kSignature);
  *Field<uint32_t>(block, kRseqStart) = 0;
  *Field<int>(block, kRseqCpu) = kNoRseq;
}

// As libc marks a thread that was joined: 0 would be one that has ended and can be.
void ForgetThread(G* g) { StoreRelease(TidField(g->fs), -1); }  // pairs: none; libc reads it

void InitLibcOnThread() { libc.ctype_init(); }

void RunDestructors() {
  libc.call_tls_dtors();
  Addr block = OwnBlock();
  RunKeyDestructors(block);
  FreeKeyBlocks(block);
}

}  // namespace undergo::sched
