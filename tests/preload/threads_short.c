// SPDX-License-Identifier: Apache-2.0
// Many short threads that free each other's blocks: contents stay right and the memory of threads
// that ended is used again.
// run:
// timeout: 40
#include <pthread.h>

#include "check.h"

enum { kThreads = 3000, kAtATime = 8, kBlocks = 200, kMail = 4096 };

typedef struct Letter {
  unsigned char* p;
  size_t size;
  uint64_t tag;
} Letter;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Letter mail[kMail];
static size_t mail_count;

static void Release(Letter l) {
  CHECK_MSG(Verify(l.p, l.size, l.tag) == l.size, "a block of %zu bytes was overwritten", l.size);
  free(l.p);
}

static void* Worker(void* arg) {
  Random r = {(uint64_t)(uintptr_t)arg * 7919 + 1};
  Letter own[kBlocks], got[kBlocks];
  for (int i = 0; i < kBlocks; i++) {
    size_t size = Below(&r, 20) ? 1 + Below(&r, 700) : 1 + Below(&r, 70000);
    Letter l = {malloc(size), size, Next(&r)};
    CHECK(l.p);
    Fill(l.p, size, l.tag);
    own[i] = l;
  }
  // Half of them go to others, as many of the others' are freed here.
  int taken = 0, kept = 0;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < kBlocks; i++)
    if (i % 2 && mail_count < kMail)
      mail[mail_count++] = own[i];
    else
      own[kept++] = own[i];
  while (mail_count > 0 && taken < kBlocks / 2) {
    size_t k = Below(&r, mail_count);
    got[taken++] = mail[k];
    mail[k] = mail[--mail_count];
  }
  pthread_mutex_unlock(&lock);
  for (int i = 0; i < taken; i++) Release(got[i]);
  for (int i = 0; i < kept; i++) Release(own[i]);
  return NULL;
}

int main(void) {
  pthread_t t[kAtATime];
  long early = 0;
  for (long i = 0; i < kThreads; i++) {
    int k = (int)(i % kAtATime);
    if (i >= kAtATime) pthread_join(t[k], NULL);
    CHECK_EQ(pthread_create(&t[k], NULL, Worker, (void*)(i + 1)), 0);
    if (i == kThreads / 4) early = RssKb();
  }
  for (int k = 0; k < kAtATime; k++) pthread_join(t[k], NULL);
  long late = RssKb();
  CHECK_MSG(late < early + 40000, "RSS grows with the number of threads: %ld kB, then %ld kB",
            early, late);
  while (mail_count > 0) Release(mail[--mail_count]);
  puts("threads right");
  return 0;
}
