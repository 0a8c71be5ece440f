// SPDX-License-Identifier: Apache-2.0
// Libraries that come and go while threads run: their thread-local data, of the static kind too,
// is there for threads that exist already, that wait, and that start later.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
#include <stdatomic.h>

#include "pthreads.h"

enum { kThreads = 30, kRounds = 10 };
static atomic_int round_now, arrived, stop;
static int (*count)(void);
static int (*count_static)(void);

static void* Uses(void* arg) {
  const intptr_t me = (intptr_t)arg;
  for (int r = 1; r <= kRounds; r++) {
    while (round_now < r) {
      if (me % 3 == 0) sched_yield();
      if (me % 3 == 1 || me > 8) SleepMs(1);  // few only spin
    }
    // Loaded anew: this thread's copy is fresh.
    for (int i = 1; i <= 5; i++) {
      CHECK_EQ(count(), 7 + i);
      CHECK_EQ(count_static(), 41 + i);
      if (i % 2) sched_yield();
    }
    arrived++;
    while (arrived < r * kThreads && !stop) SleepMs(1);
  }
  return NULL;
}
static void* Late(void* arg) {
  CHECK(count() == 8 && count_static() == 42);
  return arg;
}
static void Rounds(const char* name) {
  (void)name;
  pthread_t t[kThreads];
  for (intptr_t i = 0; i < kThreads; i++) t[i] = Start(Uses, (void*)i);
  Moment();
  for (int r = 1; r <= kRounds; r++) {
    void* library = dlopen(PluginPath("tls"), RTLD_NOW);
    CHECK_MSG(library, "%s", dlerror());
    count = (int (*)(void))dlsym(library, "PluginCount");
    count_static = (int (*)(void))dlsym(library, "PluginStatic");
    CHECK(count && count_static);
    for (int i = 0; i < 3; i++) Join(Start(Late, NULL));
    round_now = r;
    EVENTUALLY(arrived == r * kThreads);
    // Wait until they wait for the next round, then unload.
    SleepMs(2);
    CHECK_EQ(dlclose(library), 0);
    CHECK(dlopen(PluginPath("tls"), RTLD_NOW | RTLD_NOLOAD) == NULL);
  }
  stop = 1;
  for (int i = 0; i < kThreads; i++) Join(t[i]);
}

// Many at once, with threads in the resolver and in exceptions' tables all the time.
static void* OpensClosed(void* arg) {
  const char* path = arg;
  for (int i = 0; i < 30; i++) {
    void* library = dlopen(path, i % 2 ? RTLD_LAZY : RTLD_NOW);
    CHECK_MSG(library, "%s", dlerror());
    int (*f)(void) = (int (*)(void))dlsym(library, "PluginCount");
    CHECK(f && f() >= 8);
    CHECK(dlsym(library, "no_such_symbol") == NULL);
    const char* error = dlerror();
    CHECK(error && strstr(error, "no_such_symbol") && dlerror() == NULL);
    CHECK_EQ(dlclose(library), 0);
  }
  return NULL;
}
static void Together(const char* name) {
  (void)name;
  char path[4096];
  strcpy(path, PluginPath("tls"));
  pthread_t t[6];
  for (int i = 0; i < 6; i++) t[i] = Start(OpensClosed, path);
  for (int i = 0; i < 6; i++) Join(t[i]);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"rounds", Rounds}, {"together", Together}};
  return RUN_PARTS(parts);
}
