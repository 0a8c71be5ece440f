// SPDX-License-Identifier: Apache-2.0
// Marks in a copy of the process (UNDERGO=tracking=snapshot). The program must not notice the copy,
// and a pointer must be found that a copy does not have: in shared memory that changes meanwhile,
// in memory that children do not inherit. A copy that dies or cannot be made costs no object.
// run: name=wait env=UNDERGO=tracking=snapshot wait
// run: name=shared env=UNDERGO=tracking=snapshot shared
// run: name=shared_poison env=UNDERGO=tracking=snapshot,gc=poison shared
// run: name=not_inherited env=UNDERGO=tracking=snapshot not_inherited
// run: name=not_inherited_poison env=UNDERGO=tracking=snapshot,gc=poison not_inherited
// run: name=many env=UNDERGO=tracking=snapshot,gc=poison many
// run: name=killed env=UNDERGO=tracking=snapshot killed
// run: name=no_process env=UNDERGO=tracking=snapshot no_process
// run: name=timers env=UNDERGO=tracking=snapshot,gc=poison timers
// run: name=signals env=UNDERGO=tracking=snapshot signals
// run: name=exec env=UNDERGO=tracking=snapshot exec 6
// run: name=exec_fails env=UNDERGO=tracking=snapshot exec_fails
// timeout: 60
#include <dirent.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "gc.h"

static Live* live;
static atomic_int stop;
static atomic_uint sigchld;

static void CountSignal(int sig) {
  (void)sig;
  sigchld++;
}

// Children that wait() does not show: those without an exit signal.
static int Copies(int* pid, int max) {
  int count = 0;
  DIR* tasks = opendir("/proc/self/task");
  CHECK(tasks);
  for (struct dirent* e; (e = readdir(tasks)) != NULL;) {
    char path[300], text[4096];
    snprintf(path, sizeof path, "/proc/self/task/%s/children", e->d_name);
    FILE* f = fopen(path, "r");
    if (!f) continue;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    char* at = text;
    for (long child; count < max && (child = strtol(at, &at, 10)) > 0;) pid[count++] = (int)child;
  }
  closedir(tasks);
  return count;
}

// While copies are made all the time: there is nothing to wait for, and no signal comes.
static void Wait(const char* name) {
  NEED_GC();
  struct sigaction action = {.sa_handler = CountSignal};
  CHECK_EQ(sigaction(SIGCHLD, &action, NULL), 0);
  StartCollector();
  int seen = 0, pid[8];
  for (double end = Seconds() + 20; GcStats()->num_gc < 10 && Seconds() < end;) {
    seen += Copies(pid, 8);
    errno = 0;
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    siginfo_t info;
    CHECK(waitid(P_ALL, 0, &info, WEXITED | WNOHANG) == -1 && errno == ECHILD);
  }
  CHECK_EQ(sigchld, 0);
  // A child of the program's own is waited for as ever.
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) _exit(7);
  int status;
  while (waitpid(-1, &status, 0) != child) CHECK_EQ(errno, EINTR);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
  // Its signal may have gone to the other thread, which has a CPU later.
  for (double end = Seconds() + 5; sigchld == 0 && Seconds() < end;) SleepMs(1);
  CHECK_EQ(sigchld, 1);
  StopCollector(10);
  CHECK_MSG(seen > 0, "%s: no copy was seen", name);
}

