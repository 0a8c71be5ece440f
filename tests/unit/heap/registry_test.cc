// SPDX-License-Identifier: Apache-2.0
// Threads come, sleep and go; processes fork: no memory is lost and no lock stays held.

#include "heap/registry.h"

#include <criterion/criterion.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>

#include "heap/mcentral.h"
#include "support.h"

using namespace undergo;
using namespace undergo::heap;
using namespace undergo::heap::test;

namespace {

size_t CountMCaches() {
  size_t n = 0;
  for (MCache* mc = FirstMCache(); mc != nullptr; mc = mc->all_next) ++n;
  return n;
}

// Two threads that take turns.
class Turns {
 public:
  void Wait(int turn) {
    std::unique_lock<std::mutex> hold(mutex_);
    changed_.wait(hold, [&] { return turn_ >= turn; });
  }
  void Set(int turn) {
    std::lock_guard<std::mutex> hold(mutex_);
    turn_ = turn;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int turn_ = 0;
};

int attached;
void OnAttached() { ++attached; }

}  // namespace

TestSuite(registry, .timeout = 60);

Test(registry, each_thread_has_its_own_and_the_next_one_inherits_it) {
  cr_expect(CountMCaches() == 0 && thread_words.mcache == &empty_mcache);
  Free(Malloc(1));
  MCache* mine = thread_words.mcache;
  cr_expect(mine != &empty_mcache && CountMCaches() == 1 && not(mine->idle));
  MCache* theirs = nullptr;
  for (int i = 0; i < 5; ++i) {
    OnThread([&] {
      cr_expect(thread_words.mcache == &empty_mcache);
      Free(Malloc(1));
      cr_expect(thread_words.mcache != mine);
      if (theirs != nullptr) cr_expect(thread_words.mcache == theirs, "not reused");
      theirs = thread_words.mcache;
      cr_expect(not(theirs->idle));
    });
    cr_expect(theirs->idle && CountMCaches() == 2);
  }
  // A thread that never allocates needs none.
  std::thread([] { DetachThread(); }).join();
  cr_expect(CountMCaches() == 2);
  Free(Malloc(1));
  cr_expect(thread_words.mcache == mine);
}

Test(registry, many_threads_at_once) {
  constexpr size_t kThreads = 40;
  Turns turns;
  std::vector<std::thread> threads;
  std::vector<MCache*> mcaches(kThreads);
  std::atomic<size_t> ready{0};
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Block b = NewBlock(100, t);
      mcaches[t] = thread_words.mcache;
      ++ready;
      turns.Wait(1);
      DropBlock(b);
      DetachThread();
    });
  }
  while (ready < kThreads) std::this_thread::yield();
  turns.Set(1);
  for (std::thread& t : threads) t.join();
  std::sort(mcaches.begin(), mcaches.end());
  cr_expect(std::unique(mcaches.begin(), mcaches.end()) == mcaches.end(),
            "two threads, one mcache");
  cr_expect(CountMCaches() == kThreads);
  cr_expect(InUse() == 0, "%zu bytes left", InUse());
}

Test(registry, attach_hook) {
  on_thread_attached = OnAttached;
  Free(Malloc(10));
  Free(Malloc(10000));
  cr_expect(attached == 1);
  OnThread([] { Free(Malloc(10)); });
  cr_expect(attached == 2);
}

// The owner sleeps for ever; another thread freed all that it had allocated.
Test(registry, memory_of_a_sleeper_is_reclaimed) {
  Turns turns;
  std::vector<Block> blocks;
  std::thread sleeper([&] {
    for (int i = 0; i < 20000; ++i)
      blocks.push_back(NewBlock(i % 2 == 0 ? 500 : 5000, (uint64_t)i));
    turns.Set(1);
    turns.Wait(2);
    // Its cache is still whole.
    std::vector<Block> again;
    for (int i = 0; i < 5000; ++i) again.push_back(NewBlock(i % 2 == 0 ? 500 : 5000, (uint64_t)i));
    DropBlocks(&again);
    DetachThread();
  });
  turns.Wait(1);
  uint64_t before = InUse();
  DropBlocks(&blocks);
  cr_expect(InUse() == before);
  size_t slices;
  {
    BusyScope busy;
    slices = ReclaimFromOthers();
  }
  cr_expect(InUse() == before - slices * kSliceSize);
  cr_expect(InUse() * 20 < before, "%zu of %zu bytes left", InUse(), before);
  {
    BusyScope busy;
    cr_expect(ReclaimFromOthers() == 0);
  }
  turns.Set(2);
  sleeper.join();
  cr_expect(InUse() == 0, "%zu bytes left", InUse());
}

