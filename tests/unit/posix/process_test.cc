// SPDX-License-Identifier: Apache-2.0
// Fork, thread exit and address space limits as the heap gets to know of them.

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "check.h"
#include "heap/arena.h"
#include "heap/fastpath.h"
#include "heap/mheap.h"
#include "heap/registry.h"
#include "posix/posix.h"

using namespace undergo;

namespace {

size_t CountMCaches() {
  size_t n = 0;
  for (heap::MCache* mc = heap::FirstMCache(); mc != nullptr; mc = mc->all_next) ++n;
  return n;
}

pthread_key_t late_key;
std::atomic<int> late_calls{0};

// Another destructor that allocates and frees, in each of its rounds.
void LateDestructor(void* p) {
  heap::Free(p);
  if (++late_calls < 3) pthread_setspecific(late_key, heap::Malloc(100));
}

}  // namespace

TestSuite(process, .timeout = 60);

Test(process, threads_give_their_mcache_back) {
  posix::InstallThreadExitHook();
  heap::Free(heap::Malloc(1));
  for (int i = 0; i < 20; ++i) {
    std::thread([] {
      heap::Free(heap::Malloc(100));
      heap::Free(heap::Malloc(1000));
    }).join();
    cr_assert(CountMCaches() == 2, "%zu mcaches after %d threads", CountMCaches(), i + 1);
  }
}

Test(process, destructors_of_other_keys_still_allocate) {
  cr_assert(pthread_key_create(&late_key, LateDestructor) == 0);
  posix::InstallThreadExitHook();
  std::thread([] { pthread_setspecific(late_key, heap::Malloc(100)); }).join();
  cr_expect(late_calls == 3);
  heap::Free(heap::Malloc(1));
  // All of it by the mcache, which this thread has inherited: nothing went to the late heap.
  cr_expect(CountMCaches() == 1);
  heap::BusyScope busy;
  heap::ReclaimAll();
  cr_expect(heap::mheap.stats().in_use_bytes == 0, "%zu bytes", heap::mheap.stats().in_use_bytes);
}

// Handlers of others, registered later, allocate on all three sides.
namespace {

void* volatile kept;
void Swap() {
  heap::Free(kept);
  kept = heap::Malloc(300);
}

}  // namespace

Test(process, fork_while_threads_allocate) {
  posix::InstallForkHandlers();
  posix::InstallThreadExitHook();
  pthread_atfork(Swap, Swap, Swap);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      for (size_t i = 0; !stop; ++i) {
        void* a = heap::Malloc(i % 5000);
        void* b = heap::Malloc(i % 200000);
        heap::Free(a);
        heap::Free(b);
      }
    });
  }
  for (int round = 0; round < 100; ++round) {
    pid_t child = fork();
    if (child == 0) {
      alarm(20);
      for (size_t i = 0; i < 2000; ++i) heap::Free(heap::Malloc(i * 37 % 100000));
      _exit(heap::thread_words.busy == 0 ? 0 : 1);
    }
    int status;
    cr_assert(waitpid(child, &status, 0) == child);
    cr_assert(status == 0, "round %d: %#x", round, status);
    cr_assert(heap::thread_words.busy == 0);
  }
  stop = true;
  for (std::thread& t : threads) t.join();
}

namespace {

// A limit far below the reservation of a terabyte, set through each of the functions.
template <typename Set>
void ExpectWorksUnderLimit(Set set) {
  auto* p = static_cast<char*>(heap::Malloc(100));
  auto* large = static_cast<char*>(heap::Malloc(1000000));
  Fill(p, 100, 1);
  Fill(large, 1000000, 2);
  cr_expect(not(heap::ArenaIsUnreserved()));
  cr_assert(set() == 0);
  cr_expect(heap::ArenaIsUnreserved());
  cr_expect(Verify(p, 100, 1) == 100 && Verify(large, 1000000, 2) == 1000000);
  std::vector<void*> all;
  for (size_t i = 0; i < 400; ++i) {
    all.push_back(heap::Malloc(500000));
    cr_assert(all.back() != nullptr, "block %zu", i);
    memset(all.back(), 1, 500000);
  }
  errno = 0;
  cr_expect(heap::Malloc(size_t{8} << 30) == nullptr && errno == ENOMEM);
  for (void* q : all) heap::Free(q);
  heap::Free(p);
  heap::Free(large);
}

constexpr size_t kLimit = size_t{4} << 30;

}  // namespace

#ifndef __SANITIZE_ADDRESS__  // its shadow memory alone needs more

Test(process, setrlimit) {
  ExpectWorksUnderLimit([] {
    struct rlimit limit = {kLimit, RLIM_INFINITY};
    return posix::setrlimit(RLIMIT_AS, &limit);
  });
}

Test(process, setrlimit64) {
  ExpectWorksUnderLimit([] {
    struct rlimit64 limit = {kLimit, RLIM64_INFINITY};
    return posix::setrlimit64(RLIMIT_AS, &limit);
  });
}

Test(process, prlimit) {
  ExpectWorksUnderLimit([] {
    struct rlimit limit = {kLimit, RLIM_INFINITY}, old;
    return posix::prlimit(0, RLIMIT_AS, &limit, &old);
  });
}

Test(process, prlimit64) {
  ExpectWorksUnderLimit([] {
    struct rlimit64 limit = {kLimit, RLIM64_INFINITY};
    return posix::prlimit64(0, RLIMIT_AS, &limit, nullptr);
  });
}

#endif

Test(process, other_limits_change_nothing) {
  heap::Free(heap::Malloc(100));
  struct rlimit limit;
  cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  cr_expect(posix::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit = {RLIM_INFINITY, RLIM_INFINITY};
  cr_expect(posix::prlimit(0, RLIMIT_AS, nullptr, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY);
  cr_expect(posix::setrlimit(RLIMIT_AS, &limit) == 0);
  cr_expect(not(heap::ArenaIsUnreserved()));
  errno = 0;
  cr_expect(posix::setrlimit(static_cast<__rlimit_resource_t>(99), &limit) == -1 &&
            errno == EINVAL);
}
