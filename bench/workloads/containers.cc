// SPDX-License-Identifier: Apache-2.0
// The C++ standard library's habits: ordered and unordered maps with string keys, lists, deques,
// vectors of strings, shared pointers; built, searched, half erased, rebuilt.
//   containers [rounds] [elements]
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "bench.h"

namespace {

std::string Word(Rng& rng) {
  // Half fit the short-string buffer, half live on the heap.
  const size_t length = RngBelow(&rng, 2) ? RngBetween(&rng, 4, 15) : RngBetween(&rng, 16, 60);
  std::string word(length, 'a');
  for (size_t i = 0; i < length; i += 3) word[i] = char('a' + RngBelow(&rng, 26));
  return word;
}

struct Record {
  std::string name;
  std::vector<int> values;
  std::shared_ptr<Record> parent;
};

uint64_t Round(Rng& rng, long elements) {
  uint64_t sum = 0;
  std::map<std::string, long> ordered;
  std::unordered_map<std::string, std::vector<std::string>> index;
  std::map<long, std::shared_ptr<Record>> records;
  std::list<std::string> recent;
  std::deque<std::unique_ptr<Record>> queue;
  for (long i = 0; i < elements; ++i) {
    std::string word = Word(rng);
    ordered[word] += i;
    index[word.substr(0, 3)].push_back(word);
    auto record = std::make_shared<Record>();
    record->name = word + word;
    record->values.assign(RngBelow(&rng, 20), int(i));
    if (auto near = records.lower_bound(long(RngBelow(&rng, 1000000))); near != records.end()) {
      if (!near->second->parent) record->parent = near->second;
    }
    records[long(RngBelow(&rng, 1000000))] = std::move(record);
    recent.push_front(std::move(word));
    if (recent.size() > 500) recent.pop_back();
    queue.push_back(std::make_unique<Record>());
    queue.back()->values.resize(RngBelow(&rng, 100));
    if (queue.size() > 300) queue.pop_front();
  }
  for (auto it = ordered.begin(); it != ordered.end();) {
    sum += it->first.size() + uint64_t(it->second);
    it = sum % 2 ? ordered.erase(it) : std::next(it);
  }
  for (auto& [key, words] : index) {
    for (const std::string& word : words) sum += ordered.count(word) + word.size();
  }
  for (auto& [key, record] : records) sum += uint64_t(key) + record->values.size();
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  const long rounds = Argument(argc, argv, 1, 12);
  const long elements = Argument(argc, argv, 2, 40000);
  Rng rng = RngSeed(17);
  uint64_t sum = 0;
  for (long round = 0; round < rounds; ++round) sum = Mix(sum, Round(rng, elements));
  return Finish(sum);
}
