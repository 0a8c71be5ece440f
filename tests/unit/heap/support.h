// SPDX-License-Identifier: Apache-2.0
// What the tests of the heap share: objects with contents that show who wrote them, threads that
// end as the program's do, children whose last words are looked at.
#pragma once

#include <criterion/criterion.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "heap/fastpath.h"
#include "heap/mheap.h"
#include "heap/registry.h"

namespace undergo::heap::test {

inline uint64_t InUse() { return mheap.stats().in_use_bytes; }
inline Addr AddressOf(const void* p) { return reinterpret_cast<Addr>(p); }

// An object filled with a pattern of its own.
struct Block {
  void* p;
  size_t size;
  uint64_t tag;
};

// Not shared between files: the restart table could not refer to a function that the linker merges.
static inline Block NewBlock(size_t size, uint64_t tag) {
  Block b = {Malloc(size), size, tag};
  cr_assert(b.p != nullptr, "no memory for %zu bytes", size);
  Fill(b.p, size, tag);
  return b;
}

inline void CheckBlock(const Block& b) {
  size_t wrong = Verify(b.p, b.size, b.tag);
  cr_assert(wrong == b.size, "block of %zu bytes at %p: byte %zu changed", b.size, b.p, wrong);
}

inline void DropBlock(const Block& b) {
  CheckBlock(b);
  Free(b.p);
}

inline void DropBlocks(std::vector<Block>* blocks) {
  for (const Block& b : *blocks) DropBlock(b);
  blocks->clear();
}

// Every class once, and what lies between.
inline std::vector<size_t> SizesOfEachClass() {
  std::vector<size_t> sizes;
  for (const SizeClass& c : kClasses) sizes.push_back(c.size);
  return sizes;
}

// Runs f on a thread that gives its mcache back at its end.
template <typename F>
void OnThread(F f) {
  std::thread([&] {
    f();
    DetachThread();
  }).join();
}

inline bool IsZero(const void* p, size_t n) {
  const char* bytes = static_cast<const char*>(p);
  return n == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, n - 1) == 0);
}

// What a child process wrote to standard error while it ran f, and how it ended.
struct LastWords {
  std::string text;
  int status;
  bool aborted() const { return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT; }
  bool exited() const { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }
  size_t lines() const {
    size_t n = 0;
    for (char c : text) n += c == '\n';
    return n;
  }
};

template <typename F>
LastWords InChild(F f) {
  int ends[2];
  cr_assert(pipe(ends) == 0);
  LastWords words;
  pid_t child = fork();
  cr_assert(child >= 0);
  if (child == 0) {
    alarm(20);
    dup2(ends[1], 2);
    f();
    _exit(0);
  }
  close(ends[1]);
  char buffer[512];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) {
    words.text.append(buffer, static_cast<size_t>(n));
  }
  close(ends[0]);
  cr_assert(waitpid(child, &words.status, 0) == child);
  return words;
}

}  // namespace undergo::heap::test
