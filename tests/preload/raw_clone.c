// SPDX-License-Identifier: Apache-2.0
// malloc in tasks that pthread_create knows nothing of: a thread by raw clone with TLS of its own,
// a process that shares the memory, and a clone that borrows its parent's TLS while that waits.
// run: name=thread native=no thread
// run: name=process native=no process
// run: name=thread_late thread pthread
// run: name=process_late process pthread
// run: name=borrowed borrowed
// timeout: 40
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "check.h"

enum { kStack = 256 << 10, kTlsArea = 64 << 10, kBlocks = 400 };

// glibc's own allocator of static TLS; the argument is the thread's control block.
static void* (*allocate_tls)(void*);
static void* shared[kBlocks];
static volatile int child_tid;

static void HeapWork(uint64_t seed, int rounds) {
  Random r = {seed};
  unsigned char* p[64];
  size_t size[64];
  for (int i = 0; i < 64; i++) p[i] = NULL;
  for (int i = 0; i < rounds; i++) {
    int k = (int)Below(&r, 64);
    if (p[k]) {
      CHECK(Verify(p[k], size[k], seed + (uint64_t)k) == size[k]);
      free(p[k]);
    }
    size[k] = 1 + Below(&r, i % 50 ? 600 : 60000);
    p[k] = malloc(size[k]);
    CHECK(p[k]);
    Fill(p[k], size[k], seed + (uint64_t)k);
  }
  for (int i = 0; i < 64; i++) free(p[i]);
}

// Frees what the main thread made and leaves blocks for it.
static void Exchange(void) {
  for (int i = 0; i < kBlocks; i++) {
    CHECK(Verify(shared[i], 90, (uint64_t)i) == 90);
    free(shared[i]);
    shared[i] = malloc(120);
    CHECK(shared[i]);
    Fill(shared[i], 120, (uint64_t)i + 1);
  }
}

static int Child(void* seed) {
  HeapWork((uint64_t)(uintptr_t)seed, 2000);
  Exchange();
  syscall(SYS_exit, 0);
  return 0;
}

static void* Nothing(void* arg) { return arg; }

static void* NewTls(void) {
  uintptr_t* tcb;
  char* area = mmap(NULL, kTlsArea, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(area != MAP_FAILED);
  tcb = (uintptr_t*)(area + kTlsArea / 2);
  CHECK(allocate_tls(tcb) == tcb);
  uintptr_t self[8];
  for (int i = 0; i < 8; i++) __asm__("movq %%fs:(%1), %0" : "=r"(self[i]) : "r"((uintptr_t)i * 8));
  tcb[0] = tcb[2] = (uintptr_t)tcb;  // tcb and self; word 1 is the dtv.
  tcb[3] = self[3];                  // whether glibc knows of more than one thread
  tcb[5] = self[5];                  // stack guard
  tcb[6] = self[6];                  // pointer guard
  return tcb;
}

static void Wait(void) {
  int tid;
  while ((tid = child_tid) != 0) syscall(SYS_futex, &child_tid, FUTEX_WAIT, tid, NULL, NULL, 0);
}

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "thread";
  allocate_tls = (void* (*)(void*))dlsym(RTLD_DEFAULT, "_dl_allocate_tls");
  if (!allocate_tls) SKIP("this C library has no _dl_allocate_tls");
  // With a second argument glibc has seen a thread before, and so locks its own structures.
  pthread_t t;
  if (argc > 2) CHECK(pthread_create(&t, NULL, Nothing, NULL) == 0 && pthread_join(t, NULL) == 0);
  char* stack = mmap(NULL, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(stack != MAP_FAILED);
  void* tls = NewTls();
  const int with_tls = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SETTLS;
  long early = 0;
  for (int round = 0; round < 250; round++) {
    for (int i = 0; i < kBlocks; i++) {
      CHECK((shared[i] = malloc(90)) != NULL);
      Fill(shared[i], 90, (uint64_t)i);
    }
    void* seed = (void*)(uintptr_t)(round + 1);
    int pid, status;
    // Fresh TLS now and then, the used one otherwise: both happen in programs.
    if (round % 16 == 0) tls = NewTls();
    if (!strcmp(mode, "thread")) {
      child_tid = 1;
      pid = clone(Child, stack + kStack,
                  with_tls | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID,
                  seed, NULL, tls, &child_tid);
      CHECK_MSG(pid > 0, "clone: %s", strerror(errno));
      HeapWork(77, 2000);
      Wait();
    } else if (!strcmp(mode, "process")) {
      pid = clone(Child, stack + kStack, with_tls | SIGCHLD, seed, NULL, tls, NULL);
      CHECK_MSG(pid > 0, "clone: %s", strerror(errno));
      HeapWork(77, 2000);
      CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    } else {
      pid = clone(Child, stack + kStack, CLONE_VM | CLONE_VFORK | SIGCHLD, seed);
      CHECK_MSG(pid > 0, "clone: %s", strerror(errno));
      CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    for (int i = 0; i < kBlocks; i++) {
      CHECK(Verify(shared[i], 120, (uint64_t)i + 1) == 120);
      free(shared[i]);
    }
    if (round == 100) early = RssKb();
  }
  CHECK_MSG(RssKb() < early + 60000, "raw threads leave memory behind: %ld kB, then %ld kB", early,
            RssKb());
  puts("clones right");
  return 0;
}
