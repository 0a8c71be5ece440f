// SPDX-License-Identifier: Apache-2.0
// A plugin that allocates in constructors and frees in destructors, with thread-local objects.
#include <map>
#include <string>
#include <vector>

#include "check.h"

namespace {
struct Registry {
  std::map<std::string, std::vector<int>> table;
  char* raw;
  Registry() : raw((char*)malloc(5000)) {
    Fill(raw, 5000, 9);
    for (int i = 0; i < 200; i++) table["key" + std::to_string(i)] = std::vector<int>((size_t)i, i);
  }
  ~Registry() {
    CHECK(Verify(raw, 5000, 9) == 5000);
    free(raw);
    CHECK(table.size() == 200 && table["key7"].size() == 7);
    for (int i = 0; i < 50; i++) free(malloc((size_t)i * 100));
  }
};
Registry registry;
thread_local std::string local(300, 'x');
__attribute__((constructor)) void Early() { free(calloc(10, 10)); }
__attribute__((destructor)) void Late() { free(malloc(10)); }
}  // namespace

extern "C" int PluginWork(void) { return (int)registry.table["key9"].size(); }
// From this call on the thread keeps the plugin loaded until it ends.
extern "C" size_t PluginLocal(size_t n) {
  local += std::string(n, 'y');
  return local.size();
}
extern "C" char* PluginMake(size_t n) { return (char*)malloc(n); }
