// SPDX-License-Identifier: Apache-2.0
// Wrong frees: each case runs in a process of its own, once as by default (one line and SIGABRT)
// and once with badfree=ignore, where the program goes on with an intact heap.
// native: no
// run: name=double_small double_small
// run: name=double_medium double_medium
// run: name=double_large double_large
// run: name=double_huge double_huge
// run: name=double_late double_late
// run: name=double_same_word double_same_word
// run: name=double_aligned double_aligned
// run: name=double_other_thread double_other_thread
// run: name=double_both_remote double_both_remote
// run: name=double_mixed double_mixed
// run: name=double_large_remote double_large_remote
// run: name=never_allocated never_allocated
// run: name=interior_small interior_small
// run: name=interior_small_16 interior_small_16
// run: name=interior_medium interior_medium
// run: name=interior_large interior_large
// run: name=interior_large_page interior_large_page
// run: name=interior_remote interior_remote
// run: name=odd_address odd_address
// run: name=wild_stack wild_stack
// run: name=wild_data wild_data
// run: name=wild_unmapped wild_unmapped
// run: name=wild_small_number wild_small_number
// run: name=wild_noncanonical wild_noncanonical
// run: name=wild_mapped wild_mapped
// run: name=realloc_freed realloc_freed
// run: name=realloc_interior realloc_interior
// run: name=realloc_wild realloc_wild
// run: name=usable_wild usable_wild
// run: name=usable_interior usable_interior
// run: name=usable_freed usable_freed
// run: name=sized_double sized_double
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "check.h"

// Where the pointer was wrong, told to the parent through a pipe before the wrong call is made.
static int tell_fd = -1;
static void* Tell(void* p) {
  if (write(tell_fd, &p, sizeof p) != sizeof p) _exit(3);
  return OpaquePtr(p);
}

static void* FreeInThread(void* p) {
  free(p);
  return NULL;
}
static void OtherThreadFrees(void* p) {
  pthread_t t;
  CHECK_EQ(pthread_create(&t, NULL, FreeInThread, p), 0);
  pthread_join(t, NULL);
}
static void DoubleOf(size_t size) {
  char* p = malloc(size);
  memset(p, 1, size);
  free(p);
  free(Tell(p));
}

