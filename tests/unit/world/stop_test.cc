// SPDX-License-Identifier: Apache-2.0
// What a stop shows and what it leaves alone, one kind of thread at a time.
#include "support.h"

using namespace undergo;
using namespace undergo::world;
using namespace undergo::world::test;

namespace {

volatile uint64_t sink;

void Compute(Worker* w) {
  Begun(w);
  while (!Quit(w)) StoreRelaxed(&w->count, w->count + 1);
}

// Holds a value in a callee-saved register and spins.
void HoldInRegister(Worker* w, uint64_t value) {
  register uint64_t held asm("r12") = value;
  Begun(w);
  while (!Quit(w)) {
    asm volatile("" : "+r"(held));
    StoreRelaxed(&w->count, w->count + 1);
  }
  sink = held;
}

bool Holds(const void* from, size_t size, uint64_t value) {
  auto* bytes = static_cast<const char*>(from);
  for (size_t i = 0; i + 8 <= size; i += 4) {
    uint64_t word;
    memcpy(&word, bytes + i, 8);
    if (word == value) return true;
  }
  return false;
}

int CloneEntry(void* arg) {
  Compute(static_cast<Worker*>(arg));
  syscall(SYS_exit, 0);
  return 0;
}

// Time for the kernel to show a thread where it waits.
void LetSettle() { SleepMs(20); }

}  // namespace

TestSuite(stop, .timeout = 60);

Test(stop, alone) {
  pid_t child = fork();  // the test's own process has a thread of the framework
  if (child == 0) {
    Begin();
    for (int i = 0; i < 100; ++i) {
      Stop();
      size_t n = 0;
      ForEachStopped([&](const StoppedThread&) { ++n; });
      CHECK(n == 0);
      StartTheWorld();
    }
    _exit(IsStopped() ? 1 : 7);
  }
  int status;
  cr_assert(waitpid(child, &status, 0) == child);
  cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 7, "%x", status);
}

Test(stop, running_thread_stands_still) {
  Begin();
  Worker w = {};
  std::thread t([&] {
    Announce();
    Compute(&w);
    ThreadEnded();
  });
  AwaitAlive(&w);
  for (int i = 0; i < 1000; ++i) {
    Stop();
    uint64_t before = LoadRelaxed(&w.count);
    StoppedThread s = StoppedByTid(w.tid);
    CHECK(s.frame != nullptr && s.frame_size > 512);
    CHECK_MSG(s.stack_low < s.sp && s.sp < s.stack_high, "%lx %lx %lx", s.stack_low, s.sp,
              s.stack_high);
    for (int k = 0; k < 200; ++k) CpuRelax();
    CHECK_MSG(LoadRelaxed(&w.count) == before, "the thread moved");
    StartTheWorld();
    if (i % 100 == 0) {
      for (int k = 0; LoadRelaxed(&w.count) == before; ++k) {
        cr_assert(k < 1000, "the thread does not go on");
        SleepMs(1);
      }
    }
  }
  StoreRelease(&w.quit, 1);
  t.join();
  Stop();
  ForEachStopped([&](const StoppedThread& s) { CHECK(s.tid != w.tid); });
  StartTheWorld();
}

Test(stop, registers_are_in_the_frame) {
  Begin();
  Worker w = {};
  constexpr uint64_t kValue = 0x5eed'0123'4567'89ab;
  std::thread t([&] { HoldInRegister(&w, kValue); });
  AwaitAlive(&w);
  Stop();
  StoppedThread s = StoppedByTid(w.tid);
  CHECK(Holds(s.frame, s.frame_size, kValue));
  CHECK_MSG(s.stack_low == s.stack_high, "nobody told its bounds");
  StartTheWorld();
  StoreRelease(&w.quit, 1);
  t.join();
}

