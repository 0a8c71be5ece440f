// SPDX-License-Identifier: Apache-2.0
// Perfect binary trees of depths 4 to N that are built, counted and dropped; one long-lived tree
// of depth N. Nothing is ever freed.
//   binary_trees [depth]
#include "gcbench.h"

typedef struct Node {
  struct Node *left, *right;
} Node;

static Node* Build(int depth) {
  Node* node = Allocate(sizeof *node);
  node->left = depth > 0 ? Build(depth - 1) : NULL;
  node->right = depth > 0 ? Build(depth - 1) : NULL;
  return node;
}
static uint64_t Count(const Node* node) {
  return node->left ? 1 + Count(node->left) + Count(node->right) : 1;
}

int main(int argc, char** argv) {
  Start();
  const int depth = (int)Argument(argc, argv, 1, 20);
  uint64_t sum = Count(Build(depth));
  Node* kept = Build(depth - 1);
  for (int d = 4; d <= depth; d += 4) {
    uint64_t count = 0;
    for (long i = 0; i < 1l << (depth - d + 4); i++) count += Count(Build(d));
    sum = Mix(sum, count);
  }
  sum = Mix(sum, Count(kept));
  End();
  return Finish(sum);
}
