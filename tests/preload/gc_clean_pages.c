// SPDX-License-Identifier: Apache-2.0
// Blocks without pointers, which the collector does not read again while nobody writes to them,
// get pointers after all: by stores and by every way in which the kernel writes for the program, at
// places of any alignment, across the borders of pages, and after everything that may happen to
// the memory in between.
// run:
// run: name=poison env=UNDERGO=gc=poison
// run: name=checked env=GODEBUG=gccheckmark=1
// run: name=snapshot env=UNDERGO=tracking=snapshot
// run: name=stop env=UNDERGO=tracking=stop
// timeout: 120
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "gc.h"

enum { kPage = 4096, kBlock = 4 << 20, kBytes = kHeld * sizeof(void*) };

static Held held;
static unsigned char* block;
static size_t block_bytes;
// Where pointers stand before they get into the block.
static void* source[kHeld] __attribute__((aligned(kPage)));

static NOINLINE void FillRandom(void* p, size_t bytes) {
  Random r = {bytes};
  for (size_t i = 0; i + 8 <= bytes; i += 8) {
    const uint64_t word = Next(&r);
    memcpy((char*)p + i, &word, sizeof word);
  }
}

// How many pages of the block are write-protected; -1: that cannot be seen.
static long Armed(void) {
  int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  long armed = 0;
  for (size_t at = 0; at + kPage <= block_bytes; at += kPage) {
    uint64_t entry = 0;
    const off_t where = (off_t)(((uintptr_t)block + at) / kPage * sizeof entry);
    if (pread(fd, &entry, sizeof entry, where) != sizeof entry) armed = -1;
    if (armed < 0) break;
    armed += (entry >> 57) & 1;
  }
  close(fd);
  return armed;
}
static int Tracks(void) {
  const char* settings = getenv("UNDERGO");
  if (!GcWorks() || (settings && strstr(settings, "tracking="))) return 0;
  // In a child: a program with a userfaultfd of its own is not tracked.
  fflush(stdout);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) _exit(syscall(SYS_userfaultfd, O_CLOEXEC | 1) < 0);
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  return status == 0;
}

// The block is known to be without pointers.
static void MakeClean(size_t bytes) {
  block_bytes = bytes;
  CHECK((block = malloc(bytes)) != NULL);
  FillRandom(block, bytes);
  for (int i = 0; i < 3; i++) CollectOnce();
}

typedef void (*Way)(void* to, const void* from, size_t bytes);

static void Store(void* to, const void* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += sizeof(uint32_t)) {
    uint32_t half;
    memcpy(&half, (const char*)from + i, sizeof half);
    *(volatile uint32_t*)((char*)to + i) = half;
  }
}
static void Copy(void* to, const void* from, size_t bytes) { memcpy(to, from, bytes); }
static void Read(void* to, const void* from, size_t bytes) {
  int p[2];
  CHECK_EQ(pipe(p), 0);
  CHECK_EQ(write(p[1], from, bytes), (ssize_t)bytes);
  CHECK_EQ(read(p[0], to, bytes), (ssize_t)bytes);
  close(p[0]);
  close(p[1]);
}
static void Receive(void* to, const void* from, size_t bytes) {
  int s[2];
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
  CHECK_EQ(write(s[1], from, bytes), (ssize_t)bytes);
  CHECK_EQ(recv(s[0], to, bytes, MSG_WAITALL), (ssize_t)bytes);
  close(s[0]);
  close(s[1]);
}
static void ReadFile(void* to, const void* from, size_t bytes) {
  FILE* f = tmpfile();
  CHECK(f);
  CHECK_EQ(pwrite(fileno(f), from, bytes, 64), (ssize_t)bytes);
  CHECK_EQ(pread(fileno(f), to, bytes, 64), (ssize_t)bytes);
  fclose(f);
}
static void WriteMemory(void* to, const void* from, size_t bytes) {
  int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
  if (fd < 0 || pwrite(fd, from, bytes, (off_t)(uintptr_t)to) != (ssize_t)bytes)
    Copy(to, from, bytes);
  if (fd >= 0) close(fd);
}
static void WriteSelf(void* to, const void* from, size_t bytes) {
  struct iovec here = {(void*)(uintptr_t)from, bytes}, there = {to, bytes};
  if (process_vm_writev(getpid(), &here, 1, &there, 1, 0) != (ssize_t)bytes) Copy(to, from, bytes);
}
// By a child, into the memory of its parent.
static void WriteParent(void* to, const void* from, size_t bytes) {
  fflush(stdout);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    struct iovec here = {(void*)(uintptr_t)from, bytes}, there = {to, bytes};
    _exit(process_vm_writev(getppid(), &here, 1, &there, 1, 0) != (ssize_t)bytes);
  }
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  if (status != 0) Copy(to, from, bytes);
}
// The device, or the file system for it, writes to memory that it took hold of. A whole page.
static void ReadDirect(void* to, const void* from, size_t bytes) {
  char name[] = "/tmp/undergo-test-XXXXXX";
  int file = mkstemp(name);
  CHECK(file >= 0);
  static char page[kPage] __attribute__((aligned(kPage)));
  memcpy(page, from, bytes);
  CHECK_EQ(pwrite(file, page, kPage, 0), kPage);
  memset(page, 0, kPage);
  fsync(file);
  int fd = open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);
  unlink(name);
  void* aligned = (void*)(((uintptr_t)to + kPage - 1) & ~(uintptr_t)(kPage - 1));
  if (fd < 0 || pread(fd, aligned, kPage, 0) != kPage) Copy(to, from, bytes);
  if (fd >= 0) close(fd);
  CHECK_EQ(pwrite(file, page, kPage, 0), kPage);
  close(file);
}

