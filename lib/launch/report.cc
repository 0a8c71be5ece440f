// SPDX-License-Identifier: Apache-2.0
// Prints the one line with which the launcher gives up.

#include "launch/report.h"

#include <cstdio>
#include <cstdlib>

namespace undergo::launch {

void Die(int status, const std::string& message) {
  fflush(stdout);
  const std::string line = "undergo: " + message + "\n";
  fwrite(line.data(), 1, line.size(), stderr);  // one write, as standard error has no buffer
  exit(status);
}

std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const unsigned char byte = static_cast<unsigned char>(c);
    quoted += byte < ' ' || byte == 127 ? '?' : c;
  }
  return quoted + '"';
}

}  // namespace undergo::launch
