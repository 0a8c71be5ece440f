// SPDX-License-Identifier: Apache-2.0
// Cancellation and pthread_exit unwind C++ frames: destructors run, catch (...) sees it and must
// pass it on, and thread_local objects are destroyed after that.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
#include <cxxabi.h>
#include <semaphore.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>

#include "pthreads.h"

namespace {

std::atomic<int> frames{0}, locals{0}, caught{0}, entered{0};
sem_t never;

struct Frame {
  std::string text = std::string(200, 'f');
  Frame() { frames++; }
  ~Frame() {
    SleepMs(0);
    CHECK_EQ(text.size(), 200);
    frames--;
  }
};
struct Local {
  ~Local() {
    CHECK_EQ(frames, 0);
    locals++;
  }
  int x = 1;
};
thread_local Local local;

__attribute__((noinline)) void Deep(int depth, void (*end)()) {
  Frame frame;
  if (depth == 0)
    end();
  else
    Deep(depth - 1, end);
  asm volatile("" ::: "memory");
}
void EndBySem() {
  entered = 1;
  while (sem_wait(&never) != 0) {
  }
}
void EndBySleep() {
  entered = 1;
  for (;;) SleepMs(100000);
}
void EndByExit() {
  entered = 1;
  pthread_exit(nullptr);
}
void EndByCond() {
  static std::mutex mutex;
  static std::condition_variable cond;
  std::unique_lock<std::mutex> lock(mutex);
  entered = 1;
  for (;;) pthread_cond_wait(cond.native_handle(), mutex.native_handle());
}

void Unwinds(const char*) {
  sem_init(&never, 0, 0);
  static void (*const ends[])() = {EndBySem, EndBySleep, EndByExit, EndByCond};
  for (int round = 0; round < 5; round++) {
    for (auto end : ends) {
      frames = locals = caught = entered = 0;
      pthread_t t = Start(
          [](void* arg) -> void* {
            CHECK_EQ(local.x, 1);
            try {
              Deep(30, reinterpret_cast<void (*)()>(arg));
            } catch (abi::__forced_unwind&) {
              caught++;
              throw;
            }
            return nullptr;
          },
          reinterpret_cast<void*>(end));
      EVENTUALLY(entered == 1);
      if (end != EndByExit) {
        CHECK_EQ(pthread_cancel(t), 0);
        CHECK(Join(t) == PTHREAD_CANCELED);
      } else {
        CHECK(Join(t) == nullptr);
      }
      CHECK_EQ(frames, 0);
      CHECK_EQ(caught, 1);
      CHECK_EQ(locals, 1);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  static const Part parts[] = {{"unwinds", Unwinds}};
  return RUN_PARTS(parts);
}
