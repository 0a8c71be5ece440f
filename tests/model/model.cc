// SPDX-License-Identifier: Apache-2.0
// The allocator against a shadow of itself. Threads do random operations on tables of their own,
// send blocks to each other, end and are replaced. Every block carries a pattern, and every 16
// bytes of it are claimed in a map of the address space, so that an overlap shows at once, as do
// wrong alignment, a usable size that is too small or changes, dirty calloc memory and lost
// contents. The shadow lives in mmap'ed memory only: nothing here uses the allocator but the
// operations.
// run: name=quick 1 seconds=2 threads=4
// run: name=single 2 seconds=1 threads=1
// run: name=many 3 seconds=2 threads=24 live=8
// run: name=eager env=UNDERGO=purge=0 native=no 5 seconds=2 threads=3
// run: name=huge_pages env=UNDERGO=thp=always native=no 6 seconds=2 threads=3 live=200
// run: name=long pace=long 4 seconds=60 threads=6
// timeout: 120
#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>

#include "check.h"

namespace {

constexpr int kMaxThreads = 64;
constexpr int kEntries = 6000;
constexpr size_t kGranule = 16;
constexpr size_t kRegion = size_t{1} << 16;
constexpr size_t kPerRegion = kRegion / kGranule;

size_t live_limit = size_t{64} << 20;  // bytes that one thread's table may hold

void* Map(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(p != MAP_FAILED);
  return p;
}

// One byte for each granule of the address space, in pieces of 64 KiB that are made when needed.
class Claims {
 public:
  void Init() {
    root_ = (std::atomic<std::atomic<uint8_t>*>*)Map((size_t{1} << 31) * sizeof(void*));
  }
  void Take(uintptr_t p, size_t n) {
    Walk(p, n, [&](std::atomic<uint8_t>& c, uintptr_t at) {
      CHECK_MSG(c.exchange(1, std::memory_order_relaxed) == 0,
                "block %p of %zu bytes overlaps a live block at %p", (void*)p, n, (void*)at);
    });
  }
  void Drop(uintptr_t p, size_t n) {
    Walk(p, n, [&](std::atomic<uint8_t>& c, uintptr_t at) {
      CHECK_MSG(c.exchange(0, std::memory_order_relaxed) == 1, "claim at %p was lost", (void*)at);
    });
  }

