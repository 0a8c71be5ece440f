// SPDX-License-Identifier: Apache-2.0
// One thread only allocates, another only frees, in both directions and with producers that end:
// the memory must come back, so that many rounds stay within a bound.
// run: name=worker_allocates worker_allocates
// run: name=main_allocates main_allocates
// run: name=producers_end producers_end
// run: name=chain chain
// timeout: 40
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"

enum { kRing = 8192 };
typedef struct Ring {
  void* slot[kRing];
  _Atomic size_t head, tail;
} Ring;

static void Put(Ring* r, void* p) {
  size_t h = atomic_load_explicit(&r->head, memory_order_relaxed);
  while (h - atomic_load_explicit(&r->tail, memory_order_acquire) >= kRing) sched_yield();
  r->slot[h % kRing] = p;
  atomic_store_explicit(&r->head, h + 1, memory_order_release);
}
static void* Get(Ring* r) {
  size_t t = atomic_load_explicit(&r->tail, memory_order_relaxed);
  while (t == atomic_load_explicit(&r->head, memory_order_acquire)) sched_yield();
  void* p = r->slot[t % kRing];
  atomic_store_explicit(&r->tail, t + 1, memory_order_release);
  return p;
}

static Ring ring, second;
// Bytes that pass through in one run; the ring holds at most 8192 of the small ones.
static const size_t kTraffic = (size_t)2 << 30;
static const size_t kSizes[] = {64, 200, 1500, 700, 64, 3000, 20000, 64, 300, 120};
enum { kSizeCount = sizeof kSizes / sizeof *kSizes };

typedef struct Head {
  size_t size;
  size_t number;
} Head;

static size_t Produce(Ring* to, size_t bytes, size_t number) {
  size_t done = 0;
  while (done < bytes) {
    size_t size = kSizes[number % kSizeCount];
    Head* h = malloc(size);
    CHECK(h);
    h->size = size;
    h->number = number;
    memset(h + 1, (int)(number & 0xff), size - sizeof *h);
    Put(to, h);
    done += size;
    number++;
  }
  return number;
}
static void CheckHead(Head* h, size_t number) {
  CHECK_MSG(h->number == number && h->size == kSizes[number % kSizeCount], "block %zu carries %zu",
            number, h->number);
  CHECK(((unsigned char*)h)[h->size - 1] == (number & 0xff));
}
static void* ProducerMain(void* bytes) {
  Produce(&ring, (size_t)bytes, 0);
  Put(&ring, NULL);
  return NULL;
}
static void* ConsumerMain(void* arg) {
  (void)arg;
  size_t number = 0;
  Head* h;
  while ((h = Get(&ring)) != NULL) {
    CheckHead(h, number++);
    free(h);
  }
  return NULL;
}
// Takes, checks, passes on: allocates and frees nothing itself.
static void* MiddleMain(void* arg) {
  (void)arg;
  size_t number = 0;
  Head* h;
  while ((h = Get(&ring)) != NULL) {
    CheckHead(h, number++);
    Put(&second, h);
  }
  Put(&second, NULL);
  return NULL;
}

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "worker_allocates";
  pthread_t t, middle;
  if (!strcmp(mode, "worker_allocates")) {
    CHECK_EQ(pthread_create(&t, NULL, ProducerMain, (void*)kTraffic), 0);
    ConsumerMain(NULL);
  } else if (!strcmp(mode, "main_allocates")) {
    CHECK_EQ(pthread_create(&t, NULL, ConsumerMain, NULL), 0);
    ProducerMain((void*)kTraffic);
  } else if (!strcmp(mode, "chain")) {
    CHECK_EQ(pthread_create(&t, NULL, ProducerMain, (void*)kTraffic), 0);
    CHECK_EQ(pthread_create(&middle, NULL, MiddleMain, NULL), 0);
    size_t number = 0;
    Head* h;
    while ((h = Get(&second)) != NULL) {
      CheckHead(h, number++);
      free(h);
    }
    pthread_join(middle, NULL);
  } else {
    // Each producer is gone before its blocks are freed.
    for (int round = 0; round < 300; round++) {
      static void* kept[3000];
      CHECK_EQ(pthread_create(&t, NULL, ProducerMain, (void*)((size_t)2 << 20)), 0);
      size_t n = 0;
      while ((kept[n] = Get(&ring)) != NULL) n++;
      pthread_join(t, NULL);
      for (size_t i = 0; i < n; i++) {
        CheckHead(kept[i], i);
        free(kept[i]);
      }
    }
  }
  if (strcmp(mode, "producers_end")) pthread_join(t, NULL);
  long rss = RssKb();
  // At most 8192 blocks of 2.5 kB on average wait in each ring.
  CHECK_MSG(ProcField("/proc/self/status", "VmHWM") < 110000, "peak RSS %ld kB",
            ProcField("/proc/self/status", "VmHWM"));
  printf("bounded\n");
  return rss > 110000;
}
