// SPDX-License-Identifier: Apache-2.0
// setuid and its kin change every kernel thread of the process: the first one whatever runs there,
// those of the scheduler, and those of the collector.
// needs: root
// run:
// run: name=one env=GOMAXPROCS=1
// run: name=off env=UNDERGO=sched=off
// timeout: 40
#include <dirent.h>
#include <grp.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "pthreads.h"

enum { kThreads = 8 };
static atomic_int turn, stop;

// Calls of the C library as far as they are not for threads.
static void InChild(void (*body)(void)) {
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    alarm(60);
    body();
    exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK_MSG(status == 0, "child: status 0x%x", status);
}

// What /proc says of every kernel thread: the line `key`, whose word number `word` is wanted.
static void AllTasksHave(const char* key, int word, unsigned wanted) {
  DIR* d = opendir("/proc/self/task");
  CHECK(d != NULL);
  struct dirent* e;
  int tasks = 0;
  while ((e = readdir(d)) != NULL) {
    char path[300], line[256], name[32] = "";
    snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
    FILE* f = e->d_name[0] != '.' ? fopen(path, "r") : NULL;
    if (f == NULL) continue;
    unsigned v[4];
    int seen = 0;
    while (fgets(line, sizeof line, f) != NULL) {
      if (strncmp(line, "Name:", 5) == 0) sscanf(line + 5, "%31s", name);
      if (strncmp(line, key, strlen(key)) != 0) continue;
      int n = sscanf(line + strlen(key), "%u %u %u %u", &v[0], &v[1], &v[2], &v[3]);
      CHECK(n > word);
      CHECK_MSG(v[word] == wanted, "%s of task %s (%s), process %d: %u, wanted %u", key, e->d_name,
                name, getpid(), v[word], wanted);
      seen = 1;
    }
    fclose(f);
    tasks += seen;
  }
  closedir(d);
  CHECK(tasks > 0);
}

static void* Busy(void* arg) {
  while (!stop) {
    if (arg)
      sched_yield();
    else
      SleepMs(1);
  }
  return NULL;
}

// The kernel shows them in order.
static unsigned LowestOf(const gid_t* ids, int n) {
  CHECK(n > 0);
  unsigned lowest = ids[0];
  for (int i = 1; i < n; i++) lowest = ids[i] < lowest ? ids[i] : lowest;
  return lowest;
}

// All of the family. The process is root's again after each.
static void ChangeAll(void) {
  CHECK_EQ(setegid(1001), 0);
  AllTasksHave("Gid:", 1, 1001);
  CHECK_EQ(setregid((gid_t)-1, 0), 0);
  AllTasksHave("Gid:", 1, 0);
  CHECK_EQ(setresgid(1002, 1003, 0), 0);
  AllTasksHave("Gid:", 0, 1002);
  AllTasksHave("Gid:", 1, 1003);
  CHECK_EQ(setgid(0), 0);
  AllTasksHave("Gid:", 0, 0);
  const gid_t groups[] = {2001, 2002, 2003};
  CHECK_EQ(setgroups(3, groups), 0);
  AllTasksHave("Groups:", 2, 2003);
  CHECK_EQ(initgroups("root", 2004), 0);
  gid_t list[64];
  AllTasksHave("Groups:", 0, LowestOf(list, getgroups(64, list)));
  CHECK_EQ(seteuid(1004), 0);
  AllTasksHave("Uid:", 1, 1004);
  CHECK(syscall(SYS_geteuid) == 1004 && geteuid() == 1004 && getuid() == 0);
  CHECK_EQ(setreuid((uid_t)-1, 0), 0);
  AllTasksHave("Uid:", 1, 0);
  CHECK_EQ(setresuid((uid_t)-1, 1005, 0), 0);
  AllTasksHave("Uid:", 1, 1005);
  CHECK(setresuid(7, 7, 7) == -1 && errno == EPERM);
  AllTasksHave("Uid:", 1, 1005);
  CHECK_EQ(seteuid(0), 0);
  AllTasksHave("Uid:", 1, 0);
}

