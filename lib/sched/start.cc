// SPDX-License-Identifier: Apache-2.0
// Start of the scheduler and of its Ms.
//
// Nothing exists before the first pthread_create. Then sysmon is made, a thread of libc's own
// making whose block is the pattern for all others (sched/tcb.h), and the calling main thread
// becomes the main G on the first M. Further Ms are made by sysmon alone: pthread_create takes
// locks of libc, and an M that waits for one while it holds a P could wait for a G that needs that
// P.
#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fmt.h"
#include "heap/mcache.h"
#include "heap/registry.h"
#include "plat/clock.h"
#include "plat/context.h"
#include "plat/futex.h"
#include "plat/log.h"
#include "plat/real.h"
#include "plat/vm.h"
#include "sched/confine.h"
#include "sched/cpu_time.h"
#include "sched/fork.h"
#include "sched/handoff.h"
#include "sched/masks.h"
#include "sched/netpoll.h"
#include "sched/overflow.h"
#include "sched/preempt.h"
#include "sched/quiesce.h"
#include "sched/sched.h"
#include "sched/sema.h"
#include "sched/stack.h"
#include "sched/sysmon.h"
#include "sched/tcb.h"
#include "sched/thread.h"
#include "world/blocked_call.h"
#include "world/world.h"

namespace undergo::sched {

constinit sync::Mutex start_lock;
constinit M first_m = {};

namespace {

constexpr size_t kMStack = 256 * kKiB;
// Ms are mapped many at a time: a fork copies mapping by mapping.
constexpr size_t kMChunk = 64 * kKiB;

constinit bool refused = false;  // start_lock
constinit int wanted_procs = 0;
constinit bool have_pattern = false;  // start_lock
constinit uint32_t sysmon_began = 0;  // atomic futex
constinit const char* pattern_error = nullptr;
constinit M* m_pool = nullptr;     // sysmon; memory that no M has had yet
constinit size_t m_pool_left = 0;  // sysmon; Ms

constexpr const char* kFiltered = "a filter of system calls forbids what the scheduler needs";

void Refuse(const char* why) {
  refused = true;
  if (why == kFiltered) return;  // it may forbid to say so
  char text[200];
  Fmt line(text, sizeof text);
  line.Str("undergo: threads stay kernel threads: ")
      .Str(why)
      .Str(
          "; UNDERGO=sched=off says that "
          "nothing else is wanted\n");
  plat::LogWrite(line.text(), line.length());
}

// libc puts the block at the top of the stack that it makes.
struct OwnStack {
  Addr low, high;            // usable part
  Addr scan_low, scan_high;  // with the block: what the collector reads
};

OwnStack FindOwnStack() {
  Addr block = reinterpret_cast<Addr>(__builtin_thread_pointer());
  Addr end = AlignUp(block + kPthreadSize, kOsPageSize);
  Addr low = end - kMStack + 2 * kOsPageSize;
  return {low, block, low, end};
}

void LinkM(M* m) {
  M* first = LoadAcquire(&sched.all_ms);  // pairs: itself
  do {
    m->all_next = first;
  } while (!CasAcqRel(&sched.all_ms, &first, m));  // pairs: readers of the list
}

// An M that is made in the memory of one that is no more, and in the list of all already.
constexpr int kReused = -1;

M* SpareM() {
  if (LoadRelaxed(&sched.spare_ms) == 0) return nullptr;
  for (M* m = LoadAcquire(&sched.all_ms); m != nullptr; m = m->all_next) {  // pairs: LinkM
    if (m == &first_m || LoadAcquire(&m->tid) != 0) continue;               // pairs: EndM
    M* next = m->all_next;
    int last_tid = m->last_tid;
    *m = {};
    m->all_next = next;
    m->last_tid = last_tid;
    m->tid = kReused;
    FetchAddRelaxed(&sched.spare_ms, ~0u);
    return m;
  }
  return nullptr;
}

// The next one of the pool, which is taken out when its thread runs.
M* FirstOfPool() {
  if (m_pool_left == 0) {
    m_pool = static_cast<M*>(plat::MapPages(kMChunk));
    m_pool_left = m_pool == nullptr ? 0 : kMChunk / sizeof(M);
  }
  return m_pool;
}

// The M's thread leaves the scheduler and returns to libc.
void EndM(M* m) {
  SetKernelMask(m, world::kAllButStopSignal);  // no thread's signal comes to it from here on
  heap::ThreadWords& words = heap::thread_words;
  words.mcache = m->mcache;
  words.self = nullptr;
  words.in_sched--;
  heap::EndBusy();
  heap::DetachThread();
  world::ThreadEnded();
  FetchAddRelaxed(&sched.spare_ms, 1u);
  StoreRelease(&m->tid, 0);             // pairs: SpareM
  FetchAddAcqRel(&sched.m_count, ~0u);  // pairs: OtherThreads
}

void* MMain(void* arg) {
  auto* m = static_cast<M*>(arg);
  G* g0 = &m->g0;
  OwnStack own = FindOwnStack();
  m->own_alt = own.low;
  g0->stack_low = own.low + kAltSize;
  g0->stack_high = own.high;
  g0->scan_low = own.scan_low;
  g0->scan_high = own.scan_high;
  bool fresh = m->tid != kReused;
  m->last_tid = static_cast<int>(plat::Syscall(__NR_gettid));
  StoreRelease(&m->tid, m->last_tid);  // pairs: SpareM
  m->block = g0->fs = reinterpret_cast<Addr>(__builtin_thread_pointer());
  if (world::publishing) {
    world::ThreadStarted(own.scan_low, own.scan_high);
    m->record = static_cast<world::Record*>(heap::thread_words.record);
  }
  DropRseq();
  m->mask = world::CurrentSignalMask();
  g0->words = &heap::thread_words;
  g0->words->self = g0;
  g0->words->busy++;
  g0->words->in_sched++;
  CompilerFence();
  m->mcache = heap::thread_words.mcache;
  if (m->mcache == &heap::empty_mcache) m->mcache = heap::AttachThread();
  if (m->mcache == nullptr) m->mcache = &heap::empty_mcache;
  if (fresh) LinkM(m);
  GiveAltStack(m);
  RunM(m);
  EndM(m);
  return nullptr;
}

void InitM(M* m) {
  m->id = FetchAddRelaxed(&sched.next_m_id, 1u) + 1;
  m->rand = m->id * 2654435761u | 1;
  m->cur = &m->g0;
  m->g0.m = m;
  m->g0.g0 = true;
  m->g0.on_cpu = 1;
  m->g0.state = GState::kRunning;
  FetchAddRelaxed(&sched.m_count, 1u);
}

// A detached thread of libc's making with all signals blocked and a small stack.
bool MakeThread(void* (*start)(void*), void* arg) {
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attr, kMStack);
  world::SignalsOff off;
  pthread_t id;
  int error = real::pthread_create(&id, &attr, start, arg);
  pthread_attr_destroy(&attr);
  return error == 0;
}

void* SysmonThread(void*) {
  if (world::publishing) {
    OwnStack own = FindOwnStack();
    world::ThreadStarted(own.scan_low, own.scan_high);
  }
  if (!have_pattern) pattern_error = TakePattern();
  bool failed = pattern_error != nullptr;
  have_pattern = !failed;
  sched.sysmon_tid = static_cast<int>(plat::Syscall(__NR_gettid));
  StoreRelease(&sysmon_began, 1u);  // pairs: StartSysmon
  plat::FutexWake(&sysmon_began, 1);
  if (failed) return nullptr;
  DropRseq();
  RunSysmon();
  world::ThreadEnded();
  return nullptr;
}

const char* StartSysmon() {
  StoreRelaxed(&sysmon_began, 0u);
  StoreRelaxed(&sched.sysmon_quit, 0u);
  StoreRelaxed(&sched.sysmon_wake, 0u);
  StoreRelaxed(&sched.only_first, 0u);
  if (!MakeThread(SysmonThread, nullptr)) return "no thread can be made";
  while (LoadAcquire(&sysmon_began) == 0) plat::FutexWait(&sysmon_began, 0);  // pairs: above
  if (pattern_error == nullptr) StoreRelease(&sched.sysmon_runs, 1u);         // pairs: EnsureSysmon
  return pattern_error;
}

bool MakePs(uint32_t n) {
  P* memory = sched.ps[0];  // of an ancestor
  if (memory == nullptr) {
    memory = static_cast<P*>(plat::MapPages(AlignUp(n * sizeof(P), kOsPageSize)));
  }
  if (memory == nullptr) return false;
  for (uint32_t i = 0; i < n; ++i) {
    memory[i].id = i;
    sched.ps[i] = &memory[i];
    if (i > 0) PutIdleP(&memory[i]);
  }
  sched.procs = sched.ps_made = n;
  return true;
}

void RunFirstM(void* arg) {
  auto* m = static_cast<M*>(arg);
  FinishSwitch(&m->g0);
  RunM(m);
  // It was the main G's until that ended. The kernel thread stays, as it is the process's first.
  // Signal 33 stays open: setuid() has to reach it.
  m->mask = world::kAllButStopSignal;
  world::SetSignalMask(m->mask);
  m->g0.words->in_sched--;
  heap::EndBusy();
  if (m->record != nullptr) world::EnterBlocked();
  for (;;) plat::FutexWait(&m->wake, 0);
}

// The running thread, the process's first one, becomes this G: main_g, or in a child of another
// thread that thread's.
bool Adopt(G* g) {
  M* m = &first_m;
  M* next = m->all_next;
  bool linked = m->id != 0;
  *m = {};
  m->all_next = next;
  InitM(m);
  // g0 of this M gets a stack and a block from a slot, which is never used for a thread.
  G* slot = TakeSlot(SlotShiftFor(kMStack));
  if (slot == nullptr || !MakeBlock(slot)) return false;
  ForgetThread(slot);
  G* g0 = &m->g0;
  g0->fs = slot->fs;
  g0->words = slot->words;
  m->own_alt = SlotBase(slot);
  g0->stack_low = m->own_alt + kAltSize;
  g0->stack_high = AlignDown(slot->fs + kPthreadSize - BlockSize(), 64);
  g0->scan_low = m->own_alt;
  g0->scan_high = SlotEnd(slot);
  *g0->words = {};
  g0->words->mcache = &heap::empty_mcache;
  g0->words->self = g0;
  g0->words->busy = g0->words->in_sched = 1;
  g0->on_cpu = 0;
  g0->sp = plat::MakeContext(g0->stack_high, RunFirstM, m);

  bool main = g == &main_g;
  bool pinned = g->state == GState::kPinned;
  g->main = main;
  g->fs = reinterpret_cast<Addr>(__builtin_thread_pointer());
  g->words = &heap::thread_words;
  g->m = m;
  g->on_cpu = 1;
  if (!pinned) g->state = GState::kRunning;
  g->tid = m->tid = static_cast<int>(plat::Syscall(__NR_gettid));
  if (g->goid == 0) g->goid = FetchAddRelaxed(&sched.next_goid, 1u);
  g->mask = m->mask = world::CurrentSignalMask() & ~kReservedSignals;
  MaskBorn(g->mask);
  AltStackOfMain(m, g);
  GiveAltStack(m);
  plat::Syscall(__NR_prctl, PR_GET_NAME, &g->name[0]);
  DropRseq();
  g->cpu_ns = plat::NowNs(CLOCK_THREAD_CPUTIME_ID);
  g->ran_from = LoadRelaxed(&accounting) != 0 ? g->cpu_ns : 0;
  m->block = g->fs;
  m->cur = g;
  m->record = static_cast<world::Record*>(heap::thread_words.record);
  if (m->record != nullptr) {
    if (main) {
      g->stack_low = m->record->own_low;
      g->stack_high = m->record->own_low + m->record->own_size;
      g->scan_low = m->record->stack_low;
      g->scan_high = m->record->stack_high;
    }
  }
  if (!linked) LinkM(m);
  if (on_adopted != nullptr) on_adopted(g);
  heap::thread_words.self = g;
  P* p = sched.ps[0];
  if (pinned) {
    PutIdleP(p);
    return true;
  }
  p->m = m;
  m->p = p;
  p->status = PStatus(m->id, kPRunning);
  heap::thread_words.g = g;
  return true;
}

bool UnderValgrind() {
  // Its client request RUNNING_ON_VALGRIND: instructions that do nothing elsewhere.
  const uint64_t request[6] = {0x1001};
  uint64_t answer = 0;
  asm volatile(
      "rolq $3, %%rdi\n\trolq $13, %%rdi\n\trolq $61, %%rdi\n\trolq $51, %%rdi\n\txchgq %%rbx, "
      "%%rbx"
      : "+d"(answer)
      : "a"(&request[0])
      : "cc", "memory");
  return answer != 0;
}

constinit const char* told_reason = nullptr;

// Tools that follow each thread by its kernel thread, its stack or its thread block.
const char* OtherTool() {
  constexpr const char* kSanitizers[] = {"__asan_init", "__tsan_init", "__msan_init",
                                         "__hwasan_init", "__lsan_init"};
  if (told_reason != nullptr) return told_reason;
  for (const char* s : kSanitizers) {
    if (dlsym(RTLD_DEFAULT, s) != nullptr) return "a sanitizer watches this program";
  }
  return UnderValgrind() ? "valgrind runs this program" : nullptr;
}

const char* Start() {
  if (IsConfined()) return kFiltered;
  if (const char* why = OtherTool()) return why;
  if (!plat::CanSwitch()) return "the kernel does not permit the fsgsbase instructions";
  if (const char* why = CheckLibc()) return why;
  G* first = ForgetAncestor();
  if (sched.next_goid == 0) sched.next_goid = 1;
  if (world::publishing) world::StartTracking();  // finds the bounds of the main stack
  sched.last_poll = plat::NowNs();
  if (!MakePs(static_cast<uint32_t>(Min(static_cast<size_t>(wanted_procs), kMaxProcs)))) {
    return "out of memory";
  }
  if (const char* why = StartSysmon()) return why;
  bool is_first = plat::Syscall(__NR_gettid) == plat::Syscall(__NR_getpid);
  sched.gcount = 1;
  if (is_first && first != nullptr) {
    if (!Adopt(first)) return "out of memory";
  } else {
    PutIdleP(sched.ps[0]);
  }
  world::parked_stack = ParkedStackAt;
  PreparePreemption();  // after the first thread: libc installs its handler of the signal then
  // Children begin without a scheduler; see sched/fork.cc.
  plat::Syscall(__NR_madvise, &active_page[0], sizeof active_page, MADV_WIPEONFORK);
  PrepareSemaForForks();
  StoreRelease(&active_page[0], 1u);  // pairs: Active
  return nullptr;
}

}  // namespace

