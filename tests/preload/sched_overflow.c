// SPDX-License-Identifier: Apache-2.0
// Overflow of a thread's stack: a line and the native death; a program that handles it sees it as
// without us, and what we need for the line is not seen. Each case is a child whose stderr is read.
// run: name=on
// run: name=one env=GOMAXPROCS=1
// run: name=nogc env=UNDERGO=gc=off handled face
// run: name=off pace=long env=UNDERGO=sched=off
// timeout: 60
#include <setjmp.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "pthreads.h"

static char text[1 << 16];

static int Watch(void (*body)(void)) {
  int err[2];
  CHECK_EQ(pipe(err), 0);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(err[1], 2);
    close(err[0]), close(err[1]);
    body();
    _exit(0);
  }
  close(err[1]);
  size_t n = 0;
  ssize_t got;
  while ((got = read(err[0], text + n, sizeof text - 1 - n)) > 0) n += (size_t)got;
  text[n] = 0;
  close(err[0]);
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  return status;
}
static void Dies(void (*body)(void), const char* line) {
  int status = Watch(body);
  CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %x: %s", status, text);
  if (line == NULL || !Scheduled()) {
    CHECK_MSG(text[0] == 0, "unexpected: %s", text);
  } else {
    CHECK_MSG(strstr(text, line) != NULL, "no '%s' in: %s", line, text);
    CHECK_MSG(strchr(text, '\n') == text + strlen(text) - 1, "more than a line: %s", text);
  }
}
static void Lives(void (*body)(void)) {
  int status = Watch(body);
  CHECK_MSG(status == 0 && text[0] == 0, "status %x: %s", status, text);
}

static pthread_t WithStack(size_t size, ThreadBody body) {
  pthread_attr_t attr;
  pthread_t t;
  pthread_attr_init(&attr);
  CHECK_EQ(pthread_attr_setstacksize(&attr, size), 0);
  CHECK_EQ(pthread_create(&t, &attr, body, NULL), 0);
  return t;
}
__attribute__((noinline)) static int Recurse(int n) {
  volatile char piece[512];
  piece[0] = (char)n;
  return n == 0 ? 0 : Recurse(n + 1) + piece[0];
}
static void* Deep(void* arg) {
  pthread_setname_np(pthread_self(), "deep");
  Recurse(1);
  return arg;
}
static void* Nothing(void* arg) { return arg; }

static void ThreadBodyCase(void) { Join(WithStack(128 << 10, Deep)); }
static void LargeBody(void) { Join(WithStack(4 << 20, Deep)); }
static void MainBody(void) {
  Join(Start(Nothing, NULL));
  Recurse(1);
}
static void* Wild(void* arg) {
  volatile int* volatile nowhere = (volatile int*)8;
  *nowhere = 1;
  return arg;
}
static void WildBody(void) { Join(Start(Wild, NULL)); }
static void KilledBody(void) {
  Join(Start(Nothing, NULL));
  kill(getpid(), SIGSEGV);
  SleepMs(kForeverMs);
}
static void Told(const char* name) {
  (void)name;
  Dies(ThreadBodyCase, "\"deep\" overflowed its stack of 128 KiB");
  Dies(LargeBody, "\"deep\" overflowed its stack of 4096 KiB");
  Dies(MainBody, "\" overflowed its stack of ");
  Dies(WildBody, NULL);
  Dies(KilledBody, NULL);
}

// A handler on an alternate stack; installed before or after the first thread.
static sigjmp_buf back;
static char* fault;
static void OnFault(int sig, siginfo_t* info, void* context) {
  (void)sig, (void)context;
  fault = info->si_addr;
  siglongjmp(back, 1);
}
static void HandleFaults(void) {
  struct sigaction act = {.sa_sigaction = OnFault, .sa_flags = SA_SIGINFO | SA_ONSTACK}, got;
  CHECK_EQ(sigaction(SIGSEGV, &act, NULL), 0);
  CHECK(sigaction(SIGSEGV, NULL, &got) == 0 && got.sa_sigaction == OnFault);
  CHECK(got.sa_flags & SA_ONSTACK);
}
static void* Recovers(void* arg) {
  stack_t stack = {.ss_sp = malloc(64 << 10), .ss_size = 64 << 10}, got;
  CHECK(sigaltstack(&stack, &got) == 0 && (got.ss_flags & SS_DISABLE));
  CHECK(sigaltstack(NULL, &got) == 0 && got.ss_sp == stack.ss_sp);
  for (int i = 0; i < 3; i++) {
    fault = NULL;
    char* volatile here = (char*)&stack;
    if (sigsetjmp(back, 1) == 0) Recurse(1);
    CHECK(fault < here && fault > here - (256 << 10));
    sched_yield();
    SleepMs(1);
  }
  return arg;
}
static void HandledFirst(void) {
  HandleFaults();
  Join(Start(Nothing, NULL));
  Join(WithStack(128 << 10, Recovers));
  Join(WithStack(128 << 10, Recovers));
}
static void HandledLater(void) {
  Join(Start(Nothing, NULL));
  HandleFaults();
  Join(WithStack(128 << 10, Recovers));
  Join(WithStack(128 << 10, Recovers));
}
static void Handled(const char* name) {
  (void)name;
  Lives(HandledFirst);
  Lives(HandledLater);
}

// Handlers with SA_ONSTACK run on the thread's own stack as long as there is no other.
static atomic_int calls;
static char* volatile frame;
static void OnUser(int sig, siginfo_t* info, void* context) {
  ucontext_t* c = context;
  char here;
  (void)sig, (void)info;
  frame = &here;
  CHECK(c->uc_stack.ss_size == 0 && c->uc_stack.ss_sp == NULL);
  sched_yield();
  SleepMs(2);
  calls++;
}
static void* Faces(void* arg) {
  char here;
  stack_t got;
  for (int i = 0; i < 20; i++) {
    CHECK(sigaltstack(NULL, &got) == 0 && (got.ss_flags & SS_DISABLE) && got.ss_sp == NULL);
    CHECK_EQ(raise(SIGUSR1), 0);
    CHECK((uintptr_t)&here - (uintptr_t)frame < 128 << 10);
    sched_yield();
  }
  return arg;
}
static void FacesBody(void) {
  struct sigaction act = {.sa_sigaction = OnUser, .sa_flags = SA_SIGINFO | SA_ONSTACK}, got;
  Join(Start(Nothing, NULL));
  CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
  CHECK(sigaction(SIGUSR1, NULL, &got) == 0 && got.sa_flags & SA_ONSTACK);
  CHECK(sigaction(SIGSEGV, NULL, &got) == 0 && got.sa_handler == SIG_DFL);
  CHECK(!(got.sa_flags & (SA_ONSTACK | SA_SIGINFO)));
  Faces(NULL);
  pid_t child = fork();
  if (child == 0) _exit(Faces(NULL) != NULL);
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  pthread_t a = Start(Faces, NULL);
  Join(a);
}
static void Face(const char* name) {
  (void)name;
  Lives(FacesBody);
}

int main(int argc, char** argv) {
  static const Part kParts[] = {{"told", Told}, {"handled", Handled}, {"face", Face}};
  return RUN_PARTS(kParts);
}
