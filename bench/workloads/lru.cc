// SPDX-License-Identifier: Apache-2.0
// An object cache with a byte budget: string keys, values whose typical size drifts from phase to
// phase, least recently used entries evicted. Sizes that fitted the last phase fragment the next.
//   lru [operations] [megabytes]
#include <list>
#include <string>
#include <unordered_map>

#include "bench.h"

namespace {

struct Entry {
  std::string key;
  char* value;
  size_t size;
};

}  // namespace

int main(int argc, char** argv) {
  const long operations = Argument(argc, argv, 1, 1500000);
  const size_t budget = size_t(Argument(argc, argv, 2, 120)) << 20;
  constexpr long kPhases = 6;
  constexpr unsigned kPhaseBits[kPhases] = {6, 8, 7, 10, 9, 6};
  Rng rng = RngSeed(22);
  std::list<Entry> order;  // newest in front
  std::unordered_map<std::string, std::list<Entry>::iterator> index;
  size_t used = 0;
  uint64_t sum = 0, hits = 0;
  for (long i = 0; i < operations; ++i) {
    const unsigned bits = kPhaseBits[i * kPhases / operations];
    // Squaring makes low keys popular.
    const uint64_t draw = RngBelow(&rng, 1000);
    std::string key = "user:" + std::to_string(draw * draw + RngBelow(&rng, 1000)) + ":profile";
    if (auto found = index.find(key); found != index.end()) {
      order.splice(order.begin(), order, found->second);
      Expect(EndsAre(found->second->value, found->second->size, found->second->size), "cached");
      ++hits;
      continue;
    }
    const size_t size = RngSkewed(&rng, bits - 1, bits + 2);
    char* value = static_cast<char*>(Must(malloc(size)));
    Fill(value, size, size);
    order.push_front({key, value, size});
    index.emplace(std::move(key), order.begin());
    used += size + 200;
    while (used > budget) {
      Entry& oldest = order.back();
      used -= oldest.size + 200;
      sum = Mix(sum, oldest.size);
      free(oldest.value);
      index.erase(oldest.key);
      order.pop_back();
    }
  }
  for (Entry& entry : order) free(entry.value);
  return Finish(Mix(sum, hits));
}
