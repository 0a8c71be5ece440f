// SPDX-License-Identifier: Apache-2.0
// Words in the kernel: every way to put one there that /proc shows, and failures.

#include "gc/kernel_roots.h"

#include <criterion/criterion.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <vector>

using namespace undergo;

namespace {

using Words = std::vector<uint64_t>;

Words All(bool* ok = nullptr, gc::KernelUse* use = nullptr) {
  Words words;
  auto add = [](void* context, uint64_t word) { static_cast<Words*>(context)->push_back(word); };
  bool read = gc::ForEachKernelWord(add, &words, use);
  if (ok != nullptr) *ok = read;
  cr_assert(read || ok != nullptr);
  return words;
}

bool Has(const Words& words, uint64_t word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

void Watch(int epoll, int fd, uint64_t data, uint32_t events = EPOLLIN) {
  struct epoll_event event = {};
  event.events = events;
  event.data.u64 = data;
  cr_assert(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
}

bool InChild(bool (*body)()) {
  pid_t child = fork();
  cr_assert(child >= 0);
  if (child == 0) _exit(body() ? 0 : 1);
  int status = 0;
  cr_assert(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

constexpr uint64_t kWord = 0x7f12'3456'7890;

int MakeRing() {
  struct io_uring_params params = {};
  return static_cast<int>(syscall(SYS_io_uring_setup, 4, &params));
}

}  // namespace

Test(kernel_roots, epoll) {
  int epoll = epoll_create1(EPOLL_CLOEXEC), event = eventfd(1, 0), other = eventfd(0, 0);
  int copy = dup(event);
  Watch(epoll, event, kWord);
  Watch(epoll, other, ~uint64_t{0}, EPOLLIN | EPOLLONESHOT | EPOLLET);
  Watch(epoll, copy, 0xf123456789abcdef);
  Words words = All();
  cr_expect(Has(words, kWord) && Has(words, ~uint64_t{0}) && Has(words, 0xf123456789abcdef));
  close(event);  // the watch lives on: the file is still open as `copy`
  struct epoll_event changed = {};
  changed.data.u64 = kWord + 16;
  cr_assert(epoll_ctl(epoll, EPOLL_CTL_MOD, other, &changed) == 0);
  words = All();
  cr_expect(Has(words, kWord) && Has(words, kWord + 16) && not(Has(words, ~uint64_t{0})));
  close(epoll);
  cr_expect(not(Has(All(), kWord)));
}

Test(kernel_roots, many_watches) {
  constexpr uint64_t kCount = 3000;
  struct rlimit limit = {8192, 8192};
  setrlimit(RLIMIT_NOFILE, &limit);
  int epoll = epoll_create1(0), event = eventfd(0, 0);
  std::vector<int> made;
  for (uint64_t i = 0; i < kCount; ++i) {
    int fd = dup(event);
    if (fd < 0) break;
    made.push_back(fd);
    Watch(epoll, fd, kWord + i * 16);
  }
  cr_assert(made.size() > 400);
  Words words = All();
  std::sort(words.begin(), words.end());
  for (uint64_t i = 0; i < made.size(); ++i) {
    cr_assert(std::binary_search(words.begin(), words.end(), kWord + i * 16));
  }
}

Test(kernel_roots, timers) {
  struct sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGUSR1;
  event.sigev_value.sival_ptr = reinterpret_cast<void*>(kWord);
  timer_t timer, second;
  cr_assert(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  event.sigev_value.sival_ptr = reinterpret_cast<void*>(kWord + 16);
  cr_assert(timer_create(CLOCK_REALTIME, &event, &second) == 0);
  Words words = All();
  cr_expect(Has(words, kWord) && Has(words, kWord + 16));
  timer_delete(timer);
  words = All();
  cr_expect(not(Has(words, kWord)) && Has(words, kWord + 16));
}

Test(kernel_roots, process_that_is_not_dumpable) {
  cr_expect(InChild([] {
    Watch(epoll_create1(0), eventfd(0, 0), kWord);
    if (getuid() == 0 && setuid(65534) != 0) return false;
    prctl(PR_SET_DUMPABLE, 0);
    return Has(All(), kWord);
  }));
}

Test(kernel_roots, lists_that_cannot_be_read) {
  cr_expect(InChild([] {
    struct rlimit limit = {0, 0};
    setrlimit(RLIMIT_NOFILE, &limit);
    bool ok = true;
    All(&ok);
    return !ok && gc::UsesIoUring();
  }));
  if (getuid() != 0) return;
  cr_expect(InChild([] {
    if (chroot("/dev") != 0) return false;
    bool ok = true;
    All(&ok);
    return !ok && gc::UsesIoUring();
  }));
}

Test(kernel_roots, io_uring) {
  cr_expect(not(gc::UsesIoUring()));
  int ring = MakeRing();
  if (ring < 0) cr_skip_test("no io_uring here");
  gc::KernelUse use;
  All(nullptr, &use);
  cr_expect(use.io_uring);
  cr_expect_eq(use.userfaultfds, 0u);
  cr_expect(gc::UsesIoUring());
  void* map = mmap(nullptr, kOsPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, ring,
                   static_cast<off_t>(IORING_OFF_SQ_RING));
  cr_assert(map != MAP_FAILED);
  close(ring);
  All(nullptr, &use);
  cr_expect(not(use.io_uring));
  cr_expect(gc::UsesIoUring(), "the rings are still mapped");
  munmap(map, kOsPageSize);
  cr_expect(not(gc::UsesIoUring()));
}

Test(kernel_roots, userfaultfds) {
  gc::KernelUse use;
  All(nullptr, &use);
  cr_expect_eq(use.userfaultfds, 0u);
  long one = syscall(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */);
  if (one < 0) cr_skip_test("no userfaultfd here");
  int two = dup(static_cast<int>(one));
  All(nullptr, &use);
  cr_expect_eq(use.userfaultfds, 2u);
  close(two);
  close(static_cast<int>(one));
  All(nullptr, &use);
  cr_expect_eq(use.userfaultfds, 0u);
}

Test(kernel_roots, descriptors_come_and_go) {
  static std::atomic<bool> stop;
  auto storm = [](void*) -> void* {
    while (!stop.load()) {
      int epoll = epoll_create1(0), event = eventfd(0, 0);
      Watch(epoll, event, 1);
      close(event);
      close(epoll);
    }
    return nullptr;
  };
  Watch(epoll_create1(0), eventfd(0, 0), kWord);
  pthread_t thread;
  pthread_create(&thread, nullptr, storm, nullptr);
  for (int round = 0; round < 2000; ++round) cr_assert(Has(All(), kWord));
  stop = true;
  pthread_join(thread, nullptr);
}