// Objects that are alive keep their spans, and the sleeper may go on at any time.
Test(registry, reclaiming_leaves_live_objects_alone) {
  Turns turns;
  std::vector<Block> live, dead;
  std::thread owner([&] {
    for (int i = 0; i < 20000; ++i) {
      (i % 100 == 0 ? live : dead).push_back(NewBlock(200, static_cast<uint64_t>(i)));
    }
    turns.Set(1);
    for (uint64_t i = 0; i < 30000; ++i) DropBlock(NewBlock(200, i));
    turns.Wait(2);
    DetachThread();
  });
  turns.Wait(1);
  DropBlocks(&dead);
  for (int i = 0; i < 200; ++i) {
    BusyScope busy;
    ReclaimFromOthers();
  }
  for (const Block& b : live) CheckBlock(b);
  turns.Set(2);
  owner.join();
  DropBlocks(&live);
  BusyScope busy;
  ReclaimAll();
  cr_expect(InUse() == 0, "%zu bytes left", InUse());
}

Test(registry, idle_mcaches_are_reclaimed) {
  std::vector<Block> blocks;
  OnThread([&] {
    for (int i = 0; i < 5000; ++i) blocks.push_back(NewBlock(300, static_cast<uint64_t>(i)));
  });
  uint64_t in_use = InUse();
  for (size_t i = 0; i < blocks.size(); i += 2) Free(blocks[i].p);
  BusyScope busy;
  cr_expect(ReclaimFromIdle());
  cr_expect(not(ReclaimFromIdle()));
  // Half-empty spans of a thread that is gone serve this thread.
  thread_words.busy--;
  for (size_t i = 0; i < blocks.size(); i += 2) blocks[i] = NewBlock(300, i);
  cr_expect(InUse() <= in_use + kSliceSize, "%zu bytes, %zu before", InUse(), in_use);
  DropBlocks(&blocks);
  thread_words.busy++;
}

// Forks while other threads allocate, so that locks are held at odd moments.
Test(registry, fork) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  std::vector<Block> shared;
  for (uint64_t i = 0; i < 3000; ++i) shared.push_back(NewBlock(10 + i % 900, i));
  for (uint64_t t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      std::vector<Block> blocks;
      for (uint64_t i = 0; !stop; ++i) {
        blocks.push_back(NewBlock(16 + i * 37 % 3000, i + t));
        if (blocks.size() > 2000) DropBlocks(&blocks);
      }
      DropBlocks(&blocks);
      DetachThread();
    });
  }
  for (int round = 0; round < 30; ++round) {
    LockAllForFork();
    // As a fork handler of the program, or a signal handler, that allocates in between.
    void* between = Malloc(static_cast<size_t>(round) * 100);
    cr_assert(between != nullptr);
    pid_t child = fork();
    if (child == 0) {
      alarm(20);
      ResetAllInChild();
      Free(between);
      DropBlocks(&shared);
      std::vector<Block> blocks;
      for (uint64_t i = 0; i < 3000; ++i) blocks.push_back(NewBlock(i % 2000, i));
      DropBlocks(&blocks);
      DetachThread();
      _exit(0);
    }
    Free(between);
    UnlockAllInParent();
    cr_assert(thread_words.busy == 0);
    int status;
    cr_assert(waitpid(child, &status, 0) == child);
    cr_assert(status == 0, "child of round %d ended with %#x", round, status);
    for (uint64_t i = 0; i < 100; ++i) DropBlock(NewBlock(i * 50, i));
  }
  stop = true;
  for (std::thread& t : threads) t.join();
  DropBlocks(&shared);
}

// The other threads' caches are idle in the child, and their objects can be freed there.
Test(registry, a_child_inherits_what_the_other_threads_had) {
  Turns turns;
  std::vector<Block> blocks;
  MCache* theirs = nullptr;
  std::thread owner([&] {
    for (uint64_t i = 0; i < 5000; ++i) blocks.push_back(NewBlock(400, i));
    theirs = thread_words.mcache;
    turns.Set(1);
    turns.Wait(2);
    DetachThread();
  });
  turns.Wait(1);
  Free(Malloc(1));
  LockAllForFork();
  pid_t child = fork();
  if (child == 0) {
    alarm(20);
    ResetAllInChild();
    bool ok = theirs->idle && !thread_words.mcache->idle;
    for (const Block& b : blocks) ok = ok && Verify(b.p, b.size, b.tag) == b.size;
    for (const Block& b : blocks) Free(b.p);
    thread_words.busy++;
    ok = ok && ReclaimFromIdle();
    ReclaimAll();
    // The span in the other thread's cursor stays there for the next thread that takes it over.
    ok = ok && InUse() <= 2 * kSliceSize;
    thread_words.busy--;
    _exit(ok ? 0 : 1);
  }
  UnlockAllInParent();
  int status;
  cr_assert(waitpid(child, &status, 0) == child);
  cr_expect(status == 0, "%#x", status);
  turns.Set(2);
  owner.join();
  DropBlocks(&blocks);
}