 private:
  // Each granule of small blocks; of blocks above 64 KiB one in each 512 bytes and the last one.
  template <typename F>
  void Walk(uintptr_t p, size_t n, F f) {
    const uintptr_t first = p / kGranule, last = (p + std::max<size_t>(n, 1) - 1) / kGranule;
    const size_t step = n > kRegion ? 32 : 1;
    for (uintptr_t g = first; g <= last; g += step) f(At(g), g * kGranule);
    if (step > 1 && (last - first) % step) f(At(last), last * kGranule);
  }
  std::atomic<uint8_t>& At(uintptr_t granule) {
    auto& slot = root_[granule / kPerRegion];
    std::atomic<uint8_t>* region = slot.load(std::memory_order_acquire);
    if (!region) {
      auto* fresh = (std::atomic<uint8_t>*)Map(kPerRegion);
      if (slot.compare_exchange_strong(region, fresh, std::memory_order_acq_rel))
        region = fresh;
      else
        munmap((void*)fresh, kPerRegion);
    }
    return region[granule % kPerRegion];
  }
  std::atomic<std::atomic<uint8_t>*>* root_;
};
Claims claims;

struct Entry {
  uint8_t* p;
  size_t size, usable, align;
  uint64_t tag;
};

// Whole contents of small blocks; both ends and a sample of the rest of larger ones.
constexpr size_t kWhole = 2048;
template <typename F>
void ForBytes(size_t n, F f) {
  const size_t head = std::min(n, kWhole);
  for (size_t i = 0; i < head; i++) f(i);
  for (size_t i = head; i < n; i += 509) f(i);
  for (size_t i = n > head + 64 ? n - 64 : head; i < n; i++) f(i);
}
void Paint(const Entry& e) {
  ForBytes(e.size, [&](size_t i) { e.p[i] = PatternByte(e.tag, i); });
}
void Examine(const Entry& e, size_t n, const char* when) {
  ForBytes(n, [&](size_t i) {
    CHECK_MSG(e.p[i] == PatternByte(e.tag, i),
              "%s: block %p of %zu bytes, byte %zu is %u instead of %u", when, (void*)e.p, e.size,
              i, e.p[i], PatternByte(e.tag, i));
  });
}

struct Mailbox {
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  int count = 0;
  Entry letter[512];
};

struct Worker {
  int id;
  Random random;
  uint64_t operations, stop_at;
  size_t live;
  int phase;
  Mailbox mail;
  Entry entry[kEntries];
};
Worker* workers;
int thread_count = 4;
double end_time;
std::atomic<bool> stopping;

size_t PickSize(Random* r) {
  const size_t k = Below(r, 1000);
  if (k < 600) return Below(r, 257);
  if (k < 880) return Below(r, 4097);
  if (k < 960) return Below(r, 33000);
  if (k < 990) return Below(r, 140000);
  if (k < 999) return Below(r, size_t{2} << 20);
  return Below(r, size_t{20} << 20);
}
size_t PickAlign(Random* r) { return size_t{8} << Below(r, Below(r, 50) ? 10 : 19); }

void Adopt(Worker* w, Entry* e, void* p, size_t size, size_t align) {
  CHECK_MSG(p != nullptr, "no memory for %zu bytes, errno %d", size, errno);
  CHECK_MSG((uintptr_t)p % align == 0, "%p of %zu bytes is not aligned to %zu", p, size, align);
  const size_t usable = malloc_usable_size(p);
  CHECK_MSG(usable >= size, "usable size of %p is %zu, asked for %zu", p, usable, size);
  // A block that shrank in place may keep the room of up to twice its size.
  CHECK_MSG(usable < size * 2 + 70000 + align, "usable size of %zu bytes is %zu", size, usable);
  claims.Take((uintptr_t)p, usable);
  *e = {(uint8_t*)p, size, usable, align, Next(&w->random)};
  // Now and then the program uses all that it may.
  if (Below(&w->random, 4) == 0) e->size = usable;
  w->live += usable;
  Paint(*e);
}

void Retire(Worker* w, Entry* e) {
  Examine(*e, e->size, "free");
  CHECK_MSG(malloc_usable_size(e->p) == e->usable, "usable size of %p changed from %zu to %zu",
            (void*)e->p, e->usable, malloc_usable_size(e->p));
  claims.Drop((uintptr_t)e->p, e->usable);
  w->live -= e->usable;
  uint8_t* p = e->p;
  e->p = nullptr;
  free(p);
}

void Allocate(Worker* w, Entry* e) {
  Random* r = &w->random;
  size_t size = PickSize(r), align = 16;
  void* p = nullptr;
  switch (Below(r, 10)) {
    case 0: {
      p = Below(r, 2) ? calloc(1, size) : calloc(size, 1);
      const uint8_t* b = (const uint8_t*)p;
      CHECK_MSG(p, "no memory for calloc of %zu", size);
      for (size_t i = 0; i < size; i++)
        CHECK_MSG(b[i] == 0, "calloc of %zu bytes: byte %zu of %p is %u", size, i, p, b[i]);
      break;
    }
    case 1:
      align = PickAlign(r);
      p = aligned_alloc(align, size);
      break;
    case 2:
      align = PickAlign(r);
      CHECK_EQ(posix_memalign(&p, align, size), 0);
      break;
    case 3:
      align = PickAlign(r);
      p = memalign(align, size);
      break;
    default:
      p = malloc(size);
  }
  Adopt(w, e, p, size, align);
}

void Reallocate(Worker* w, Entry* e) {
  Random* r = &w->random;
  Examine(*e, e->size, "before realloc");
  size_t size = Below(r, 2) ? PickSize(r) + 1 : e->size + Below(r, e->size / 4 + 40) + 1;
  const Entry old = *e;
  // Given up before the call: in the middle of it another thread may get the old memory.
  claims.Drop((uintptr_t)e->p, e->usable);
  w->live -= e->usable;
  void* p = Below(r, 2) ? realloc(e->p, size) : reallocarray(e->p, size, 1);
  CHECK_MSG(p, "realloc from %zu to %zu bytes failed", old.size, size);
  Entry moved = old;
  moved.p = (uint8_t*)p;
  // Only what ForBytes painted is known: compare the bytes painted that are kept, in the old
  // raster.
  ForBytes(old.size, [&](size_t i) {
    if (i < size)
      CHECK_MSG(moved.p[i] == PatternByte(old.tag, i), "realloc %zu -> %zu: byte %zu is lost",
                old.size, size, i);
  });
  Adopt(w, e, p, size, 16);
}

void Send(Worker* w, Entry* e) {
  Worker* to = &workers[Below(&w->random, (size_t)thread_count)];
  pthread_mutex_lock(&to->mail.lock);
  const bool sent = to->mail.count < (int)(sizeof to->mail.letter / sizeof *to->mail.letter);
  if (sent) to->mail.letter[to->mail.count++] = *e;
  pthread_mutex_unlock(&to->mail.lock);
  if (sent) {
    w->live -= e->usable;
    e->p = nullptr;
  }
}

void Receive(Worker* w) {
  static thread_local Entry got[64];
  int n = 0;
  pthread_mutex_lock(&w->mail.lock);
  while (w->mail.count > 0 && n < 64) got[n++] = w->mail.letter[--w->mail.count];
  pthread_mutex_unlock(&w->mail.lock);
  for (int i = 0; i < n; i++) {
    w->live += got[i].usable;
    Entry* e = &w->entry[Below(&w->random, kEntries)];
    if (e->p || Below(&w->random, 2))
      Retire(w, &got[i]);
    else
      *e = got[i];
  }
}

// Phases: growing, steady, shrinking. They let spans fill, thin out and fall empty.
void Step(Worker* w) {
  Random* r = &w->random;
  if (Below(r, 4000) == 0) w->phase = (int)Below(r, 3);
  if (Below(r, 100000) == 0) malloc_trim(Below(r, 2) ? 0 : 1 << 20);
  Entry* e = &w->entry[Below(r, kEntries)];
  const bool full = w->live > live_limit;
  const size_t k = Below(r, 100);
  if (!e->p) {
    if (!full && (w->phase == 0 || k < (w->phase == 1 ? 50u : 10u))) Allocate(w, e);
  } else if (k < 12 && !full) {
    Reallocate(w, e);
  } else if (k < 20) {
    Send(w, e);
  } else if (full || w->phase == 2 || k < 60) {
    Retire(w, e);
  } else if (k < 70) {
    Examine(*e, e->size, "at rest");
  }
  if (Below(r, 50) == 0) Receive(w);
  w->operations++;
}

void* WorkerMain(void* arg) {
  Worker* w = (Worker*)arg;
  while (w->operations < w->stop_at && !stopping.load(std::memory_order_relaxed)) {
    for (int i = 0; i < 256; i++) Step(w);
    if (Seconds() > end_time) stopping = true;
  }
  return nullptr;
}

// A thread lives for some operations, then its table passes to a new one.
void* KeeperMain(void* arg) {
  Worker* w = (Worker*)arg;
  while (!stopping) {
    w->stop_at = w->operations + 2000 + Below(&w->random, 60000);
    pthread_t t;
    CHECK_EQ(pthread_create(&t, nullptr, WorkerMain, w), 0);
    pthread_join(t, nullptr);
  }
  return nullptr;
}

long Option(int argc, char** argv, const char* name, long fallback) {
  const size_t n = strlen(name);
  for (int i = 1; i < argc; i++)
    if (!strncmp(argv[i], name, n) && argv[i][n] == '=')
      return strtol(argv[i] + n + 1, nullptr, 10);
  return fallback;
}

}  // namespace