void Configure(int procs) { wanted_procs = procs; }
void StayKernelThreads(const char* why) { told_reason = why; }

bool Configured() { return wanted_procs != 0; }

bool StartScheduler() {
  if (UNDERGO_LIKELY(Active())) return true;
  if (wanted_procs == 0 || LoadRelaxed(&refused)) return false;
  sync::MutexLock hold(start_lock);
  if (Active()) return true;
  if (refused) return false;
  const char* why = Start();
  if (why != nullptr) Refuse(why);
  return why == nullptr;
}

void NoteClone(unsigned long flags) {
  if ((flags & (CLONE_VM | CLONE_SETTLS | CLONE_VFORK)) != CLONE_VM) return;
  if (Active()) return Pin();
  sync::MutexLock hold(start_lock);
  StoreRelaxed(&refused, true);
}

bool NewM() {
  // Who waits for what processes share is a kernel thread natively, too.
  if (LoadRelaxed(&sched.m_count) >= kMaxMs + LoadRelaxed(&sched.shared_waits)) {
    constexpr char kText[] = "undergo: program exceeds 10000-thread limit\n";
    plat::LogWrite(kText, sizeof kText - 1);
    Fatal("thread exhaustion", __FILE__, __LINE__);
  }
  M* m = SpareM();
  bool spare = m != nullptr;
  if (!spare) m = FirstOfPool();
  if (m == nullptr) return false;
  InitM(m);
  bool made = MakeThread(MMain, m);
  if (made && !spare) {
    ++m_pool;
    --m_pool_left;
  } else if (!made) {
    FetchAddRelaxed(&sched.m_count, ~0u);
    if (spare) FetchAddRelaxed(&sched.spare_ms, 1u);
    StoreRelease(&m->tid, 0);  // pairs: SpareM
  }
  return made;
}

void EnsureSysmon() {
  if (UNDERGO_LIKELY(LoadAcquire(&sched.sysmon_runs) != 0)) return;  // pairs: StartSysmon
  sync::MutexLock hold(start_lock);
  if (sched.sysmon_runs == 0) StartSysmon();  // later, when no thread can be made now
}

}  // namespace undergo::sched
