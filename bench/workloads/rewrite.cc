// SPDX-License-Identifier: Apache-2.0
// Symbolic algebra: random expression trees are differentiated, simplified to a fixed point,
// evaluated and thrown away. Nodes are individual C++ objects of three sizes.
//   rewrite [expressions] [depth]
#include <memory>
#include <vector>

#include "bench.h"

namespace {

enum class Op : uint8_t { kConstant, kVariable, kNegate, kAdd, kMultiply, kSum };

struct Node;
using Tree = std::unique_ptr<Node>;

struct Node {
  explicit Node(Op op) : op(op) {}
  virtual ~Node() = default;
  Op op;
};
struct Leaf : Node {
  Leaf(Op op, int64_t value) : Node(op), value(value) {}
  int64_t value;
};
struct Pair : Node {
  Pair(Op op, Tree left, Tree right) : Node(op), left(std::move(left)), right(std::move(right)) {}
  Tree left, right;
};
struct Sum : Node {
  Sum() : Node(Op::kSum) {}
  std::vector<Tree> terms;
};

const Leaf& AsLeaf(const Node& node) { return static_cast<const Leaf&>(node); }
const Pair& AsPair(const Node& node) { return static_cast<const Pair&>(node); }
const Sum& AsSum(const Node& node) { return static_cast<const Sum&>(node); }

Tree Constant(int64_t value) { return std::make_unique<Leaf>(Op::kConstant, value); }
Tree Variable(int64_t index) { return std::make_unique<Leaf>(Op::kVariable, index); }
Tree Binary(Op op, Tree a, Tree b) {
  return std::make_unique<Pair>(op, std::move(a), std::move(b));
}

Tree Random(Rng& rng, int depth) {
  if (depth == 0 || RngBelow(&rng, 8) == 0) {
    return RngBelow(&rng, 3) == 0 ? Constant(int64_t(RngBelow(&rng, 7)) - 2)
                                  : Variable(int64_t(RngBelow(&rng, 4)));
  }
  switch (RngBelow(&rng, 4)) {
    case 0: return Binary(Op::kAdd, Random(rng, depth - 1), Random(rng, depth - 1));
    case 1: return Binary(Op::kNegate, Random(rng, depth - 1), nullptr);
    case 2: {
      auto sum = std::make_unique<Sum>();
      const uint64_t count = RngBetween(&rng, 2, 4);
      for (uint64_t i = 0; i < count; ++i) sum->terms.push_back(Random(rng, depth - 1));
      return sum;
    }
    default: return Binary(Op::kMultiply, Random(rng, depth - 1), Random(rng, depth - 1));
  }
}

Tree Clone(const Node& node) {
  switch (node.op) {
    case Op::kConstant:
    case Op::kVariable: return std::make_unique<Leaf>(node.op, AsLeaf(node).value);
    case Op::kSum: {
      auto sum = std::make_unique<Sum>();
      for (const Tree& term : AsSum(node).terms) sum->terms.push_back(Clone(*term));
      return sum;
    }
    default: {
      const Pair& pair = AsPair(node);
      return Binary(node.op, Clone(*pair.left), pair.right ? Clone(*pair.right) : nullptr);
    }
  }
}

Tree Derive(const Node& node, int64_t by) {
  switch (node.op) {
    case Op::kConstant: return Constant(0);
    case Op::kVariable: return Constant(AsLeaf(node).value == by);
    case Op::kNegate: return Binary(Op::kNegate, Derive(*AsPair(node).left, by), nullptr);
    case Op::kAdd:
      return Binary(Op::kAdd, Derive(*AsPair(node).left, by), Derive(*AsPair(node).right, by));
    case Op::kMultiply: {
      const Pair& pair = AsPair(node);
      return Binary(Op::kAdd, Binary(Op::kMultiply, Derive(*pair.left, by), Clone(*pair.right)),
                    Binary(Op::kMultiply, Clone(*pair.left), Derive(*pair.right, by)));
    }
    case Op::kSum: {
      auto sum = std::make_unique<Sum>();
      for (const Tree& term : AsSum(node).terms) sum->terms.push_back(Derive(*term, by));
      return sum;
    }
  }
  return nullptr;
}

bool IsConstant(const Tree& tree, int64_t value) {
  return tree->op == Op::kConstant && AsLeaf(*tree).value == value;
}

// Builds a new tree bottom-up and lets the old one die piecemeal, as rewriting systems do.
Tree Simplify(Tree tree) {
  switch (tree->op) {
    case Op::kConstant:
    case Op::kVariable: return tree;
    case Op::kNegate: {
      Tree inner = Simplify(std::move(static_cast<Pair&>(*tree).left));
      if (inner->op == Op::kConstant) return Constant(-AsLeaf(*inner).value);
      if (inner->op == Op::kNegate) return std::move(static_cast<Pair&>(*inner).left);
      return Binary(Op::kNegate, std::move(inner), nullptr);
    }
    case Op::kSum: {
      auto sum = std::make_unique<Sum>();
      int64_t constant = 0;
      for (Tree& term : static_cast<Sum&>(*tree).terms) {
        Tree simple = Simplify(std::move(term));
        if (simple->op == Op::kConstant) {
          constant += AsLeaf(*simple).value;
        } else if (simple->op == Op::kSum) {
          for (Tree& inner : static_cast<Sum&>(*simple).terms) {
            sum->terms.push_back(std::move(inner));
          }
        } else {
          sum->terms.push_back(std::move(simple));
        }
      }
      if (constant != 0 || sum->terms.empty()) sum->terms.push_back(Constant(constant));
      if (sum->terms.size() == 1) return std::move(sum->terms.front());
      return sum;
    }
    default: {
      const Op op = tree->op;
      Tree left = Simplify(std::move(static_cast<Pair&>(*tree).left));
      Tree right = Simplify(std::move(static_cast<Pair&>(*tree).right));
      if (left->op == Op::kConstant && right->op == Op::kConstant) {
        const uint64_t a = uint64_t(AsLeaf(*left).value), b = uint64_t(AsLeaf(*right).value);
        return Constant(int64_t(op == Op::kAdd ? a + b : a * b));
      }
      if (op == Op::kAdd && IsConstant(left, 0)) return right;
      if (op == Op::kAdd && IsConstant(right, 0)) return left;
      if (op == Op::kMultiply && (IsConstant(left, 0) || IsConstant(right, 0))) return Constant(0);
      if (op == Op::kMultiply && IsConstant(left, 1)) return right;
      if (op == Op::kMultiply && IsConstant(right, 1)) return left;
      return Binary(op, std::move(left), std::move(right));
    }
  }
}

uint64_t Evaluate(const Node& node) {
  switch (node.op) {
    case Op::kConstant: return uint64_t(AsLeaf(node).value);
    case Op::kVariable: return uint64_t(AsLeaf(node).value) * 7 + 3;
    case Op::kNegate: return -Evaluate(*AsPair(node).left);
    case Op::kAdd: return Evaluate(*AsPair(node).left) + Evaluate(*AsPair(node).right);
    case Op::kMultiply: return Evaluate(*AsPair(node).left) * Evaluate(*AsPair(node).right);
    case Op::kSum: break;
  }
  uint64_t total = 0;
  for (const Tree& term : AsSum(node).terms) total += Evaluate(*term);
  return total;
}

}  // namespace

int main(int argc, char** argv) {
  const long expressions = Argument(argc, argv, 1, 3000);
  const int depth = int(Argument(argc, argv, 2, 9));
  Rng rng = RngSeed(2);
  uint64_t sum = 0;
  for (long i = 0; i < expressions; ++i) {
    Tree tree = Simplify(Random(rng, depth));
    for (int64_t variable = 0; variable < 3; ++variable) {
      tree = Simplify(Derive(*tree, variable));
      sum = Mix(sum, Evaluate(*tree));
    }
  }
  return Finish(sum);
}