// The main thread calls wherever it has come to run.
static void MainCalls(void) {
  pthread_t t[kThreads];
  for (intptr_t i = 0; i < kThreads; i++) t[i] = Start(Busy, (void*)(i % 2));
  for (int i = 0; i < 20; i++) {
    SleepMs(1);
    ChangeAll();
  }
  CHECK_EQ(setuid(1234), 0);
  AllTasksHave("Uid:", 0, 1234);
  AllTasksHave("Uid:", 1, 1234);
  AllTasksHave("Uid:", 2, 1234);
  stop = 1;
  for (int i = 0; i < kThreads; i++) Join(t[i]);
}
static void Moves(const char* name) {
  (void)name;
  for (int i = 0; i < 5; i++) InChild(MainCalls);
}

// Several call at once, while others come and go: at the end all agree.
static void* Short(void* arg) { return arg; }
static void* Calls(void* arg) {
  for (int i = 0; i < 30; i++) {
    CHECK_EQ(setegid(3000 + (gid_t)(intptr_t)arg), 0);
    Join(Start(Short, NULL));
  }
  return NULL;
}
static void AtOnce(void) {
  pthread_t t[3], b[2];
  for (intptr_t i = 0; i < 2; i++) b[i] = Start(Busy, (void*)i);
  for (intptr_t i = 0; i < 3; i++) t[i] = Start(Calls, (void*)i);
  for (int i = 0; i < 3; i++) Join(t[i]);
  AllTasksHave("Gid:", 1, getegid());
  stop = 1;
  for (int i = 0; i < 2; i++) Join(b[i]);
}
static void Together(const char* name) {
  (void)name;
  InChild(AtOnce);
}

// Another thread calls while the main thread ends, and when it has.
static pthread_key_t key;
static void SlowEnd(void* arg) {
  (void)arg;
  turn = 1;
  while (turn < 2) SleepMs(1);
}
static void* Heir(void* arg) {
  while (turn < 1) SleepMs(1);
  CHECK_EQ(seteuid(1006), 0);
  if (arg) AllTasksHave("Uid:", 1, 1006);
  CHECK_EQ(seteuid(0), 0);
  turn = 2;
  Moment();
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(seteuid(1007), 0);
    if (arg) AllTasksHave("Uid:", 1, 1007);
    CHECK_EQ(seteuid(0), 0);
    SleepMs(1);
  }
  stop = 1;
  return NULL;
}
static intptr_t checks;
static void MainLeaves(void) {
  CHECK_EQ(pthread_key_create(&key, SlowEnd), 0);
  CHECK_EQ(pthread_setspecific(key, &key), 0);
  for (intptr_t i = 0; i < 3; i++) Start(Busy, (void*)(i % 2));
  Start(Heir, (void*)checks);
  pthread_exit(NULL);
}
static void Leaves(const char* name) {
  // Natively a main thread that ends is left out.
  checks = Scheduled();
  (void)name;
  InChild(MainLeaves);
}

// Once the collector has a thread.
static int Tasks(void) {
  DIR* d = opendir("/proc/self/task");
  int n = -2;
  while (readdir(d) != NULL) n++;
  closedir(d);
  return n;
}
static void Collects(void) {
  for (int i = 0; i < 2000 && Tasks() < 2; i++) {
    for (int k = 0; k < 100; k++) memset(malloc(1000), 1, 1000);
  }
  ChangeAll();
  CHECK_EQ(setuid(1234), 0);
  AllTasksHave("Uid:", 2, 1234);
}
static void Collector(const char* name) {
  (void)name;
  InChild(Collects);
}

int main(int argc, char** argv) {
  static const Part parts[] = {
      {"moves", Moves}, {"together", Together}, {"leaves", Leaves}, {"collector", Collector}};
  return RUN_PARTS(parts);
}
