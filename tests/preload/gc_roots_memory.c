// SPDX-License-Identifier: Apache-2.0
// Objects that are kept only by memory outside the heap: globals of the program, every kind of
// writable mapping, pages that can no longer be written, thread-local memory of the main thread.
// run:
// run: name=poison env=UNDERGO=gc=poison
// run: name=stopped env=GODEBUG=gcstoptheworld=1
// timeout: 60
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "gc.h"

enum { kPage = 4096, kMapping = 64 * kPage };
static Held held;

// Stores the objects as every 40th word of memory, from a function whose frame is dead afterwards.
static NOINLINE void StoreEvery(void** memory) {
  for (int i = 0; i < kHeld; i++) memory[i * 40] = MakeHeld(&held, i);
}
static NOINLINE void CheckEvery(void** memory, const char* name) {
  for (int i = 0; i < kHeld; i++) CHECK(memory[i * 40] == Reveal(held.hidden[i]));
  CheckHeld(&held, name);
}
static void* Map(int protection, int flags, int fd) {
  void* m = mmap(NULL, kMapping, protection, flags, fd, 0);
  CHECK(m != MAP_FAILED);
  return m;
}
static void KeepIn(void** memory, const char* name) {
  StoreEvery(memory);
  CollectHard(name);
  CheckEvery(memory, name);
}
static void KeepInMapping(void* m, const char* name) {
  KeepIn(m, name);
  CHECK_EQ(munmap(m, kMapping), 0);
}

static void* bss[kHeld * 40];
static void Bss(const char* name) {
  KeepIn(bss, name);
  memset(bss, 0, sizeof bss);
}

static void* data[kHeld * 40] = {&held};
static void Data(const char* name) {
  KeepIn(data, name);
  memset(data, 0, sizeof data);
}

// Resolved by the loader, then write-protected: only the loader's own writes make it a dirty page.
static void* const relro[] = {&held, &bss, &data};
static void Relro(const char* name) {
  static uintptr_t hidden;
  void* p = NewObject(9);
  hidden = Hide(p);
  void** at = (void**)OpaquePtr((void*)&relro[1]);
  void* page = (void*)((uintptr_t)at & ~(uintptr_t)(kPage - 1));
  void* old = *at;
  CHECK_EQ(mprotect(page, kPage, PROT_READ | PROT_WRITE), 0);
  *at = p;
  CHECK_EQ(mprotect(page, kPage, PROT_READ), 0);
  p = NULL;
  CollectHard(name);
  CheckObject(Reveal(hidden), 9, name);
  CHECK_EQ(mprotect(page, kPage, PROT_READ | PROT_WRITE), 0);
  free(*at);
  *at = old;
}

static __thread void* thread_local_words[kHeld * 40];
static void ThreadLocal(const char* name) {
  KeepIn(thread_local_words, name);
  memset(thread_local_words, 0, sizeof thread_local_words);
}

static pthread_key_t keys[kHeld];
static NOINLINE void SetKeys(void) {
  for (int i = 0; i < kHeld; i++) {
    CHECK_EQ(pthread_key_create(&keys[i], NULL), 0);
    CHECK_EQ(pthread_setspecific(keys[i], MakeHeld(&held, i)), 0);
  }
}
static void Keys(const char* name) {
  SetKeys();
  CollectHard(name);
  for (int i = 0; i < kHeld; i++)
    CHECK(pthread_getspecific(keys[i]) == Reveal(held.hidden[i]) &&
          pthread_key_delete(keys[i]) == 0);
  CheckHeld(&held, name);
}

static void Anonymous(const char* name) {
  KeepInMapping(Map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1), name);
}
static void Shared(const char* name) {
  KeepInMapping(Map(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1), name);
}
static void Memfd(const char* name) {
  int fd = memfd_create("test", MFD_CLOEXEC);
  CHECK(fd >= 0 && ftruncate(fd, kMapping) == 0);
  KeepInMapping(Map(PROT_READ | PROT_WRITE, MAP_SHARED, fd), name);
  close(fd);
}
// The descriptor is gone, and so is the name: only the mapping is left.
static void Shm(const char* name) {
  char path[64];
  snprintf(path, sizeof path, "/undergo-test-%d", (int)getpid());
  int fd = shm_open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
  if (fd < 0) return;  // no /dev/shm here
  CHECK(shm_unlink(path) == 0 && ftruncate(fd, kMapping) == 0);
  void* m = Map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  close(fd);
  KeepInMapping(m, name);
}
static int TemporaryFile(void) {
  const char* folder = getenv("TMPDIR");
  char path[4096];
  snprintf(path, sizeof path, "%s/undergo-test-XXXXXX", folder ? folder : "/tmp");
  int fd = mkstemp(path);
  CHECK(fd >= 0 && unlink(path) == 0 && ftruncate(fd, kMapping) == 0);
  return fd;
}
static void SharedFile(const char* name) {
  int fd = TemporaryFile();
  KeepInMapping(Map(PROT_READ | PROT_WRITE, MAP_SHARED, fd), name);
  close(fd);
}
static void PrivateFile(const char* name) {
  int fd = TemporaryFile();
  KeepInMapping(Map(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd), name);
  close(fd);
}
// Written through the file, not through the mapping, which was read only: no dirty bit is set.
static void FileWritten(const char* name) {
  int fd = TemporaryFile();
  void** m = Map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  for (int i = 0; i < kMapping / kPage; i++) CHECK(*(char* volatile)((char*)m + i * kPage) == 0);
  for (int i = 0; i < kHeld; i++) {
    void* p = MakeHeld(&held, i);
    CHECK_EQ(pwrite(fd, &p, sizeof p, i * 40 * (long)sizeof p), sizeof p);
  }
  CollectHard(name);
  CheckEvery(m, name);
  CHECK_EQ(munmap(m, kMapping), 0);
  close(fd);
}

