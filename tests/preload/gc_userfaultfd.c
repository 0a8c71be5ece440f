// SPDX-License-Identifier: Apache-2.0
// A program that uses userfaultfd itself, on memory of its own and on memory from malloc, while
// collections go on: its registrations are not refused because of the collector's, its handler is
// asked for its own pages only, and pointers in such memory count.
// run: name=open open
// run: name=open_poison env=UNDERGO=gc=poison open
// run: name=snapshot env=UNDERGO=tracking=snapshot open
// run: name=raw raw
// timeout: 60
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "gc.h"

enum { kPage = 4096, kPages = kHeld, kSize = kPages * kPage };

// By an instruction of its own: nobody is told.
static long RawUserfaultfd(long flags) {
  long r;
  __asm__ volatile("syscall" : "=a"(r) : "a"(SYS_userfaultfd), "D"(flags) : "rcx", "r11", "memory");
  return r;
}

static int fd;
static volatile int stop;
static volatile int served;
// Fills missing pages with zeros.
static void* Serve(void* arg) {
  while (!stop) {
    struct pollfd p = {fd, POLLIN, 0};
    struct uffd_msg message;
    if (poll(&p, 1, 10) <= 0 || read(fd, &message, sizeof message) != sizeof message) continue;
    struct uffdio_zeropage zero = {
        .range = {message.arg.pagefault.address & ~(uint64_t)(kPage - 1), kPage}};
    CHECK(ioctl(fd, UFFDIO_ZEROPAGE, &zero) == 0 || errno == EEXIST);
    served++;
  }
  return arg;
}
static int Register(void* at, uint64_t mode) {
  struct uffdio_register request = {.range = {(uintptr_t)at, kSize}, .mode = mode};
  int r = ioctl(fd, UFFDIO_REGISTER, &request);
  if (r != 0) perror("UFFDIO_REGISTER");
  return r;
}

int main(int argc, char** argv) {
  CHECK(argc == 2);
  const int raw = !strcmp(argv[1], "raw");
  Live* live = MakeLive(2000, 1);
  StartCollector();
  Leak(20000);
  const long flags = O_CLOEXEC | O_NONBLOCK | 1 /* UFFD_USER_MODE_ONLY */;
  // One that is raw is noticed by the next collection only.
  if (raw) StopCollector(1);
  fd = (int)(raw ? RawUserfaultfd(flags) : syscall(SYS_userfaultfd, flags));
  if (fd < 0) SKIP("this system refuses userfaultfd");
  struct uffdio_api api = {.api = UFFD_API};
  CHECK_EQ(ioctl(fd, UFFDIO_API, &api), 0);
  if (raw) CollectOnce();
  pthread_t server;
  CHECK_EQ(pthread_create(&server, NULL, Serve, NULL), 0);
  Held held;
  for (int round = 0; round < 10; round++) {
    // Pointers alone in pages that the handler made.
    char* map = mmap(NULL, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(map != MAP_FAILED);
    char* heap = aligned_alloc(kPage, kSize);
    CHECK(heap);
    memset(heap, 1, kSize);
    CHECK_EQ(Register(map, UFFDIO_REGISTER_MODE_MISSING), 0);
    CHECK_EQ(Register(heap, UFFDIO_REGISTER_MODE_MISSING), 0);
    int before = served;
    for (int i = 0; i < kHeld; i++) *(void**)(map + i * kPage) = MakeHeld(&held, i);
    CHECK_MSG(served - before >= kHeld / 2, "round %d: %d pages served", round, served - before);
    SleepMs(20);  // the handler counts after it has let the thread go on
    before = served;
    CollectHard(argv[1]);
    CHECK_MSG(served == before, "the collector touched %d missing pages", served - before);
    CheckHeld(&held, argv[1]);
    struct uffdio_range range = {(uintptr_t)heap, kSize};
    CHECK_EQ(ioctl(fd, UFFDIO_UNREGISTER, &range), 0);
    free(heap);
    CHECK_EQ(munmap(map, kSize), 0);
  }
  stop = 1;
  pthread_join(server, NULL);
  close(fd);
  if (!raw) StopCollector(5);
  CheckLive(live, 2000, 1);
  CollectHard("afterwards");
  puts("all right");
  return 0;
}
