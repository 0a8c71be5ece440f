// SPDX-License-Identifier: Apache-2.0
// What a process does to itself between and during collections: it closes all descriptors, changes
// its user, limits its address space and its descriptors, installs a filter of
// system calls. Collections go on, by another way if need be, or end in order; nothing is lost.
// run: name=descriptors descriptors
// run: name=descriptors_poison env=UNDERGO=gc=poison descriptors
// run: name=reused reused
// run: name=no_descriptors no_descriptors
// run: name=user user
// run: name=address_space address_space
// run: name=filter filter
// run: name=filter_late filter_late
// run: name=dumpable dumpable
// timeout: 60
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "gc.h"
#include "seccomp.h"

static Live* live;
static void Collect(const char* what) {
  CollectHard(what);
  CheckLive(live, 2000, 1);
}

// All but the standard ones, while a collection may be under way; the library's own are gone too.
static void Descriptors(void) {
  StartCollector();
  for (int i = 0; i < 50; i++) {
    Leak(500);
    CHECK_EQ(syscall(SYS_close_range, 3, ~0u, 0), 0);
    CheckLive(live, 2000, 1);
    SleepMs(1);
  }
  StopCollector(0);  // each may have lost a descriptor that it needed, and given up
  Collect("after close_range");
  for (int fd = 3; fd < 5000; fd++) close(fd);
  Collect("after close of each");
  closefrom(3);
  Collect("after closefrom");
}

// The numbers are taken by the program's own files at once, which must stay as they are.
static void Reused(void) {
  Collect("before");
  CHECK_EQ(syscall(SYS_close_range, 3, ~0u, 0), 0);
  int fd[200];
  struct stat before[200], after;
  for (int i = 0; i < 200; i++) {
    CHECK((fd[i] = memfd_create("test", MFD_CLOEXEC)) >= 3);
    CHECK_EQ(fstat(fd[i], &before[i]), 0);
    CHECK_EQ(write(fd[i], "content", 7), 7);
  }
  Collect("with other files under the numbers");
  for (int i = 0; i < 200; i++) {
    CHECK_EQ(fstat(fd[i], &after), 0);
    CHECK(after.st_ino == before[i].st_ino && after.st_size == 7);
    CHECK_EQ(lseek(fd[i], 0, SEEK_CUR), 7);
    CHECK_EQ(close(fd[i]), 0);
  }
  Collect("afterwards");
}

// No descriptor can be opened at all: the limit is reached from the start.
static void NoDescriptors(void) {
  struct rlimit none = {3, 3};
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  StartCollector();
  for (int i = 0; i < 50; i++) {
    Leak(500);
    SleepMs(1);
  }
  StopCollector(0);
  CheckLive(live, 2000, 1);
}

static void User(void) {
  if (getuid() != 0) SKIP("needs root");
  StartCollector();
  Leak(5000);
  CHECK_EQ(chdir("/"), 0);
  CHECK_EQ(setgid(65534), 0);
  CHECK_EQ(setuid(65534), 0);
  Leak(5000);
  StopCollector(1);
  Collect("another user");
}

static void Dumpable(void) {
  CHECK_EQ(prctl(PR_SET_DUMPABLE, 0), 0);
  Collect("not dumpable");
}

static void AddressSpace(void) {
  Collect("before the limit");
  struct rlimit limit = {(rlim_t)400 << 20, RLIM_INFINITY};
  CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
  Collect("with 400 MiB of address space");
  // Up to the limit: refused in order, and collected what was dropped.
  size_t got = 0;
  for (int i = 0; i < 2000; i++) {
    void* volatile p = malloc(1 << 20);
    if (!p)
      CHECK_EQ(errno, ENOMEM);
    else
      got++;
  }
  CHECK(got > 50);
  CheckLive(live, 2000, 1);
}

static void Filter(int late) {
  static const int calls[] = {SYS_userfaultfd,      SYS_clone, SYS_clone3, SYS_ioctl,
                              SYS_process_vm_readv, SYS_open,  SYS_openat, SYS_memfd_create};
  if (late) Collect("before the filter");
  if (FilterCalls(calls, sizeof calls / sizeof *calls, SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_ALLOW,
                  0) != 0)
    SKIP("this system refuses seccomp filters");
  for (int i = 0; i < 5; i++) {
    Pressure();
    CollectOnce();
    CheckLive(live, 2000, 1);
  }
}

int main(int argc, char** argv) {
  CHECK(argc == 2);
  const char* what = argv[1];
  live = MakeLive(2000, 1);
  if (!strcmp(what, "descriptors"))
    Descriptors();
  else if (!strcmp(what, "reused"))
    Reused();
  else if (!strcmp(what, "no_descriptors"))
    NoDescriptors();
  else if (!strcmp(what, "user"))
    User();
  else if (!strcmp(what, "address_space"))
    AddressSpace();
  else if (!strcmp(what, "filter"))
    Filter(0);
  else if (!strcmp(what, "filter_late"))
    Filter(1);
  else if (!strcmp(what, "dumpable"))
    Dumpable();
  else
    CHECK(!"an argument that exists");
  puts("all right");
  return 0;
}
