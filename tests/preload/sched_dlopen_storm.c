// SPDX-License-Identifier: Apache-2.0
// Libraries that come and go in a storm of signals: handlers interrupt the loader, with its locks
// held, on threads that another one waits for; they allocate and look at thread-local data. Threads
// begin and end meanwhile, and walk the list of libraries as exceptions do. Not over the C
// library's malloc, in the middle of which the handlers would call it.
// native: no
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// run: name=preempted env=UNDERGO=stress=preempt
// timeout: 60
#include <link.h>
#include <stdatomic.h>
#include <sys/time.h>

#include "pthreads.h"

enum { kOpeners = 4, kLoads = 2000 };
static atomic_int stop, handled, ended;
static pthread_t openers[kOpeners];
static __thread int depth;

static void OnSignal(int sig) {
  int saved = errno;
  depth++;
  unsigned char* p = malloc(100 + (size_t)sig);
  CHECK(p);
  memset(p, sig, 100);
  handled++;
  CHECK(depth >= 1 && p[99] == (unsigned char)sig);
  free(p);
  depth--;
  errno = saved;
}
static int Visits(struct dl_phdr_info* info, size_t size, void* count) {
  (void)size;
  ++*(int*)count;
  return info->dlpi_phnum == 0;
}
static void* Opens(void* arg) {
  const char* path = arg;
  for (int i = 0; i < kLoads; i++) {
    void* library = dlopen(path, i % 2 ? RTLD_LAZY : RTLD_NOW);
    CHECK_MSG(library, "%s", dlerror());
    int (*f)(void) = (int (*)(void))dlsym(library, "PluginCount");
    CHECK(f && f() >= 8);
    CHECK(dlsym(library, "no_such_symbol") == NULL && dlerror() != NULL);
    CHECK_EQ(dlclose(library), 0);
  }
  CHECK_EQ(depth, 0);
  ended++;
  while (!stop) SleepMs(1);  // signals may still come
  return NULL;
}
static void* Walks(void* arg) {
  while (!stop) {
    int count = 0;
    dl_iterate_phdr(Visits, &count);
    CHECK(count > 2);
    Dl_info info;
    CHECK(dladdr((void*)Walks, &info) != 0);
    sched_yield();
  }
  return arg;
}
static void* Brief(void* arg) {
  free(malloc(1000));
  return arg;
}
static void* Makes(void* arg) {
  while (!stop) CHECK(Join(Start(Brief, arg)) == arg);
  return arg;
}
static void* Sends(void* arg) {
  for (unsigned i = 0; !stop; i++) {
    CHECK_EQ(pthread_kill(openers[i % kOpeners], i % 3 ? SIGUSR1 : SIGUSR2), 0);
    if (i % 4 == 0) sched_yield();
    if (i % 64 == 0) SleepMs(1);
  }
  return arg;
}
static void Storm(const char* name) {
  const int restarts = strcmp(name, "restarting") == 0 ? SA_RESTART : 0;
  stop = ended = 0;
  struct sigaction act = {.sa_handler = OnSignal, .sa_flags = restarts};
  CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
  CHECK_EQ(sigaction(SIGUSR2, &act, NULL), 0);
  act.sa_flags = SA_RESTART;
  CHECK_EQ(sigaction(SIGPROF, &act, NULL), 0);
  char path[4096];
  strcpy(path, PluginPath("tls"));
  pthread_t others[4];
  for (int i = 0; i < kOpeners; i++) openers[i] = Start(Opens, path);
  others[0] = Start(Walks, NULL);
  others[1] = Start(Makes, path);
  others[2] = Start(Sends, NULL);
  others[3] = Start(Walks, NULL);
  struct itimerval every = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
  CHECK_EQ(setitimer(ITIMER_PROF, &every, NULL), 0);
  while (ended < kOpeners) SleepMs(1);
  CHECK_EQ(setitimer(ITIMER_PROF, &never, NULL), 0);
  stop = 1;
  for (int i = 0; i < 4; i++) Join(others[i]);
  for (int i = 0; i < kOpeners; i++) Join(openers[i]);
  CHECK_MSG(handled > 5, "only %d signals", handled);
}

int main(int argc, char** argv) {
  static const Part parts[] = {{"restarting", Storm}, {"interrupting", Storm}};
  return RUN_PARTS(parts);
}