// The only pointer to each object lies in shared memory, or for a moment in a register.
enum { kSlots = 256 };
typedef struct Shared {
  uint64_t* slot[kSlots];
} Shared;
static Shared* shared;
static void* MoveShared(void* seed) {
  Random r = {(uint64_t)(uintptr_t)seed};
  size_t base = (size_t)(uintptr_t)seed % 2 * (kSlots / 2);
  while (!stop) {
    // Between two slots: one of both is empty.
    size_t a = base + Below(&r, kSlots / 2), b = base + Below(&r, kSlots / 2);
    uint64_t* p = shared->slot[a];
    if (!p || shared->slot[b]) continue;
    shared->slot[a] = NULL;
    for (int spin = 0; spin < 100; spin++) __asm__ volatile("" : "+r"(p));
    CHECK_MSG(p[0] == ~p[1], "an object in shared memory was lost");
    shared->slot[b] = p;
  }
  return NULL;
}
static void InShared(const char* name) {
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(shared != MAP_FAILED);
  for (size_t i = 0; i < kSlots; i += 2) {
    uint64_t* p = malloc(kObjectBytes);
    CHECK(p);
    p[0] = i;
    p[1] = ~(uint64_t)i;
    shared->slot[i] = p;
  }
  Scrub();
  pthread_t mover[2];
  for (size_t i = 0; i < 2; i++)
    CHECK_EQ(pthread_create(&mover[i], NULL, MoveShared, (void*)(i + 1)), 0);
  double end = Seconds() + 2;
  while (Seconds() < end) {
    CollectOnce();
    Leak(3000);
  }
  stop = 1;
  for (int i = 0; i < 2; i++) pthread_join(mover[i], NULL);
  CollectHard(name);
  for (int i = 0; i < kSlots; i++)
    CHECK(!shared->slot[i] || shared->slot[i][0] == ~shared->slot[i][1]);
}

typedef int (*Advise)(void* at, size_t size, int advice);
static int RawAdvise(void* at, size_t size, int advice) {
  long r;
  register long nr __asm__("rax") = SYS_madvise;
  __asm__ volatile("syscall"
                   : "=a"(r)
                   : "r"(nr), "D"(at), "S"(size), "d"((long)advice)
                   : "rcx", "r11", "memory");
  return (int)r;
}
static void NotInherited(const char* name) {
  static const struct {
    Advise advise;
    int advice;
  } kWays[] = {{RawAdvise, MADV_DONTFORK}, {madvise, MADV_DONTFORK}, {madvise, MADV_WIPEONFORK}};
  for (size_t way = 0; way < sizeof kWays / sizeof *kWays; way++) {
    Held held;
    void** map = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(map != MAP_FAILED);
    for (int i = 0; i < kHeld; i++) map[i * 100] = MakeHeld(&held, i);
    CHECK_EQ(kWays[way].advise(map, 1 << 16, kWays[way].advice), 0);
    CollectHard(name);
    CheckHeld(&held, name);
    CHECK_EQ(munmap(map, 1 << 16), 0);
  }
}
// More of such ranges than anybody remembers.
static void Many(const char* name) {
  enum { kRanges = 200, kPage = 4096 };
  Held held;
  char* map =
      mmap(NULL, 2 * kRanges * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(map != MAP_FAILED);
  for (int i = 0; i < kRanges; i++) {
    char* page = map + 2 * i * kPage;
    if (i >= kRanges - kHeld) *(void**)page = MakeHeld(&held, i - (kRanges - kHeld));
    CHECK_EQ(madvise(page, kPage, i % 2 ? MADV_DONTFORK : MADV_WIPEONFORK), 0);
  }
  CollectHard(name);
  CheckHeld(&held, name);
}

static void* Killer(void* count) {
  while (!stop) {
    int pid[8];
    int n = Copies(pid, 8);
    for (int i = 0; i < n; i++)
      if (kill(pid[i], SIGKILL) == 0) ++*(atomic_int*)count;
  }
  return NULL;
}
static void Killed(const char* name) {
  atomic_int count = 0;
  pthread_t killer;
  CHECK_EQ(pthread_create(&killer, NULL, Killer, &count), 0);
  for (int i = 0; i < 30; i++) {
    Pressure();
    CollectOnce();
    CheckLive(live, 2000, 1);
  }
  stop = 1;
  pthread_join(killer, NULL);
  CHECK_MSG(!GcWorks() || count > 0, "%s: no copy was killed", name);
  CollectHard(name);
}

static void NoProcess(const char* name) {
  if (getuid() != 0) SKIP("needs root");
  CollectHard(name);
  struct rlimit none = {0, 0};
  CHECK_EQ(setrlimit(RLIMIT_NPROC, &none), 0);
  CHECK_EQ(setgid(54321), 0);
  CHECK_EQ(setuid(54321), 0);
  CHECK(fork() == -1 && errno == EAGAIN);
  CollectHard(name);
}

// The kernel holds the only pointer; the copy has no timers.
static void Timers(const char* name) {
  Held held;
  timer_t timer[kHeld];
  for (int i = 0; i < kHeld; i++) {
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    event.sigev_value.sival_ptr = MakeHeld(&held, i);
    CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer[i]), 0);
    event.sigev_value.sival_ptr = NULL;
  }
  Scrub();
  CollectHard(name);
  CheckHeld(&held, name);
  for (int i = 0; i < kHeld; i++) timer_delete(timer[i]);
}