Test(stop, vector_registers_are_in_the_frame) {
  Begin();
  Worker w = {};
  constexpr uint64_t kValue = 0x5eed'0123'4567'89cd;
  std::thread t([&] {
    uint64_t value = kValue - 1;
    asm volatile("incq %0\n\tmovq %0, %%xmm11\n\txorl %k0, %k0" : "+r"(value) : : "xmm11");
    Begun(&w);
    asm volatile("1: cmpl $0, %0\n\tje 1b" : : "m"(w.quit) : "xmm11", "memory");
  });
  AwaitAlive(&w);
  LetSettle();
  Stop();
  StoppedThread s = StoppedByTid(w.tid);
  CHECK(Holds(s.frame, s.frame_size, kValue));
  StartTheWorld();
  StoreRelease(&w.quit, 1);
  t.join();
}

Test(stop, blocked_call_gets_no_signal) {
  Begin();
  Worker w = {};
  int ends[2];
  cr_assert(pipe(ends) == 0);
  constexpr uint64_t kValue = 0x5eed'0123'4567'8901;
  std::thread t([&] {
    register uint64_t held asm("r13") = kValue;
    Announce();
    asm volatile("" : "+r"(held));
    Begun(&w);
    struct pollfd p = {ends[0], POLLIN, 0};
    int r = BlockedCall(poll, &p, 1, -1);
    asm volatile("" : "+r"(held));
    if (r != 1 || held != kValue) w.trouble = 1;
    char c;
    if (BlockedCall(read, ends[0], &c, 1) != 1 || c != 'x') w.trouble = 2;
    ThreadEnded();
  });
  AwaitAlive(&w);
  LetSettle();
  for (int i = 0; i < 1000; ++i) {
    Stop();
    StoppedThread s = StoppedByTid(w.tid);
    CHECK_MSG(s.frame == nullptr, "a signal in round %d", i);
    CHECK(s.stack_low < s.sp && s.sp < s.stack_high);
    if (i == 0) {
      CHECK(Holds(reinterpret_cast<void*>(s.sp), s.stack_high - s.sp, kValue));
    }
    StartTheWorld();
  }
  // The call comes back while the world is stopped: it waits.
  Stop();
  CHECK(write(ends[1], "x", 1) == 1);
  LetSettle();
  struct pollfd p = {ends[0], POLLIN, 0};
  CHECK_MSG(poll(&p, 1, 0) == 1, "the thread went on and read");
  StartTheWorld();
  t.join();
  cr_expect(w.trouble == 0, "%lu", w.trouble);
}

// The record of a thread that nobody announced is made in the blocked call itself.
Test(stop, blocked_call_of_an_unknown_thread) {
  Begin();
  Worker w = {};
  int ends[2];
  cr_assert(pipe(ends) == 0);
  std::thread t([&] {
    Begun(&w);
    char c;
    errno = 0;
    if (BlockedCall(read, ends[0], &c, 1) != 1) w.trouble = static_cast<uint64_t>(errno) + 1;
    ThreadEnded();
  });
  AwaitAlive(&w);
  LetSettle();
  for (int i = 0; i < 100; ++i) {
    Stop();
    CHECK(StoppedByTid(w.tid).frame == nullptr);
    StartTheWorld();
  }
  cr_assert(write(ends[1], "x", 1) == 1);
  t.join();
  cr_expect(w.trouble == 0, "%lu", w.trouble);
}

Test(stop, slow_path_of_the_heap_ends_first) {
  Begin();
  Worker w = {};
  uint32_t leave = 0;
  std::thread t([&] {
    Begun(&w);
    {
      heap::BusyScope busy;
      { heap::BusyScope inner; }
      while (LoadAcquire(&leave) == 0) StoreRelaxed(&w.count, w.count + 1);
      StoreRelaxed(&w.count, uint64_t{0});
    }
    while (!Quit(&w)) StoreRelaxed(&w.count, w.count + 1);
  });
  AwaitAlive(&w);
  uint64_t before = LoadRelaxed(&w.count);
  StopResult r = StopTheWorld(50'000'000);
  cr_expect(r == StopResult::kGaveUp && !IsStopped());
  SleepMs(5);
  cr_expect(LoadRelaxed(&w.count) != before, "stopped inside of a BusyScope");
  std::thread later([&] {
    SleepMs(30);
    StoreRelease(&leave, 1);
  });
  Stop();
  StoppedThread s = StoppedByTid(w.tid);
  CHECK(s.frame == nullptr && s.sp != 0);
  CHECK(LoadRelaxed(&w.count) == 0);
  SleepMs(5);
  CHECK_MSG(LoadRelaxed(&w.count) == 0, "the thread moved");
  StartTheWorld();
  for (int k = 0; LoadRelaxed(&w.count) == 0; ++k) {
    cr_assert(k < 1000, "the thread does not go on");
    SleepMs(1);
  }
  StoreRelease(&w.quit, 1);
  later.join();
  t.join();
}

