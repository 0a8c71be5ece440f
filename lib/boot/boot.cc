// SPDX-License-Identifier: Apache-2.0
// The composition root: settings, wiring of the layers, reports at exit.
//
// The heap needs nothing from here: the loader allocates before any constructor runs. The library
// is linked with -z initfirst, so that this constructor is the first one: fork handlers and the
// thread-exit key are registered before those of any other object, and a bad setting ends the
// process before its first instruction.
#include "boot/boot.h"

#include "base/fmt.h"
#include "boot/options.h"
#include "boot/procs.h"
#include "boot/stress.h"
#include "diag/deadlock.h"
#include "diag/dump.h"
#include "diag/tracer.h"
#include "gc/audit.h"
#include "gc/collector.h"
#include "heap/bad_free.h"
#include "heap/heap_stats.h"
#include "heap/mheap.h"
#include "plat/log.h"
#include "plat/own_ranges.h"
#include "plat/real.h"
#include "plat/syscall.h"
#include "posix/modules.h"
#include "posix/posix.h"
#include "posix/program.h"
#include "sched/fork.h"
#include "sched/preempt.h"
#include "sched/procs.h"
#include "sched/sysmon.h"
#include "sched/thread.h"
#include "sched/trace.h"

// ThreadSanitizer, in the program or in a library. To ask the loader would be too much before it
// has begun.
extern "C" __attribute__((weak)) void __tsan_init();

