// SPDX-License-Identifier: Apache-2.0
// Waits inside the C library, which no wrapper sees: reading lines from pipes, full pipes at
// printf, locks of streams, all with more threads than processors.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <stdatomic.h>

#include "pthreads.h"

enum { kPairs = 20, kLines = 100 };
static FILE *in[kPairs], *out[kPairs], *shared;
static atomic_int done;

static void* Reads(void* arg) {
  const intptr_t me = (intptr_t)arg;
  char* line = NULL;
  size_t size = 0;
  for (int i = 0; i < kLines; i++) {
    int a, b;
    CHECK(getline(&line, &size, in[me]) > 0);
    CHECK_MSG(sscanf(line, "line %d of %d", &a, &b) == 2 && a == i && b == me, "%s", line);
  }
  CHECK_EQ(getline(&line, &size, in[me]), -1);
  free(line);
  done++;
  return NULL;
}
static void* Writes(void* arg) {
  const intptr_t me = (intptr_t)arg;
  for (int i = 0; i < kLines; i++) {
    fprintf(out[me], "line %d of %d\n", i, (int)me);
    if (i % 3 == 0) CHECK_EQ(fflush(out[me]), 0);
    if (i % 20 == 0) SleepMs(1);
  }
  CHECK_EQ(fclose(out[me]), 0);
  return NULL;
}
static void Lines(const char* name) {
  (void)name;
  pthread_t r[kPairs], w[kPairs];
  for (intptr_t i = 0; i < kPairs; i++) {
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    in[i] = fdopen(ends[0], "r"), out[i] = fdopen(ends[1], "w");
    CHECK(in[i] && out[i]);
    r[i] = Start(Reads, (void*)i);
  }
  for (intptr_t i = 0; i < kPairs; i++) w[i] = Start(Writes, (void*)i);
  for (int i = 0; i < kPairs; i++) Join(w[i]), Join(r[i]);
  for (int i = 0; i < kPairs; i++) fclose(in[i]);
}

// One stream for all, into a pipe that is read slowly: lines stay whole, owners may lock twice.
static void* Shares(void* arg) {
  for (int i = 0; i < kLines; i++) {
    flockfile(shared);
    fprintf(shared, "<%d", (int)(intptr_t)arg);
    if (i % 10 == 0) sched_yield();
    if (ftrylockfile(shared) == 0)
      funlockfile(shared);
    else
      CHECK(0);
    fprintf(shared, ">%200s\n", "");
    if (i % 25 == 0) fflush(shared);
    funlockfile(shared);
  }
  return NULL;
}
static void* Drains(void* arg) {
  FILE* f = fdopen(*(int*)arg, "r");
  char line[400];
  intptr_t lines = 0;
  while (fgets(line, sizeof line, f)) {
    int who, end = 0;
    CHECK_MSG(
        sscanf(line, "<%d>%n", &who, &end) == 1 && end > 2 && strlen(line) == (size_t)end + 201,
        "%s", line);
    if (++lines % 100 == 0) SleepMs(1);
  }
  fclose(f);
  return (void*)lines;
}
static void Shared(const char* name) {
  (void)name;
  int ends[2];
  CHECK_EQ(pipe(ends), 0);
  shared = fdopen(ends[1], "w");
  pthread_t d = Start(Drains, &ends[0]), t[10];
  for (intptr_t i = 0; i < 10; i++) t[i] = Start(Shares, (void*)i);
  for (int i = 0; i < 10; i++) Join(t[i]);
  CHECK_EQ(fclose(shared), 0);
  CHECK_EQ((intptr_t)Join(d), 10 * kLines);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"lines", Lines}, {"shared", Shared}};
  return RUN_PARTS(parts);
}
