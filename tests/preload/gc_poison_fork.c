// SPDX-License-Identifier: Apache-2.0
// UNDERGO=gc=poison and fork at the moment at which another thread gives pages of dead objects back
// their rights, or takes them: their objects are reachable again. A child uses all of them.
// run: env=UNDERGO=gc=poison 2
// run: name=no_sched env=UNDERGO=gc=poison,sched=off 2
// run: name=long pace=long env=UNDERGO=gc=poison 20
// native: no
// timeout: 90
#include <stdatomic.h>
#include <sys/wait.h>

#include "gc.h"

enum { kPages = 60, kLarge = 8, kCount = kPages + kLarge, kPagesBytes = 16000, kPage = 4096 };
static uintptr_t hidden[kCount];
static void* volatile shown[kCount];
static atomic_int stop;

static size_t Size(int i) { return i < kPages ? kPagesBytes : 200000; }

static NOINLINE void Show(int on) {
  for (int i = 0; i < kCount; i++) shown[i] = on ? Reveal(hidden[i]) : NULL;
  Scrub();
}

// The inner pages, which belong to no neighbour, are as they were.
static NOINLINE void CheckInner(void) {
  for (int i = 0; i < kCount; i++) {
    const unsigned char* p = shown[i];
    for (size_t at = kPage; at + kPage < Size(i); at += kPage / 2) {
      unsigned char byte = p[at];
      CHECK_MSG(byte == (unsigned char)i, "object %d, byte %zu: %#x", i, at, byte);
    }
  }
}

static void* Alternate(void* arg) {
  for (int on = 0; !stop; on = !on) {
    Show(on);
    undergo_gc();
  }
  return arg;
}

static void InChild(void) {
  Show(1);
  undergo_gc();
  CheckInner();
  _exit(0);
}

int main(int argc, char** argv) {
  NEED_GC();
  const double end = Seconds() + (argc > 1 ? atof(argv[1]) : 2);
  for (int i = 0; i < kCount; i++) {
    void* p = malloc(Size(i));
    CHECK(p);
    memset(p, i, Size(i));
    hidden[i] = Hide(p);
  }
  pthread_t other;
  CHECK_EQ(pthread_create(&other, NULL, Alternate, NULL), 0);
  int children = 0;
  for (; Seconds() < end; children++) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) InChild();
    int status;
    while (waitpid(pid, &status, 0) < 0) CHECK_EQ(errno, EINTR);
    CHECK_MSG(status == 0, "child %d: wait status %#x", children, (unsigned)status);
  }
  stop = 1;
  CHECK_EQ(pthread_join(other, NULL), 0);
  CHECK(children > 0);
  printf("all right: %d children\n", children);
  return 0;
}
