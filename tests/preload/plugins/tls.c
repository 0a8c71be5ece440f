// SPDX-License-Identifier: Apache-2.0
// A library with thread-local data: of the static kind if built so, in any case of the dynamic.
#include <string.h>

__attribute__((tls_model("initial-exec"))) __thread int plugin_static = 41;
static __thread int plugin_counter = 7;
static __thread char plugin_block[5000] = {1, 2, 3};

int PluginCount(void) {
  if (plugin_block[2] != 3 || plugin_block[4999] != 0) return -1000;
  return ++plugin_counter;
}
int PluginStatic(void) { return ++plugin_static; }
