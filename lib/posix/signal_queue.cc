// SPDX-License-Identifier: Apache-2.0
// The pool of nodes is a bitmap, so that taking one is a single atomic OR and a handler can do it
// in the middle of anything. The held list is a stack that is only ever taken as a whole.
#include "posix/signal_queue.h"

#include <sys/mman.h>

#include "plat/proc_file.h"
#include "plat/syscall.h"
#include "posix/timer.h"
#include "sched/masks.h"
#include "sync/mutex.h"

namespace undergo::posix {

namespace {

constexpr uint32_t kWords = 128;  // of 64 nodes

constinit sync::Mutex queue_lock;
constinit uint64_t used[kWords] = {};      // atomic
constinit SignalNode* pool = nullptr;      // atomic; mapped by who needs it first
constinit SignalNode* held = nullptr;      // atomic; newest first
constinit uint64_t held_without_info = 0;  // atomic; for lack of nodes

SignalNode* Pool() {
  SignalNode* p = LoadAcquire(&pool);  // pairs: below
  if (p != nullptr) return p;
  constexpr size_t kSize = AlignUp(kWords * 64 * sizeof(SignalNode), kOsPageSize);
  // Not by plat/vm.h, which keeps memory from the collector's roots.
  long at = plat::Syscall(__NR_mmap, nullptr, kSize, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (plat::IsError(at)) return nullptr;
  auto* fresh = reinterpret_cast<SignalNode*>(at);
  SignalNode* none = nullptr;
  if (CasAcqRel(&pool, &none, fresh)) return fresh;  // pairs: above
  plat::Syscall(__NR_munmap, at, kSize);
  return none;
}

SignalNode* NewNode() {
  SignalNode* p = Pool();
  if (p == nullptr) return nullptr;
  for (uint32_t i = 0; i < kWords; ++i) {
    uint64_t word = LoadRelaxed(&used[i]);
    while (word != ~uint64_t{0}) {
      uint64_t bit = ~word & (word + 1);
      if (CasAcqRel(&used[i], &word, word | bit)) {  // pairs: FreeNode
        return &p[i * 64 + static_cast<uint32_t>(__builtin_ctzll(bit))];
      }
    }
  }
  return nullptr;
}

siginfo_t PlainInfo(int sig) {
  siginfo_t info = {};
  info.si_signo = sig;
  info.si_code = SI_USER;
  info.si_pid = static_cast<pid_t>(plat::Syscall(__NR_getpid));
  info.si_uid = static_cast<uid_t>(plat::Syscall(__NR_getuid));
  return info;
}

// Signals that wait for this kernel thread alone: rt_sigpending() has those of the process, too.
uint64_t PendingOfThread() {
  char text[4096];
  if (plat::ReadProcFile("/proc/thread-self/status", text, sizeof text) <= 0) return 0;
  uint64_t bits = plat::StatusField(text, "SigPnd", 16);
  if (bits == ~uint64_t{0}) return 0;  // the kernel does not tell
  return bits & ~sched::kReservedSignals;
}

}  // namespace

HandlersOff::HandlersOff() {
  heap::thread_words.busy++;
  heap::thread_words.in_sched++;
  CompilerFence();
}

HandlersOff::~HandlersOff() {
  CompilerFence();
  heap::thread_words.in_sched--;
  heap::EndBusy();
}

SignalSection::SignalSection() { queue_lock.Lock(); }
SignalSection::~SignalSection() { queue_lock.Unlock(); }

void Hold(int sig, const siginfo_t& info, int owner) {
  SignalNode* node = NewNode();
  if (node == nullptr) {
    __atomic_fetch_or(&held_without_info, Bit(sig), __ATOMIC_ACQ_REL);
    return;
  }
  node->sig = sig;
  node->owner = owner;
  node->info = info;
  node->next = LoadRelaxed(&held);
  while (!CasAcqRel(&held, &node->next, node)) {  // pairs: TakeHeld
  }
}

SignalNode* TakeHeld() {
  uint64_t bits = ExchangeAcqRel(&held_without_info, uint64_t{0});  // pairs: Hold
  for (; bits != 0; bits &= bits - 1) {
    int sig = __builtin_ctzll(bits) + 1;
    Hold(sig, PlainInfo(sig), kAnybody);
  }
  SignalNode* newest = ExchangeAcqRel(&held, static_cast<SignalNode*>(nullptr));  // pairs: Hold
  SignalNode* oldest = nullptr;
  while (newest != nullptr) {
    SignalNode* next = newest->next;
    newest->next = oldest;
    oldest = newest;
    newest = next;
  }
  return oldest;
}

void FreeNode(SignalNode* node) {
  auto i = static_cast<size_t>(node - pool);
  __builtin_memset(&node->info, 0, sizeof node->info);  // no stale pointer for the collector
  __atomic_fetch_and(&used[i / 64], ~(uint64_t{1} << i % 64), __ATOMIC_ACQ_REL);
}

namespace {

// A timer has one signal pending at a time; further ones count. True: it was one of those.
bool CountOverrun(G* g, int sig, const siginfo_t& info) {
  if (info.si_code != SI_TIMER) return false;
  for (auto* n = static_cast<SignalNode*>(g->signals); n != nullptr; n = n->next) {
    if (n->sig != sig || n->info.si_code != SI_TIMER) continue;
    if (n->info.si_timerid != info.si_timerid) continue;
    n->info.si_overrun += 1 + info.si_overrun;
    return true;
  }
  return false;
}

}  // namespace

bool Enqueue(G* g, int sig, const siginfo_t& info, bool any) {
  if (CountOverrun(g, sig, info)) return true;
  bool real_time = sig >= kFirstRealTime;
  if (!real_time && (LoadRelaxed(&g->pending) & Bit(sig)) != 0) return true;
  SignalNode* node = NewNode();
  if (node == nullptr && real_time) return false;
  if (node != nullptr) {
    node->sig = sig;
    node->any = any;
    node->info = info;
    node->next = nullptr;
    auto** end = reinterpret_cast<SignalNode**>(&g->signals);
    while (*end != nullptr) end = &(*end)->next;
    *end = node;
  }
  __atomic_fetch_or(&g->pending, Bit(sig), __ATOMIC_ACQ_REL);
  return true;
}

int Dequeue(G* g, uint64_t set, siginfo_t* info) {
  uint64_t bits = LoadRelaxed(&g->pending) & set;
  if (bits == 0) return 0;
  int sig = __builtin_ctzll(bits) + 1;
  auto** at = reinterpret_cast<SignalNode**>(&g->signals);
  while (*at != nullptr && (*at)->sig != sig) at = &(*at)->next;
  SignalNode* node = *at;
  bool more = false;
  if (node == nullptr) {
    *info = PlainInfo(sig);
  } else {
    *info = node->info;
    *at = node->next;
    for (SignalNode* n = node->next; n != nullptr; n = n->next) more |= n->sig == sig;
    FreeNode(node);
  }
  if (!more) __atomic_fetch_and(&g->pending, ~Bit(sig), __ATOMIC_ACQ_REL);
  if (UNDERGO_UNLIKELY(info->si_code == SI_TIMER)) TimerDelivered(*info);
  return sig;
}

SignalNode* TakeQueue(G* g) {
  auto* n = static_cast<SignalNode*>(g->signals);
  g->signals = nullptr;
  StoreRelaxed(&g->pending, uint64_t{0});
  return n;
}

void ForgetQueues(G* g) {
  queue_lock.ResetAfterFork();
  StoreRelaxed(&held, nullptr);
  StoreRelaxed(&held_without_info, uint64_t{0});
  for (uint64_t& word : used) StoreRelaxed(&word, uint64_t{0});
  if (g == nullptr) return;
  StoreRelaxed(&g->pending, uint64_t{0});
  g->signals = nullptr;
  g->waits_for = 0;
  g->wait_pokes = 0;
}

void TakePendingOfThread(G* g) {
  uint64_t any = 0;
  plat::Syscall(__NR_rt_sigpending, &any, sizeof any);
  if (UNDERGO_LIKELY((any & g->mask) == 0)) return;
  // The kernel hands out the thread's own first; of a real-time signal there may be many.
  while (uint64_t bits = PendingOfThread() & g->mask) {
    siginfo_t info;
    struct timespec none = {};
    long sig = plat::Syscall(__NR_rt_sigtimedwait, &bits, &info, &none, sizeof bits);
    if (plat::IsError(sig)) return;
    SignalSection section;
    Enqueue(g, static_cast<int>(sig), info, false);
  }
}

}  // namespace undergo::posix
