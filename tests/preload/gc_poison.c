// SPDX-License-Identifier: Apache-2.0
// UNDERGO=gc=poison: a program that hides its only pointers and uses them later. Objects that fill
// pages survive a read and a write, and the program goes on with their contents; its own handler of
// SIGSEGV sees its own faults and nothing else. Which lines are printed is looked at by
// tests/safety/run.sh.
// run: name=clean env=UNDERGO=gc=poison clean
// run: name=fatal env=UNDERGO=gc=poison fatal
// native: no
// timeout: 60
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "gc.h"

enum { kCount = 40 };
static uintptr_t hidden[kCount];

static NOINLINE void Make(size_t size) {
  for (int i = 0; i < kCount; i++) {
    void* p = malloc(size);
    CHECK(p);
    Fill(p, size, (uint64_t)i);
    hidden[i] = Hide(p);
  }
}
static void Collect(void) {
  Scrub();
  for (int i = 0; i < 3; i++) CollectOnce();
}
static NOINLINE void CheckAll(size_t size) {
  for (int i = 0; i < kCount; i++)
    CHECK_MSG(Verify(Reveal(hidden[i]), size, (uint64_t)i) == size, "object %d of %zu bytes", i,
              size);
}

static void Clean(const char* name) {
  CollectHard(name);
  CollectHard(name);
}

// The only object of its kind is written to in one place.
static void Small(const char* name) {
  (void)name;
  void* p = malloc(kObjectBytes);
  CHECK(p);
  hidden[0] = Hide(p);
  p = NULL;
  Collect();
  CHECK(((unsigned char*)Reveal(hidden[0]))[100] == 0xdb);
  ((char*)Reveal(hidden[0]))[100] = 1;
  Collect();
}

// Every object holds whole pages: all contents are as they were.
static void Pages(const char* name) {
  (void)name;
  static const size_t kSizes[] = {16000, 60000, 1 << 20};
  for (size_t k = 0; k < sizeof kSizes / sizeof *kSizes; k++) {
    // The first and the last part of an object may share a page with a neighbour that lives.
    size_t size = kSizes[k];
    Make(size);
    Collect();
    volatile unsigned char* p = (volatile unsigned char*)Reveal(hidden[kCount / 2]);
    size_t from = size > 65536 ? 0 : 4096, to = size > 65536 ? size : size - 4096;
    CHECK(to > from && p[from] == p[from]);
    if (size > 65536) CheckAll(size);
    p[from] ^= 0xff;
    p[from] ^= 0xff;
    if (size > 65536) CheckAll(size);
    Collect();
    for (int i = 0; i < kCount; i++) free(Reveal(hidden[i]));
  }
}

static void Freed(const char* name) {
  (void)name;
  Make(3000);
  Collect();
  for (int i = 0; i < kCount; i++) free(Reveal(hidden[i]));
  // The slots serve the program again.
  for (int round = 0; round < 20; round++) {
    Make(3000);
    CheckAll(3000);
    Collect();
    for (int i = 0; i < kCount; i++) free(Reveal(hidden[i]));
  }
}

static sigjmp_buf back;
static volatile sig_atomic_t faults;
static void OnFault(int sig, siginfo_t* info, void* context) {
  CHECK(sig == SIGSEGV && info->si_code > 0 && context);
  faults++;
  siglongjmp(back, 1);
}
static void Handler(const char* name) {
  struct sigaction action = {0}, old;
  CHECK(sigaction(SIGSEGV, NULL, &old) == 0);
  CHECK(old.sa_handler == SIG_DFL && old.sa_flags == 0);
  action.sa_sigaction = OnFault;
  action.sa_flags = SA_SIGINFO | SA_RESETHAND;
  CHECK(sigaction(SIGSEGV, &action, &old) == 0);
  CHECK(sigaction(SIGSEGV, NULL, &old) == 0);
  CHECK(old.sa_sigaction == OnFault && old.sa_flags == action.sa_flags);
  char* page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(page != MAP_FAILED);
  Pages(name);
  CHECK(faults == 0);
  if (sigsetjmp(back, 1) == 0) *(volatile char*)page = 1;
  CHECK(faults == 1);
  CHECK(sigaction(SIGSEGV, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
  CHECK(signal(SIGSEGV, SIG_IGN) == SIG_DFL && signal(SIGSEGV, SIG_DFL) == SIG_IGN);
}

// A fault of the program still kills it.
static void Fatal(const char* name) {
  (void)name;
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    char* volatile nowhere = (char*)16;
    *nowhere = 1;
    _exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  child = fork();
  if (child == 0) {
    raise(SIGSEGV);
    _exit(0);
  }
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static const Part parts[] = {{"clean", Clean}, {"small", Small},     {"pages", Pages},
                             {"freed", Freed}, {"handler", Handler}, {"fatal", Fatal}};
int main(int argc, char** argv) {
  NEED_GC();
  return RUN_PARTS(parts);
}
