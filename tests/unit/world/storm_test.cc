// SPDX-License-Identifier: Apache-2.0
// Thousands of stops among threads of all kinds that come and go, while children are forked and
// signals arrive: nothing moves while the world is stopped, nobody is left behind.
#include <semaphore.h>
#include <sys/timerfd.h>

#include "support.h"

using namespace undergo;
using namespace undergo::world;
using namespace undergo::world::test;

namespace {

constexpr int kThreads = 50;
// One cache line each, so that a look at it is a look at this thread alone.
struct alignas(64) Counter {
  uint64_t moves;
};
Counter counters[kThreads + 1];
uint64_t born;  // by the threads that make threads
uint32_t quit;
sem_t ball;
pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t cond = PTHREAD_COND_INITIALIZER;

bool Over() { return LoadAcquire(&quit) != 0; }
void Move(int i) { StoreRelaxed(&counters[i].moves, counters[i].moves + 1); }

void Compute(int i) {
  while (!Over()) Move(i);
}

void Sleep(int i) {
  while (!Over()) {
    struct timespec t = {0, 100'000 + i * 1000};
    CHECK(BlockedCall(nanosleep, &t, nullptr) == 0);
    Move(i);
  }
}

void Poll(int i) {
  int fd = timerfd_create(CLOCK_MONOTONIC, 0);
  struct itimerspec each = {{0, 150'000}, {0, 150'000}};
  timerfd_settime(fd, 0, &each, nullptr);
  while (!Over()) {
    struct pollfd p = {fd, POLLIN, 0};
    CHECK(BlockedCall(poll, &p, 1, -1) == 1);
    Move(i);
    uint64_t expired;
    CHECK(BlockedCall(read, fd, &expired, sizeof expired) == sizeof expired);
    Move(i);
  }
  close(fd);
}

void PassBall(int i) {
  while (!Over()) {
    CHECK(BlockedCall(sem_wait, &ball) == 0);
    Move(i);
    sem_post(&ball);
    sched_yield();
  }
}

void WaitForCondition(int i) {
  while (!Over()) {
    pthread_mutex_lock(&mutex);
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += 300'000;
    if (t.tv_nsec >= 1'000'000'000) t.tv_nsec -= 1'000'000'000, ++t.tv_sec;
    int e = BlockedCall(pthread_cond_timedwait, &cond, &mutex, &t);
    CHECK(e == 0 || e == ETIMEDOUT);
    if (i % 2 == 0) pthread_cond_signal(&cond);
    pthread_mutex_unlock(&mutex);
    Move(i);
  }
}

// In and out of the heap's slow paths.
void BeBusy(int i) {
  while (!Over()) {
    heap::BusyScope busy;
    for (int k = 0; k < 20; ++k) {
      heap::BusyScope inner;
      Move(i);
    }
  }
}

// A system call that no wrapper knows, as libc makes them inside itself.
void CallUnseen(int i) {
  int ends[2];
  CHECK(pipe(ends) == 0);
  while (!Over()) {
    char c = 'x';
    CHECK(write(ends[1], &c, 1) == 1 && read(ends[0], &c, 1) == 1);
    Move(i);
  }
}

void MakeThreads(int i) {
  while (!Over()) {
    std::thread([i] {
      if (i % 2 == 0) Announce();
      FetchAddRelaxed(&born, 1);
      struct timespec t = {0, 20'000};
      BlockedCall(nanosleep, &t, nullptr);
      FetchAddRelaxed(&born, 1);
      if (i % 3 != 0) ThreadEnded();  // the others end without a word
    }).join();
    Move(i);
  }
}

int CloneEntry(void* arg) {
  auto i = static_cast<int>(reinterpret_cast<intptr_t>(arg));
  for (int k = 0; k < 1000; ++k) StoreRelaxed(&counters[i].moves, counters[i].moves + 1);
  syscall(SYS_exit, 0);
  return 0;
}

void MakeRawThreads(int i) {
  constexpr size_t kSize = 64 * kKiB;
  auto* stack = static_cast<char*>(
      mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  constexpr int kFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                         CLONE_SYSVSEM | CLONE_CHILD_CLEARTID | CLONE_PARENT_SETTID;
  while (!Over()) {
    static int tid;
    tid = -1;
    CHECK(clone(CloneEntry, stack + kSize, kFlags, reinterpret_cast<void*>(intptr_t{i}), &tid,
                nullptr, &tid) > 0);
    while (LoadAcquire(&tid) != 0) sched_yield();
  }
}

void Fork(int i) {
  while (!Over()) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      if (i % 2 == 0) AfterForkInChild();
      for (int k = 0; k < 3; ++k) {
        struct timespec t = {0, 1000};
        if (BlockedCall(nanosleep, &t, nullptr) != 0) _exit(1);
      }
      _exit(7);
    }
    int status = 0;
    CHECK(BlockedCall(waitpid, child, &status, 0) == child);
    CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 7, "child: %x", status);
    Move(i);
  }
}

// Who makes threads, and forks, does so in a way that depends on the number.
void (*const kKinds[])(int) = {Compute, Sleep,      Poll,        PassBall,    WaitForCondition,
                               BeBusy,  CallUnseen, MakeThreads, MakeThreads, MakeRawThreads,
                               Fork,    Fork,       MakeThreads};

void (*const kQuiet[])(int) = {Sleep, Poll, PassBall, WaitForCondition};

uint64_t Sum() {
  uint64_t sum = LoadRelaxed(&born);
  for (const Counter& c : counters) sum += LoadRelaxed(&c.moves);
  return sum;
}

}  // namespace

TestSuite(storm, .timeout = 110);

Test(storm, nothing_moves) {
  Begin();
  sem_init(&ball, 0, 2);
  std::vector<std::thread> threads;
  constexpr int kKindCount = sizeof kKinds / sizeof *kKinds;
  for (int i = 0; i < kThreads; ++i) {
    // One of each, then those that leave the processors to the others.
    auto* run = i < kKindCount ? kKinds[i] : kQuiet[i % 4];
    threads.emplace_back([=] {
      if (i % 4 != 0) Announce();
      run(i);
      if (i % 4 != 1) ThreadEnded();
    });
  }
  uint64_t moved = 0;
  int stops = 0;
  double end = Seconds() + 8;
  Random random = {5};
  uint64_t before = Sum();
  while (Seconds() < end) {
    Stop();
    ++stops;
    uint64_t sum = Sum();
    moved += sum != before;
    size_t pause = Below(&random, 100);
    if (pause == 0) SleepMs(1);
    for (size_t k = 0; k < pause * 5; ++k) CpuRelax();
    CHECK_MSG(Sum() == sum, "somebody moved in stop %d", stops);
    size_t seen = 0;
    ForEachStopped([&](const StoppedThread& t) {
      CHECK(t.sp != 0 && t.tid != Tid());
      ++seen;
    });
    CHECK_MSG(seen >= 30, "%zu threads", seen);
    StartTheWorld();
    before = sum;
    if (Below(&random, 3) == 0) {
      struct timespec t = {0, static_cast<long>(Below(&random, 400'000))};
      nanosleep(&t, nullptr);
    }
  }
  StoreRelease(&quit, 1);
  for (std::thread& t : threads) t.join();
  cr_expect(stops > 200, "%d stops", stops);
  cr_expect(moved > 100, "the threads hardly ran: %lu of %d", moved, stops);
  for (int i = 0; i < kThreads; ++i) {
    cr_expect(counters[i].moves > 0, "thread %d never moved", i);
  }
  Stop();
  size_t left = 0;
  ForEachStopped([&](const StoppedThread&) { ++left; });
  StartTheWorld();
  cr_expect(left < 10, "%zu records are left", left);
}
