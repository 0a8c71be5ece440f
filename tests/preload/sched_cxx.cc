// SPDX-License-Identifier: Apache-2.0
// The C++ library's threads: mutexes, conditions, futures, latches, barriers, semaphores, waits on
// atomics (which go to the kernel by syscall()), stop tokens.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <atomic>
#include <barrier>
#include <chrono>
#include <condition_variable>
#include <future>
#include <latch>
#include <mutex>
#include <semaphore>
#include <shared_mutex>
#include <stop_token>
#include <thread>
#include <vector>

#include "pthreads.h"

using namespace std::chrono_literals;

namespace {

void Each(int threads, const std::function<void(int)>& body) {
  std::vector<std::thread> all;
  for (int i = 0; i < threads; i++) all.emplace_back(body, i);
  for (auto& t : all) t.join();
}

template <typename M>
void CountWith() {
  M mutex;
  long counter = 0;
  Each(6, [&](int me) {
    for (int i = 0; i < 3000; i++) {
      if (me % 3 == 0) {
        std::lock_guard<M> lock(mutex);
        counter++;
      } else if (me % 3 == 1) {
        while (!mutex.try_lock()) std::this_thread::yield();
        counter++;
        mutex.unlock();
      } else {
        std::unique_lock<M> lock(mutex);
        if constexpr (requires { mutex.try_lock_for(1ms); }) {
          lock.unlock();
          while (!mutex.try_lock_for(1ms)) {
          }
          lock = std::unique_lock<M>(mutex, std::adopt_lock);
        }
        counter++;
        if (i % 500 == 0) std::this_thread::sleep_for(100us);
      }
    }
  });
  CHECK_EQ(counter, 18000);
}
void Mutexes(const char*) {
  CountWith<std::mutex>();
  CountWith<std::recursive_mutex>();
  CountWith<std::timed_mutex>();
  CountWith<std::shared_mutex>();
  CountWith<std::shared_timed_mutex>();
  std::timed_mutex held;
  held.lock();
  Each(1, [&](int) {
    auto begin = std::chrono::steady_clock::now();
    CHECK(!held.try_lock_for(20ms));
    CHECK(std::chrono::steady_clock::now() - begin >= 20ms);
    CHECK(!held.try_lock_until(std::chrono::system_clock::now() + 20ms));
  });
  held.unlock();
  std::mutex a, b;
  Each(4, [&](int me) {
    for (int i = 0; i < 1000; i++) {
      if (me % 2)
        std::scoped_lock lock(a, b);
      else
        std::scoped_lock lock(b, a);
    }
  });
}

void Conditions(const char*) {
  std::mutex mutex;
  std::condition_variable cond;
  std::condition_variable_any any;
  std::unique_lock<std::mutex> lock(mutex);
  auto begin = std::chrono::steady_clock::now();
  CHECK(cond.wait_for(lock, 20ms) == std::cv_status::timeout);
  CHECK(cond.wait_until(lock, std::chrono::system_clock::now() + 10ms) == std::cv_status::timeout);
  CHECK(!any.wait_for(lock, 20ms, [] { return false; }));
  CHECK(std::chrono::steady_clock::now() - begin >= 49ms);
  lock.unlock();
  int turn = 0;
  Each(8, [&](int me) {
    for (int i = 0; i < 200; i++) {
      std::unique_lock<std::mutex> own(mutex);
      cond.wait(own, [&] { return turn % 8 == me; });
      turn++;
      cond.notify_all();
    }
  });
  CHECK_EQ(turn, 1600);
  // A stop request ends a wait.
  std::jthread waits([&](std::stop_token stop) {
    std::unique_lock<std::mutex> own(mutex);
    CHECK(!any.wait(own, stop, [] { return false; }));
    CHECK(stop.stop_requested());
  });
  std::this_thread::sleep_for(5ms);
  waits.request_stop();
}

void AtomicWaits(const char*) {
  std::atomic<int> word{0};
  std::atomic<long> wide{0};
  std::atomic<bool> flag{false};
  std::atomic_flag gate = ATOMIC_FLAG_INIT;
  std::atomic<int> through{0};
  std::vector<std::thread> all;
  for (int i = 0; i < 20; i++) {
    all.emplace_back([&, i] {
      if (i % 4 == 0) word.wait(0);
      if (i % 4 == 1) wide.wait(0);
      if (i % 4 == 2) flag.wait(false);
      if (i % 4 == 3) gate.wait(false);
      through++;
    });
  }
  std::this_thread::sleep_for(10ms);
  CHECK_EQ(through, 0);
  word = 1, word.notify_all();
  wide = 1, wide.notify_all();
  flag = true, flag.notify_all();
  gate.test_and_set(), gate.notify_all();
  for (auto& t : all) t.join();
  // Two take turns, one notified at a time.
  word = 0;
  Each(2, [&](int me) {
    for (int i = 0; i < 3000; i++) {
      for (int now; (now = word.load()) % 2 != me;) word.wait(now);
      word++;
      word.notify_one();
    }
  });
  CHECK_EQ(word, 6000);
}

void Semaphores(const char*) {
  std::counting_semaphore<100> items(0);
  std::binary_semaphore ping(1), pong(0);
  CHECK(!items.try_acquire() && !items.try_acquire_for(10ms));
  std::atomic<int> taken{0};
  Each(10, [&](int me) {
    for (int i = 0; i < 500; i++) {
      if (me % 2) {
        items.release();
      } else {
        while (!items.try_acquire_for(1s)) {
        }
        taken++;
      }
    }
  });
  CHECK_EQ(taken, 2500);
  Each(2, [&](int me) {
    for (int i = 0; i < 2000; i++) {
      (me ? ping : pong).acquire();
      (me ? pong : ping).release();
    }
  });
}

void LatchesBarriers(const char*) {
  std::latch all_here(8);
  int phase = 0;
  std::barrier step(8, [&]() noexcept { phase++; });
  std::atomic<int> arrived{0};
  Each(8, [&](int) {
    arrived++;
    all_here.arrive_and_wait();
    CHECK_EQ(arrived, 8);
    for (int i = 1; i <= 200; i++) {
      step.arrive_and_wait();
      CHECK(phase >= i && phase <= i + 1);
    }
  });
  CHECK_EQ(phase, 200);
}

void Futures(const char*) {
  std::vector<std::future<int>> results;
  for (int i = 0; i < 30; i++)
    results.push_back(std::async(std::launch::async, [i] {
      std::this_thread::sleep_for(std::chrono::microseconds(i * 50));
      if (i % 3 == 0) throw i;
      return i;
    }));
  for (int i = 0; i < 30; i++) {
    try {
      CHECK_EQ(results[static_cast<size_t>(i)].get(), i);
      CHECK(i % 3 != 0);
    } catch (int thrown) {
      CHECK(i % 3 == 0 && thrown == i);
    }
  }
  std::promise<int> promise;
  std::shared_future<int> shared = promise.get_future();
  CHECK(shared.wait_for(10ms) == std::future_status::timeout);
  std::vector<std::thread> all;
  for (int i = 0; i < 10; i++) all.emplace_back([shared] { CHECK_EQ(shared.get(), 42); });
  promise.set_value_at_thread_exit(42);
  // Its thread must end for the value to be there.
  std::thread([p = std::move(promise)]() mutable {}).join();
  std::promise<int> second;
  for (auto& t : all) t.detach();
  std::thread([&] { second.set_value_at_thread_exit(7); }).join();
  CHECK_EQ(second.get_future().get(), 7);
}

void Once(const char*) {
  std::once_flag flag;
  std::atomic<int> calls{0}, failures{0};
  Each(20, [&](int) {
    try {
      std::call_once(flag, [&] {
        std::this_thread::sleep_for(1ms);
        if (calls++ < 3) throw 1;
      });
    } catch (int) {
      failures++;
    }
  });
  CHECK_EQ(calls, 4);
  CHECK_EQ(failures, 3);
  static std::atomic<int> statics{0};
  Each(20, [&](int) {
    static const int value = [] {
      std::this_thread::sleep_for(2ms);
      return ++statics;
    }();
    CHECK_EQ(value, 1);
  });
}

}  // namespace

int main(int argc, char** argv) {
  static const Part parts[] = {{"mutexes", Mutexes},
                               {"conditions", Conditions},
                               {"atomic_waits", AtomicWaits},
                               {"semaphores", Semaphores},
                               {"latches", LatchesBarriers},
                               {"futures", Futures},
                               {"once", Once}};
  return RUN_PARTS(parts);
}