Test(stop, thread_of_raw_clone) {
  Begin();
  Worker w = {};
  constexpr size_t kSize = 64 * kKiB;
  char* stack = static_cast<char*>(
      mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
  cr_assert(clone(CloneEntry, stack + kSize, flags, &w) > 0);
  AwaitAlive(&w);
  // It borrows this thread's block. That this thread is busy is not its business.
  for (int i = 0; i < 200; ++i) {
    heap::BusyScope busy;
    Stop();
    uint64_t before = LoadRelaxed(&w.count);
    StoppedThread s = StoppedByTid(w.tid);
    CHECK(s.frame != nullptr);
    CHECK(s.sp > reinterpret_cast<Addr>(stack) && s.sp < reinterpret_cast<Addr>(stack) + kSize);
    for (int k = 0; k < 100; ++k) CpuRelax();
    CHECK(LoadRelaxed(&w.count) == before);
    StartTheWorld();
  }
  cr_expect(heap::thread_words.stop_pending == 0);
  StoreRelease(&w.quit, 1);
  // It reads this frame.
  while (syscall(SYS_tgkill, getpid(), w.tid, 0) == 0) SleepMs(1);
}

// A thread that blocks every signal by a raw system call cannot be stopped; the others run on, and
// the signal does no harm when it comes at last.
Test(stop, gives_up) {
  Begin();
  Worker w = {}, other = {};
  uint32_t unblock = 0;
  std::thread t([&] {
    uint64_t all = ~uint64_t{0}, none = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, nullptr, 8);
    Begun(&w);
    while (LoadAcquire(&unblock) == 0) StoreRelaxed(&w.count, w.count + 1);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, nullptr, 8);
    while (!Quit(&w)) StoreRelaxed(&w.count, w.count + 1);
  });
  std::thread o([&] { Compute(&other); });
  AwaitAlive(&w);
  AwaitAlive(&other);
  for (int i = 0; i < 5; ++i) {
    double start = Seconds();
    cr_expect(StopTheWorld(20'000'000) == StopResult::kGaveUp);
    double took = Seconds() - start;
    cr_expect(took >= 0.019 && took < 0.5, "%f s", took);
    uint64_t before = LoadRelaxed(&other.count);
    // On a busy machine it may have to wait for a CPU.
    for (int k = 0; k < 500 && LoadRelaxed(&other.count) == before; ++k) SleepMs(20);
    cr_expect(LoadRelaxed(&other.count) != before, "a thread did not go on");
  }
  StoreRelease(&unblock, 1);
  for (int i = 0; i < 100; ++i) {
    Stop();
    uint64_t before = LoadRelaxed(&w.count);
    StoppedByTid(w.tid);
    CHECK(LoadRelaxed(&w.count) == before);
    StartTheWorld();
  }
  StoreRelease(&w.quit, 1);
  StoreRelease(&other.quit, 1);
  t.join();
  o.join();
}

Test(stop, zombie_main_thread) {
  pid_t child = fork();
  if (child == 0) {
    std::thread([main = pthread_self()] {
      SleepMs(50);
      EnablePublishing();
      StartTracking();
      for (int i = 0; i < 50; ++i) {
        if (StopTheWorld(kBudget) != StopResult::kStopped) _exit(1);
        StartTheWorld();
      }
      _exit(7);
    }).detach();
    syscall(SYS_exit, 0);
  }
  int status;
  cr_assert(waitpid(child, &status, 0) == child);
  cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 7, "%x", status);
}

