// SPDX-License-Identifier: Apache-2.0
// The marker against a plain walk of the same graph: every object that can be reached is marked and
// scanned, seldom twice, and no other one is marked, by one marker and by several.

#include "gc/marker.h"

#include <criterion/criterion.h>
#include <string.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "heap/fastpath.h"
#include "heap/sweep.h"
#include "heap/walk.h"

using namespace undergo;

namespace {

constexpr size_t kSizes[] = {9, 24, 40, 64, 200, 500, 512, 1000, 5000};

gc::ScanTarget Target() {
  return {heap::arena.base, size_t{heap::RegionLimit(heap::Region::kUpper)} << heap::kSliceShift,
          0};
}

size_t SlotSize(void* p) { return heap::FindSpan(reinterpret_cast<Addr>(p))->slot_size; }

bool IsMarked(void* p) {
  heap::Span* s = heap::FindSpan(reinterpret_cast<Addr>(p));
  size_t slot = (reinterpret_cast<Addr>(p) - heap::SpanAddr(s)) / s->slot_size;
  return (heap::MarkBits(s, heap::Plane::kMarked)[slot / 64] >> slot % 64 & 1) != 0;
}

// Each object but the root has one pointer to it from an earlier one of those that can be reached,
// or none: what they hold beside it is a pointer to anywhere.
struct Graph {
  std::vector<void**> objects;
  std::vector<bool> reachable;

  void Set(size_t from, size_t place, size_t to) { objects[from][place] = objects[to]; }
  Graph(size_t count, unsigned seed) : objects(count), reachable(count) {
    std::minstd_rand random(seed);
    for (auto& o : objects) {
      size_t size = kSizes[random() % std::size(kSizes)];
      o = static_cast<void**>(heap::Malloc(size));
      cr_assert(o != nullptr);
      memset(o, 0, SlotSize(o));  // what the last object left there would count
    }
    // Objects with one word make chains, the others trees. The order is not that of allocation.
    std::shuffle(objects.begin(), objects.end(), random);
    std::vector<std::pair<size_t, size_t>> places = {{0, 0}};
    reachable[0] = true;
    for (size_t i = 1; i < count && !places.empty(); i++) {
      if (random() % 4 == 0) continue;  // nobody points to it
      size_t k = random() % places.size();
      Set(places[k].first, places[k].second, i);
      places[k] = places.back();
      places.pop_back();
      reachable[i] = true;
      places.push_back({i, 0});
      if (SlotSize(objects[i]) >= 32) places.push_back({i, 1}), places.push_back({i, 2});
    }
    for (auto& p : places) {
      if (p.second != 0) Set(p.first, p.second, 0);
    }
  }
};

gc::MarkCounts Mark(const Graph& g, size_t threads) {
  static gc::Marker markers[4];
  gc::WorkPool pool;
  gc::SpanQueue::ForgetAll();
  heap::ForgetMarks();
  heap::ForEachSpan([](heap::Span* s) { heap::ResetMarks(s); });
  for (auto& m : markers) m.Start(&pool, Target(), nullptr);
  markers[0].MarkWord(reinterpret_cast<Addr>(g.objects[0]));
  std::atomic<size_t> working{threads};
  auto work = [&](gc::Marker& m) {
    for (;;) {
      while (!m.Drain(kOsPageSize)) {
      }
      working--;
      do {
        if (pool.AwaitWork()) break;
        if (working == 0 && !pool.HasWork()) return;
      } while (true);
      working++;
    }
  };
  std::vector<std::thread> others;
  for (size_t i = 1; i < threads; i++) others.emplace_back(work, std::ref(markers[i]));
  work(markers[0]);
  for (auto& t : others) t.join();
  gc::MarkCounts sum = {};
  for (auto& m : markers) {
    sum.marked_bytes += m.counts().marked_bytes;
    sum.marked_objects += m.counts().marked_objects;
    sum.scanned_bytes += m.counts().scanned_bytes;
  }
  return sum;
}

// The final stop would look at it.
bool IsNoted(void* p) {
  auto from = reinterpret_cast<Addr>(p);
  bool noted = true;
  for (uint32_t i = heap::SliceOf(from); i <= heap::SliceOf(from + SlotSize(p) - 1); i++)
    noted &= *heap::NotedMarks(i) != 0;
  return noted;
}

void Compare(size_t threads) {
  heap::gc_heap.enabled = true;
  for (unsigned seed = 1; seed <= 4; seed++) {
    Graph g(40000, seed);
    gc::MarkCounts counts = Mark(g, threads);
    uint64_t objects = 0;
    for (size_t i = 0; i < g.objects.size(); i++) {
      cr_assert_eq(IsMarked(g.objects[i]), g.reachable[i], "object %zu, seed %u", i, seed);
      objects += g.reachable[i];
      if (g.reachable[i]) cr_assert(IsNoted(g.objects[i]), "object %zu, seed %u", i, seed);
    }
    cr_expect_eq(counts.marked_objects, objects);
    // Twice those that were found while nothing waited, when their span comes up later.
    cr_expect_geq(counts.scanned_bytes, counts.marked_bytes);
    cr_expect_lt(counts.scanned_bytes, counts.marked_bytes + counts.marked_bytes / 20);
    for (auto* o : g.objects) heap::Free(o);
  }
}

}  // namespace

Test(marker, marks_what_can_be_reached) { Compare(1); }
Test(marker, with_others_marks_the_same) { Compare(4); }

Test(span_queue, is_first_in_first_out_and_holds_a_span_once) {
  heap::gc_heap.enabled = true;
  void* p = heap::Malloc(100);
  cr_assert(p != nullptr);
  uint32_t end = heap::mheap.end(heap::Region::kLower);
  cr_assert(end >= 3);
  gc::SpanQueue queue, other;
  gc::SpanQueue::ForgetAll();
  queue.Put(0, 7), queue.Put(end - 1, 0), queue.Put(0, 8), other.Put(1, 5);
  other.Put(1, 6);
  cr_expect_eq(queue.count(), 2u);
  cr_expect_eq(other.count(), 1u);
  cr_expect(queue.ManyAtHead());
  cr_expect_eq(queue.Take(), 0u);
  queue.Put(0, 9);  // waits until it leaves
  cr_expect_eq(queue.count(), 1u);
  cr_expect_eq(gc::SpanQueue::Leave(0), heap::kManyWait);
  queue.Put(0, 10);
  cr_expect(!queue.ManyAtHead());
  cr_expect_eq(queue.Take(), end - 1);
  // By way of the pool.
  other.Append(end - 1);
  cr_expect_eq(gc::SpanQueue::Leave(end - 1), 1u);
  cr_expect_eq(queue.Take(), 0u);
  cr_expect_eq(gc::SpanQueue::Leave(0), 11u);
  cr_expect(queue.empty());
  cr_expect_eq(other.Take(), 1u);
  cr_expect_eq(other.Take(), end - 1);
  cr_expect(other.empty());
  heap::Free(p);
}
