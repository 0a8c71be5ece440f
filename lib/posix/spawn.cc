// SPDX-License-Identifier: Apache-2.0
// Children that borrow the stack and the thread block of their parent until they start another
// program: vfork, posix_spawn, system, popen, clone.
//
// The parent waits in the kernel meanwhile, so these are blocking calls. The child sees the
// parent's thread_words. In a blocking call they name no G, so nothing that the child calls
// schedules; as the call is held, not even a handler that runs in the child leaves it.
#include <errno.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>

#include "posix/posix.h"
#include "sched/fork.h"
#include "sched/handoff.h"

namespace undergo::posix {

using sched::G;

namespace {

G* BeginChild() {
  sched::NoteFork();
  return sched::EnterHeldCall();
}

void EndChild(void* g) { sched::ExitHeldCall(static_cast<G*>(g)); }

}  // namespace

int posix_spawn(pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions,
                const posix_spawnattr_t* attr, char* const* argv, char* const* envp) {
  if (real::posix_spawn == nullptr) real::Resolve();
  G* g = BeginChild();
  int error = real::posix_spawn(pid, path, actions, attr, argv, envp);
  EndChild(g);
  return error;
}

int posix_spawnp(pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions,
                 const posix_spawnattr_t* attr, char* const* argv, char* const* envp) {
  if (real::posix_spawnp == nullptr) real::Resolve();
  G* g = BeginChild();
  int error = real::posix_spawnp(pid, file, actions, attr, argv, envp);
  EndChild(g);
  return error;
}

int system(const char* command) {
  if (real::system == nullptr) real::Resolve();
  pthread_testcancel();
  G* g = BeginChild();
  // It is a cancellation point.
  struct _pthread_cleanup_buffer cleanup;
  _pthread_cleanup_push(&cleanup, EndChild, g);
  int status = real::system(command);
  _pthread_cleanup_pop(&cleanup, 1);
  return status;
}

FILE* popen(const char* command, const char* mode) {
  if (real::popen == nullptr) real::Resolve();
  G* g = BeginChild();
  FILE* f = real::popen(command, mode);
  EndChild(g);
  return f;
}

int pclose(FILE* f) {
  if (real::pclose == nullptr) real::Resolve();
  G* g = sched::EnterLongCall();
  int status = real::pclose(f);
  sched::ExitCall(g);
  return status;
}

int clone(int (*start)(void*), void* stack, int flags, void* arg, pid_t* parent, void* tls,
          pid_t* child) {
  if (real::clone == nullptr) real::Resolve();
  bool shares = (flags & CLONE_VM) != 0;
  if (shares && (flags & CLONE_VFORK) != 0) {
    G* g = BeginChild();
    int pid = real::clone(start, stack, flags, arg, parent, tls, child);
    EndChild(g);
    return pid;
  }
  sched::NoteFork();
  sched::NoteClone(static_cast<unsigned long>(flags));
  return real::clone(start, stack, flags, arg, parent, tls, child);
}

}  // namespace undergo::posix

// For interpose/x86_64/vfork.S.
extern "C" {
__attribute__((visibility("hidden"))) undergo::sched::G* undergo_vfork_begin() {
  return undergo::posix::BeginChild();
}
// In the parent.
__attribute__((visibility("hidden"))) pid_t undergo_vfork_end(int result, undergo::sched::G* g) {
  undergo::posix::EndChild(g);
  if (result >= 0) return result;
  errno = -result;
  return -1;
}
}
