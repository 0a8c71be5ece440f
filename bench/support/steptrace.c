// SPDX-License-Identifier: Apache-2.0
// Records the instructions that an allocator executes in hot calls, by single-stepping a child of
// its own under ptrace from the entry of each call to its return. scripts/fastpath_golden.py reads
// the output, one line per call: the case, then the offset in the library of every instruction; "x"
// stands for a stretch outside of the library (libc's memset, a system call's stub).
//   steptrace LIBRARY [REPEATS]
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kMostSteps = 100000, kWarmUp = 500 };

// The child: warms each case up, then stops right before each call that is to be recorded.

// The breakpoint hands over the entry of the function about to be called and the case's name.
static inline void Announce(void* entry, const char* name) {
  __asm__ volatile("int3" : : "a"(entry), "d"(name) : "memory");
}

typedef void* (*MallocFunction)(size_t);
typedef void* (*CallocFunction)(size_t, size_t);
typedef void* (*ReallocFunction)(void*, size_t);
typedef void (*FreeFunction)(void*);

static void* Find(const char* symbol) { return dlsym(RTLD_DEFAULT, symbol); }

static void PairCase(const char* take_name, const char* give_name, MallocFunction take,
                     FreeFunction give, size_t size, long repeats) {
  if (take == NULL || give == NULL) return;
  for (int i = 0; i < kWarmUp; ++i) give(take(size));
  for (long i = 0; i < repeats; ++i) {
    Announce((void*)(uintptr_t)take, take_name);
    void* block = take(size);
    memset(block, 1, size);
    Announce((void*)(uintptr_t)give, give_name);
    give(block);
  }
}

static int Child(long repeats) {
  const MallocFunction take = (MallocFunction)(uintptr_t)Find("malloc");
  const FreeFunction give = (FreeFunction)(uintptr_t)Find("free");
  const CallocFunction zeroed = (CallocFunction)(uintptr_t)Find("calloc");
  const ReallocFunction resize = (ReallocFunction)(uintptr_t)Find("realloc");
  PairCase("malloc(64)", "free(64)", take, give, 64, repeats);
  PairCase("malloc(1)", "free(1)", take, give, 1, repeats);
  PairCase("malloc(1000)", "free(1000)", take, give, 1000, repeats);
  PairCase("operator new(64)", "operator delete(64)", (MallocFunction)(uintptr_t)Find("_Znwm"),
           (FreeFunction)(uintptr_t)Find("_ZdlPv"), 64, repeats);
  for (long i = -kWarmUp; i < repeats; ++i) {
    if (i >= 0) Announce((void*)(uintptr_t)zeroed, "calloc(1,64)");
    unsigned char* block = zeroed(1, 64);
    block[0] = 1;
    give(block);
  }
  for (long i = -kWarmUp; i < repeats; ++i) {
    void* block = take(100);
    if (i >= 0) Announce((void*)(uintptr_t)resize, "realloc(100 to 104)");
    block = resize(block, 104);
    give(block);
  }
  return 0;
}

// The parent.

static uint64_t g_low, g_high;  // where the library is mapped in the child

static void FindLibrary(pid_t child, const char* library) {
  char path[64], line[PATH_MAX + 128];
  snprintf(path, sizeof(path), "/proc/%d/maps", (int)child);
  FILE* maps = fopen(path, "r");
  while (maps != NULL && fgets(line, sizeof(line), maps) != NULL) {
    unsigned long low, high;
    if (strstr(line, library) == NULL || sscanf(line, "%lx-%lx", &low, &high) != 2) continue;
    if (g_low == 0) g_low = low;
    g_high = high;
  }
  if (maps != NULL) fclose(maps);
  if (g_low == 0) {
    fprintf(stderr, "steptrace: %s is not mapped in the child\n", library);
    exit(1);
  }
}

static void Fail(const char* what) {
  fprintf(stderr, "steptrace: %s: %s\n", what, strerror(errno));
  exit(77);  // most likely a container that forbids ptrace: the caller may skip
}

// Runs the child until it stops; returns whether it stopped by a trap (else it has ended).
static int Advance(pid_t child, int request) {
  int status;
  if (ptrace(request, child, NULL, NULL) < 0) Fail("ptrace");
  if (waitpid(child, &status, 0) != child) Fail("waitpid");
  if (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP) return 1;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
  fprintf(stderr, "steptrace: the child failed (status %#x)\n", (unsigned)status);
  exit(1);
}

static struct user_regs_struct Registers(pid_t child) {
  struct user_regs_struct registers;
  if (ptrace(PTRACE_GETREGS, child, NULL, &registers) < 0) Fail("PTRACE_GETREGS");
  return registers;
}

static void RecordCall(pid_t child) {
  struct user_regs_struct registers = Registers(child);
  const uint64_t entry = registers.rax;
  char name[64] = {0};
  for (size_t i = 0; i < sizeof(name) - 8; i += 8) {
    const long word = ptrace(PTRACE_PEEKDATA, child, (void*)(registers.rdx + i), NULL);
    memcpy(name + i, &word, 8);
    if (memchr(name + i, 0, 8) != NULL) break;
  }
  int steps = 0;
  while (registers.rip != entry && steps++ < kMostSteps) {
    Advance(child, PTRACE_SINGLESTEP);
    registers = Registers(child);
  }
  const uint64_t stack = registers.rsp;
  printf("%s:", name);
  int outside = 0;
  uint64_t previous = 0;
  for (; registers.rsp <= stack && steps++ < kMostSteps; registers = Registers(child)) {
    const uint64_t at = registers.rip;
    const int is_outside = at < g_low || at >= g_high;
    if (is_outside && !outside) printf(" x");
    // A repeated string instruction traps once per repetition and counts as one.
    if (!is_outside && at != previous) printf(" %lx", (unsigned long)(at - g_low));
    outside = is_outside;
    previous = at;
    Advance(child, PTRACE_SINGLESTEP);
  }
  printf("\n");
}

int main(int argc, char** argv) {
  if (argc == 3 && strcmp(argv[1], "--child") == 0) return Child(atol(argv[2]));
  char library[PATH_MAX], self[PATH_MAX] = {0};
  if (argc < 2 || realpath(argv[1], library) == NULL) {
    fprintf(stderr, "steptrace: usage: steptrace LIBRARY [REPEATS]\n");
    return 2;
  }
  if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0) Fail("/proc/self/exe");
  const pid_t child = fork();
  if (child == 0) {
    setenv("LD_PRELOAD", library, 1);
    setenv("LD_BIND_NOW", "1", 1);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0) _exit(77);
    execl(self, self, "--child", argc > 2 ? argv[2] : "200", (char*)NULL);
    _exit(127);
  }
  int status;
  if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) Fail("ptrace");
  // The first stop is exec's own trap; every further one is an announcement.
  while (Advance(child, PTRACE_CONT)) {
    if (g_low == 0) FindLibrary(child, library);
    RecordCall(child);
  }
  return 0;
}