static NOINLINE void MakeSource(void) {
  for (int i = 0; i < kHeld; i++) source[i] = MakeHeld(&held, i);
}
// The pointers, and no others, move into the block.
static NOINLINE void Move(Way way, size_t at) {
  MakeSource();
  way(block + at, source, kBytes);
  memset(source, 0, sizeof source);
}
static void Try(const char* name, Way way, size_t bytes, size_t at) {
  MakeClean(bytes);
  Move(way, at);
  CollectHard(name);
  CheckHeld(&held, name);
  free(block);
}

static void Ways(const char* name) {
  static const Way way[] = {Store,       Copy,      Read,        Receive,   ReadFile,
                            WriteMemory, WriteSelf, WriteParent, ReadDirect};
  for (size_t i = 0; i < sizeof way / sizeof way[0]; i++) {
    char place[64];
    snprintf(place, sizeof place, "%s %zu", name, i);
    Try(place, way[i], kBlock, kBlock / 2);
  }
}
static void Places(const char* name) {
  Try(name, Copy, kBlock, 0);
  Try(name, Copy, kBlock, kBlock - kBytes);
  // Half of a pointer in each of two pages.
  Try(name, Store, kBlock, kBlock / 2 - kBytes / 2 - 4);
  Try(name, Store, kBlock, kBlock / 2 - 4);
  Try(name, Store, kBlock, kBlock / 2 - kBytes + 4);
  // Medium objects share their first and last page with others.
  for (size_t bytes = 20000; bytes < 65000; bytes += 11000) {
    Try(name, Copy, bytes, 0);
    Try(name, Store, bytes, 12284);
    Try(name, Copy, bytes, (bytes - kBytes) & ~(size_t)7);
  }
}

// Half a word at a time, each in a cycle of its own: the other page was not written then.
static void HalfAndHalf(const char* name) {
  MakeClean(kBlock);
  const size_t at = kBlock / 2 - 4;
  memset(block + at, 0, 8);
  for (int i = 0; i < 3; i++) CollectOnce();
  void** keep = malloc(sizeof(void*));
  CHECK(keep);
  *keep = NewObject(1);
  uintptr_t hidden = Hide(*keep);
  memcpy(block + at, keep, 4);
  CollectOnce();
  CollectOnce();
  memcpy(block + at + 4, (char*)keep + 4, 4);
  memset(keep, 0, sizeof *keep);
  free(keep);
  CollectHard(name);
  CheckObject(Reveal(hidden), 1, name);
  free(Reveal(hidden));
  free(block);
}

// Written again and again, so that it is not worth while to track it.
static void Often(const char* name) {
  MakeClean(kBlock);
  for (int round = 0; round < 10; round++) {
    FillRandom(block, kBlock);
    CollectOnce();
  }
  for (int round = 0; round < 10; round++) {
    const size_t at = (size_t)round * 400000;
    Move(Copy, at);
    CollectHard(name);
    CheckHeld(&held, name);
    memset(block + at, 0, kBytes);
  }
  free(block);
}

static void Resized(const char* name) {
  MakeClean(kBlock);
  CHECK((block = realloc(block, kBlock / 2)) != NULL);
  CollectOnce();
  CHECK((block = realloc(block, 2 * kBlock)) != NULL);
  Move(Copy, kBlock + kPage);
  CollectHard(name);
  CheckHeld(&held, name);
  free(block);
}

