// SPDX-License-Identifier: Apache-2.0
// Problem: sysmon makes a new M when all others are blocked, and libc needs the loader's lock of
// thread-local data for that. If its owner is a G without an M, sysmon waits for a G that waits for
// sysmon. So a G that holds a lock of the loader is not switched out against its will. (Others that
// wait for the lock block their Ms; the owner has one.)
//
// Nor may it take a wake-up along. Unlocking is two steps, a store and FUTEX_WAKE; who is switched
// out between them, or woken and not yet at the lock again, leaves it free with others asleep, and
// nothing tells that from a lock that nobody wants. So each wakes one waiter before it goes. One
// too many looks at the lock and sleeps on: pthread_mutex_lock asks again after every wake-up.
//
// The locks are three recursive mutexes in a row inside of _rtld_global: of the list of modules, of
// writing to it, of thread-local data. The one in the middle is held during dl_iterate_phdr, which
// shows where they are in this libc. Rejected: looking whether the instruction is the loader's,
// since it takes its locks by libc's pthread_mutex_lock.
#include "sched/loader_locks.h"

#include <dlfcn.h>
#include <link.h>

#include "plat/futex.h"
#include "sched/tcb.h"

namespace undergo::sched {

namespace {

constexpr size_t kLocks = 3;

constinit const pthread_mutex_t* locks = nullptr;  // kLocks of them

bool IsLoaderLock(const pthread_mutex_t& m) {
  return m.__data.__kind == PTHREAD_MUTEX_RECURSIVE_NP;
}

struct Search {
  Addr low, high;  // where the lock in the middle may begin
  int self;        // own id
};

// The loader holds the lock in the middle now, and nothing else like it.
int LookForOwn(struct dl_phdr_info*, size_t, void* context) {
  auto* search = static_cast<const Search*>(context);
  for (Addr at = search->low; at <= search->high; at += alignof(pthread_mutex_t)) {
    auto* m = reinterpret_cast<const pthread_mutex_t*>(at);
    if (m->__data.__owner == search->self && m->__data.__lock != 0 && m->__data.__count == 1 &&
        m->__data.__nusers == 1 && IsLoaderLock(m[-1]) && IsLoaderLock(m[0]) &&
        IsLoaderLock(m[1])) {
      locks = m - 1;
    }
  }
  return 1;  // no need to see other modules
}

}  // namespace

void FindLoaderLocks() {
  constexpr size_t kLock = sizeof(pthread_mutex_t);
  void* global = dlsym(RTLD_DEFAULT, "_rtld_global");
  Dl_info info;
  void* entry = nullptr;
  if (global == nullptr || dladdr1(global, &info, &entry, RTLD_DL_SYMENT) == 0 ||
      entry == nullptr) {
    return;
  }
  size_t size = static_cast<const Elf64_Sym*>(entry)->st_size;
  if (size < kLocks * kLock) return;
  Addr low = reinterpret_cast<Addr>(global);
  Search search{low + kLock, low + size - 2 * kLock,
                *TidField(reinterpret_cast<Addr>(__builtin_thread_pointer()))};
  dl_iterate_phdr(LookForOwn, &search);
}

bool HoldsLoaderLock(const G* g) {
  if (locks == nullptr) return false;
  int self = *TidField(g->fs);
  for (size_t i = 0; i < kLocks; ++i) {
    // libc locks first and becomes the owner then, and ends the other way round: a locked one
    // without an owner may be in our hands.
    int owner = LoadRelaxed(&locks[i].__data.__owner);
    if (owner == self || (owner == 0 && LoadRelaxed(&locks[i].__data.__lock) != 0)) return true;
  }
  return false;
}

void PassLoaderWakes() {
  if (locks == nullptr) return;
  for (size_t i = 0; i < kLocks; ++i) {
    plat::FutexWake(reinterpret_cast<const uint32_t*>(&locks[i].__data.__lock), 1);
  }
}

}  // namespace undergo::sched
