// SPDX-License-Identifier: Apache-2.0
// What each thread has of its own: thread_local objects and their destructors, keys and the rounds
// of theirs, errno, locale, and exceptions in flight. All across waits, after which a thread may
// go on elsewhere.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
#include <atomic>
#include <climits>
#include <clocale>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "pthreads.h"

namespace {

std::atomic<int> made{0}, destroyed{0}, key_calls{0}, order{0};

struct Tracked {
  explicit Tracked(int v) : value(v) { made++; }
  ~Tracked() {
    // Objects of the same thread may be made again while others are destroyed.
    CHECK_EQ(value, 4711);
    destroyed++;
  }
  int value;
  std::string text = std::string(100, 'x');
};
thread_local Tracked tracked(4711);
thread_local int plain = 5;
thread_local char zeroed[3000];
thread_local std::vector<int> numbers;

void Each(int threads, void (*body)(int)) {
  std::vector<std::thread> all;
  for (int i = 0; i < threads; i++) all.emplace_back(body, i);
  for (auto& t : all) t.join();
}

void Objects(const char*) {
  made = destroyed = 0;
  Each(100, [](int me) {
    CHECK_EQ(plain, 5);
    for (char c : zeroed) CHECK(c == 0);
    plain = me;
    memset(zeroed, me, sizeof zeroed);
    for (int i = 0; i < 20; i++) {
      numbers.push_back(me * 100 + i);
      if (i % 5 == 0) SleepMs(1);
      if (i % 5 == 2) sched_yield();
      CHECK_EQ(plain, me);
      CHECK_EQ(zeroed[2999], static_cast<char>(me));
    }
    for (int i = 0; i < 20; i++) CHECK_EQ(numbers[static_cast<size_t>(i)], me * 100 + i);
    CHECK_EQ(tracked.value, 4711);
    CHECK_EQ(tracked.text.size(), 100);
  });
  CHECK_EQ(made, 100);
  CHECK_EQ(destroyed, 100);
}

// thread_local destructors come before those of keys; keys that are set again get up to 4 rounds.
pthread_key_t again, once_key;
void Again(void* p) {
  key_calls++;
  CHECK_EQ(destroyed, 1);
  CHECK_EQ(pthread_setspecific(again, p), 0);
}
void OnceDestroy(void* p) {
  CHECK(pthread_getspecific(once_key) == nullptr);
  free(p);
  order++;
}
void Keys(const char*) {
  CHECK_EQ(pthread_key_create(&again, Again), 0);
  CHECK_EQ(pthread_key_create(&once_key, OnceDestroy), 0);
  destroyed = key_calls = order = 0;
  for (int way = 0; way < 3; way++) {
    destroyed = key_calls = 0;
    pthread_t t = Start(
        [](void* arg) -> void* {
          CHECK(pthread_getspecific(again) == nullptr);
          CHECK_EQ(tracked.value, 4711);
          CHECK_EQ(pthread_setspecific(again, &plain), 0);
          CHECK_EQ(pthread_setspecific(once_key, malloc(10)), 0);
          if (arg == reinterpret_cast<void*>(1)) pthread_exit(nullptr);
          if (arg == reinterpret_cast<void*>(2)) {
            pthread_cancel(pthread_self());
            pthread_testcancel();
          }
          return nullptr;
        },
        reinterpret_cast<void*>(static_cast<intptr_t>(way)));
    Join(t);
    CHECK_EQ(destroyed, 1);
    CHECK_EQ(key_calls, PTHREAD_DESTRUCTOR_ITERATIONS);
  }
  CHECK_EQ(order, 3);
  CHECK_EQ(pthread_key_delete(again), 0);
  CHECK_EQ(pthread_key_delete(again), EINVAL);
  CHECK_EQ(pthread_setspecific(again, &plain), EINVAL);
}

// All keys there are, each thread with values of its own; a deleted key calls nothing.
std::vector<pthread_key_t> keys;
void ManyKeys(const char*) {
  pthread_key_t key;
  int error;
  while ((error = pthread_key_create(&key, [](void*) { key_calls++; })) == 0) keys.push_back(key);
  CHECK_EQ(error, EAGAIN);
  CHECK_MSG(keys.size() > PTHREAD_KEYS_MAX - 100, "only %zu keys", keys.size());
  key_calls = 0;
  Each(5, [](int me) {
    for (size_t i = 0; i < keys.size(); i++)
      CHECK_EQ(pthread_setspecific(keys[i], reinterpret_cast<void*>(i * 10 + me + 1)), 0);
    SleepMs(5);
    for (size_t i = 0; i < keys.size(); i++)
      CHECK(pthread_getspecific(keys[i]) == reinterpret_cast<void*>(i * 10 + me + 1));
  });
  CHECK_EQ(key_calls, 5 * static_cast<int>(keys.size()));
  for (pthread_key_t k : keys) CHECK_EQ(pthread_key_delete(k), 0);
}

void Errno(const char*) {
  Each(30, [](int me) {
    for (int i = 0; i < 50; i++) {
      errno = me + 1000;
      if (i % 10 == 0)
        SleepMs(1);
      else
        sched_yield();
      CHECK_EQ(errno, me + 1000);
      CHECK(close(-1) == -1 && errno == EBADF);
      char buffer[40];
      snprintf(buffer, sizeof buffer, "Unknown error %d", 5000 + me);
      const char* text = strerror(5000 + me);
      sched_yield();
      CHECK_MSG(!strcmp(text, buffer), "strerror: %s", text);
    }
  });
}

void Locales(const char*) {
  locale_t c = newlocale(LC_ALL_MASK, "C.UTF-8", nullptr);
  if (c == nullptr) return;
  static locale_t utf8;
  utf8 = c;
  Each(20, [](int me) {
    if (me % 2) uselocale(utf8);
    for (int i = 0; i < 20; i++) {
      sched_yield();
      if (i == 10) SleepMs(2);
      CHECK_EQ(MB_CUR_MAX, me % 2 ? 6 : 1);
      CHECK_EQ(mblen("\xc3\xa4", 2), me % 2 ? 2 : -1);
    }
  });
}

// Exceptions that are thrown, held while the thread waits, thrown again and handed over.
struct Deep {
  ~Deep() { made++; }
};
void Throw(int depth, int what) {
  Deep d;
  if (depth == 0) throw std::runtime_error(std::to_string(what));
  if (depth % 8 == 0) sched_yield();
  Throw(depth - 1, what);
}
void Exceptions(const char*) {
  made = 0;
  static std::exception_ptr handed[40];
  Each(40, [](int me) {
    for (int i = 0; i < 10; i++) {
      try {
        try {
          Throw(20, me * 10 + i);
          CHECK(false);
        } catch (const std::runtime_error& e) {
          SleepMs(1);
          CHECK_EQ(std::uncaught_exceptions(), 0);
          CHECK_EQ(std::stoi(e.what()), me * 10 + i);
          try {
            Throw(3, 1);
          } catch (const std::exception&) {
            sched_yield();
          }
          throw;
        }
      } catch (const std::exception& e) {
        CHECK_EQ(std::stoi(e.what()), me * 10 + i);
        handed[me] = std::current_exception();
      }
    }
  });
  for (int me = 0; me < 40; me++) {
    try {
      std::rethrow_exception(handed[me]);
    } catch (const std::exception& e) {
      CHECK_EQ(std::stoi(e.what()), me * 10 + 9);
    }
  }
  CHECK_EQ(made, 40 * 10 * (21 + 4));
}

}  // namespace

int main(int argc, char** argv) {
  static const Part parts[] = {{"objects", Objects},    {"keys", Keys},
                               {"many_keys", ManyKeys}, {"errno", Errno},
                               {"locales", Locales},    {"exceptions", Exceptions}};
  return RUN_PARTS(parts);
}