Test(stop, forked_child_stops_its_own_threads) {
  Begin();
  Worker w = {};
  std::thread t([&] { Compute(&w); });
  AwaitAlive(&w);
  Stop();
  StartTheWorld();
  for (bool told : {true, false}) {
    pid_t child = fork();
    if (child == 0) {
      alarm(20);
      if (told) AfterForkInChild();
      Worker mine = {};
      std::thread own([&] { Compute(&mine); });
      AwaitAlive(&mine);
      size_t n = 0;
      if (StopTheWorld(kBudget) != StopResult::kStopped) _exit(1);
      ForEachStopped([&](const StoppedThread& s) { n += s.tid == mine.tid ? 1 : 100; });
      StartTheWorld();
      _exit(n == 1 ? 7 : 2);
    }
    int status;
    cr_assert(waitpid(child, &status, 0) == child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 7, "%d: %x", told, status);
  }
  StoreRelease(&w.quit, 1);
  t.join();
}

// Handlers of the program inside of a blocked call: they run when the world runs, the call counts
// as blocked again afterwards, and ends as it would.
Test(stop, handler_inside_of_a_blocked_call) {
  static Worker w;
  static uint64_t handled;
  w = {};
  handled = 0;
  Begin();
  struct sigaction act = {};
  act.sa_handler = [](int) {
    Record* r = InBlockedCall();
    if (r == nullptr) {
      w.trouble = 1;
      return;
    }
    Addr saved = LeaveForHandler(r);
    if (InBlockedCall() != nullptr) w.trouble = 2;
    StoreRelaxed(&handled, handled + 1);
    ReturnFromHandler(r, saved);
  };
  act.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &act, nullptr);
  int ends[2];
  cr_assert(pipe(ends) == 0);
  std::thread t([&] {
    Begun(&w);
    char c;
    if (BlockedCall(read, ends[0], &c, 1) != 1) w.trouble = 3;
    struct pollfd p = {ends[0], POLLIN, 0};
    StoreRelease(&w.alive, 2);
    if (BlockedCall(poll, &p, 1, 20000) != -1 || errno != EINTR) w.trouble = 4;
    if (InBlockedCall() != nullptr) w.trouble = 5;
  });
  AwaitAlive(&w);
  LetSettle();
  for (uint64_t i = 1; i <= 100; ++i) {
    Stop();
    CHECK(StoppedByTid(w.tid).frame == nullptr);
    syscall(SYS_tgkill, getpid(), w.tid, SIGUSR1);
    for (int k = 0; k < 1000; ++k) CpuRelax();
    CHECK_MSG(LoadRelaxed(&handled) == i - 1, "a handler ran while the world was stopped");
    StartTheWorld();
    while (LoadRelaxed(&handled) != i) sched_yield();
  }
  cr_assert(write(ends[1], "x", 1) == 1);
  while (LoadAcquire(&w.alive) != 2) SleepMs(1);
  LetSettle();
  syscall(SYS_tgkill, getpid(), w.tid, SIGUSR1);
  t.join();
  cr_expect(w.trouble == 0, "%lu", w.trouble);
  cr_expect(handled == 101);
}

// glibc's own use of the signal goes on: setgid() must reach each thread, whoever came first.
Test(stop, shares_the_signal_with_setgid) {
  if (getuid() != 0) cr_skip_test("needs root");
  for (bool before : {true, false}) {
    pid_t child = fork();
    if (child == 0) {
      alarm(30);
      if (before) {
        EnablePublishing();
        StartTracking();
      }
      Worker w = {};
      gid_t seen = 0;
      std::thread t([&] {
        Begun(&w);
        while (!Quit(&w)) {
          StoreRelaxed(&w.count, w.count + 1);
        }
        seen = static_cast<gid_t>(syscall(SYS_getgid));
      });
      AwaitAlive(&w);
      EnablePublishing();
      StartTracking();
      std::thread stopper([&] {
        while (!Quit(&w)) {
          if (StopTheWorld(kBudget) != StopResult::kStopped) _exit(1);
          StartTheWorld();
          SleepMs(1);
        }
      });
      for (gid_t g = 1; g <= 200; ++g) {
        if (setresgid(g, g, 0) != 0) _exit(2);
      }
      StoreRelease(&w.quit, 1);
      t.join();
      stopper.join();
      _exit(seen == 200 ? 7 : 3);
    }
    int status;
    cr_assert(waitpid(child, &status, 0) == child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 7, "%d: %x", before, status);
  }
}

