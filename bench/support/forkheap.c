// SPDX-License-Identifier: Apache-2.0
// Fork of a big multi-threaded process: threads fill a heap with small objects and stay alive; the
// main thread then forks several times and prints the shortest time from the call of fork until the
// child's _exit has been collected: what is longer was somebody else's turn on the processor.
//   forkheap [megabytes] [threads] [forks]
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../workloads/bench.h"

enum { kMaxThreads = 256 };

typedef struct Object {
  struct Object* previous;
  uint32_t size;
} Object;

static size_t g_bytes_each;
static pthread_barrier_t g_filled;
static pthread_mutex_t g_finish = PTHREAD_MUTEX_INITIALIZER;

static void* Fillers(void* argument) {
  Rng rng = RngSeed((uint64_t)(uintptr_t)argument);
  Object* newest = NULL;
  for (size_t total = 0; total < g_bytes_each;) {
    const uint32_t size = (uint32_t)RngBetween(&rng, 16, 512);
    Object* object = Must(malloc(size));
    Fill(object, size, 1);
    object->previous = newest;
    object->size = size;
    newest = object;
    total += size;
  }
  pthread_barrier_wait(&g_filled);
  pthread_mutex_lock(&g_finish);
  pthread_mutex_unlock(&g_finish);
  uint64_t sum = 0;
  for (; newest != NULL; newest = newest->previous) sum += newest->size;
  return (void*)(uintptr_t)sum;
}

int main(int argc, char** argv) {
  const size_t megabytes = (size_t)Argument(argc, argv, 1, 1024);
  const long threads = Argument(argc, argv, 2, 8);
  const long forks = Argument(argc, argv, 3, 21);
  Expect(threads > 0 && threads <= kMaxThreads && forks > 0, "arguments");
  g_bytes_each = (megabytes << 20) / (size_t)threads;
  pthread_barrier_init(&g_filled, NULL, (unsigned)threads + 1);
  pthread_mutex_lock(&g_finish);
  pthread_t crew[kMaxThreads];
  for (long i = 0; i < threads; ++i) {
    Expect(pthread_create(&crew[i], NULL, Fillers, (void*)(uintptr_t)(40 + i)) == 0, "create");
  }
  pthread_barrier_wait(&g_filled);
  double shortest = 1e30;
  for (long i = 0; i < forks; ++i) {
    const double start = NowSeconds();
    const pid_t child = fork();
    if (child == 0) _exit(7);
    int status = 0;
    Expect(child > 0 && waitpid(child, &status, 0) == child, "fork");
    const double took = (NowSeconds() - start) * 1e3;
    if (took < shortest) shortest = took;
    Expect(WIFEXITED(status) && WEXITSTATUS(status) == 7, "the child's exit status");
  }
  pthread_mutex_unlock(&g_finish);
  uint64_t sum = 0;
  for (long i = 0; i < threads; ++i) {
    void* part;
    pthread_join(crew[i], &part);
    sum += (uint64_t)(uintptr_t)part;
  }
  printf("metric fork_ms %.3f\n", shortest);
  return Finish(sum);
}
