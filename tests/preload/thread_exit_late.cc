// SPDX-License-Identifier: Apache-2.0
// Allocation and frees while a thread ends: pthread key destructors in several rounds, thread_local
// objects, cancelled and detached threads, stacks of the program's own.
// run:
// timeout: 40
#include <pthread.h>
#include <sys/mman.h>

#include <atomic>
#include <string>
#include <vector>

#include "check.h"

namespace {

constexpr int kKeys = 5;
pthread_key_t keys[kKeys];
std::atomic<long> destructor_calls, objects_ended, ended;

struct Parcel {
  size_t size;
  int round;
  unsigned char bytes[1];
};

Parcel* MakeParcel(size_t size, int round) {
  Parcel* p = (Parcel*)malloc(sizeof(Parcel) + size);
  CHECK(p);
  p->size = size;
  p->round = round;
  Fill(p->bytes, size, size + round);
  return p;
}

// Each round frees what the round before left and leaves something new, as long as glibc calls.
template <int kKey>
void KeyDestructor(void* arg) {
  Parcel* p = (Parcel*)arg;
  destructor_calls++;
  CHECK(Verify(p->bytes, p->size, p->size + p->round) == p->size);
  const int round = p->round;
  free(p);
  for (int i = 0; i < 30; i++) free(malloc(10 + 100 * (size_t)i));
  if (round < 3) {
    p = MakeParcel(500 * (size_t)(round + 1) + kKey, round + 1);
    CHECK_EQ(pthread_setspecific(keys[kKey], p), 0);
  }
}

struct LocalObject {
  std::vector<std::string> words;
  ~LocalObject() {
    objects_ended++;
    std::vector<std::string> copy = words;
    for (auto& w : copy) CHECK(w.size() == 50);
    words.clear();
    words.shrink_to_fit();
    for (int i = 0; i < 100; i++) copy.push_back(std::string(50 + i * 7, 'z'));
  }
};
thread_local LocalObject local;

void SetKeys() {
  for (int k = 0; k < kKeys; k++)
    CHECK_EQ(pthread_setspecific(keys[k], MakeParcel(100 + (size_t)k, 0)), 0);
}

enum How { kReturn, kExit, kCancel, kUntouched, kHowCount };

void* Worker(void* arg) {
  const How how = (How)(intptr_t)arg;
  if (how == kUntouched) {
    // The first allocation of this thread comes in a destructor.
    static thread_local struct First {
      ~First() { free(malloc(777)); }
      int touched = 0;
    } first;
    first.touched = 1;
    ended++;
    return nullptr;
  }
  SetKeys();
  for (int i = 0; i < 40; i++) local.words.push_back(std::string(50, 'a'));
  void* p = malloc(3000);
  CHECK(p);
  free(p);
  ended++;
  if (how == kExit) pthread_exit(nullptr);
  if (how == kCancel) {
    pthread_cancel(pthread_self());
    pthread_testcancel();
  }
  return nullptr;
}

}  // namespace

int main() {
  void (*const destructors[kKeys])(void*) = {KeyDestructor<0>, KeyDestructor<1>, KeyDestructor<2>,
                                             KeyDestructor<3>, KeyDestructor<4>};
  for (int k = 0; k < kKeys; k++) CHECK_EQ(pthread_key_create(&keys[k], destructors[k]), 0);

  long early = 0;
  for (int round = 0; round < 1500; round++) {
    pthread_t t[4];
    for (int k = 0; k < 4; k++)
      CHECK_EQ(pthread_create(&t[k], nullptr, Worker, (void*)(intptr_t)((round + k) % kHowCount)),
               0);
    for (auto& one : t) pthread_join(one, nullptr);
    if (round == 200) early = RssKb();
  }
  CHECK_MSG(RssKb() < early + 20000, "ended threads leave memory behind: %ld kB, then %ld kB",
            early, RssKb());
  CHECK(destructor_calls >= 1500 * 3 && objects_ended >= 1500 * 3);

  // Detached threads, and stacks that go away right after the join.
  const long before = ended;
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  for (int i = 0; i < 200; i++) {
    pthread_t t;
    while (pthread_create(&t, &attr, Worker, (void*)(intptr_t)kReturn) == EAGAIN) SleepMs(1);
  }
  for (int i = 0; i < 5000 && ended < before + 200; i++) SleepMs(1);
  CHECK_EQ(ended.load(), before + 200);
  constexpr size_t kStack = 256 << 10;
  for (int i = 0; i < 200; i++) {
    void* stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(stack != MAP_FAILED);
    pthread_attr_t own;
    pthread_attr_init(&own);
    CHECK_EQ(pthread_attr_setstack(&own, stack, kStack), 0);
    pthread_t t;
    CHECK_EQ(pthread_create(&t, &own, Worker, (void*)(intptr_t)(i % 3)), 0);
    pthread_join(t, nullptr);
    munmap(stack, kStack);
    pthread_attr_destroy(&own);
  }
  puts("exits right");
  return 0;
}
