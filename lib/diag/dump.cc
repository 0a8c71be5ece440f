// SPDX-License-Identifier: Apache-2.0
// Dump of all threads.
//
// Two steps. With the world stopped the call chains are collected as addresses: of a thread that
// waits from the registers on its stack, of one that runs from the signal's frame, of one in a
// blocking call from the frame of undergo_world_blocked_call. Then the world runs, and the loader
// is asked for names; it may have to wait for a thread that holds its lock.
#include "diag/dump.h"

#include <dlfcn.h>
#include <ucontext.h>

#include "base/fmt.h"
#include "plat/backtrace.h"
#include "plat/clock.h"
#include "plat/log.h"
#include "plat/vm.h"
#include "sched/park.h"
#include "sched/sched.h"
#include "sched/thread.h"
#include "world/world.h"

namespace undergo::diag {

namespace {

constexpr uint32_t kMaxThreads = 20'000;  // in one dump; the rest is counted
constexpr uint32_t kMaxRunning = 512;
constexpr uint32_t kDepth = 24;
constexpr uint64_t kStopNs = 200'000'000;

struct Entry {
  uint64_t goid;
  sched::GState state;
  sched::WaitReason why;
  uint64_t since;  // ns, as G::since
  int tid;
  char name[16];
  uint32_t depth;
  Addr pcs[kDepth];
};

struct Running {
  int tid;
  Addr sp;
  const ucontext_t* frame;
};

struct Dump {
  Entry* entries;
  uint32_t count, left_out;
  Running running[kMaxRunning];
  uint32_t running_count;
  bool stopped;
};

void NoteRunning(Dump* d) {
  world::ForEachStopped([d](const world::StoppedThread& t) {
    if (d->running_count == kMaxRunning) return;
    d->running[d->running_count++] = {t.tid, t.sp, static_cast<const ucontext_t*>(t.frame)};
  });
}

// What undergo_switch left on the stack (plat/context.h), or undergo_preempted before it.
uint32_t ChainOfParked(const sched::G* g, Addr* pcs) {
  if (const Addr* frame = g->preempted; frame != nullptr) {
    constexpr size_t kRedZone = 128;
    Addr sp = reinterpret_cast<Addr>(frame + 17) + kRedZone;
    return plat::BacktraceFrom(frame[16], sp, frame[10], pcs, kDepth);
  }
  auto* words = reinterpret_cast<const Addr*>(g->sp);
  return plat::BacktraceFrom(words[8], g->sp + 72, words[7], pcs, kDepth);
}

uint32_t ChainOfRunning(const Dump* d, const sched::G* g, Addr* pcs) {
  for (uint32_t i = 0; i < d->running_count; ++i) {
    const Running& r = d->running[i];
    if (g->m == nullptr || r.tid != g->m->tid) continue;
    if (r.frame != nullptr) {
      const auto* registers = r.frame->uc_mcontext.gregs;
      return plat::BacktraceFrom(static_cast<Addr>(registers[REG_RIP]),
                                 static_cast<Addr>(registers[REG_RSP]),
                                 static_cast<Addr>(registers[REG_RBP]), pcs, kDepth);
    }
    // World's frame: a pad, r15 to r12, rbx, rbp, the return address.
    auto* words = reinterpret_cast<const Addr*>(r.sp);
    return plat::BacktraceFrom(words[7], r.sp + 64, words[6], pcs, kDepth);
  }
  return 0;
}

void Collect(void* context, sched::G* g) {
  auto* d = static_cast<Dump*>(context);
  if (d->count == kMaxThreads) {
    d->left_out++;
    return;
  }
  Entry* e = &d->entries[d->count++];
  e->goid = g->goid;
  e->state = g->state;
  e->why = g->why;
  e->since = g->since;
  e->tid = g->tid;
  __builtin_memcpy(e->name, g->name, sizeof e->name);
  if (!d->stopped) return;
  bool parked = LoadAcquire(&g->on_cpu) == 0;  // pairs: FinishSwitch
  e->depth = parked ? ChainOfParked(g, e->pcs) : ChainOfRunning(d, g, e->pcs);
}

const char* StateOf(const Entry& e) {
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

void PrintFrame(Addr pc, Fmt* out) {
  Dl_info info = {};
  // A return address may lie behind the end of its function.
  if (dladdr(reinterpret_cast<void*>(pc - 1), &info) == 0 || info.dli_fname == nullptr) {
    out->Str("?(...)\n\t").Hex(pc).Char('\n');
    return;
  }
  out->Str(info.dli_sname != nullptr ? info.dli_sname : "?").Str("(...)\n\t");
  out->Str(info.dli_fname).Char('+').Hex(pc - reinterpret_cast<Addr>(info.dli_fbase)).Char('\n');
}

void Print(const Entry& e, uint64_t now) {
  constexpr uint64_t kMinute = 60'000'000'000;
  char text[8192];
  Fmt out(text, sizeof text);
  out.Str("\ngoroutine ").Dec(e.goid).Str(" [").Str(StateOf(e));
  bool waits = e.state == sched::GState::kWaiting || e.state == sched::GState::kSyscall;
  if (waits && e.since != 0 && now - e.since >= kMinute) {
    out.Str(", ").Dec((now - e.since) / kMinute).Str(" minutes");
  }
  out.Str("]:");
  if (e.name[0] != '\0') out.Str(" ").Str(e.name);
  out.Str(" tid ").Dec(static_cast<uint64_t>(e.tid)).Char('\n');
  for (uint32_t i = 0; i < e.depth; ++i) PrintFrame(e.pcs[i], &out);
  plat::LogWrite(out.text(), out.length());
}

// Of the request that is being served.
constinit const char* title = nullptr;
using Afterwards = void (*)();
constinit Afterwards afterwards = nullptr;

void* DumpThread(void*) {
  DumpThreads(title);
  if (afterwards != nullptr) afterwards();
  return nullptr;
}

}  // namespace

void DumpThreads(const char* first_line) {
  size_t size = AlignUp(sizeof(Dump), kOsPageSize) + AlignUp(kMaxThreads * sizeof(Entry), 4096);
  auto* d = static_cast<Dump*>(plat::MapPages(size));
  if (d == nullptr) return;
  d->entries =
      reinterpret_cast<Entry*>(reinterpret_cast<Addr>(d) + AlignUp(sizeof(Dump), kOsPageSize));
  world::StartTracking();
  d->stopped = world::StopTheWorld(kStopNs) == world::StopResult::kStopped;
  if (d->stopped) NoteRunning(d);
  sched::ForEachThread(Collect, d);
  if (d->stopped) world::StartTheWorld();
  if (first_line != nullptr) {
    plat::LogWrite(first_line, __builtin_strlen(first_line));
    plat::LogWrite("\n", 1);
  }
  uint64_t now = plat::NowNs();
  for (uint32_t i = 0; i < d->count; ++i) Print(d->entries[i], now);
  if (d->left_out != 0) {
    char text[80];
    Fmt out(text, sizeof text);
    out.Str("\n... ").Dec(d->left_out).Str(" more\n");
    plat::LogWrite(out.text(), out.length());
  }
  plat::Unmap(reinterpret_cast<Addr>(d), size);
}

bool RequestDump(const char* first_line, void (*then)()) {
  if (!sched::Active()) return false;
  title = first_line;
  afterwards = then;
  return sched::RequestThread(DumpThread);
}

}  // namespace undergo::diag
