// SPDX-License-Identifier: Apache-2.0
// A full mark: a binary tree of 64-byte nodes, 1 GiB by default, whose parents and children lie
// in the order of allocation, and then anywhere. Collected by force in both states.
//   graph [nodes]
#include "gcbench.h"

typedef struct Node {
  struct Node* child[2];
  uint64_t value, padding[5];
} Node;

static Node* root;

static void Link(Node** all, size_t count) {
  for (size_t i = 0; i < count; i++) {
    for (size_t c = 0; c < 2; c++)
      all[i]->child[c] = 2 * i + 1 + c < count ? all[2 * i + 1 + c] : NULL;
  }
  root = all[0];
}

static void List(Node* node, Node** all) {
  all[node->value] = node;
  for (int c = 0; c < 2; c++)
    if (node->child[c] != NULL) List(node->child[c], all);
}

static uint64_t Sum(const Node* node) {
  return node == NULL ? 0 : node->value + Sum(node->child[0]) + Sum(node->child[1]);
}

int main(int argc, char** argv) {
  Start();
  const size_t count = (size_t)Argument(argc, argv, 1, 1 << 24);
  Rng rng = RngSeed(4);
  Node** all = Allocate(count * sizeof *all);
  const double start = NowSeconds();
  for (size_t i = 0; i < count; i++) {
    all[i] = Allocate(sizeof **all);
    all[i]->value = i;
  }
  Metric("build_s", NowSeconds() - start);
  Link(all, count);
  Free(all);
  Force("mark_ordered");
  all = Allocate(count * sizeof *all);
  List(root, all);
  for (size_t i = count - 1; i > 0; i--) {
    const size_t k = RngBelow(&rng, i + 1);
    Node* node = all[i];
    all[i] = all[k], all[k] = node;
  }
  Link(all, count);
  Free(all);
  Force("mark_shuffled");
  Expect(Sum(root) == (uint64_t)count * (count - 1) / 2, "the tree has its nodes");
  End();
  return Finish(count);
}