// The same memory becomes another object, or many.
static void Reused(const char* name) {
  for (int i = 0; i < 4; i++) {
    MakeClean(kBlock);
    free(block);
    block = i % 2 ? calloc(1, kBlock) : malloc(kBlock);
    CHECK(block);
    if (i >= 2) CollectOnce();
    Move(Copy, 8 * kPage);
    CollectHard(name);
    CheckHeld(&held, name);
    free(block);
    MakeClean(kBlock);
    free(block);
    void** small[1000];
    for (int k = 0; k < 1000; k++) CHECK((small[k] = calloc(500, sizeof(void*))) != NULL);
    for (int k = 0; k < kHeld; k++) small[k * 15][k] = MakeHeld(&held, k);
    CollectHard(name);
    CheckHeld(&held, name);
    for (int k = 0; k < 1000; k++) free(small[k]);
  }
}

// Pages go and come back as zeros.
static void Discarded(const char* name) {
  for (int i = 0; i < 2; i++) {
    MakeClean(kBlock);
    unsigned char* page =
        (unsigned char*)(((uintptr_t)block + kBlock / 2) & ~(uintptr_t)(kPage - 1));
    CHECK_EQ(madvise(page, 64 * kPage, MADV_DONTNEED), 0);
    CHECK_EQ(page[kPage], 0);
    if (i == 1) CollectOnce();
    Move(Copy, (size_t)(page - block) + 5 * kPage);
    CollectHard(name);
    CheckHeld(&held, name);
    free(block);
  }
}

// Something else in the place of a part of the block, with pointers that this mapping did not
// write.
static void Replaced(const char* name) {
  MakeClean(kBlock);
  unsigned char* page = (unsigned char*)(((uintptr_t)block + kBlock / 2) & ~(uintptr_t)(kPage - 1));
  int fd = memfd_create("test", MFD_CLOEXEC);
  CHECK(fd >= 0);
  CHECK_EQ(ftruncate(fd, kPage), 0);
  CHECK(mmap(page, kPage, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED, fd, 0) == page);
  for (int i = 0; i < 3; i++) CollectOnce();
  MakeSource();
  CHECK_EQ(pwrite(fd, source, kBytes, 128), kBytes);
  memset(source, 0, sizeof source);
  CHECK(page[128] != 0 || page[129] != 0);
  CollectHard(name);
  CheckHeld(&held, name);
  CHECK(mmap(page, kPage, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
        page);
  close(fd);
  free(block);
}

// In a child, which tracks nothing of what the parent did.
static void Forked(const char* name) {
  MakeClean(kBlock);
  fflush(stdout);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    for (int i = 0; i < 3; i++) {
      Move(Copy, (size_t)i * 100 * kPage);
      CollectHard(name);
      CheckHeld(&held, name);
    }
    _exit(0);
  }
  Move(Copy, kBlock / 4);
  CollectHard(name);
  CheckHeld(&held, name);
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  free(block);
}

// While a thread collects all the time.
static void Always(const char* name) {
  MakeClean(kBlock);
  StartCollector();
  for (size_t round = 0; round < 40; round++) {
    const size_t at = (round * 7919 * kPage + round * 44) % (kBlock - kBytes) & ~(size_t)3;
    Move(round % 2 ? Copy : Read, at);
    for (int i = 0; i < 4; i++) Pressure();
    CheckHeld(&held, name);
    memset(block + at, 0x11, kBytes);
  }
  StopCollector(20);
  free(block);
}

// Not read again, as long as nobody writes; when somebody could write unseen, it is.
static void Kept(void) {
  MakeClean(kBlock);
  const long pages = kBlock / kPage, armed = Armed();
  if (Tracks() && armed >= 0) CHECK_MSG(armed >= pages * 9 / 10, "%ld of %ld pages", armed, pages);
  if (!Tracks() && armed >= 0) CHECK_EQ(armed, 0);
  int fd = open("/proc/self/exe", O_RDONLY | O_DIRECT | O_CLOEXEC);
  CollectOnce();
  if (fd >= 0) {
    if (armed >= 0) CHECK_EQ(Armed(), 0);
    close(fd);
  }
  free(block);
}

int main(void) {
  Kept();
  Ways("ways");
  Places("places");
  HalfAndHalf("half and half");
  Often("often");
  Resized("resized");
  Reused("reused");
  Discarded("discarded");
  Replaced("replaced");
  Forked("forked");
  Always("always");
  puts("all right");
  return 0;
}
