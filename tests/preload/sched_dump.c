// SPDX-License-Identifier: Apache-2.0
// The dump of all threads by a signal: what it says, what becomes of the program, and that programs
// which have their own idea of the signal keep it. Each case is a child whose stderr is read.
// native: no
// run: name=on dies handled ignored again raised face alone allocating
// run: name=one env=GOMAXPROCS=1 dies raised
// run: name=nogc env=UNDERGO=gc=off dies raised
// run: name=off env=UNDERGO=sched=off dies handled ignored again raised face alone
// run: name=bare env=UNDERGO=sched=off,gc=off dies raised child
// run: name=usr1 env=UNDERGO=dump=USR1 goes_on goes_on_alone dies_silently
// run: name=usr1off env=UNDERGO=sched=off,gc=off,dump=SIGUSR1 goes_on goes_on_alone
// run: name=named env=UNDERGO=dump=QUIT named
// run: name=none env=UNDERGO=dump=off dies_silently
// timeout: 60
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "pthreads.h"

static char text[1 << 20];
static atomic_int up;
static int ready[2];
static int dumped[2];  // a byte for each dump that has been read

static int Count(const char* what) {
  int n = 0;
  for (const char* at = text; (at = strstr(at, what)) != NULL; at++) n++;
  return n;
}

// What the child wrote to stderr is in `text`; returns its wait status. `sig` is sent to it as soon
// as it is ready, unless 0; it may send itself one.
static int Watch(void (*body)(void), int sig) {
  int err[2];
  CHECK(pipe(err) == 0 && pipe(ready) == 0 && pipe(dumped) == 0);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(err[1], 2);
    close(err[0]), close(err[1]), close(ready[0]);
    body();
    _exit(0);
  }
  close(err[1]), close(ready[1]);
  char c;
  if (sig != 0 && read(ready[0], &c, 1) == 1) CHECK_EQ(kill(child, sig), 0);
  close(ready[0]);
  size_t n = 0;
  ssize_t got;
  text[0] = 0;
  for (int told = 0; (got = read(err[0], text + n, sizeof text - 1 - n)) > 0;) {
    text[n += (size_t)got] = 0;
    for (; told < Count("WaitsInHere(...)") && told < Count("GoesOnBody(...)"); told++)
      CHECK_EQ(write(dumped[1], "d", 1), 1);
  }
  close(err[0]), close(dumped[0]), close(dumped[1]);
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  return status;
}
static void Ready(void) { CHECK(write(ready[1], "r", 1) == 1); }
static int Says(const char* what) { return strstr(text, what) != NULL; }
static void CheckSays(const char* what, int line) {
  if (!Says(what)) CheckFailed(__FILE__, line, "no '%s' in:\n%s", what, text);
}
#define SAYS(what) CheckSays(what, __LINE__)
#define SILENT() CHECK_MSG(text[0] == 0, "unexpected: %s", text)

// --- what the threads of the child do; none of the names is exported ---

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static volatile int going = 1;

__attribute__((noinline)) static void SleepsInHere(void) {
  up++;
  while (going) sleep(1000);
  up++;
}
__attribute__((noinline)) static void WaitsInHere(void) {
  pthread_mutex_lock(&mutex);
  up++;
  while (going) pthread_cond_wait(&cond, &mutex);
  pthread_mutex_unlock(&mutex);
  up++;
}
__attribute__((noinline)) static void SpinsInHere(void) {
  up++;
  while (going) {
  }
  up++;
}
__attribute__((noinline)) static void ReadsInHere(void) {
  int ends[2];
  char c;
  CHECK_EQ(pipe(ends), 0);
  up++;
  while (read(ends[0], &c, 1) != 1) {
  }
  up++;
}
static void* Sleeps(void* arg) { return SleepsInHere(), arg; }
static void* Waits(void* arg) { return WaitsInHere(), arg; }
static void* Spins(void* arg) { return SpinsInHere(), arg; }
static void* Reads(void* arg) { return ReadsInHere(), arg; }
static void* Nothing(void* arg) { return arg; }

