// SPDX-License-Identifier: Apache-2.0
// Operations on descriptors that are tried in a way that cannot block, and tried again after the
// descriptor became ready. For threads with a G.
//
// attempt(fd) or attempt(fd, done, blocks) is the system call, with what makes it answer EAGAIN
// instead of blocking, unless `blocks`; block() the call itself, which keeps the kernel thread
// while it waits.
#pragma once

#include "posix/cancel_point.h"
#include "posix/descriptor.h"

namespace undergo::posix {

// What the other end of a channel waits for after an operation of this kind on ours.
constexpr uint32_t OtherEnd(uint32_t events) { return events == EPOLLIN ? EPOLLOUT : EPOLLIN; }

// Whether the answer says that this kind of descriptor knows no RWF_NOWAIT.
inline bool IsUnsupported(int fd, long r) {
  return r == -ENOSYS || (r == -EOPNOTSUPP && sched::NetpollKind(fd) != FdKind::kSocket);
}

// From now on it is asked by poll() first.
template <typename F>
UNDERGO_COLD ssize_t PollThen(int fd, uint32_t events, F block) {
  sched::NetpollSetKind(fd, FdKind::kPollFirst);
  return AwaitFd(fd, events) ? block() : -1;
}

// Until the attempt does not answer EAGAIN. `size`: bytes that a read takes at the most; fewer mean
// that there are no more. Who will have to wait as far as anybody knows (NetpollIsDry) does so
// without a try, which costs a call: what comes meanwhile is seen by NetpollActivity, or by the
// poller.
template <typename T, typename F>
ssize_t Retry(int fd, uint32_t events, size_t size, T attempt, F block) {
  TestCancel();
  uint32_t seen = sched::NetpollActivity(fd);
  bool waits = sched::NetpollIsDry(fd, seen) && sched::NetpollIsOwn(fd);
  long r = waits ? -EAGAIN : attempt(fd);
  if (r == -EAGAIN) {
    if (!waits) sched::NetpollFoundNothing(fd, seen);
    FdOperation op(fd, events, seen);
    while (r == -EAGAIN) {
      if (!op.Again()) {
        op.End();
        return op.error != 0 ? Result(-op.error) : block();
      }
      r = attempt(op.now);
      if (UNDERGO_UNLIKELY(op.blocks) && r == -EAGAIN) r = -EINTR;
    }
    op.End();
    if (r > 0 && static_cast<size_t>(r) < size) sched::NetpollSetDry(fd, op.seen);
  } else {
    sched::NetpollSetWet(fd);
  }
  if (r > 0) {
    sched::NetpollHandOver(fd, OtherEnd(events), static_cast<size_t>(r));
  } else if (UNDERGO_UNLIKELY(IsUnsupported(fd, r))) {
    return PollThen(fd, events, block);
  }
  return Result(r);
}

// A blocking operation that is over when `total` bytes are done. Nothing but streams are done in
// parts.
template <typename T, typename F>
ssize_t RetryAll(int fd, uint32_t events, size_t total, T attempt, F block) {
  TestCancel();
  FdOperation op(fd, events, sched::NetpollActivity(fd));
  size_t done = 0;
  long error = 0;
  for (;;) {
    long r = attempt(op.now, done, op.blocks);
    if (r > 0) {
      bool first = done == 0;
      done += static_cast<size_t>(r);
      op.Progress();
      sched::NetpollHandOver(fd, OtherEnd(events), static_cast<size_t>(r));
      if (UNDERGO_LIKELY(done >= total)) break;
      if (first && (IsNonblocking(op.now) || !TakesParts(op.now))) break;
      continue;
    }
    if (r != -EAGAIN) {
      if (UNDERGO_UNLIKELY(done == 0 && IsUnsupported(fd, r))) {
        op.End();
        return PollThen(fd, events, block);
      }
      error = r;
      if (UNDERGO_UNLIKELY(r == -EPIPE)) KeepPipeSignal();
      break;
    }
    if (op.Again(done != 0)) continue;
    if (op.error == 0) {
      op.End();
      return block();
    }
    error = -op.error;
    break;
  }
  op.End();
  return done != 0 ? static_cast<ssize_t>(done) : Result(error);
}

// The rest of v after `done` bytes, as far as it fits. Returns the count.
inline int Rest(const struct iovec* v, size_t n, size_t done, struct iovec* rest, int most) {
  int count = 0;
  for (size_t i = 0; i < n && count < most; ++i) {
    if (done >= v[i].iov_len) {
      done -= v[i].iov_len;
      continue;
    }
    rest[count++] = {static_cast<char*>(v[i].iov_base) + done, v[i].iov_len - done};
    done = 0;
  }
  return count;
}

inline size_t Total(const struct iovec* v, size_t n) {
  size_t total = 0;
  for (size_t i = 0; i < n; ++i) total += v[i].iov_len;
  return total;
}

}  // namespace undergo::posix
