// SPDX-License-Identifier: Apache-2.0
// A program built with ThreadSanitizer runs as without the library: the sanitizer follows kernel
// threads, wants the heap in a certain part of the address space, and is not ready for any call
// when the library starts. As a library it does not see our malloc, so it would report races between
// one owner of a block and the next.
// build: -fsanitize=thread
// run: name=kernel_threads env=UNDERGO=sched=off env=TSAN_OPTIONS=report_bugs=0
// run: env=TSAN_OPTIONS=report_bugs=0 stderr=undergo: threads stay kernel threads: a sanitizer .*
// run: name=off env=UNDERGO=gc=off,sched=off env=TSAN_OPTIONS=report_bugs=0
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kThreads = 4, kRounds = 2000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int counter;

static void* Work(void* arg) {
  for (size_t i = 0; i < kRounds; i++) {
    pthread_mutex_lock(&lock);
    counter++;
    pthread_mutex_unlock(&lock);
    char* p = malloc(i + 1);
    if (!p) abort();
    memset(p, 1, i + 1);
    p = realloc(p, 2 * i + 1);
    if (!p || p[i] != 1) abort();
    free(p);
  }
  return arg;
}

int main(void) {
  pthread_t thread[kThreads];
  for (int i = 0; i < kThreads; i++) {
    if (pthread_create(&thread[i], NULL, Work, NULL) != 0) return 2;
  }
  for (int i = 0; i < kThreads; i++) pthread_join(thread[i], NULL);
  if (counter != kThreads * kRounds) return 3;
  pid_t child = fork();
  if (child == 0) _exit(7);
  int status;
  if (waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 7) return 4;
  puts("all right");
  return 0;
}