// usage: model SEED [seconds=N] [threads=N] [live=MIB]
int main(int argc, char** argv) {
  const uint64_t seed = argc > 1 ? strtoull(argv[1], nullptr, 10) : 1;
  thread_count = (int)Option(argc, argv, "threads", 4);
  CHECK_MSG(thread_count >= 1 && thread_count <= kMaxThreads, "threads: 1 to %d", kMaxThreads);
  live_limit = (size_t)Option(argc, argv, "live", 64) << 20;
  end_time = Seconds() + (double)Option(argc, argv, "seconds", 2);
  claims.Init();
  workers = (Worker*)Map(sizeof(Worker) * kMaxThreads);
  pthread_t keeper[kMaxThreads];
  for (int i = 0; i < thread_count; i++) {
    workers[i].id = i;
    workers[i].random.state = seed * 1000003 + (uint64_t)i * 7919 + 1;
    CHECK_EQ(pthread_mutex_init(&workers[i].mail.lock, nullptr), 0);
    CHECK_EQ(pthread_create(&keeper[i], nullptr, KeeperMain, &workers[i]), 0);
  }
  uint64_t operations = 0;
  for (int i = 0; i < thread_count; i++) pthread_join(keeper[i], nullptr);
  for (int i = 0; i < thread_count; i++) {
    Worker* w = &workers[i];
    while (w->mail.count > 0) {
      w->live += w->mail.letter[w->mail.count - 1].usable;
      Retire(w, &w->mail.letter[--w->mail.count]);
    }
    for (Entry& e : w->entry)
      if (e.p) Retire(w, &e);
    CHECK_EQ(w->live, 0);
    operations += w->operations;
  }
  printf("model right: %llu operations, seed %llu\n", (unsigned long long)operations,
         (unsigned long long)seed);
  return 0;
}
