// SPDX-License-Identifier: Apache-2.0
// The table of threads.
#include "world/record.h"

#include <sys/resource.h>
#include <unistd.h>

#include "plat/syscall.h"
#include "plat/vm.h"

// The loader's: where the first frame begins.
extern "C" void* __libc_stack_end;

namespace undergo::world {

constinit sync::Mutex records_lock;
constinit Record* first_record = nullptr;
constinit uint32_t record_count = 0;
constinit int process_id = 0;
constinit AdoptedHook on_thread_adopted = nullptr;

namespace {

constexpr size_t kChunkSize = 32 * kKiB;
constexpr size_t kChunkRecords = kChunkSize / sizeof(Record);
constexpr uint32_t kMaxChunks = 4096;  // more threads than a kernel has
constexpr uint32_t kBuckets = 1024;

constinit Record* chunks[kMaxChunks] = {};  // filled in order, never emptied; records_lock
constinit uint32_t chunk_count = 0;         // records_lock for writers
constinit size_t last_used = 0;            // records of the last chunk that were used; records_lock
constinit Record* free_records = nullptr;  // records_lock; used before, linked by next
constinit Record* buckets[kBuckets] = {};  // records_lock

uint32_t BucketOf(int tid) { return static_cast<uint32_t>(tid) % kBuckets; }

bool MoreRecords() {
  if (chunk_count == kMaxChunks) return false;
  auto* chunk = static_cast<Record*>(plat::MapPages(kChunkSize));
  if (chunk == nullptr) return false;
  chunks[chunk_count] = chunk;
  StoreRelease(&chunk_count, chunk_count + 1);  // pairs: IsRecord
  last_used = 0;
  return true;
}

// Without memory: null. Pages of a chunk are touched one after the other, as most processes have
// few threads.
Record* TakeRecord() {
  Record* r = free_records;
  if (r != nullptr) {
    free_records = r->next;
    return r;
  }
  bool full = chunk_count == 0 || last_used == kChunkRecords;
  if (full && !MoreRecords()) return nullptr;
  return &chunks[chunk_count - 1][last_used++];
}

void Link(Record* r) {
  r->prev = nullptr;
  r->next = first_record;
  if (first_record != nullptr) first_record->prev = r;
  first_record = r;
  r->chain = buckets[BucketOf(r->tid)];
  buckets[BucketOf(r->tid)] = r;
  StoreRelaxed(&record_count, record_count + 1);
}

int Tid() { return static_cast<int>(plat::Syscall(__NR_gettid)); }
int Pid() { return static_cast<int>(plat::Syscall(__NR_getpid)); }

// The calling thread had no record, or one that went to somebody else. May wait for a stop's end.
Record* Adopt(int tid) {
  heap::ThreadWords& words = heap::thread_words;
  // A child of vfork borrows everything of its parent; a thread that ends is not seen to end twice.
  if (words.exited != 0 || Pid() != process_id) return nullptr;
  Record* r;
  {
    SignalsOff off;
    sync::MutexLock hold(records_lock);
    r = FindRecord(tid);
    if (r == nullptr) r = NewRecord(tid);
    if (r != nullptr) {
      r->words = &words;
      words.record = r;
    }
  }
  if (r != nullptr && on_thread_adopted != nullptr) on_thread_adopted();
  return r;
}

}  // namespace

Record* FindRecord(int tid) {
  Record* r = buckets[BucketOf(tid)];
  while (r != nullptr && r->tid != tid) r = r->chain;
  return r;
}

Record* NewRecord(int tid) {
  Record* r = TakeRecord();
  if (r == nullptr) return nullptr;
  *r = {};
  r->tid = tid;
  Link(r);
  return r;
}

void DropRecord(Record* r) {
  Record** at = &buckets[BucketOf(r->tid)];
  while (*at != r) at = &(*at)->chain;
  *at = r->chain;
  (r->prev != nullptr ? r->prev->next : first_record) = r->next;
  if (r->next != nullptr) r->next->prev = r->prev;
  StoreRelaxed(&record_count, record_count - 1);
  *r = {};
  r->next = free_records;
  free_records = r;
}

bool IsRecord(const void* p) {
  Addr a = reinterpret_cast<Addr>(p);
  uint32_t n = LoadAcquire(&chunk_count);  // pairs: MoreRecords
  for (uint32_t i = 0; i < n; ++i) {
    Addr offset = a - reinterpret_cast<Addr>(chunks[i]);
    if (offset < kChunkRecords * sizeof(Record)) return offset % sizeof(Record) == 0;
  }
  return false;
}

Record* OwnRecord() {
  auto* r = static_cast<Record*>(heap::thread_words.record);
  if (r != nullptr) {
    Addr here = reinterpret_cast<Addr>(__builtin_frame_address(0));
    if (here - r->own_low < r->own_size) return r;
  }
  int tid = Tid();
  if (r == nullptr) return Adopt(tid);
  if (LoadRelaxed(&r->tid) == tid) return r;
  // A borrower's thread block shows the owner's record, which names this block; a record that was
  // taken away (a fork that we did not see) does not.
  return r->words == &heap::thread_words ? nullptr : Adopt(tid);
}

void RecordMainThread() {
  process_id = Pid();
  if (Tid() != process_id) return;
  Record* r = OwnRecord();
  if (r == nullptr || r->own_size != 0) return;
  // The kernel puts the environment above the first frame; a program that has moved it already
  // has a main thread without known bounds.
  Addr here = reinterpret_cast<Addr>(__builtin_frame_address(0));
  Addr top = reinterpret_cast<Addr>(environ);
  if (top == 0) top = reinterpret_cast<Addr>(__libc_stack_end);  // before libc's own start
  constexpr size_t kMaxStack = 128 * kMiB;  // below that the kernel may put other mappings
  if (top <= here || top - here > kMaxStack) return;
  struct rlimit limit = {};
  long e = plat::Syscall(__NR_prlimit64, 0, RLIMIT_STACK, nullptr, &limit);
  size_t size = plat::IsError(e) ? 8 * kMiB : Min(limit.rlim_cur, kMaxStack);
  r->own_low = top - size;
  StoreRelease(&r->own_size, size);  // pairs: none; the thread itself reads it
}

void ThreadStarted(Addr stack_low, Addr stack_high) {
  int tid = Tid();
  SignalsOff off;
  sync::MutexLock hold(records_lock);
  Record* r = FindRecord(tid);
  if (r == nullptr) r = NewRecord(tid);
  if (r == nullptr) return;  // no memory: found by enumeration later
  r->stack_low = r->own_low = stack_low;
  r->stack_high = stack_high;
  r->own_size = stack_high - stack_low;
  r->words = &heap::thread_words;
  heap::thread_words.record = r;
}

void ThreadEnded() {
  auto* r = static_cast<Record*>(heap::thread_words.record);
  if (r == nullptr) return;
  Addr here = reinterpret_cast<Addr>(__builtin_frame_address(0));
  if (here - r->own_low >= r->own_size && r->tid != Tid()) return;
  heap::thread_words.record = nullptr;
  SignalsOff off;
  sync::MutexLock hold(records_lock);
  if (r->words == &heap::thread_words) DropRecord(r);
}

void SetAltStack(Addr low, size_t size) {
  Record* r = OwnRecord();
  if (r == nullptr) return;
  r->altstack = low;
  r->altstack_size = size;
}

void ResetRecords() {
  auto* mine = static_cast<Record*>(heap::thread_words.record);
  Record kept = mine != nullptr ? *mine : Record{};
  first_record = free_records = nullptr;
  record_count = 0;
  for (uint32_t i = 0; i < chunk_count; ++i) {
    size_t used = i + 1 == chunk_count ? last_used : kChunkRecords;
    for (size_t k = 0; k < used; ++k) {
      Record* r = &chunks[i][k];
      if (r->tid != 0) buckets[BucketOf(r->tid)] = nullptr;
      *r = {};
      if (r == mine) continue;
      r->next = free_records;
      free_records = r;
    }
  }
  records_lock.ResetAfterFork();
  process_id = Pid();
  if (mine == nullptr) return;
  *mine = kept;
  mine->tid = Tid();
  mine->state = kIdle;
  mine->signalled = 0;
  Link(mine);
}

}  // namespace undergo::world
