// SPDX-License-Identifier: Apache-2.0
// Blocks cross the border of a plugin that was loaded plainly or with RTLD_DEEPBIND: freed, resized
// and measured on the other side. A plugin in a namespace of its own has a malloc and a free of its
// own.
// run: name=plain plain
// run: name=deepbind deepbind
// run: name=namespace namespace
// timeout: 40
#include "check.h"

// Two allocators in one process, each used by itself: neither may take the other's memory.
static void Alone(void* (*make)(size_t, uint64_t), void* (*resize)(void*, size_t),
                  void (*release)(void*), size_t (*usable)(void*)) {
  enum { kCount = 3000 };
  static unsigned char *ours[kCount], *theirs[kCount];
  for (int round = 0; round < 20; round++) {
    for (int i = 0; i < kCount; i++) {
      size_t n = 1 + (size_t)(i * 7 % 4000);
      CHECK((theirs[i] = make(n, 5)) != NULL && usable(theirs[i]) >= n);
      CHECK((ours[i] = malloc(n)) != NULL);
      Fill(ours[i], n, 6);
    }
    for (int i = 0; i < kCount; i++) {
      size_t n = 1 + (size_t)(i * 7 % 4000);
      theirs[i] = resize(theirs[i], n + 500);
      CHECK(Verify(theirs[i], n, 5) == n && Verify(ours[i], n, 6) == n);
      release(theirs[i]);
      free(ours[i]);
    }
  }
}

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "plain";
  const char* path = PluginPath("cross");
  void* h = !strcmp(mode, "namespace")  ? dlmopen(LM_ID_NEWLM, path, RTLD_NOW)
            : !strcmp(mode, "deepbind") ? dlopen(path, RTLD_NOW | RTLD_DEEPBIND)
                                        : dlopen(path, RTLD_NOW);
  CHECK_MSG(h, "dlopen: %s", dlerror());
  void* (*make)(size_t, uint64_t) = (void* (*)(size_t, uint64_t))dlsym(h, "CrossMake");
  void* (*zero)(size_t) = (void* (*)(size_t))dlsym(h, "CrossZero");
  void* (*aligned)(size_t, size_t) = (void* (*)(size_t, size_t))dlsym(h, "CrossAligned");
  void* (*resize)(void*, size_t) = (void* (*)(void*, size_t))dlsym(h, "CrossResize");
  void (*release)(void*) = (void (*)(void*))dlsym(h, "CrossFree");
  size_t (*usable)(void*) = (size_t(*)(void*))dlsym(h, "CrossUsable");
  char* (*text)(int) = (char* (*)(int))dlsym(h, "CrossText");
  char* (*dup)(const char*) = (char* (*)(const char*))dlsym(h, "CrossDup");
  CHECK(make && zero && aligned && resize && release && usable && text && dup);
  if (!strcmp(mode, "namespace")) {
    Alone(make, resize, release, usable);
    puts("crossing right");
    return 0;
  }

  Random r = {11};
  long early = 0;
  for (int i = 0; i < 20000; i++) {
    size_t n = 1 + Below(&r, Below(&r, 30) ? 2000 : 300000);
    unsigned char* p = make(n, (uint64_t)i);
    CHECK(p && malloc_usable_size(p) >= n);
    CHECK(Verify(p, n, (uint64_t)i) == n);
    if (i % 3 == 0) {
      size_t m = 1 + Below(&r, 5000);
      p = realloc(p, m);
      CHECK(p && Verify(p, n < m ? n : m, (uint64_t)i) == (n < m ? n : m));
    }
    free(p);
    p = zero(n);
    for (size_t k = 0; k < n; k += 7) CHECK_EQ(p[k], 0);
    free(p);
    p = aligned(256, n);
    CHECK(((uintptr_t)p & 255) == 0);
    free(p);
    char* s = text(i);
    CHECK(s && atoi(s + 7) == i);
    free(s);
    s = dup("something to keep");
    CHECK(!strcmp(s, "something to keep"));
    free(s);
    p = malloc(n);
    Fill(p, n, 3);
    CHECK(usable(p) >= n);
    if (i % 2) {
      p = resize(p, n + 1000);
      CHECK(Verify(p, n, 3) == n);
    }
    release(p);
    if (i == 5000) early = RssKb();
  }
  CHECK_MSG(RssKb() < early + 30000, "blocks that crossed are not freed: %ld kB, then %ld kB",
            early, RssKb());
  CHECK_EQ(dlclose(h), 0);
  puts("crossing right");
  return 0;
}
