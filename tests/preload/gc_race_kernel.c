// SPDX-License-Identifier: Apache-2.0
// As gc_race_move, but the kernel does the writing: pointers come into heap blocks, globals and
// mappings by read, readv, recvmsg, pread, process_vm_readv, process_vm_writev, or their pages are
// moved by mremap. The old place is cleared only afterwards; whoever tracks writes by protecting
// pages must see those of the kernel too, and no call may fail because of the protection.
// run:
// run: name=poison env=UNDERGO=gc=poison
// run: name=checked env=GODEBUG=gccheckmark=1 1
// run: name=long pace=long 10
// run: name=poison_long pace=long env=UNDERGO=gc=poison 10
// timeout: 90
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "gc.h"

enum { kThreads = 3, kSlots = 64, kWords = 8, kArray = kSlots * sizeof(void*) };

static uint64_t Mixed(uint64_t number) { return number * 0x9e3779b97f4a7c15u ^ 0x5bf0363; }
static atomic_int stop;
static atomic_ulong moves;

static NOINLINE uint64_t* Make(uint64_t number) {
  uint64_t* o = malloc(kWords * sizeof *o);
  CHECK(o);
  for (int i = 0; i < kWords; i++) o[i] = number;
  o[1] = Mixed(number);
  return o;
}
static void Look(const uint64_t* o) {
  CHECK_MSG(o[1] == Mixed(o[0]), "an object was lost: number %#llx, then %#llx",
            (unsigned long long)o[0], (unsigned long long)o[1]);
}

// Copies kArray bytes by one of the kernel's ways.
typedef struct Ways {
  int pipe[2], socket[2], file;
  pid_t self;
  int no_vm;  // process_vm_* is forbidden here
} Ways;
static void CopyByKernel(Ways* w, void* to, void* from, uint64_t how) {
  struct iovec source = {from, kArray}, target = {to, kArray};
  struct iovec halves[2] = {{to, kArray / 2}, {(char*)to + kArray / 2, kArray / 2}};
  struct msghdr message = {.msg_iov = &target, .msg_iovlen = 1};
  if (how >= 4 && w->no_vm) how -= 4;
  switch (how) {
    case 0:
      CHECK_EQ(write(w->pipe[1], from, kArray), kArray);
      CHECK_EQ(read(w->pipe[0], to, kArray), kArray);
      break;
    case 1:
      CHECK_EQ(writev(w->pipe[1], &source, 1), kArray);
      CHECK_EQ(readv(w->pipe[0], halves, 2), kArray);
      break;
    case 2:
      CHECK_EQ(send(w->socket[1], from, kArray, 0), kArray);
      CHECK_EQ(recvmsg(w->socket[0], &message, MSG_WAITALL), kArray);
      break;
    case 3:
      CHECK_EQ(pwrite(w->file, from, kArray, 0), kArray);
      CHECK_EQ(pread(w->file, to, kArray, 0), kArray);
      break;
    case 4:
    case 5: {
      ssize_t n = how == 4 ? process_vm_readv(w->self, &target, 1, &source, 1, 0)
                           : process_vm_writev(w->self, &source, 1, &target, 1, 0);
      if (n < 0 && (errno == EPERM || errno == ENOSYS)) {
        w->no_vm = 1;
        memcpy(to, from, kArray);
      } else {
        CHECK_EQ(n, kArray);
      }
    }
  }
}

static __thread uint64_t* local[kSlots];
static void* Work(void* seed) {
  Random r = {(uint64_t)(uintptr_t)seed * 31 + 1};
  Ways w = {.self = getpid()};
  CHECK_EQ(pipe2(w.pipe, O_CLOEXEC), 0);
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, w.socket), 0);
  CHECK((w.file = memfd_create("test", MFD_CLOEXEC)) >= 0);
  uint64_t** map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(map != MAP_FAILED);
  uint64_t** place = malloc(kArray);
  CHECK(place);
  for (int i = 0; i < kSlots; i++) place[i] = Make(Next(&r));
  while (!stop) {
    uint64_t** old = place;
    const uint64_t where = Below(&r, 4);
    uint64_t** next = where == 0 ? map : where == 1 ? local : malloc(where == 2 ? kArray : 100000);
    CHECK(next);
    if (next == old) continue;
    CopyByKernel(&w, next, old, Below(&r, 6));
    memset(old, 0, kArray);
    if (old != map && old != local) free(old);
    // The page with the pointers goes to another address, with all that is known about it.
    if (next == map && Below(&r, 2)) {
      void* gap = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      CHECK(gap != MAP_FAILED);
      map = mremap(map, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, gap);
      CHECK(map != MAP_FAILED);
      next = map;
    }
    place = next;
    for (int i = 0; i < kSlots; i++) Look(place[i]);
    uint64_t** dying = &place[Below(&r, kSlots)];
    free(*dying);
    *dying = Make(Next(&r));
    place[Below(&r, kSlots)] = Make(Next(&r));
    atomic_fetch_add_explicit(&moves, kSlots, memory_order_relaxed);
  }
  for (int i = 0; i < kSlots; i++) {
    Look(place[i]);
    free(place[i]);
  }
  // What the file and the stack still hold is no longer valid.
  close(w.file);
  return NULL;
}

int main(int argc, char** argv) {
  const double end = Seconds() + (argc > 1 ? atof(argv[1]) : 2);
  pthread_t worker[kThreads];
  for (size_t i = 0; i < kThreads; i++)
    CHECK_EQ(pthread_create(&worker[i], NULL, Work, (void*)(i + 1)), 0);
  while (Seconds() < end) {
    if (undergo_gc) undergo_gc();
    SleepMs(2);
  }
  stop = 1;
  for (int i = 0; i < kThreads; i++) pthread_join(worker[i], NULL);
  CHECK_MSG(moves > 10000, "only %lu moves", (unsigned long)moves);
  CHECK_MSG(!GcWorks() || GcStats()->num_gc >= 5, "only %llu collections",
            (unsigned long long)GcStats()->num_gc);
  puts("all right");
  return 0;
}
