// SPDX-License-Identifier: Apache-2.0
// The futex lock: exclusion, sleeping and waking, the reset in a forked child.

#include "sync/mutex.h"

#include <criterion/criterion.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

using undergo::sync::Mutex;
using undergo::sync::MutexLock;

TestSuite(mutex, .timeout = 60);

Test(mutex, excludes) {
  constexpr int kThreads = 4, kRounds = 100000;
  static Mutex mutex;
  static long counter, inside;
  std::atomic<bool> clash{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        MutexLock hold(mutex);
        if (inside++ != 0) clash = true;
        counter = counter + 1;
        // A holder that sleeps now and then makes the others sleep too.
        if (i % 20000 == t) std::this_thread::yield();
        --inside;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  cr_expect(not(clash));
  cr_expect(counter == long{kThreads} * kRounds, "%ld", counter);
  cr_expect(mutex.TryLock(), "left locked");
}

Test(mutex, try_lock) {
  Mutex mutex;
  cr_expect(mutex.TryLock());
  cr_expect(not(mutex.TryLock()));
  std::thread([&] { cr_expect(not(mutex.TryLock())); }).join();
  mutex.Unlock();
  cr_expect(mutex.TryLock());
  mutex.Unlock();
}

// The holder keeps the lock so long that all waiters sleep; each unlock must wake one.
Test(mutex, wakes_every_sleeper) {
  static Mutex mutex;
  std::atomic<int> waiting{0}, done{0};
  mutex.Lock();
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      ++waiting;
      mutex.Lock();
      ++done;
      mutex.Unlock();
    });
  }
  while (waiting < 8) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  cr_expect(done == 0, "somebody came in");
  mutex.Unlock();
  for (std::thread& t : threads) t.join();
  cr_expect(done == 8);
  cr_expect(mutex.TryLock());
}

Test(mutex, reset_in_a_forked_child) {
  static Mutex mutex;
  mutex.Lock();
  pid_t child = fork();
  if (child == 0) {
    bool was_locked = !mutex.TryLock();
    mutex.ResetAfterFork();
    _exit(was_locked && mutex.TryLock() ? 0 : 1);
  }
  int status;
  cr_assert(waitpid(child, &status, 0) == child);
  cr_expect(status == 0);
  mutex.Unlock();
}
