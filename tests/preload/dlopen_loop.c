// SPDX-License-Identifier: Apache-2.0
// dlopen and dlclose in loops, from several threads, of a plugin that allocates in its constructors
// and frees in its destructors; its blocks outlive it.
// The C++ library is there from the start: loaded with the plugin it would keep that loaded.
// build: -Wl,--no-as-needed -lstdc++
// run:
// timeout: 40
#include <pthread.h>

#include "check.h"

static const char* path;
// Set when the threads use the plugin's thread-local object, which keeps it loaded for a while.
static int pinned;

static void* Loop(void* arg) {
  for (int i = 0; i < (int)(intptr_t)arg; i++) {
    void* h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CHECK_MSG(h, "dlopen: %s", dlerror());
    int (*work)(void) = (int (*)(void))dlsym(h, "PluginWork");
    size_t (*local)(size_t) = (size_t(*)(size_t))dlsym(h, "PluginLocal");
    char* (*make)(size_t) = (char* (*)(size_t))dlsym(h, "PluginMake");
    CHECK(work && local && make && work() == 9);
    if (pinned && i % 5 == 4) CHECK(local(100) > 300);
    char* p = make(700);
    Fill(p, 700, 1);
    CHECK_EQ(dlclose(h), 0);
    if (!pinned) CHECK_MSG(!dlopen(path, RTLD_NOW | RTLD_NOLOAD), "the plugin is still loaded");
    CHECK(Verify(p, 700, 1) == 700);
    p = realloc(p, 70000);
    CHECK(Verify(p, 700, 1) == 700);
    free(p);
    CHECK(dlsym(RTLD_DEFAULT, "no_such_symbol_anywhere") == NULL && dlerror() != NULL);
    CHECK(dlopen("/nonexistent/library.so", RTLD_NOW) == NULL && dlerror() != NULL);
  }
  return NULL;
}

int main(void) {
  path = PluginPath("ctor");
  Loop((void*)(intptr_t)100);
  long early = RssKb();
  Loop((void*)(intptr_t)300);
  pinned = 1;
  for (int round = 0; round < 20; round++) {
    pthread_t t[4];
    for (int i = 0; i < 4; i++) CHECK_EQ(pthread_create(&t[i], NULL, Loop, (void*)(intptr_t)8), 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
  }
  CHECK_MSG(RssKb() < early + 20000, "RSS grows with each dlopen: %ld kB, then %ld kB", early,
            RssKb());
  puts("plugins right");
  return 0;
}
