// SPDX-License-Identifier: Apache-2.0
// schedtrace. What is read changes meanwhile: the numbers are those of about one moment, as Go's
// are.
#include "sched/trace.h"

#include "plat/clock.h"
#include "plat/log.h"
#include "sched/park.h"
#include "sched/thread.h"

namespace undergo::sched {

namespace {

constinit uint64_t period = 0;   // ns; written before the scheduler starts
constinit bool detail = false;   // the same
constinit uint64_t started = 0;  // ns, the first trace; sysmon
constinit uint64_t last = 0;     // ns, the latest; sysmon

// Go's numbers for the states of Gs.
uint32_t StatusOf(const G* g) {
  switch (g->state) {
    case GState::kIdle: return 0;
    case GState::kRunnable: return 1;
    case GState::kRunning:
    case GState::kPinned: return 2;
    case GState::kSyscall: return 3;
    case GState::kWaiting: return 4;
    case GState::kDead: return 6;
  }
  return 0;
}

Fmt& Id(Fmt* out, bool known, uint64_t id) { return known ? out->Dec(id) : out->Str("-1"); }

void Write(const Fmt& line) { plat::LogWrite(line.text(), line.length()); }

template <typename T>
void WriteOne(const T* what) {
  char text[256];
  Fmt line(text, sizeof text);
  FormatTraceOf(what, &line);
  Write(line);
}

void Print(uint64_t now) {
  char text[kTraceLine];
  Fmt line(text, sizeof text);
  FormatTrace(now - started, &line);
  Write(line);
  if (!detail) return;
  for (uint32_t i = 0; i < sched.procs; ++i) WriteOne(sched.ps[i]);
  for (M* m = LoadAcquire(&sched.all_ms); m != nullptr; m = m->all_next)
    WriteOne(m);  // pairs: LinkM
  ForEachThread([](void*, G* g) { WriteOne(g); }, nullptr);
}

}  // namespace

void FormatTrace(uint64_t since_start_ns, Fmt* out) {
  out->Str("SCHED ").Dec(since_start_ns / 1'000'000).Str("ms: gomaxprocs=").Dec(sched.procs);
  out->Str(" idleprocs=").Dec(LoadRelaxed(&sched.idle_p_count));
  out->Str(" threads=").Dec(LoadRelaxed(&sched.m_count));
  out->Str(" spinningthreads=").Dec(LoadRelaxed(&sched.spinning));
  out->Str(" idlethreads=").Dec(LoadRelaxed(&sched.idle_m_count));
  out->Str(" runqueue=").Dec(LoadRelaxed(&sched.global.size));
  if (detail) {
    out->Str(" gcwaiting=0 nmidlelocked=0 stopwait=0 sysmonwait=0\n");
    return;
  }
  for (uint32_t i = 0; i < sched.procs; ++i) {
    const P* p = sched.ps[i];
    out->Str(i == 0 ? " [" : " ").Dec(LoadRelaxed(&p->tail) - LoadRelaxed(&p->head));
  }
  out->Str("]\n");
}

void FormatTraceOf(const P* p, Fmt* out) {
  uint32_t status = LoadRelaxed(&p->status) & 3;
  // Go knows 0 idle, 1 running, 2 in a system call.
  uint32_t shown = status == kPIdle ? 0 : status == kPSyscall ? 2 : 1;
  const M* m = p->m;
  out->Str("  P").Dec(p->id).Str(": status=").Dec(shown);
  out->Str(" schedtick=").Dec(LoadRelaxed(&p->tick));
  out->Str(" syscalltick=").Dec(LoadRelaxed(&p->call_tick)).Str(" m=");
  Id(out, m != nullptr && shown != 0, m != nullptr ? m->id : 0);
  out->Str(" runqsize=").Dec(LoadRelaxed(&p->tail) - LoadRelaxed(&p->head));
  out->Str(" gfreecnt=").Dec(p->free_count).Str(" timerslen=").Dec(p->timers.size()).Char('\n');
}

void FormatTraceOf(const M* m, Fmt* out) {
  const P* p = m->p;
  const G* g = m->cur;
  bool runs = g != nullptr && !g->g0;
  bool locked = runs && g->state == GState::kPinned;
  out->Str("  M").Dec(m->id).Str(": p=");
  Id(out, p != nullptr, p != nullptr ? p->id : 0).Str(" curg=");
  Id(out, runs, runs ? g->goid : 0);
  out->Str(" mallocing=0 throwing=0 preemptoff= locks=0 dying=0 spinning=");
  out->Str(m->spinning ? "true" : "false");
  out->Str(" blocked=").Str(!runs && p == nullptr ? "true" : "false").Str(" lockedg=");
  Id(out, locked, locked ? g->goid : 0).Char('\n');
}

void FormatTraceOf(const G* g, Fmt* out) {
  uint32_t status = StatusOf(g);
  bool on_m = status == 2 || status == 3;
  bool locked = g->state == GState::kPinned;
  uint64_t id = on_m && g->m != nullptr ? g->m->id : 0;
  out->Str("  G").Dec(g->goid).Str(": status=").Dec(status).Char('(');
  out->Str(status == 4 ? NameOf(g->why) : "").Str(") m=");
  Id(out, on_m, id).Str(" lockedm=");
  Id(out, locked, id).Char('\n');
}

void ConfigureTrace(uint64_t period_ns, bool detailed) {
  period = period_ns;
  detail = detailed;
}

uint64_t TracePeriod() { return period; }

void TraceIfDue(uint64_t now) {
  if (period == 0 || now - last < period) return;
  if (started == 0) started = now;
  last = now;
  Print(now);
}

}  // namespace undergo::sched