static void DoubleSmall(void) { DoubleOf(40); }
static void DoubleMedium(void) { DoubleOf(40000); }
static void DoubleLarge(void) { DoubleOf(1 << 20); }
static void DoubleHuge(void) { DoubleOf(100 << 20); }
static void DoubleLate(void) {
  char* p = malloc(48);
  void* others[300];
  for (int i = 0; i < 300; i++) others[i] = malloc(48);
  free(p);
  // Traffic in other sizes, which gives no reason to reuse the block.
  for (int i = 0; i < 100000; i++) free(malloc(100 + (size_t)i % 3000));
  for (int i = 0; i < 300; i++) CHECK(others[i]);
  free(Tell(p));
}
// The neighbours of the block are being handed out again when the second free comes.
static void DoubleSameWord(void) {
  enum { kCount = 2000 };
  static char* p[kCount];
  for (int i = 0; i < kCount; i++) p[i] = malloc(64);
  for (int i = 0; i < kCount; i++) free(p[i]);
  char* again = malloc(64);
  for (int i = kCount - 1; i >= 0; i--)
    if (p[i] != again) {
      free(Tell(p[i]));
      break;
    }
  free(again);
}
static void DoubleAligned(void) {
  void* p = aligned_alloc(4096, 10000);
  free(p);
  free(Tell(p));
}
static void DoubleOtherThread(void) {
  void* p = malloc(100);
  free(p);
  OtherThreadFrees(Tell(p));
}
static void DoubleBothRemote(void) {
  void* p = malloc(100);
  OtherThreadFrees(p);
  OtherThreadFrees(Tell(p));
}
static void DoubleMixed(void) {
  void* p = malloc(100);
  OtherThreadFrees(p);
  free(Tell(p));
}
// Nothing tells a second free from the first one of a new object at the same address. So there is
// room below, which goes first to whatever the threads of the runtime need in between.
static void DoubleLargeRemote(void) {
  void* room = malloc(3 << 20);
  void* p = malloc(3 << 20);
  free(room);
  OtherThreadFrees(p);
  free(Tell(p));
}
// An address right in form for its span that was not handed out yet, away from the 64 slots that
// the thread hands out next, which free does not check.
static void NeverAllocated(void) {
  char* highest = NULL;
  for (int i = 0; i < 100; i++) {
    char* p = malloc(112);
    if (p > highest) highest = p;
  }
  free(Tell(highest + 112 * 200));
}
static void InteriorSmall(void) { free(Tell((char*)malloc(200) + 8)); }
static void InteriorSmall16(void) { free(Tell((char*)malloc(200) + 16)); }
static void InteriorMedium(void) { free(Tell((char*)malloc(50000) + 4096)); }
static void InteriorLarge(void) { free(Tell((char*)malloc(5 << 20) + 48)); }
static void InteriorLargePage(void) { free(Tell((char*)malloc(5 << 20) + (1 << 20))); }
static void InteriorRemote(void) { OtherThreadFrees(Tell((char*)malloc(200) + 32)); }
static void OddAddress(void) { free(Tell((char*)malloc(200) + 1)); }
static void WildStack(void) {
  _Alignas(64) char local[256];
  memset(local, 0, sizeof local);
  free(Tell(local + 64));
}
_Alignas(64) static char own_data[4096] = {1};
static void WildData(void) { free(Tell(own_data + 64)); }
static void WildUnmapped(void) {
  char* p = mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(p, 1 << 20);
  free(Tell(p + 4096));
}
static void WildSmallNumber(void) { free(Tell((void*)0x10)); }
static void WildNoncanonical(void) { free(Tell((void*)0x4141414141414140)); }
static void WildMapped(void) {
  char* p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  free(Tell(p + 4096));
}
static void ReallocFreed(void) {
  void* p = malloc(300);
  free(p);
  OpaquePtr(realloc(Tell(p), 5000));
}
static void ReallocInterior(void) { OpaquePtr(realloc(Tell((char*)malloc(300) + 64), 5000)); }
static void ReallocWild(void) { OpaquePtr(realloc(Tell(own_data + 128), 5000)); }
static void UsableWild(void) { Opaque(malloc_usable_size(Tell(own_data + 256))); }
static void UsableInterior(void) { Opaque(malloc_usable_size(Tell((char*)malloc(300) + 64))); }
static void UsableFreed(void) {
  void* p = malloc(300);
  free(p);
  Opaque(malloc_usable_size(Tell(p)));
}
static void SizedDouble(void) {
  void (*sized)(void*, size_t) = (void (*)(void*, size_t))dlsym(RTLD_DEFAULT, "free_sized");
  CHECK(sized);
  void* p = malloc(300);
  sized(p, 300);
  sized(Tell(p), 300);
}

typedef struct Case {
  const char* name;
  void (*run)(void);
  const char* kind;  // one of these words, separated by '|', must be in the line
  int inside;        // the line must tell the size class as well
} Case;

static const Case kCases[] = {
    {"double_small", DoubleSmall, "double free", 1},
    {"double_medium", DoubleMedium, "double free", 1},
    {"double_large", DoubleLarge, "double free", 0},
    {"double_huge", DoubleHuge, "double free", 0},
    {"double_late", DoubleLate, "double free", 1},
    {"double_same_word", DoubleSameWord, "double free", 1},
    {"double_aligned", DoubleAligned, "double free", 0},
    {"double_other_thread", DoubleOtherThread, "double free", 1},
    {"double_both_remote", DoubleBothRemote, "double free", 1},
    {"double_mixed", DoubleMixed, "double free", 1},
    {"double_large_remote", DoubleLargeRemote, "double free", 0},
    {"never_allocated", NeverAllocated, "double free|invalid pointer|interior pointer", 0},
    {"interior_small", InteriorSmall, "interior pointer", 1},
    {"interior_small_16", InteriorSmall16, "interior pointer", 1},
    {"interior_medium", InteriorMedium, "interior pointer", 1},
    {"interior_large", InteriorLarge, "interior pointer", 0},
    {"interior_large_page", InteriorLargePage, "interior pointer", 0},
    {"interior_remote", InteriorRemote, "interior pointer", 1},
    {"odd_address", OddAddress, "interior pointer", 1},
    {"wild_stack", WildStack, "invalid pointer", 0},
    {"wild_data", WildData, "invalid pointer", 0},
    {"wild_unmapped", WildUnmapped, "invalid pointer", 0},
    {"wild_small_number", WildSmallNumber, "invalid pointer", 0},
    {"wild_noncanonical", WildNoncanonical, "invalid pointer", 0},
    {"wild_mapped", WildMapped, "invalid pointer", 0},
    {"realloc_freed", ReallocFreed, "double free|invalid pointer|freed", 1},
    {"realloc_interior", ReallocInterior, "interior pointer", 1},
    {"realloc_wild", ReallocWild, "invalid pointer", 0},
    {"usable_wild", UsableWild, "invalid pointer", 0},
    {"usable_interior", UsableInterior, "interior pointer", 1},
    {"usable_freed", UsableFreed, "double free|invalid pointer|freed", 1},
    {"sized_double", SizedDouble, "double free", 1},
};

