// SPDX-License-Identifier: Apache-2.0
// A ring of 64-byte nodes, 1 GiB by default. It is built; collected by force in the order of
// allocation; relinked at random and collected again; and then changed for some seconds: a cursor
// walks, inserts a new node and unlinks an old one, which is dropped, in batches that are timed.
//   nodes [nodes] [seconds of churn]
#include "gcbench.h"

typedef struct Node {
  struct Node *next, *previous;
  uint64_t value, padding[5];
} Node;

enum { kBatch = 200 };

static NOINLINE Node* Link(Node* previous, Node* node) {
  node->previous = previous;
  node->next = previous->next;
  previous->next->previous = node;
  previous->next = node;
  return node;
}
static NOINLINE Node* New(uint64_t value) {
  Node* node = Allocate(sizeof *node);
  node->value = value;
  return node;
}

static NOINLINE void Shuffle(Node* ring, size_t count, Rng* rng) {
  Node** all = Allocate(count * sizeof *all);
  Node* node = ring;
  for (size_t i = 0; i < count; i++, node = node->next) all[i] = node;
  for (size_t i = count - 1; i > 0; i--) {
    const size_t k = RngBelow(rng, i + 1);
    node = all[i], all[i] = all[k], all[k] = node;
  }
  for (size_t i = 0; i < count; i++) {
    all[i]->next = all[i + 1 < count ? i + 1 : 0];
    all[i]->previous = all[i > 0 ? i - 1 : count - 1];
  }
  Free(all);
}

int main(int argc, char** argv) {
  Start();
  const size_t count = (size_t)Argument(argc, argv, 1, 1 << 24);
  const double seconds = (double)Argument(argc, argv, 2, 12);
  Rng rng = RngSeed(3);
  const double start = NowSeconds();
  static Node* ring;
  ring = New(0);
  ring->next = ring->previous = ring;
  Node* last = ring;
  for (size_t i = 1; i < count; i++) last = Link(last, New(i));
  Metric("build_s", NowSeconds() - start);
  Force("mark_ordered");
  Shuffle(ring, count, &rng);
  Force("mark_shuffled");

  // Each batch inserts as many nodes as it unlinks, so that the ring keeps its size.
  static Histogram latency;
  Node* cursor = ring;
  uint64_t added = 0, removed = 0, value = count;
  const double cpu = CpuSeconds(), churn = NowSeconds();
  double now = churn;
  while (now < churn + seconds) {
    for (int i = 0; i < kBatch; i++) {
      for (uint64_t step = RngBelow(&rng, 3); step > 0; step--) cursor = cursor->next;
      added += value;
      Link(cursor, New(value++));
      Node* victim = cursor->next->next;
      if (victim == ring) victim = victim->next;
      removed += victim->value;
      victim->previous->next = victim->next;
      victim->next->previous = victim->previous;
      if (i % 50 == 0) cursor = cursor->next->next;
    }
    const double then = now;
    now = NowSeconds();
    Record(&latency, now - then);
  }
  Metric("churn_batches_per_s", (double)latency.total / (now - churn));
  Metric("churn_cpu_s", CpuSeconds() - cpu);
  Latencies("batch", &latency);

  uint64_t sum = 0, length = 0;
  for (const Node* node = ring->next; node != ring; node = node->next) sum += node->value, length++;
  Expect(length == count - 1, "the ring has its length");
  Expect(sum + removed == added + (uint64_t)count * (count - 1) / 2, "the ring has its nodes");
  End();
  return Finish(count);
}
