// SPDX-License-Identifier: Apache-2.0
// Recall on leaks of a C++ program: trees of objects with virtual functions, vectors of pointers
// (whose end is the address behind the block), strings, and cycles of shared_ptr.
// run: env=GOGC=off
// timeout: 60
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "recall.h"

namespace {

struct Shape {
  virtual ~Shape() = default;
  virtual int Sum() const = 0;
};
struct Leaf : Shape {
  explicit Leaf(int v) : value(v), name("a leaf with the number " + std::to_string(v)) {}
  int Sum() const override { return value; }
  int value;
  std::string name;
};
struct Branch : Shape {
  int Sum() const override {
    int sum = 0;
    for (const Shape* child : children) sum += child->Sum();
    return sum;
  }
  std::vector<Shape*> children;
};

Shape* Tree(int depth) {
  if (depth == 0) return new Leaf(1);
  auto* branch = new Branch;
  for (int i = 0; i < 4; i++) branch->children.push_back(Tree(depth - 1));
  return branch;
}

struct Person {
  std::string name;
  std::vector<std::shared_ptr<Person>> friends;
};

NOINLINE void DropTrees() {
  for (int i = 0; i < 200; i++) {
    Shape* tree = Tree(4);
    CHECK(tree->Sum() == 256);
  }
  for (int i = 0; i < 3000; i++) {
    auto one = std::make_shared<Person>(), two = std::make_shared<Person>();
    one->name = "the first of a pair of friends";
    two->name = "the second of a pair of friends";
    one->friends.push_back(two);
    two->friends.push_back(one);
  }
  for (int i = 0; i < 50; i++) {
    auto* map = new std::map<int, std::string>;
    for (int k = 0; k < 100; k++) (*map)[k] = "a value that is too long for the string itself";
  }
}

}  // namespace

int main() {
  MeasureRecall("C++", DropTrees);
  return 0;
}