static void Threads(void) {
  up = 0;
  pthread_setname_np(Start(Sleeps, NULL), "sleeper");
  Start(Waits, NULL), Start(Spins, NULL), Start(Reads, NULL);
  EVENTUALLY(up == 4);
  SleepMs(50);
}
__attribute__((noinline)) static void MainIsHere(void) {
  Ready();
  for (;;) pause();
}
static void Plain(void) {
  Threads();
  MainIsHere();
}

// --- cases ---

static void Dies(const char* name) {
  (void)name;
  int status = Watch(Plain, SIGQUIT);
  CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGQUIT, "status %x: %s", status, text);
  SAYS("undergo: SIGQUIT: all threads:\n");
  SAYS("SleepsInHere(...)"), SAYS("WaitsInHere(...)"), SAYS("SpinsInHere(...)");
  SAYS("ReadsInHere(...)"), SAYS("MainIsHere(...)"), SAYS("Plain(...)");
  SAYS(" sleeper"), SAYS(" [run");  // with one P the one that spins may just have given way
  if (Scheduled()) {
    SAYS(" [sleep]: sleeper"), SAYS(" [condition variable]:");
    SAYS(" [IO read]:");
  } else {
    SAYS("thread "), SAYS(" [syscall]:");
  }
  CHECK_MSG(!Says("no call chains"), "%s", text);
}

static void OwnHandler(int sig) { _exit(sig + 40); }
static void HandledBody(void) {
  struct sigaction act = {.sa_handler = OwnHandler}, old;
  CHECK_EQ(sigaction(SIGQUIT, &act, NULL), 0);
  Threads();
  CHECK(sigaction(SIGQUIT, NULL, &old) == 0 && old.sa_handler == OwnHandler);
  MainIsHere();
}
static void Handled(const char* name) {
  (void)name;
  int status = Watch(HandledBody, SIGQUIT);
  CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == SIGQUIT + 40, "status %x", status);
  SILENT();
}

static void IgnoredBody(void) {
  signal(SIGQUIT, SIG_IGN);
  Threads();
  CHECK(signal(SIGQUIT, SIG_IGN) == SIG_IGN);
  kill(getpid(), SIGQUIT);
  CHECK(raise(SIGQUIT) == 0);
  SleepMs(50);
  _exit(5);
}
static void Ignored(const char* name) {
  (void)name;
  int status = Watch(IgnoredBody, 0);
  CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 5, "status %x", status);
  SILENT();
}

// A program that takes its handler back has the dump again.
static void AgainBody(void) {
  CHECK(signal(SIGQUIT, OwnHandler) == SIG_DFL);
  Threads();
  CHECK(signal(SIGQUIT, SIG_DFL) == OwnHandler);
  CHECK(signal(SIGQUIT, SIG_DFL) == SIG_DFL);
  MainIsHere();
}
static void Again(const char* name) {
  (void)name;
  int status = Watch(AgainBody, SIGQUIT);
  CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGQUIT, "status %x: %s", status, text);
  SAYS("SleepsInHere(...)");
}

__attribute__((noinline)) static void RaisesInHere(void) {
  raise(SIGQUIT);
  _exit(9);  // never comes
}
static void* Raises(void* arg) { return RaisesInHere(), arg; }
static void RaisedBody(void) {
  Threads();
  Start(Raises, NULL);
  for (;;) pause();
}
static void Raised(const char* name) {
  (void)name;
  int status = Watch(RaisedBody, 0);
  CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGQUIT, "status %x: %s", status, text);
  SAYS("RaisesInHere(...)"), SAYS("SleepsInHere(...)");
}

// What the program sees of the signal's action is what it would see without us.
static void FaceBody(void) {
  struct sigaction old, act = {.sa_handler = SIG_DFL, .sa_flags = SA_NODEFER};
  Join(Start(Nothing, NULL));
  CHECK(sigaction(SIGQUIT, NULL, &old) == 0 && old.sa_handler == SIG_DFL && old.sa_flags == 0);
  for (int sig = 1; sig < 32; sig++) CHECK(sigismember(&old.sa_mask, sig) == 0);
  CHECK(sigaction(SIGQUIT, &act, &old) == 0 && old.sa_handler == SIG_DFL);
  CHECK(sigaction(SIGQUIT, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
  CHECK_EQ(old.sa_flags & ~0x04000000, SA_NODEFER);
}
static void Face(const char* name) {
  (void)name;
  int status = Watch(FaceBody, 0);
  CHECK_MSG(status == 0, "status %x: %s", status, text);
}

// Without a thread there is nothing of us, and one that has ended leaves the dump behind.
static void NeverThreads(void) { MainIsHere(); }
static void OnceThreads(void) {
  Join(Start(Nothing, NULL));
  MainIsHere();
}
static void Alone(const char* name) {
  (void)name;
  int status = Watch(NeverThreads, SIGQUIT);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGQUIT);
  SILENT();
  status = Watch(OnceThreads, SIGQUIT);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGQUIT);
  SAYS("MainIsHere(...)");
}

