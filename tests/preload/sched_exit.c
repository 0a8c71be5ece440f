// SPDX-License-Identifier: Apache-2.0
// Ends of a process with threads: pthread_exit in main, exit by main or by another thread while
// the rest waits, computes or sleeps. Status, handlers and all output must come out.
// run: name=main_leaves main_leaves
// run: name=main_leaves_off env=UNDERGO=sched=off main_leaves
// run: name=main_leaves_one env=GOMAXPROCS=1 main_leaves
// run: name=main_last main_last
// run: name=main_returns exit=3 main_returns
// run: name=main_returns_one exit=3 env=GOMAXPROCS=1 main_returns
// run: name=thread_exits exit=4 thread_exits
// run: name=thread_exits_one exit=4 env=GOMAXPROCS=1 thread_exits
// run: name=raw_exit exit=5 raw_exit
// run: name=main_cancelled main_cancelled
// run: name=quick exit=6 quick
// run: name=killed exit=134 killed
#include <poll.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "pthreads.h"

static sem_t never;
static atomic_int left = 6;

static void* Sleeps(void* arg) {
  for (;;) pause();
  return arg;
}
static void* Computes(void* arg) {
  for (volatile unsigned i = 0;; i++) {
  }
  return arg;
}
static void* Blocks(void* arg) {
  sem_wait(&never);
  return arg;
}
static void Background(void) {
  sem_init(&never, 0, 0);
  for (int i = 0; i < 20; i++) {
    Start(Sleeps, NULL);
    Start(Blocks, NULL);
  }
  Start(Computes, NULL);
}

static pthread_key_t key;
static void Destroy(void* p) { printf("destructor of %s\n", (char*)p); }
static void Cleanup(void* p) { printf("cleanup of %s\n", (char*)p); }
static void AtExit(void) { puts("atexit"); }
static void AtQuickExit(void) {
  puts("at_quick_exit");
  fflush(stdout);
}

static pthread_t main_thread;
static void* Last(void* arg) {
  // main is gone, but can still be joined; all others run on.
  void* result;
  if (arg) {
    CHECK_EQ(pthread_join(main_thread, &result), 0);
    CHECK(result == (void*)99);
    SleepMs(30);
    puts("main was joined");
  }
  atomic_fetch_sub(&left, 1);
  return NULL;
}
static void* Exits(void* arg) {
  (void)arg;
  printf("a thread exits, without a newline:");
  exit(4);
}
static void* ExitsRaw(void* arg) {
  (void)arg;
  puts("flushed");
  fflush(stdout);
  printf("not flushed");
  _exit(5);
}
static void* CancelsMain(void* arg) {
  (void)arg;
  Moment();
  CHECK_EQ(pthread_cancel(main_thread), 0);
  void* result;
  CHECK_EQ(pthread_join(main_thread, &result), 0);
  CHECK(result == PTHREAD_CANCELED);
  puts("main was cancelled");
  return NULL;
}

int main(int argc, char** argv) {
  CHECK(argc > 1);
  const char* how = argv[1];
  atexit(AtExit);
  at_quick_exit(AtQuickExit);
  CHECK_EQ(pthread_key_create(&key, Destroy), 0);
  CHECK_EQ(pthread_setspecific(key, "main"), 0);
  main_thread = pthread_self();
  if (!strcmp(how, "main_leaves")) {
    Start(Last, "joins");
    for (int i = 0; i < 5; i++) Start(Last, NULL);
    pthread_cleanup_push(Cleanup, "main");
    pthread_exit((void*)99);
    pthread_cleanup_pop(0);
  } else if (!strcmp(how, "main_last")) {
    for (int i = 0; i < 5; i++) Join(Start(Last, NULL));
    printf("%d left\n", left);
    pthread_exit(NULL);
  } else if (!strcmp(how, "main_cancelled")) {
    Start(CancelsMain, NULL);
    for (;;) pause();
  }
  Background();
  Moment();
  if (!strcmp(how, "main_returns")) {
    printf("main returns, without a newline:");
    return 3;
  }
  if (!strcmp(how, "thread_exits")) Start(Exits, NULL);
  if (!strcmp(how, "raw_exit")) Start(ExitsRaw, NULL);
  if (!strcmp(how, "quick")) quick_exit(6);
  if (!strcmp(how, "killed")) {
    puts("aborts");
    fflush(stdout);
    abort();
  }
  for (;;) poll(NULL, 0, -1);
}
