// SPDX-License-Identifier: Apache-2.0
// setuid and its kin.
//
// Problem: the kernel keeps credentials for each of its threads, POSIX for the process. libc
// repeats the call on every thread that it knows: it signals the ids in their thread blocks. It
// knows the Ms. It does not know the collector's threads, which would keep their rights. And it
// knows the first kernel thread by the block of the main thread only: when main itself calls, on
// another M, libc takes that block for its own and signals nobody; when main is about to end, libc
// passes over it; and on that kernel thread there may be any G.
//
// So libc's function is called first, by a G that stays on its M. Then the first kernel thread and
// those of the library repeat the call, whether or not libc has reached the first: the second time
// it changes nothing. All of it happens under one lock, so that all threads see several changes in
// the same order.
//
// Rejected: moving the main thread to its first M for the call (another G may be pinned there), a
// broadcast of our own to all (it would have to know libc's threads).
#include <errno.h>
#include <grp.h>
#include <unistd.h>

#include "base/assert.h"
#include "heap/fastpath.h"
#include "plat/syscall.h"
#include "plat/thread.h"
#include "posix/posix.h"
#include "sched/handoff.h"
#include "sched/sched.h"
#include "world/record.h"
#include "world/remote_call.h"

namespace undergo::posix {

namespace {

// The system call that the others make.
struct Call {
  long number;
  long a, b, c;
};

int Pid() { return static_cast<int>(plat::Syscall(__NR_getpid)); }

// A child of vfork, another process in the same memory, may see some that it does not reach.
bool HasOthers() {
  bool first = sched::Active() && sched::first_m.tid == Pid();
  return first || plat::OwnThreadCount() != 0;
}

void CallOnOther(int tid, const Call& call) {
  long e = world::CallOn(tid, call.number, call.a, call.b, call.c);
  // As libc: no process goes on with mixed rights.
  UNDERGO_CHECK(!plat::IsError(e) || e == -ESRCH);
}

// New ones are made by threads that have changed already, unless they appear during the loop.
void CallOnOwnThreads(const Call& call) {
  struct Visit {
    const Call* call;
    int done[256];
    int count;
    bool any;
  } visit = {&call, {}, 0, true};
  while (visit.any) {
    visit.any = false;
    plat::ForEachOwnThread(
        [](void* context, int tid) {
          auto* v = static_cast<Visit*>(context);
          for (int i = 0; i < v->count; ++i) {
            if (v->done[i] == tid) return;
          }
          if (v->count == 256) return;
          CallOnOther(tid, *v->call);
          v->done[v->count++] = tid;
          v->any = true;
        },
        &visit);
  }
}

// On a kernel thread that stays the same.
template <typename F>
int InOrder(F function, const Call& call) {
  world::SignalsOff off;
  sync::MutexLock hold(world::remote_call_lock);
  int result = function();
  if (result != 0) return result;
  int first = sched::Active() ? sched::first_m.tid : 0;
  if (first == Pid() && first != plat::Syscall(__NR_gettid)) CallOnOther(first, call);
  CallOnOwnThreads(call);
  return result;
}

// `function` is libc's, with its arguments.
template <typename F>
int OnAllThreads(F function, const Call& call) {
  if (UNDERGO_LIKELY(!HasOthers())) return function();
  sched::G* g = sched::EnterHeldCall();
  int result = InOrder(function, call);
  sched::ExitHeldCall(g);
  return result;
}

}  // namespace

#define UNDERGO_SET_ID(name, args, number, ...)       \
  {                                                   \
    if (real::name == nullptr) real::Resolve();       \
    auto call = [&] { return real::name args; };      \
    return OnAllThreads(call, {number, __VA_ARGS__}); \
  }

int setuid(uid_t id) UNDERGO_SET_ID(setuid, (id), __NR_setuid, id, 0, 0)

    int setgid(gid_t id) UNDERGO_SET_ID(setgid, (id), __NR_setgid, id, 0, 0)

        int seteuid(uid_t id) UNDERGO_SET_ID(seteuid, (id), __NR_setresuid, -1, id, -1)

            int setegid(gid_t id) UNDERGO_SET_ID(setegid, (id), __NR_setresgid, -1, id, -1)

                int setreuid(uid_t ruid, uid_t euid) UNDERGO_SET_ID(setreuid, (ruid, euid),
                                                                    __NR_setreuid, ruid, euid, 0)

                    int setregid(gid_t rgid, gid_t egid)
                        UNDERGO_SET_ID(setregid, (rgid, egid), __NR_setregid, rgid, egid, 0)

                            int setresuid(uid_t ruid, uid_t euid, uid_t suid)
                                UNDERGO_SET_ID(setresuid, (ruid, euid, suid), __NR_setresuid, ruid,
                                               euid, suid)

                                    int setresgid(gid_t rgid, gid_t egid, gid_t sgid)
                                        UNDERGO_SET_ID(setresgid, (rgid, egid, sgid),
                                                       __NR_setresgid, rgid, egid, sgid)

                                            int setgroups(size_t n, const gid_t* groups)
                                                UNDERGO_SET_ID(setgroups, (n, groups),
                                                               __NR_setgroups, static_cast<long>(n),
                                                               reinterpret_cast<long>(groups), 0)

    // libc's calls its setgroups by itself.
    int initgroups(const char* user, gid_t group) {
  if (real::initgroups == nullptr) real::Resolve();
  if (!HasOthers()) return real::initgroups(user, group);
  int n = 64;
  gid_t* groups = nullptr;
  for (;;) {
    int room = n;
    if (groups != nullptr) heap::Free(groups);
    groups = static_cast<gid_t*>(heap::Malloc(static_cast<size_t>(room) * sizeof(gid_t)));
    if (groups == nullptr) {
      errno = ENOMEM;
      return -1;
    }
    if (getgrouplist(user, group, groups, &n) >= 0) break;
    n = Max(n, 2 * room);
  }
  // Fewer, where the kernel takes no more.
  int result;
  while ((result = posix::setgroups(static_cast<size_t>(n), groups)) != 0 && errno == EINVAL &&
         n > 1) {
    --n;
  }
  int saved = errno;
  heap::Free(groups);
  errno = saved;
  return result;
}

}  // namespace undergo::posix