// Without anybody's handler before ours, a stray signal 33 ends the process, as it would without
// us.
Test(stop, stray_signal_keeps_its_default) {
  pid_t child = fork();
  if (child == 0) {
    struct {
      void* handler;
      unsigned long flags;
      void* restorer;
      uint64_t mask;
    } none = {};
    syscall(SYS_rt_sigaction, kStopSignal, &none, nullptr, 8);
    EnablePublishing();
    StartTracking();
    syscall(SYS_tgkill, getpid(), gettid(), kStopSignal);
    _exit(7);
  }
  int status;
  cr_assert(waitpid(child, &status, 0) == child);
  cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == kStopSignal, "%x", status);
}

Test(stop, own_threads_are_not_stopped) {
  Begin();
  static Worker w;
  w = {};
  cr_assert(plat::SpawnThread([](void* arg) { Compute(static_cast<Worker*>(arg)); }, &w, "w") > 0);
  AwaitAlive(&w);
  for (int i = 0; i < 100; ++i) {
    Stop();
    ForEachStopped([&](const StoppedThread& s) { CHECK(s.tid != w.tid); });
    if (i == 0) {
      uint64_t before = LoadRelaxed(&w.count);
      while (LoadRelaxed(&w.count) == before) CpuRelax();
    }
    StartTheWorld();
  }
  StoreRelease(&w.quit, 1);
}

// An own thread stops the others.
Test(stop, by_an_own_thread) {
  Begin();
  static Worker w, done;
  w = done = {};
  std::thread t([&] { Compute(&w); });
  AwaitAlive(&w);
  auto stopper = [](void*) {
    for (int i = 0; i < 200; ++i) {
      if (StopTheWorld(kBudget) != StopResult::kStopped) done.trouble = 1;
      uint64_t before = LoadRelaxed(&w.count);
      size_t n = 0;
      int main = getpid();
      ForEachStopped([&](const StoppedThread& s) { n += s.tid == main || s.tid == w.tid; });
      if (n != 2) done.trouble = 2;
      if (LoadRelaxed(&w.count) != before) done.trouble = 3;
      StartTheWorld();
    }
    StoreRelease(&done.quit, 1);
  };
  cr_assert(plat::SpawnThread(stopper, nullptr, "stopper") > 0);
  while (!Quit(&done)) SleepMs(1);
  cr_expect(done.trouble == 0, "%lu", done.trouble);
  StoreRelease(&w.quit, 1);
  t.join();
}

// A cancelled thread leaves the call before the first of its cleanup handlers runs, and waits there
// for a world that is stopped.
Test(stop, cancelled_in_a_blocked_call) {
  static Worker w;
  Begin();
  int ends[2];
  cr_assert(pipe(ends) == 0);
  for (int type : {PTHREAD_CANCEL_DEFERRED, PTHREAD_CANCEL_ASYNCHRONOUS}) {
    w = {};
    std::thread t([&] {
      pthread_setcanceltype(type, nullptr);
      Announce();
      pthread_cleanup_push(
          [](void*) {
            if (InBlockedCall() != nullptr) w.trouble = 1;
            StoreRelease(&w.count, uint64_t{1});
          },
          nullptr);
      Begun(&w);
      char c;
      BlockedCall(read, ends[0], &c, 1);
      w.trouble = 2;
      pthread_cleanup_pop(0);
    });
    AwaitAlive(&w);
    LetSettle();
    Stop();
    CHECK(StoppedByTid(w.tid).frame == nullptr);
    CHECK(pthread_cancel(t.native_handle()) == 0);
    SleepMs(20);
    CHECK_MSG(LoadAcquire(&w.count) == 0, "cleanup while the world is stopped");
    StartTheWorld();
    t.join();
    cr_expect(w.trouble == 0 && w.count == 1, "%lu", w.trouble);
  }
}
