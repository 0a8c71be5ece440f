// SPDX-License-Identifier: Apache-2.0
// The auditor stays the parent of the program and of the children that it leaves behind. They count
// into a page of an anonymous file that only exists while the audit runs; the library finds it by
// the auditor's entry in /proc.
#include "launch/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "gc/audit.h"
#include "launch/program.h"
#include "launch/report.h"

namespace undergo::launch {

namespace {

volatile pid_t main_child = 0;  // 0 when it has ended

void SendToChildren(int sig) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  char text[4096];
  const ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
  if (fd >= 0) close(fd);
  text[n > 0 ? n : 0] = '\0';
  for (char* at = text; *at != '\0';) {
    char* end = nullptr;
    const long pid = strtol(at, &end, 10);
    if (end == at) break;
    kill(static_cast<pid_t>(pid), sig);
    at = end;
  }
}

// What somebody sends to the auditor is meant for the program. The terminal sends to both.
void Forward(int sig, siginfo_t* info, void*) {
  const int saved = errno;
  if (info->si_code <= 0) {
    if (main_child > 0) {
      kill(main_child, sig);
    } else {
      SendToChildren(sig);
    }
  }
  errno = saved;
}

void InstallForwarding() {
  struct sigaction action = {};
  action.sa_sigaction = Forward;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  for (int sig : {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2}) {
    sigaction(sig, &action, nullptr);
  }
}

gc::AuditCounters* MakeCounters(std::string* path) {
  const int fd = memfd_create("undergo-audit", MFD_CLOEXEC);
  const size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* page = MAP_FAILED;
  if (fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) == 0) {
    page = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  if (page == MAP_FAILED)
    Die(kBadRequest, std::string("audit: no shared memory: ") + strerror(errno));
  *path = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fd);
  auto* counters = static_cast<gc::AuditCounters*>(page);
  counters->magic = gc::AuditCounters::kMagic;
  return counters;
}

// The wait status of the program, when all of its children have ended as well.
int WaitForAll() {
  int of_program = 0;
  for (;;) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, 0);
    if (pid < 0 && errno == EINTR) continue;
    if (pid < 0) return of_program;
    if (pid != main_child) continue;
    of_program = status;
    main_child = 0;
  }
}

std::string Count(uint32_t n, const char* what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

int Judge(const gc::AuditCounters& c, int status) {
  const bool failed = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
  const std::string ran = std::to_string(c.collectors) +
                          (c.collectors == 1 ? " process, " : " processes, ") +
                          Count(c.cycles, "collection") + ", " + Count(c.poisoned, "dead object");
  const std::string end = WIFSIGNALED(status)
                              ? "was killed by signal " + std::to_string(WTERMSIG(status))
                              : "ended with status " + std::to_string(WEXITSTATUS(status));
  std::string verdict;
  int result = kAuditPassed;
  if (c.uses != 0) {
    result = kAuditHidden;
    verdict =
        "hidden pointers: " + Count(c.uses, "use") +
        " of objects that nothing pointed to; the lines above tell where they are from. "
        "UNDERGO=unaligned=on finds pointers at odd addresses, UNDERGO=nocollect=MODULE keeps "
        "what a module allocates";
    if (failed) verdict += "; the program " + end;
  } else if (failed) {
    result = kAuditFailed;
    verdict =
        "the program " + end +
        ", and no hidden pointer was seen; it may have read dead memory if it does not end so "
        "without undergo";
  } else if (c.cycles == 0) {
    result = kAuditUnknown;
    verdict = c.collectors == 0 ? "no verdict: no process could be collected"
                                : "no verdict: the heap was too small for a collection";
    if (c.abandoned != 0) verdict = "no verdict: all collections had to be given up";
  } else {
    verdict = "passed: no dead object was used";
  }
  fprintf(stderr, "undergo: audit: %s (%s)\n", verdict.c_str(), ran.c_str());
  return result;
}

const boot::OptionInfo& Row(boot::OptionScope scope, const char* name) {
  return *boot::FindOption(scope, name, strlen(name));
}

}  // namespace

void AddAuditSettings(Args* args, const Environment& environment) {
  args->settings.push_back({&Row(boot::OptionScope::kKey, "gc"), "poison"});
  bool gogc = environment.Get("GOGC") != nullptr && *environment.Get("GOGC") != '\0';
  const boot::OptionInfo& row = Row(boot::OptionScope::kVariable, "GOGC");
  for (const Setting& s : args->settings) gogc = gogc || s.info == &row;
  // Many collections: each one is a test.
  if (!gogc) args->settings.push_back({&row, "20"});
}

int RunAudit(const std::string& path, char** argv, Environment* environment) {
  std::string shared;
  const gc::AuditCounters* counters = MakeCounters(&shared);
  environment->Set("UNDERGO_AUDIT", shared);
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  const pid_t child = fork();
  if (child < 0) Die(kBadRequest, std::string("audit: fork: ") + strerror(errno));
  if (child == 0) Run(path, argv, environment->Entries());
  main_child = child;
  InstallForwarding();
  const int status = WaitForAll();
  // The launcher's own complaint about a program that cannot be run.
  if (counters->processes == 0 && WIFEXITED(status) &&
      (WEXITSTATUS(status) == kNotFound || WEXITSTATUS(status) == kNotExecutable)) {
    return WEXITSTATUS(status);
  }
  return Judge(*counters, status);
}

}  // namespace undergo::launch