// The signal comes to a thread that holds locks of the heap as often as not.
static void* Allocates(void* arg) {
  for (;;) {
    void* p[200];
    for (int i = 0; i < 200; i++) p[i] = malloc((size_t)i * 50);
    for (int i = 0; i < 200; i++) free(p[i]);
  }
  return arg;
}
static void BusyBody(void) {
  for (int i = 0; i < 4; i++) Start(Allocates, NULL);
  Ready();
  Allocates(NULL);
}
static void Allocating(const char* name) {
  (void)name;
  for (int i = 0; i < 5; i++) {
    int status = Watch(BusyBody, SIGQUIT);
    CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGQUIT, "status %x", status);
    SAYS(Scheduled() ? "\ngoroutine 1 [" : "\nthread ");
  }
}

// A forked child of a program with threads.
static void ChildBody(void) {
  Threads();
  pid_t child = fork();
  if (child == 0) RaisesInHere();
  int status;
  CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGQUIT);
  _exit(0);
}
static void Child(const char* name) {
  (void)name;
  int status = Watch(ChildBody, 0);
  CHECK_MSG(status == 0, "status %x: %s", status, text);
  SAYS("RaisesInHere(...)");
  CHECK(!Says("SleepsInHere"));
}

// --- UNDERGO=dump=USR1 ---

static void GoesOnBody(void) {
  char c;
  Threads();
  pthread_t last = Start(Sleeps, NULL);
  for (int i = 0; i < 3; i++) {
    if (i == 0) kill(getpid(), SIGUSR1);
    if (i == 1) raise(SIGUSR1);
    if (i == 2) pthread_kill(last, SIGUSR1);
    while (read(dumped[0], &c, 1) != 1) {  // it is interrupted where the signal came
    }
  }
  CHECK_EQ(up, 5);
  for (int i = 0; i < 3; i++) CHECK(signal(SIGUSR1, SIG_DFL) == SIG_DFL);
  _exit(6);
}
static void GoesOn(const char* name) {
  (void)name;
  int status = Watch(GoesOnBody, 0);
  CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 6, "status %x: %s", status, text);
  CHECK_MSG(Count("undergo: all threads:\n") == 3, "%s", text);
  CHECK_EQ(Count("WaitsInHere(...)"), 3);
  CHECK_EQ(Count("GoesOnBody(...)"), 3);
}
static void GoesOnAloneBody(void) {
  raise(SIGUSR1);
  SleepMs(300);
  _exit(6);
}
static void GoesOnAlone(const char* name) {
  (void)name;
  int status = Watch(GoesOnAloneBody, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 6);
  SAYS("GoesOnAloneBody(...)");
}
static void DiesSilently(const char* name) {
  (void)name;
  int status = Watch(Plain, SIGQUIT);
  CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGQUIT, "status %x: %s", status, text);
  SILENT();
}
static void Named(const char* name) {
  (void)name;
  int status = Watch(NeverThreads, SIGQUIT);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGQUIT);
  SAYS("MainIsHere(...)");
}

int main(int argc, char** argv) {
  static const Part kParts[] = {
      {"dies", Dies},
      {"handled", Handled},
      {"ignored", Ignored},
      {"again", Again},
      {"raised", Raised},
      {"face", Face},
      {"alone", Alone},
      {"allocating", Allocating},
      {"child", Child},
      {"goes_on", GoesOn},
      {"named", Named},
      {"goes_on_alone", GoesOnAlone},
      {"dies_silently", DiesSilently},
  };
  return RUN_PARTS(kParts);
}
