// SPDX-License-Identifier: Apache-2.0
// Dump of all threads.
//
// Two steps, on a thread that libc does not know (plat/thread.h), so that there is one also when
// sysmon has ended, when there is one thread or no scheduler. With the world stopped the call
// chains are collected as addresses: of a thread that waits from the registers on its stack, of one
// that runs from the signal's frame, of one in a blocking call from the frame of
// undergo_world_blocked_call. Then the world runs, and the addresses get names (symbols.h), for
// which no lock is taken: a program that hangs may hold any.
//
// Kernel threads that are no M's are shown by their own ids.
#include "diag/dump.h"

#include <fcntl.h>
#include <ucontext.h>

#include "base/fmt.h"
#include "diag/symbols.h"
#include "plat/backtrace.h"
#include "plat/clock.h"
#include "plat/futex.h"
#include "plat/log.h"
#include "plat/thread.h"
#include "plat/vm.h"
#include "sched/park.h"
#include "sched/sched.h"
#include "sched/thread.h"
#include "world/world.h"

namespace undergo::diag {

namespace {

constexpr uint32_t kMaxThreads = 20'000;  // in one dump; the rest is counted
constexpr uint32_t kDepth = 24;
constexpr uint64_t kStopNs = 1'000'000'000;

struct Entry {
  uint64_t goid;  // 0: a kernel thread
  sched::GState state;
  sched::WaitReason why;
  bool in_kernel;  // of a kernel thread
  uint64_t since;  // ns, as G::since
  int tid;
  char name[16];
  uint32_t depth;
  bool exact;  // the first address is an instruction, not where a call returns to
  Addr pcs[kDepth];
};

struct Running {
  int tid;
  Addr sp, pc, bp;  // as StoppedThread has them
  const ucontext_t* frame;
};

struct Dump {
  DumpOrder order;
  Entry* entries;
  uint32_t count, left_out;
  Running* running;
  uint32_t running_count;
  bool stopped;
};

// Of the dump that is being printed.
enum Busy : uint32_t { kIdle, kPrinting, kPrintingAgain };
constinit uint32_t busy = kIdle;  // atomic futex
constinit DumpOrder order_now = {};
constinit const char* next_title = nullptr;  // atomic; of the one that follows it

void NoteRunning(Dump* d) {
  world::ForEachStopped([d](const world::StoppedThread& t) {
    if (d->running_count == kMaxThreads) return;
    const auto* frame = static_cast<const ucontext_t*>(
        t.tid == d->order.waiting_tid ? d->order.waiting_context : t.frame);
    d->running[d->running_count++] = {t.tid, t.sp, t.pc, t.bp, frame};
  });
}

// What undergo_switch left on the stack (plat/context.h), or undergo_preempted before it.
void ChainOfParked(const sched::G* g, Entry* e) {
  if (const Addr* frame = g->preempted; frame != nullptr) {
    constexpr size_t kRedZone = 128;
    Addr sp = reinterpret_cast<Addr>(frame + 17) + kRedZone;
    e->depth = plat::BacktraceFrom(frame[16], sp, frame[10], e->pcs, kDepth);
    e->exact = true;
    return;
  }
  auto* words = reinterpret_cast<const Addr*>(g->sp);
  e->depth = plat::BacktraceFrom(words[8], g->sp + 72, words[7], e->pcs, kDepth);
}

// Whether a system call is being made, or was interrupted, there.
bool IsSystemCall(Addr pc) {
  uint8_t code[4] = {};
  if (!plat::SafeRead(pc - 2, code, sizeof code)) return false;
  return (code[0] == 0x0f && code[1] == 0x05) || (code[2] == 0x0f && code[3] == 0x05);
}

void ChainOfRunning(const Running& r, Entry* e) {
  if (r.frame != nullptr) {
    const auto* registers = r.frame->uc_mcontext.gregs;
    auto pc = static_cast<Addr>(registers[REG_RIP]);
    e->depth = plat::BacktraceFrom(pc, static_cast<Addr>(registers[REG_RSP]),
                                   static_cast<Addr>(registers[REG_RBP]), e->pcs, kDepth);
    e->exact = e->depth != 0 && e->pcs[0] == pc;
    e->in_kernel = IsSystemCall(pc);
    return;
  }
  if (r.pc != 0) {
    e->depth = plat::BacktraceFrom(r.pc, r.sp, r.bp, e->pcs, kDepth);
    return;
  }
  // World's frame: a pad, r15 to r12, rbx, rbp, the return address.
  auto* words = reinterpret_cast<const Addr*>(r.sp);
  e->in_kernel = true;
  e->depth = plat::BacktraceFrom(words[7], r.sp + 64, words[6], e->pcs, kDepth);
}

Entry* NewEntry(Dump* d) {
  if (d->count < kMaxThreads) return &d->entries[d->count++];
  d->left_out++;
  return nullptr;
}

void Collect(void* context, sched::G* g) {
  auto* d = static_cast<Dump*>(context);
  Entry* e = NewEntry(d);
  if (e == nullptr) return;
  e->goid = g->goid;
  e->state = g->state;
  e->why = g->why;
  e->since = g->since;
  e->tid = g->tid;
  __builtin_memcpy(e->name, g->name, sizeof e->name);
  if (!d->stopped) return;
  // One that was preempted may be back on a CPU, stopped before its registers are.
  bool left = LoadAcquire(&g->on_cpu) == 0 || g->preempted != nullptr;  // pairs: FinishSwitch
  if (left) return ChainOfParked(g, e);
  for (uint32_t i = 0; i < d->running_count; ++i) {
    if (g->m != nullptr && d->running[i].tid == g->m->tid) ChainOfRunning(d->running[i], e);
  }
}

bool IsOfScheduler(int tid) {
  if (!sched::Active()) return false;
  if (LoadRelaxed(&sched::sched.sysmon_runs) != 0 && tid == sched::sched.sysmon_tid) return true;
  for (sched::M* m = LoadAcquire(&sched::sched.all_ms); m != nullptr; m = m->all_next) {
    if (LoadRelaxed(&m->tid) == tid) return true;  // pairs: LinkM
  }
  return false;
}

void CollectKernelThreads(Dump* d) {
  for (uint32_t i = 0; i < d->running_count; ++i) {
    if (IsOfScheduler(d->running[i].tid)) continue;
    Entry* e = NewEntry(d);
    if (e == nullptr) continue;
    e->tid = d->running[i].tid;
    ChainOfRunning(d->running[i], e);
  }
}

// Of a kernel thread.
void ReadName(int tid, char* name, size_t size) {
  char text[64];
  Fmt path(text, sizeof text);
  path.Str("/proc/self/task/").Dec(static_cast<uint64_t>(tid)).Str("/comm");
  long fd = plat::Syscall(__NR_openat, AT_FDCWD, path.text(), O_RDONLY | O_CLOEXEC, 0);
  if (plat::IsError(fd)) return;
  long n = plat::Syscall(__NR_read, fd, name, size - 1);
  plat::Syscall(__NR_close, fd);
  name[n > 0 ? n - 1 : 0] = '\0';  // for the end of the line
}

const char* StateOf(const Entry& e) {
  if (e.goid == 0) return e.in_kernel ? "syscall" : "running";
  switch (e.state) {
    case sched::GState::kRunnable: return "runnable";
    case sched::GState::kRunning: return "running";
    case sched::GState::kPinned: return "running, locked to thread";
    case sched::GState::kSyscall: return "syscall";
    case sched::GState::kWaiting: return sched::NameOf(e.why);
    case sched::GState::kIdle:
    case sched::GState::kDead: return "dead";
  }
  return "";
}

void Print(Entry* e, uint64_t now, Symbols* symbols) {
  constexpr uint64_t kMinute = 60'000'000'000;
  char text[16384];
  Fmt out(text, sizeof text);
  auto tid = static_cast<uint64_t>(e->tid);
  if (e->goid == 0) ReadName(e->tid, e->name, sizeof e->name);
  out.Str(e->goid != 0 ? "\ngoroutine " : "\nthread ").Dec(e->goid != 0 ? e->goid : tid);
  out.Str(" [").Str(StateOf(*e));
  bool waits = e->state == sched::GState::kWaiting || e->state == sched::GState::kSyscall;
  if (waits && e->since != 0 && now - e->since >= kMinute) {
    out.Str(", ").Dec((now - e->since) / kMinute).Str(" minutes");
  }
  out.Str("]:");
  if (e->name[0] != '\0') out.Char(' ').Str(e->name);
  if (e->goid != 0) out.Str(" tid ").Dec(tid);
  out.Char('\n');
  for (uint32_t i = 0; i < e->depth; ++i) symbols->Describe(e->pcs[i], i > 0 || !e->exact, &out);
  plat::LogWrite(out.text(), out.length());
}

void PrintLine(const char* line) {
  char text[160];
  Fmt out(text, sizeof text);
  out.Str(line).Char('\n');
  plat::LogWrite(out.text(), out.length());
}

void PrintAll(const Dump& d) {
  Symbols symbols;
  if (d.order.title != nullptr) PrintLine(d.order.title);
  if (!d.stopped) PrintLine("undergo: a thread did not stop within a second: no call chains");
  uint64_t now = plat::NowNs();
  for (uint32_t i = 0; i < d.count; ++i) Print(&d.entries[i], now, &symbols);
  if (d.left_out == 0) return;
  char text[80];
  Fmt out(text, sizeof text);
  out.Str("\n... ").Dec(d.left_out).Str(" more\n");
  plat::LogWrite(out.text(), out.length());
}

void DumpThreads(const DumpOrder& order) {
  constexpr size_t kEntries = AlignUp(kMaxThreads * sizeof(Entry), kOsPageSize);
  constexpr size_t kRunning = AlignUp(kMaxThreads * sizeof(Running), kOsPageSize);
  constexpr size_t kSize = kOsPageSize + kEntries + kRunning;
  static_assert(sizeof(Dump) <= kOsPageSize);
  auto memory = reinterpret_cast<Addr>(plat::MapPages(kSize));
  if (memory == 0) return PrintLine("undergo: no memory for the dump of all threads");
  auto* d = reinterpret_cast<Dump*>(memory);
  d->order = order;
  d->entries = reinterpret_cast<Entry*>(memory + kOsPageSize);
  d->running = reinterpret_cast<Running*>(memory + kOsPageSize + kEntries);
  world::StartTracking();
  d->stopped = world::StopTheWorld(kStopNs) == world::StopResult::kStopped;
  if (d->stopped) NoteRunning(d);
  sched::ForEachThread(Collect, d);
  CollectKernelThreads(d);
  if (d->stopped) world::StartTheWorld();
  PrintAll(*d);
  plat::Unmap(memory, kSize);
}

// False: one more is wanted.
bool End() {
  uint32_t printing = kPrinting;
  if (!CasAcqRel(&busy, &printing, uint32_t{kIdle})) return false;  // pairs: RequestDump, AwaitDump
  plat::FutexWake(&busy, ~0u >> 1);
  return true;
}

void RunDump(void*) {
  DumpOrder order = order_now;
  for (;;) {
    DumpThreads(order);
    if (order.then != nullptr) order.then();
    if (End()) return;
    order = {};
    order.title = LoadRelaxed(&next_title);
    StoreRelease(&busy, uint32_t{kPrinting});  // pairs: RequestDump
  }
}

// One dump that begins later serves all who asked meanwhile.
bool Queue(const DumpOrder& order) {
  StoreRelaxed(&next_title, order.title);
  uint32_t printing = kPrinting;
  return CasAcqRel(&busy, &printing, uint32_t{kPrintingAgain}) ||  // pairs: End
         printing == kPrintingAgain;
}

}  // namespace

bool RequestDump(const DumpOrder& order) {
  for (;;) {
    uint32_t idle = kIdle;
    if (CasAcqRel(&busy, &idle, uint32_t{kPrinting})) break;  // pairs: End
    if (!order.queues) return false;
    if (Queue(order)) return true;
  }
  order_now = order;
  if (plat::SpawnThread(RunDump, nullptr, "undergo-dump") > 0) return true;
  StoreRelease(&busy, uint32_t{kIdle});  // pairs: RequestDump, AwaitDump
  plat::FutexWake(&busy, ~0u >> 1);
  return false;
}

void AwaitDump() {
  while (uint32_t now = LoadAcquire(&busy)) plat::FutexWait(&busy, now);  // pairs: End
}

}  // namespace undergo::diag