// The heap must hand out no block twice after the wrong call.
static void HeapIntact(void) {
  static const size_t sizes[] = {40,  48,   64,    100,   112,     200,
                                 300, 5000, 40000, 50000, 1 << 20, 5 << 20};
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    enum { kCount = 1500 };
    static void* p[kCount];
    size_t count = sizes[s] > 4096 ? 12 : kCount;
    for (size_t i = 0; i < count; i++) {
      CHECK((p[i] = malloc(sizes[s])) != NULL);
      Fill(p[i], sizes[s], i);
    }
    for (size_t i = 0; i < count; i++)
      CHECK_MSG(Verify(p[i], sizes[s], i) == sizes[s], "a block of %zu was handed out twice",
                sizes[s]);
    for (size_t i = 0; i < count; i++) free(p[i]);
  }
}

static int RunChild(const Case* c, const char* setting, void** bad, char* text, size_t size) {
  int err[2], tell[2];
  CHECK(pipe(err) == 0 && pipe(tell) == 0);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    dup2(err[1], 2);
    char fd[20];
    snprintf(fd, sizeof fd, "%d", tell[1]);
    if (setting) setenv("UNDERGO", setting, 1);
    execl("/proc/self/exe", "bad_free", "-child", c->name, fd, (char*)NULL);
    _exit(127);
  }
  close(err[1]);
  close(tell[1]);
  size_t n = 0;
  ssize_t got;
  while (n < size - 1 && (got = read(err[0], text + n, size - 1 - n)) > 0) n += (size_t)got;
  text[n] = 0;
  CHECK_MSG(read(tell[0], bad, sizeof *bad) == sizeof *bad, "the case ended too early: %s", text);
  close(err[0]);
  close(tell[0]);
  int status;
  CHECK(waitpid(pid, &status, 0) == pid);
  return status;
}

static void CheckLine(const Case* c, const char* text, void* bad) {
  const char* eol = strchr(text, '\n');
  CHECK_MSG(!strncmp(text, "undergo: ", 9) && eol, "no line of ours on stderr: '%s'", text);
  CHECK_MSG(eol[1] == 0, "more than one line: '%s'", text);
  char kinds[100];
  strcpy(kinds, c->kind);
  int found = 0;
  for (char* k = strtok(kinds, "|"); k; k = strtok(NULL, "|")) found |= strstr(text, k) != NULL;
  CHECK_MSG(found, "wanted '%s' in '%s'", c->kind, text);
  char address[40];
  snprintf(address, sizeof address, "%p", bad);
  CHECK_MSG(strstr(text, address) != NULL, "wanted the address %s in '%s'", address, text);
  if (c->inside)
    CHECK_MSG(strstr(text, "class") || strstr(text, "size"), "no size class in '%s'", text);
  // The caller: the program's name or at least a second address.
  const char* first = strstr(text, "0x");
  CHECK_MSG(strstr(text, "bad_free") || (first && strstr(first + 2, "0x")), "no caller in '%s'",
            text);
}

int main(int argc, char** argv) {
  const char* name = argc == 4 ? argv[2] : argc == 2 ? argv[1] : "";
  const Case* c = NULL;
  for (size_t i = 0; i < sizeof kCases / sizeof *kCases; i++)
    if (!strcmp(kCases[i].name, name)) c = &kCases[i];
  CHECK_MSG(c != NULL, "usage: bad_free CASE");
  if (argc == 4) {
    tell_fd = atoi(argv[3]);
    c->run();
    HeapIntact();
    return 0;
  }
  static char text[16384];
  void* bad;
  int status = RunChild(c, NULL, &bad, text, sizeof text);
  CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT,
            "wait status %#x, wanted SIGABRT; '%s'", status, text);
  CheckLine(c, text, bad);
  status = RunChild(c, "badfree=ignore", &bad, text, sizeof text);
  CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 0, "badfree=ignore: wait status %#x; '%s'",
            status, text);
  CheckLine(c, text, bad);
  puts("noticed");
  return 0;
}
