// SPDX-License-Identifier: Apache-2.0
// Filters of system calls that kill: for what the collector calls and this program does not. The
// program must survive, whether it installs the filter itself, with collections under way, or
// inherits it through exec; it goes on collecting if that can be done without the call.
// run: name=userfaultfd userfaultfd
// run: name=userfaultfd_snapshot env=UNDERGO=tracking=snapshot userfaultfd
// run: name=fork fork
// run: name=fork_snapshot env=UNDERGO=tracking=snapshot fork
// run: name=read read
// run: name=read_stop env=UNDERGO=tracking=stop read
// run: name=trap trap
// run: name=default default
// run: name=strict strict
// run: name=prctl prctl
// run: name=inherited_userfaultfd inherited userfaultfd
// run: name=inherited_read inherited read stderr=no more collections: a filter of system calls
// run: name=wrong wrong
// timeout: 60
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "gc.h"
#include "seccomp.h"

static Live* live;
enum { kAllow = SECCOMP_RET_ALLOW, kKill = SECCOMP_RET_KILL_PROCESS };

static void Filter(const int* calls, int count, uint32_t listed, uint32_t others) {
  if (FilterCalls(calls, count, listed, others, 0) != 0) SKIP("this system refuses filters");
}
// Collections still work, or are off; nothing is lost and nobody dies.
static void GoOn(int works) {
  for (int i = 0; i < 5; i++) {
    Pressure();
    CollectOnce();
    CheckLive(live, 2000, 1);
  }
  const int on = UnderPreload() && undergo_gc != NULL && undergo_gc() == 0;
  CHECK_MSG(!UnderPreload() || on == works, "the collector is %s", on ? "on" : "off");
}
static void Kill(int call, uint32_t verdict, int works) {
  StartCollector();
  Leak(20000);
  Filter(&call, 1, verdict, kAllow);
  Leak(20000);
  StopCollector(1);
  GoOn(works);
}

static void Userfaultfd(void) { Kill(SYS_userfaultfd, kKill, 1); }
static void Read(void) { Kill(SYS_process_vm_readv, kKill, 0); }
static void Trap(void) { Kill(SYS_membarrier, SECCOMP_RET_TRAP, 0); }
static void Fork(void) { Kill(SYS_wait4, kKill, 1); }

static void Default(void) {
  CollectHard("before");
  static const int allowed[] = {SYS_mmap,   SYS_munmap,     SYS_mprotect,   SYS_madvise, SYS_futex,
                                SYS_write,  SYS_exit_group, SYS_newfstatat, SYS_brk,     SYS_lseek,
                                SYS_gettid, SYS_getpid,     SYS_fstat};
  Filter(allowed, sizeof allowed / sizeof *allowed, kAllow, kKill);
  GoOn(0);
}

// Allows read, write and exit alone; memory was allocated before.
static void Strict(void) {
  CollectHard("before");
  puts("all right");
  fflush(stdout);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) SKIP("no strict mode");
  for (int i = 0; i < 100; i++) free(malloc(100));
  CheckLive(live, 2000, 1);
  syscall(SYS_exit, 0);
}

static void Prctl(void) {
  StartCollector();
  Leak(20000);
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getdents64, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, kKill),
      BPF_STMT(BPF_RET | BPF_K, kAllow),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) SKIP("no filters");
  Leak(20000);
  StopCollector(1);
  GoOn(0);
}

// What the kernel refuses, the library must survive as well.
static void Wrong(void) {
  CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, (void*)8) == -1);
  struct sock_fprog program = {3, (struct sock_filter*)8};
  CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == -1);
  CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == -1);
  struct sock_filter jump = BPF_STMT(BPF_JMP | BPF_JA, 0xffffffff);
  program = (struct sock_fprog){1, &jump};
  CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == -1);
  program.len = 65535;
  CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == -1);
  GoOn(1);
}

static void Inherited(char** argv) {
  int call = !strcmp(argv[2], "read") ? SYS_process_vm_readv : SYS_userfaultfd;
  if (argv[3]) return GoOn(call == SYS_userfaultfd);
  // Without the library this far, whose own words are not wanted.
  Filter(&call, 1, kKill, kAllow);
  char path[4096];
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  CHECK(n > 0);
  path[n] = 0;
  char* again[] = {path, argv[1], argv[2], (char*)"after-exec", NULL};
  execv(path, again);
  CHECK(!"execv came back");
}

int main(int argc, char** argv) {
  CHECK(argc >= 2);
  live = MakeLive(2000, 1);
  const char* what = argv[1];
  static const struct {
    const char* name;
    void (*run)(void);
  } kParts[] = {
      {"userfaultfd", Userfaultfd}, {"fork", Fork},     {"read", Read},   {"trap", Trap},
      {"default", Default},         {"strict", Strict}, {"prctl", Prctl}, {"wrong", Wrong}};
  if (!strcmp(what, "inherited")) Inherited(argv);
  for (size_t i = 0; i < sizeof kParts / sizeof *kParts; i++)
    if (!strcmp(what, kParts[i].name)) kParts[i].run();
  puts("all right");
  return 0;
}
