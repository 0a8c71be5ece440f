// SPDX-License-Identifier: Apache-2.0
// The only pointer to an object is on its way through a pipe of which the process has both ends: at
// any offset, in a pipe made large, while another thread takes it out amid a collection.
// run:
// run: name=poison env=UNDERGO=gc=poison
// run: name=snapshot env=UNDERGO=gc=poison,tracking=snapshot
// run: name=stop env=UNDERGO=gc=poison,tracking=stop
// run: name=checked env=GODEBUG=gccheckmark=1 moving
// timeout: 60
#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gc.h"

// What is written is not kept anywhere else.
static NOINLINE void Send(int fd, Held* held, int i, size_t lead) {
  char message[32] = {1};
  void* p = MakeHeld(held, i);
  memcpy(message + lead, &p, sizeof p);
  CHECK_EQ(write(fd, message, lead + sizeof p), (ssize_t)(lead + sizeof p));
  p = NULL;
  memset(message, 0, sizeof message);
  __asm__ volatile("" ::"r"(message), "r"(&p) : "memory");
}

static void Waiting(const char* name) {
  NEED_GC();
  for (size_t lead = 0; lead < 8; lead += 3) {
    Held held;
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    for (int i = 0; i < kHeld; i++) Send(ends[1], &held, i, lead);
    CollectHard(name);
    CheckHeld(&held, name);
    // Nothing was taken out.
    char all[4096];
    CHECK_EQ(read(ends[0], all, sizeof all), (ssize_t)(kHeld * (lead + sizeof(void*))));
    close(ends[0]);
    close(ends[1]);
  }
}

// Behind 150 KB of other bytes, so that it takes several reads, and over several pages.
static void Behind(const char* name) {
  NEED_GC();
  enum { kBytes = 150000 };
  Held held;
  int ends[2];
  CHECK_EQ((int)syscall(SYS_pipe2, ends, O_CLOEXEC), 0);
  if (fcntl(ends[1], F_SETPIPE_SZ, 1 << 18) < 0) SKIP("no large pipes here");
  static char bytes[kBytes];
  memset(bytes, 0xff, sizeof bytes);
  CHECK_EQ(write(ends[1], bytes, sizeof bytes), kBytes);
  for (int i = 0; i < kHeld; i++) Send(ends[1], &held, i, 5);
  CollectHard(name);
  CheckHeld(&held, name);
  close(ends[0]);
  close(ends[1]);
}

// Two threads, two pipes, one direction each; every object is in a pipe or in a register.
enum { kObjects = 100 };
static int there[2], back[2];
static void Check(const uint64_t* o) { CHECK_MSG(o[1] == ~o[0], "an object in a pipe was lost"); }
static void* Forward(void* arg) {
  for (uint64_t* o; read(there[0], &o, sizeof o) == sizeof o && o;) {
    Check(o);
    CHECK_EQ(write(back[1], &o, sizeof o), sizeof o);
    o = NULL;
  }
  return arg;
}
static void Moving(const char* name) {
  NEED_GC();
  CHECK_EQ(pipe(there), 0);
  CHECK_EQ(pipe2(back, O_CLOEXEC), 0);
  Live* live = MakeLive(20000, 9);
  for (uint64_t i = 0; i < kObjects; i++) {
    uint64_t* o = malloc(kObjectBytes);
    CHECK(o);
    o[0] = i;
    o[1] = ~i;
    CHECK_EQ(write(there[1], &o, sizeof o), sizeof o);
  }
  Scrub();
  StartCollector();
  pthread_t thread[2];
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&thread[i], NULL, Forward, NULL), 0);
  for (double end = Seconds() + 2; Seconds() < end;) {
    uint64_t* o;
    CHECK_EQ(read(back[0], &o, sizeof o), sizeof o);
    Check(o);
    if (o[0] % 16 == 0) Leak(20);
    CHECK_EQ(write(there[1], &o, sizeof o), sizeof o);
  }
  StopCollector(5);
  void* none = NULL;
  for (int i = 0; i < 2; i++) CHECK_EQ(write(there[1], &none, sizeof none), sizeof none);
  for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
  CheckLive(live, 20000, 9);
  (void)name;
}

// Pipes come and go, and their numbers are used again.
static void Changing(const char* name) {
  NEED_GC();
  StartCollector();
  for (double end = Seconds() + 1; Seconds() < end;) {
    int ends[2], other;
    CHECK_EQ(pipe(ends), 0);
    uint64_t* o = malloc(kObjectBytes);
    CHECK(o);
    o[0] = 77;
    o[1] = ~o[0];
    CHECK_EQ(write(ends[1], &o, sizeof o), sizeof o);
    o = NULL;
    CHECK((other = dup(ends[0])) >= 0);
    close(ends[0]);
    Leak(300);
    CHECK_EQ(read(other, &o, sizeof o), sizeof o);
    Check(o);
    free(o);
    close(other);
    close(ends[1]);
  }
  StopCollector(3);
  (void)name;
}

int main(int argc, char** argv) {
  static const Part kParts[] = {
      {"waiting", Waiting}, {"behind", Behind}, {"moving", Moving}, {"changing", Changing}};
  return RUN_PARTS(kParts);
}