// A signal for the whole group runs handlers in this process only.
static int handled_pipe[2];
static void TellWho(int sig) {
  (void)sig;
  pid_t pid = getpid();
  if (write(handled_pipe[1], &pid, sizeof pid) < 0) return;
}
static void Signals(const char* name) {
  CHECK_EQ(pipe(handled_pipe), 0);
  struct sigaction action = {.sa_handler = TellWho};
  CHECK_EQ(sigaction(SIGUSR2, &action, NULL), 0);
  CHECK_EQ(setpgid(0, 0), 0);
  StartCollector();
  const int works = GcWorks();
  double end = Seconds() + (works ? 20 : 0.1);
  do {
    CHECK_EQ(killpg(0, SIGUSR2), 0);
    pid_t pid;
    while (read(handled_pipe[0], &pid, sizeof pid) != sizeof pid) CHECK_EQ(errno, EINTR);
    CHECK_MSG(pid == getpid(), "%s: the handler ran in process %d", name, pid);
  } while ((!works || GcStats()->num_gc < 10) && Seconds() < end);
  StopCollector(10);
}

// A copy that runs at an exec does not become a child of the new program.
static void AwaitCopy(const char* name) {
  int pid[8];
  for (double end = Seconds() + 20; Copies(pid, 8) == 0;)
    CHECK_MSG(Seconds() < end, "%s: no copy was seen", name);
}
static int exec_count;
static void Exec(const char* name) {
  int pid[8];
  CHECK_MSG(Copies(pid, 8) == 0, "%s: a child came along", name);
  if (exec_count == 0) return;
  NEED_GC();
  Live* more = MakeLive(50000, 2);  // so that a mark takes a while
  StartCollector();
  AwaitCopy(name);
  char count[16], path[] = "/proc/self/exe", command[] = "exec";
  snprintf(count, sizeof count, "%d", exec_count - 1);
  char* again[] = {path, command, count, NULL};
  CHECK_MSG(more != NULL, "%s", name);
  if (exec_count % 3 == 0) {
    execl(path, path, command, count, NULL);
  } else if (exec_count % 3 == 1) {
    execv(path, again);
  } else {
    syscall(SYS_execve, path, again, environ);
  }
  CHECK(!"exec came back");
}
// One that fails, in this process and in a child that shares its memory, stops no collections.
static void ExecFails(const char* name) {
  NEED_GC();
  char path[] = "/nonexistent";
  char* again[] = {path, NULL};
  StartCollector();
  for (int i = 0; i < 5; i++) {
    AwaitCopy(name);
    CHECK(execv(path, again) == -1 && errno == ENOENT);
    pid_t child = vfork();
    CHECK(child >= 0);
    if (child == 0) {
      execv(path, again);
      _exit(errno == ENOENT ? 3 : 4);
    }
    int status;
    while (waitpid(child, &status, 0) != child) CHECK_EQ(errno, EINTR);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3);
  }
  uint64_t before = GcStats()->num_gc;
  for (double end = Seconds() + 20; GcStats()->num_gc < before + 3; SleepMs(1))
    CHECK_MSG(Seconds() < end, "%s: no collections any more", name);
  AwaitCopy(name);
  StopCollector(3);
}

int main(int argc, char** argv) {
  if (argc > 2) {
    exec_count = atoi(argv[2]);
    argc = 2;
  }
  const char* set = getenv("UNDERGO");
  if (set && strstr(set, "tracking=stop")) SKIP("no copies are made with tracking=stop");
  static const Part kParts[] = {
      {"wait", Wait},
      {"shared", InShared},
      {"not_inherited", NotInherited},
      {"many", Many},
      {"killed", Killed},
      {"no_process", NoProcess},
      {"timers", Timers},
      {"signals", Signals},
      {"exec", Exec},
      {"exec_fails", ExecFails},
  };
  live = MakeLive(2000, 1);
  return RUN_PARTS(kParts);
}