static void Brk(const char* name) {
  void** area = sbrk(kMapping);
  CHECK(area != (void**)-1);
  KeepIn(area, name);  // not given back: the C library may have grown its heap behind it
}

static void KeepProtected(int protection, const char* name) {
  void** m = Map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  StoreEvery(m);
  CHECK_EQ(mprotect(m, kMapping, protection), 0);
  CollectHard(name);
  CHECK_EQ(mprotect(m, kMapping, PROT_READ | PROT_WRITE), 0);
  CheckEvery(m, name);
  CHECK_EQ(munmap(m, kMapping), 0);
}
static void ReadOnly(const char* name) { KeepProtected(PROT_READ, name); }
static void NoAccess(const char* name) { KeepProtected(PROT_NONE, name); }

// As generated code holds them: at any byte of an executable anonymous page.
static void Executable(const char* name) {
  char* m = Map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  for (int i = 0; i < kHeld; i++) {
    void* p = MakeHeld(&held, i);
    memcpy(m + i * 333 + i % 8 + 1, &p, sizeof p);
    p = NULL;
  }
  CHECK_EQ(mprotect(m, kMapping, PROT_READ | PROT_EXEC), 0);
  CollectHard(name);
  for (int i = 0; i < kHeld; i++) {
    void* p;
    memcpy(&p, m + i * 333 + i % 8 + 1, sizeof p);
    CHECK(p == Reveal(held.hidden[i]));
  }
  CheckHeld(&held, name);
  CHECK_EQ(munmap(m, kMapping), 0);
}

// Another mapping of the same memory moved there, grew, and kept only its tail.
static void Remapped(const char* name) {
  char* m = Map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  StoreEvery((void**)m);
  m = mremap(m, kMapping, 1024 * kPage, MREMAP_MAYMOVE);
  CHECK(m != MAP_FAILED);
  char* moved = Map(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  moved = mremap(m, kMapping, kMapping, MREMAP_MAYMOVE | MREMAP_FIXED, moved);
  CHECK(moved != MAP_FAILED);
  CHECK_EQ(munmap(m + kMapping, 1024 * kPage - kMapping), 0);
  CollectHard(name);
  CheckEvery((void**)moved, name);
  CHECK_EQ(munmap(moved, kMapping), 0);
}

// Far from everything else, at the lowest addresses that a program may have.
static void LowAddress(const char* name) {
  void* m = mmap((void*)0x10000000, kMapping, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (m == MAP_FAILED) return;
  KeepInMapping(m, name);
}
// At the highest addresses, above libraries and often above the stack.
static void HighAddress(const char* name) {
  void* m = mmap((void*)0x7ffffff00000, kMapping, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (m == MAP_FAILED) return;
  KeepInMapping(m, name);
}

// A mapping of 4 GiB of which a few pages exist.
static void Sparse(const char* name) {
  const size_t size = (size_t)4 << 30, step = size / kHeld;
  char* m =
      mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(m != MAP_FAILED);
  for (int i = 0; i < kHeld; i++) *(void**)(m + step * (size_t)i + 4088) = MakeHeld(&held, i);
  CollectHard(name);
  for (int i = 0; i < kHeld; i++)
    CHECK(*(void**)(m + step * (size_t)i + 4088) == Reveal(held.hidden[i]));
  CheckHeld(&held, name);
  CHECK_EQ(munmap(m, size), 0);
}

// Pages that a child of fork does not get or gets empty: the parent's own contents count.
static void NotForked(const char* name) {
  void** m = Map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  StoreEvery(m);
  CHECK_EQ(madvise(m, kMapping / 2, MADV_DONTFORK), 0);
  CHECK_EQ(madvise((char*)m + kMapping / 2, kMapping / 2, MADV_WIPEONFORK), 0);
  CollectHard(name);
  CheckEvery(m, name);
  CHECK_EQ(munmap(m, kMapping), 0);
}

// The child of a fork has the same roots, and a collector of its own.
static void InChild(const char* name) {
  void** m = Map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  StoreEvery(m);
  pid_t pid = fork();
  CHECK(pid >= 0);
  CollectHard(name);
  CheckEvery(m, name);
  if (pid == 0) _exit(0);
  int status;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(status, 0);
  CHECK_EQ(munmap(m, kMapping), 0);
}

static const Part parts[] = {{"bss", Bss},
                             {"data", Data},
                             {"relro", Relro},
                             {"thread-local", ThreadLocal},
                             {"keys", Keys},
                             {"anonymous", Anonymous},
                             {"shared", Shared},
                             {"memfd", Memfd},
                             {"shm", Shm},
                             {"shared-file", SharedFile},
                             {"private-file", PrivateFile},
                             {"file-written", FileWritten},
                             {"brk", Brk},
                             {"read-only", ReadOnly},
                             {"no-access", NoAccess},
                             {"executable", Executable},
                             {"remapped", Remapped},
                             {"low-address", LowAddress},
                             {"high-address", HighAddress},
                             {"sparse", Sparse},
                             {"not-forked", NotForked},
                             {"in-child", InChild}};

int main(int argc, char** argv) { return RUN_PARTS(parts); }
