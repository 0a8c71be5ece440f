// SPDX-License-Identifier: Apache-2.0
// Root ranges: nothing that the program can have written is left out, nothing of ours is in, and
// reading survives everything that the program does to its mappings.

#include "gc/roots.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <set>
#include <utility>
#include <vector>

#include "plat/own_ranges.h"
#include "plat/vm.h"
#include "seccomp.h"

using namespace undergo;
using gc::RootRange;

namespace {

constexpr size_t kPage = kOsPageSize;
constexpr int kReadWrite = PROT_READ | PROT_WRITE;

constinit gc::RootList roots;
char buffer[gc::kReadBuffer];
int in_data = 1;
thread_local int in_tls = 1;

Addr A(const void* p) { return reinterpret_cast<Addr>(p); }

char* Map(size_t size, int prot = kReadWrite, int flags = MAP_PRIVATE | MAP_ANONYMOUS,
          int fd = -1) {
  void* p = mmap(nullptr, size, prot, flags, fd, 0);
  cr_assert(p != MAP_FAILED);
  madvise(p, size, MADV_NOHUGEPAGE);
  return static_cast<char*>(p);
}

const RootRange* Find(Addr a) {
  for (size_t i = 0; i < roots.size(); ++i) {
    if (roots[i].from <= a && a < roots[i].to) return &roots[i];
  }
  return nullptr;
}
const RootRange* Find(const void* p) { return Find(A(p)); }

// Addresses of all words with a value, as a reader of the pieces sees them, at every byte offset.
struct Search {
  uint64_t value;
  std::set<Addr> found;
  size_t bytes;
};
void Look(void* context, const void* data, Addr address, size_t n) {
  auto* s = static_cast<Search*>(context);
  s->bytes += n;
  auto* bytes = static_cast<const char*>(data);
  for (size_t i = 0; i + 8 <= n; ++i) {
    if (memcmp(bytes + i, &s->value, 8) == 0) s->found.insert(address + i);
  }
}

constexpr uint64_t kValue = 0x7a3c91e5d24b6f08;

std::set<Addr> InRange(Addr from, Addr to, bool* ok = nullptr) {
  Search s = {kValue, {}, 0};
  bool read = gc::ReadRange(from, to, buffer, Look, &s);
  if (ok != nullptr) *ok = read;
  return s.found;
}

std::set<Addr> InRoot(const RootRange& r, bool* ok = nullptr, size_t* bytes = nullptr) {
  Search s = {kValue, {}, 0};
  bool read = gc::ReadRoot(r, buffer, Look, &s);
  if (ok != nullptr) *ok = read;
  if (bytes != nullptr) *bytes = s.bytes;
  return s.found;
}

bool InChild(bool (*body)()) {
  pid_t child = fork();
  cr_assert(child >= 0);
  if (child == 0) _exit(body() ? 0 : 1);
  int status = 0;
  cr_assert(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

Test(roots, what_is_in_the_list) {
  int on_stack = 0;
  in_tls = 2;
  in_data = 2;
  char* anonymous = Map(kPage);
  char* shared = Map(kPage, kReadWrite, MAP_SHARED | MAP_ANONYMOUS);
  int fd = memfd_create("roots", 0);
  cr_assert(ftruncate(fd, 16 * kPage) == 0);
  char* memfd = Map(kPage, kReadWrite, MAP_SHARED, fd);
  char* view = Map(kPage, PROT_READ, MAP_SHARED, fd);
  char* brk_memory = static_cast<char*>(sbrk(kPage));
  int shm = shmget(IPC_PRIVATE, kPage, 0600);
  void* sysv = shmat(shm, nullptr, 0);
  shmctl(shm, IPC_RMID, nullptr);
  cr_assert(roots.Build());
  for (const void* p : {static_cast<const void*>(&on_stack), static_cast<const void*>(&in_tls),
                        static_cast<const void*>(&in_data), static_cast<const void*>(anonymous),
                        static_cast<const void*>(shared), static_cast<const void*>(memfd),
                        static_cast<const void*>(view), static_cast<const void*>(stdout),
                        static_cast<const void*>(brk_memory), static_cast<const void*>(sysv)}) {
    cr_expect(Find(p) != nullptr, "%p is missing", p);
  }
  cr_expect(Find(anonymous)->writable && !Find(anonymous)->shared);
  cr_expect(Find(shared)->shared && Find(shared)->file_pages);
  cr_expect(Find(view)->shared && !Find(view)->writable && Find(view)->readable);
  for (size_t i = 0; i < roots.size(); ++i) {
    cr_assert(roots[i].from < roots[i].to && (i == 0 || roots[i - 1].to <= roots[i].from));
  }
}

Test(roots, what_is_not) {
  char file[] = "/tmp/undergo-roots-XXXXXX";
  int fd = mkstemp(file);
  cr_assert(fd >= 0 && ftruncate(fd, kPage) == 0);
  unlink(file);
  char* read_only = Map(kPage, PROT_READ, MAP_SHARED, fd);
  char* writable = Map(kPage, kReadWrite, MAP_SHARED, fd);
  auto* own = static_cast<char*>(plat::MapPages(3 * kPage));
  cr_assert(roots.Build());
  cr_expect(Find(read_only) == nullptr);
  cr_expect(Find(writable) != nullptr);
  cr_expect(Find(own) == nullptr && Find(own + 2 * kPage) == nullptr);
  cr_expect(Find(reinterpret_cast<void*>(&printf)) == nullptr, "text is a root");
  plat::Unmap(A(own), 3 * kPage);
}

// Exclusion is exact: the pages of others right beside ours stay.
Test(roots, own_ranges_to_the_page) {
  char* p = Map(5 * kPage);
  plat::AddOwnRange(A(p) + kPage, 2 * kPage);
  cr_assert(roots.Build());
  cr_expect(Find(p) != nullptr && Find(p + 3 * kPage) != nullptr);
  cr_expect(Find(p + kPage) == nullptr && Find(p + 3 * kPage - 1) == nullptr);
  plat::AddOwnModule();
  cr_assert(roots.Build());
  cr_expect(Find(&in_data) == nullptr);
  cr_expect(Find(stdout) != nullptr);
}

// Whatever the program does between the two lists, the second is what a new one would be.
Test(roots, rebuilt) {
  char* protected_later = Map(4 * kPage);
  memset(protected_later, 1, 4 * kPage);
  char* hidden = Map(8 * kPage, PROT_READ);
  int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  char* file = Map(4 * kPage, PROT_READ, MAP_PRIVATE, fd);
  auto own =
      static_cast<char*>(mmap(nullptr, 4 * kPage, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  char* gone = Map(2 * kPage);
  char* fresh = nullptr;
  const struct {
    const char* what;
    std::function<void()> change;
  } changes[] = {
      {"nothing", [] {}},
      {"a stack was taken out", [&] { roots.Subtract(A(own), A(own) + kPage); }},
      {"a new mapping", [&] { fresh = Map(2 * kPage); }},
      {"a mapping less", [&] { munmap(gone, 2 * kPage); }},
      {"protected", [&] { mprotect(protected_later, 2 * kPage, PROT_READ); }},
      {"anonymous memory written and protected again",
       [&] {
         mprotect(hidden, 8 * kPage, kReadWrite);
         hidden[3 * kPage] = 1;
         mprotect(hidden, 8 * kPage, PROT_READ);
       }},
      {"a file's page written and protected again",
       [&] {
         gc::NoteProtection();
         mprotect(file, 4 * kPage, kReadWrite);
         file[kPage] = 1;
         gc::NoteProtection();
         mprotect(file, 4 * kPage, PROT_READ);
       }},
      {"became ours", [&] { plat::AddOwnRange(A(own), 4 * kPage); }},
  };
  std::vector<std::pair<Addr, Addr>> rebuilt, built;
  rebuilt.reserve(10000);
  built.reserve(10000);
  for (const auto& c : changes) {
    rebuilt.clear();
    built.clear();
    cr_assert(roots.Build());
    c.change();
    cr_assert(roots.Rebuild(), "%s", c.what);
    for (size_t i = 0; i < roots.size(); ++i) rebuilt.push_back({roots[i].from, roots[i].to});
    cr_assert(roots.Build());
    for (size_t i = 0; i < roots.size(); ++i) built.push_back({roots[i].from, roots[i].to});
    cr_expect(rebuilt == built, "%s: %zu ranges instead of %zu", c.what, rebuilt.size(),
              built.size());
  }
  cr_expect(Find(hidden + 3 * kPage) != nullptr && Find(file + kPage) != nullptr);
  cr_expect(Find(fresh) != nullptr && Find(gone) == nullptr && Find(own) == nullptr);
  plat::RemoveOwnRange(A(own), 4 * kPage);
}

Test(roots, private_pages_that_were_written_and_protected) {
  char* p = Map(16 * kPage);
  p[2 * kPage] = p[3 * kPage] = p[8 * kPage] = 1;
  mprotect(p, 16 * kPage, PROT_READ);
  char* hidden = Map(16 * kPage);
  hidden[5 * kPage] = 1;
  mprotect(hidden, 16 * kPage, PROT_NONE);
  cr_assert(roots.Build());
  cr_expect(Find(p) == nullptr && Find(p + 4 * kPage) == nullptr);
  const RootRange* r = Find(p + 2 * kPage);
  cr_assert(r != nullptr);
  cr_expect(r->from == A(p) + 2 * kPage && r->to == A(p) + 4 * kPage && !r->writable);
  cr_expect(Find(p + 8 * kPage) != nullptr);
  r = Find(hidden + 5 * kPage);
  cr_assert(r != nullptr);
  cr_expect(not(r->readable) && r->to - r->from == kPage);
}

Test(roots, code_made_at_run_time) {
  char* jit = Map(kPage, kReadWrite | PROT_EXEC);
  int fd = memfd_create("jit", 0);
  cr_assert(ftruncate(fd, kPage) == 0);
  char* twice = Map(kPage, PROT_READ | PROT_EXEC, MAP_SHARED, fd);
  char* sealed = Map(kPage);
  sealed[0] = 1;
  mprotect(sealed, kPage, PROT_READ | PROT_EXEC);
  cr_assert(roots.Build());
  for (char* p : {jit, twice, sealed}) {
    cr_assert(Find(p) != nullptr);
    cr_expect(Find(p)->bytewise);
  }
  cr_expect(not(Find(&in_data)->bytewise));
}

Test(roots, devices) {
  int fd = open("/dev/zero", O_RDWR);
  char* zero = Map(kPage, kReadWrite, MAP_SHARED, fd);
  cr_assert(roots.Build());
  cr_expect(Find(zero) != nullptr, "shared memory by /dev/zero is memory");
  // A device that can be mapped on every machine, under a name that does not tell.
  const char* name = "/dev/undergo-test-device";
  if (mknod(name, S_IFCHR | 0600, makedev(1, 5)) != 0) cr_skip_test("needs root");
  int device = open(name, O_RDWR);
  void* p = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, device, 0);
  bool built = roots.Build();
  unlink(name);
  if (device < 0 || p == MAP_FAILED) cr_skip_test("devices are refused");
  cr_assert(built);
  cr_expect(Find(p) == nullptr);
}

Test(roots, subtract) {
  char* p = Map(64 * kPage);
  cr_assert(roots.Build());
  size_t before = roots.size();
  auto at = [p](size_t page) { return A(p) + page * kPage; };
  RootRange whole = *Find(p);
  cr_assert(roots.Subtract(at(10), at(12)));
  cr_expect(roots.size() == before + 1);
  cr_expect(Find(at(9)) != nullptr && Find(at(10)) == nullptr && Find(at(11)) == nullptr &&
            Find(at(12)) != nullptr);
  cr_expect(Find(at(12))->to == whole.to && Find(at(12))->writable);
  cr_assert(roots.Subtract(at(8) + 8, at(20) + 16));
  cr_expect(Find(at(8) + 7) != nullptr && Find(at(8) + 8) == nullptr);
  cr_expect(Find(at(20) + 15) == nullptr && Find(at(20) + 16) != nullptr);
  cr_assert(roots.Subtract(whole.from, at(20)));
  cr_expect(Find(at(0)) == nullptr && Find(at(20) + 16) != nullptr);
  cr_assert(roots.Subtract(at(0), whole.to));
  cr_expect(roots.size() == before - 1);
  cr_assert(roots.Subtract(0, at(0)) && roots.Subtract(at(63), ~Addr{0}));
  cr_expect(roots.size() == 0);
  cr_expect(roots.Subtract(0, ~Addr{0}));
}

Test(roots, many_mappings) {
  constexpr size_t kCount = 20000;
  char* p = Map(2 * kCount * kPage);
  for (size_t i = 0; i < kCount; ++i) mprotect(p + 2 * i * kPage, kPage, PROT_NONE);
  cr_assert(roots.Build());
  size_t found = 0;
  for (size_t i = 0; i < roots.size(); ++i) {
    if (roots[i].from >= A(p) && roots[i].from < A(p) + 2 * kCount * kPage) ++found;
  }
  cr_expect(found == kCount, "%zu", found);
}

Test(roots, no_proc) {
  if (getuid() != 0) cr_skip_test("needs root");
  cr_expect(InChild([] {
    if (chroot("/dev") != 0) return false;
    return !roots.Build() && roots.size() == 0;
  }));
}

Test(roots, no_memory) {
  plat::vm_failure_hook = [] { return true; };
  bool built = roots.Build();
  plat::vm_failure_hook = nullptr;
  cr_expect(not(built));
  cr_expect(roots.size() == 0);
  cr_expect(roots.Build());
}

Test(roots, threads_that_map) {
  static std::atomic<bool> stop;
  auto storm = [](void*) -> void* {
    while (!stop.load()) {
      char* p = static_cast<char*>(
          mmap(nullptr, 8 * kPage, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
      memset(p, 1, 8 * kPage);
      mprotect(p + kPage, kPage, PROT_NONE);
      munmap(p + 4 * kPage, 4 * kPage);
      munmap(p, 4 * kPage);
    }
    return nullptr;
  };
  pthread_t thread;
  pthread_create(&thread, nullptr, storm, nullptr);
  char* mine = Map(3 * kPage);
  *reinterpret_cast<uint64_t*>(mine + kPage) = kValue;
  for (int round = 0; round < 200; ++round) {
    cr_assert(roots.Build());
    cr_assert(Find(mine + kPage) != nullptr);
    std::set<Addr> found;
    for (size_t i = 0; i < roots.size(); ++i) {
      if (roots[i].to - roots[i].from > 64 * kMiB) continue;
      bool ok = false;
      found.merge(InRoot(roots[i], &ok));
      cr_assert(ok, "%zx-%zx", roots[i].from, roots[i].to);
    }
    cr_assert(found.count(A(mine) + kPage) == 1);
  }
  stop = true;
  pthread_join(thread, nullptr);
}

Test(read, every_word_at_every_offset) {
  constexpr size_t kSize = 5 * gc::kReadBuffer;
  char* p = Map(kSize);
  for (size_t offset = gc::kReadBuffer - 16; offset < gc::kReadBuffer + 8; ++offset) {
    memset(p, 0, kSize);
    std::set<Addr> wanted;
    for (size_t at = offset; at + 8 <= kSize; at += gc::kReadBuffer - 8) {
      memcpy(p + at, &kValue, 8);
      wanted.insert(A(p) + at);
    }
    cr_assert(InRange(A(p), A(p) + kSize) == wanted);
  }
  memcpy(p + kSize - 8, &kValue, 8);
  cr_expect(InRange(A(p), A(p) + kSize).count(A(p) + kSize - 8) == 1);
  cr_expect(InRange(A(p) + kSize - 8, A(p) + kSize).size() == 1);
}

Test(read, holes) {
  constexpr size_t kSize = 300 * kPage;
  char* p = Map(kSize);
  std::set<Addr> wanted;
  for (size_t page : {0, 9, 20, 150, 299}) {
    memcpy(p + page * kPage + 64, &kValue, 8);
    wanted.insert(A(p) + page * kPage + 64);
  }
  munmap(p + 10 * kPage, 10 * kPage);
  munmap(p + 160 * kPage, 100 * kPage);
  mprotect(p + 30 * kPage, 60 * kPage, PROT_NONE);
  bool ok = false;
  cr_expect(InRange(A(p), A(p) + kSize, &ok) == wanted);
  cr_expect(ok);
  munmap(p, kSize);
  cr_expect(InRange(A(p), A(p) + kSize, &ok).empty());
  cr_expect(ok);
}

Test(read, protected_memory) {
  constexpr size_t kSize = 40 * kPage;
  char* p = Map(kSize);
  std::set<Addr> wanted;
  for (size_t i = 0; i < kSize; i += 9816) {
    memcpy(p + i, &kValue, 8);
    wanted.insert(A(p) + i);
  }
  for (int prot : {PROT_NONE, PROT_WRITE, PROT_EXEC}) {
    mprotect(p + 3 * kPage, 20 * kPage, prot);
    bool ok = false;
    cr_expect(InRange(A(p), A(p) + kSize, &ok) == wanted, "protection %d", prot);
    cr_expect(ok);
  }
}

// Ends of files and guards installed in page tables fault for everybody.
Test(read, what_nobody_can_read) {
  char file[] = "/tmp/undergo-roots-XXXXXX";
  int fd = mkstemp(file);
  cr_assert(fd >= 0 && ftruncate(fd, 2 * kPage) == 0);
  unlink(file);
  char* p = Map(8 * kPage, kReadWrite, MAP_SHARED, fd);
  memcpy(p + kPage, &kValue, 8);
  bool ok = false;
  cr_expect(InRange(A(p), A(p) + 8 * kPage, &ok).size() == 1);
  cr_expect(ok);
  char* guarded = Map(8 * kPage);
  memcpy(guarded, &kValue, 8);
  memcpy(guarded + 7 * kPage, &kValue, 8);
  if (madvise(guarded + kPage, 3 * kPage, 102 /* MADV_GUARD_INSTALL */) != 0) return;
  cr_expect(InRange(A(guarded), A(guarded) + 8 * kPage, &ok).size() == 2);
  cr_expect(ok);
  cr_assert(roots.Build());
  cr_expect(InRoot(*Find(guarded), &ok).size() == 2);
  cr_expect(ok);
}

Test(read, root_touches_nothing_new) {
  constexpr size_t kSize = 64 * kGiB;
  char* p = Map(kSize, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  memcpy(p + 40 * kGiB, &kValue, 8);
  cr_assert(roots.Build());
  RootRange r = *Find(p + 40 * kGiB);
  size_t before = plat::ResidentBytes(), bytes = 0;
  cr_expect(InRoot(r, nullptr, &bytes).count(A(p) + 40 * kGiB) == 1);
  cr_expect(bytes < 4 * kMiB);
  cr_expect(plat::ResidentBytes() < before + kMiB);
  // A part of a range, with odd ends.
  r.from = A(p) + 40 * kGiB + 8;
  r.to = A(p) + 50 * kGiB;
  cr_expect(InRoot(r).empty());
}

Test(read, shared_memory_is_read_though_its_pages_are_of_a_file) {
  char* p = Map(4 * kPage, kReadWrite, MAP_SHARED | MAP_ANONYMOUS);
  memcpy(p + kPage, &kValue, 8);
  int fd = memfd_create("roots", 0);
  cr_assert(ftruncate(fd, kPage) == 0 && pwrite(fd, &kValue, 8, 0) == 8);
  char* view = Map(kPage, PROT_READ, MAP_PRIVATE, fd);
  volatile char touch = view[0];
  static_cast<void>(touch);
  cr_assert(roots.Build());
  cr_expect(InRoot(*Find(p)).size() == 1);
  cr_assert(Find(view) != nullptr);
  cr_expect(InRoot(*Find(view)).size() == 1);
}

Test(read, filter_refuses_the_copy) {
  char* p = Map(kPage);
  memcpy(p, &kValue, 8);
  const int calls[] = {SYS_process_vm_readv};
  cr_assert(FilterCalls(calls, 1, SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_ALLOW, 0) == 0);
  bool ok = false;
  cr_expect(InRange(A(p), A(p) + kPage, &ok).size() == 1, "/proc/self/mem was not tried");
  cr_expect(ok);
}

Test(read, filter_refuses_everything) {
  char* p = Map(kPage);
  memcpy(p, &kValue, 8);
  const int calls[] = {SYS_process_vm_readv, SYS_pread64};
  cr_assert(FilterCalls(calls, 2, SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_ALLOW, 0) == 0);
  bool ok = true;
  cr_expect(InRange(A(p), A(p) + kPage, &ok).empty());
  cr_expect(not(ok), "memory that exists was passed over in silence");
}

// A daemon that gave up its privileges may not open its own page tables.
Test(read, process_that_is_not_dumpable) {
  cr_expect(InChild([] {
    static char* p = Map(64 * kGiB, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
    memcpy(p + kGiB, &kValue, 8);
    char* sealed = Map(8 * kPage);
    memcpy(sealed + kPage, &kValue, 8);
    mprotect(sealed, 8 * kPage, PROT_READ);
    char* reserve = Map(kTiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
    if (getuid() == 0 && setuid(65534) != 0) return false;
    prctl(PR_SET_DUMPABLE, 0);
    if (!roots.Build() || Find(reserve) != nullptr) return false;
    if (Find(p) == nullptr || Find(sealed + kPage) == nullptr) return false;
    if (Find(reinterpret_cast<void*>(&printf)) != nullptr) return false;
    RootRange part = *Find(p);
    part.from = A(p);
    part.to = A(p) + 2 * kGiB;
    return InRoot(part).size() == 1 && InRoot(*Find(sealed + kPage)).size() == 1;
  }));
}

// Mappings vanish and come back while they are read.
Test(read, memory_that_vanishes) {
  static std::atomic<bool> stop;
  static char* p;
  constexpr size_t kSize = 256 * kPage;
  p = Map(kSize);
  memset(p, 1, kSize);
  auto storm = [](void*) -> void* {
    uint64_t seed = 1;
    while (!stop.load()) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      size_t page = 1 + (seed >> 40) % 200;
      munmap(p + page * kPage, 8 * kPage);
      mmap(p + page * kPage, 8 * kPage, (seed & (1u << 20)) != 0 ? kReadWrite : PROT_NONE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    }
    return nullptr;
  };
  memcpy(p, &kValue, 8);
  memcpy(p + kSize - 8, &kValue, 8);
  pthread_t thread;
  pthread_create(&thread, nullptr, storm, nullptr);
  for (int round = 0; round < 3000; ++round) {
    bool ok = false;
    std::set<Addr> found = InRange(A(p), A(p) + kSize, &ok);
    cr_assert(ok && found.size() == 2);
  }
  stop = true;
  pthread_join(thread, nullptr);
}