namespace undergo::boot {

namespace {

constexpr int kExitBadSetting = 2;

// Linked into the program: then not only malloc is its own, but also strcmp and the rest, and they
// must not be called before it has begun, later than this library. Nothing of ours begins.
bool TsanInProgram() {
  return &__tsan_init != nullptr && posix::InExecutable(reinterpret_cast<Addr>(&__tsan_init));
}

void ReadSettings(char** envp) {
  char error[512];
  if (ParseOptions(envp, &options, error, sizeof error)) return;
  char line[600];
  Fmt out(line, sizeof line);
  out.Str("undergo: ").Str(error).Char('\n');
  plat::LogWrite(out.text(), out.length());
  plat::Syscall(__NR_exit_group, kExitBadSetting);
}

void ApplySettings() {
  if (options.log[0] != '\0') plat::SetLogPath(options.log);
  heap::tolerate_bad_free = options.badfree == BadFreeAction::kIgnore;
  if (options.godebug.madvdontneed == 0) heap::mheap.SetLazyRelease();
  if (options.thp == ThpMode::kOff) heap::mheap.SetHugePages(heap::HugePages::kOff);
  if (options.thp == ThpMode::kAlways) heap::mheap.SetHugePages(heap::HugePages::kAlways);
  if (options.purge_ns != Options{}.purge_ns) {
    heap::mheap.SetPurgeDelay(options.purge_ns == kNever ? ~uint64_t{0}
                                                         : static_cast<uint64_t>(options.purge_ns));
  }
}

int Procs() {
  return options.gomaxprocs > 0 ? options.gomaxprocs
                                : DefaultProcs(options.godebug.containermaxprocs != 0);
}

heap::ReclaimMode ModeOf(GcMode mode) {
  if (mode == GcMode::kReport) return heap::ReclaimMode::kReport;
  if (mode == GcMode::kQuarantine) return heap::ReclaimMode::kQuarantine;
  return mode == GcMode::kPoison ? heap::ReclaimMode::kPoison : heap::ReclaimMode::kReclaim;
}

gc::Facility FacilityOf(TrackingMode mode) {
  if (mode == TrackingMode::kSnapshot) return gc::Facility::kSnapshot;
  return mode == TrackingMode::kStop ? gc::Facility::kStopped : gc::Facility::kWriteProtect;
}

// `undergo audit` gives the path of its counters by a variable of its own.
void JoinAudit(char** envp) {
  constexpr char kName[] = "UNDERGO_AUDIT=";
  constexpr size_t kSize = sizeof kName - 1;
  for (; *envp != nullptr; ++envp) {
    if (__builtin_strncmp(*envp, kName, kSize) == 0) return gc::OpenAudit(*envp + kSize);
  }
}

void StartCollector(int procs) {
  if (options.gc == GcMode::kOff) return;
  if (posix::HasOwnMalloc()) {
    // Its objects are not ours to collect, and we cannot see into them.
    options.gc = GcMode::kOff;
    static constexpr char kLine[] =
        "undergo: collector off: the program brings a malloc of its own\n";
    if (options.godebug.gctrace > 0) plat::LogWrite(kLine, sizeof kLine - 1);
    return;
  }
  heap::size_rounding = heap::kGranule;  // the slack byte
  gc::Config config;
  config.percent = options.gogc_percent;
  config.memory_limit = options.gomemlimit_bytes;
  config.procs = procs;
  config.memory = MemoryOfProcess;
  config.mode = ModeOf(options.gc);
  config.trace = options.godebug.gctrace > 0;
  config.pacer_trace = options.godebug.gcpacertrace > 0;
  config.scavenger_trace = options.godebug.scavtrace > 0;
  config.check_mark = options.godebug.gccheckmark > 0;
  config.stop_the_world = options.godebug.gcstoptheworld;
  config.unaligned = options.unaligned;
  config.clobber = options.godebug.clobberfree > 0;
  config.stress = options.stress == StressMode::kGc;
  config.first_facility = FacilityOf(options.tracking);
  gc::Start(config);
  posix::StartModules(options.nocollect);
  if (options.gc == GcMode::kPoison) posix::WatchFaults();
}

__attribute__((constructor)) void OnLoad(int argc, char** argv, char** envp) {
  Start(argc, argv, envp);
}

__attribute__((destructor)) void OnExit() {
  if (TsanInProgram()) return;
  gc::ReportAtExit();
  diag::AwaitTracer();
  if (options.stats != StatsMode::kExit) return;
  heap::HeapStats s;
  heap::ReadHeapStats(&s);
  char text[heap::kStatsTextSize];
  Fmt out(text, sizeof text);
  heap::FormatStats(s, &out);
  plat::LogWrite(out.text(), out.length());
}

}  // namespace

void Start(int, char**, char** envp) {
  if (TsanInProgram()) return;
  ReadSettings(envp);
  if (&__tsan_init != nullptr) options.gc = GcMode::kOff;  // it has memory that nobody may read
  real::Resolve();
  heap::heap_client.free_foreign = posix::FreeForeign;
  heap::heap_client.foreign_size = posix::ForeignSize;
  ApplySettings();
  plat::AddOwnModule();
  posix::InstallForkHandlers();
  JoinAudit(envp);
  int procs = options.gc != GcMode::kOff || options.sched ? Procs() : 0;
  StartCollector(procs);
  posix::InstallThreadExitHook();
  // Who names a signal wants no call of the program to end early for it.
  bool dumps = options.dump_signal > 0;
  if (options.gc != GcMode::kOff || options.stress != StressMode::kOff || dumps) {
    posix::EnableBlockingCalls();
  }
  if (dumps) world::EnablePublishing();
  StartStress();
  posix::InstallSignals();
  if (options.dump_signal >= 0) {
    diag::ConfigureDumpSignal(dumps ? options.dump_signal : SIGQUIT, dumps);
  }
  if (!options.sched) return;
  posix::InstallWishes();
  // Sanitizers that were linked in export nothing, but they look for this.
  if (posix::ProgramImports("__sanitizer_symbolize_code")) {
    sched::StayKernelThreads("a sanitizer watches this program");
  }
  posix::QuietOpenMp(procs);
  if (posix::ProgramImports("ptrace")) sched::ForkersTrace();
  sched::Configure(procs);
  // As in Go, an explicit number stays.
  if (options.gomaxprocs <= 0 && options.godebug.updatemaxprocs > 0) sched::ConfigureProcs(Procs);
  sched::ConfigureTrace(static_cast<uint64_t>(Max(options.godebug.schedtrace, 0)) * 1'000'000,
                        options.godebug.scheddetail > 0);
  if (gc::IsOn()) sched::clock_hook = gc::CheckTimer;
  if (options.deadlock != DeadlockMode::kOff) {
    diag::WatchForDeadlock(options.deadlock == DeadlockMode::kAbort);
  }
  sched::preempt_by_signal = options.godebug.asyncpreemptoff <= 0;
  sched::preempt_always = options.stress == StressMode::kPreempt;
}

}  // namespace undergo::boot
