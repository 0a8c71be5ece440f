// SPDX-License-Identifier: Apache-2.0
// Looks into pipes: tee() puts what is in one into another one, and takes nothing out.
//
// The list is made while the program runs, from /proc/self/fd. In the stop each pipe is asked how
// much it holds, mostly nothing. A thread that is in read() counts as stopped, but the kernel may
// still be busy for it: it copies to the thread's memory under the pipe's lock and takes the bytes
// out then. So whoever asks the pipe first and looks at written pages afterwards finds a word in
// one of both.
// Left out: pipes whose other end is elsewhere, so nobody here can want its pointers back; sockets
// (reading them ahead is visible in SO_PEEK_OFF and with descriptors on their way).
#include "gc/pipes.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "plat/lines.h"
#include "plat/syscall.h"

namespace undergo::gc {

constinit Pipes pipes;

void Pipes::Begin() {
  made_before_ = LoadRelaxed(&made_);
  readers_ = writers_ = 0;
}

void Pipes::Note(int fd, const char* target) {
  if (!plat::SkipPrefix(&target, "pipe:[")) return;
  uint64_t inode = 0;
  for (; *target >= '0' && *target <= '9'; ++target) {
    inode = inode * 10 + static_cast<uint64_t>(*target - '0');
  }
  long flags = plat::Syscall(__NR_fcntl, fd, F_GETFL);
  if (plat::IsError(flags)) return;
  long mode = flags & O_ACCMODE;
  if (mode != O_WRONLY && readers_ < kMax) reader_[readers_++] = {fd, inode};
  if (mode != O_RDONLY && writers_ < kMax) writer_[writers_++] = inode;
}

void Pipes::Finish() {
  uint32_t kept = 0;
  for (uint32_t r = 0; r < readers_; ++r) {
    uint32_t w = 0;
    while (w < writers_ && writer_[w] != reader_[r].inode) ++w;
    if (w < writers_) reader_[kept++] = reader_[r];
  }
  readers_ = kept;
}

// Shows what the own pipe got, in pieces that overlap by all but one byte of a word.
bool Pipes::Copy(int fd, size_t bytes, char* buffer, ChunkVisitor f, void* context) {
  constexpr size_t kOverlap = sizeof(uint64_t) - 1;
  if (own_[0] < 0 && plat::IsError(plat::Syscall(__NR_pipe2, &own_[0], O_CLOEXEC | O_NONBLOCK))) {
    return false;
  }
  // As many pages, or it would not take all.
  long size = plat::Syscall(__NR_fcntl, fd, F_GETPIPE_SZ);
  if (size > plat::Syscall(__NR_fcntl, own_[1], F_GETPIPE_SZ)) {
    plat::Syscall(__NR_fcntl, own_[1], F_SETPIPE_SZ, size);
  }
  long got = plat::Syscall(__NR_tee, fd, own_[1], bytes, 2 /* SPLICE_F_NONBLOCK */);
  if (got < static_cast<long>(bytes)) return false;
  size_t kept = 0;
  for (long left = got; left > 0;) {
    long n = plat::Syscall(__NR_read, own_[0], buffer + kept, kReadBuffer - kept);
    if (n <= 0) return false;
    size_t have = kept + static_cast<size_t>(n);
    f(context, buffer, 0, have);
    kept = Min(have, kOverlap);
    __builtin_memmove(buffer, buffer + have - kept, kept);
    left -= n;
  }
  return true;
}

PipeRead Pipes::Read(char* buffer, ChunkVisitor f, void* context) {
  if (LoadRelaxed(&made_) != made_before_) return PipeRead::kStale;
  PipeRead result = PipeRead::kDone;
  for (uint32_t r = 0; r < readers_ && result == PipeRead::kDone; ++r) {
    const End& end = reader_[r];
    struct stat st;
    bool same = !plat::IsError(plat::Syscall(__NR_fstat, end.fd, &st)) && S_ISFIFO(st.st_mode) &&
                st.st_ino == end.inode;
    int bytes = 0;
    if (!same) {
      result = PipeRead::kStale;
    } else if (plat::IsError(plat::Syscall(__NR_ioctl, end.fd, FIONREAD, &bytes)) ||
               (bytes > 0 && !Copy(end.fd, static_cast<size_t>(bytes), buffer, f, context))) {
      result = PipeRead::kFailed;
    }
  }
  for (int& fd : own_) {
    if (fd >= 0) plat::Syscall(__NR_close, fd);
    fd = -1;
  }
  return result;
}

}  // namespace undergo::gc
