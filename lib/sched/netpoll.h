// SPDX-License-Identifier: Apache-2.0
// Where idle Ms wait for descriptors and deadlines, and how a G waits for a descriptor.
#pragma once

#include <sys/epoll.h>

#include "sched/park.h"
#include "sched/sched.h"

namespace undergo::sched {

// --- for Ms; any of them may call these at any time, but one at a time waits ---

struct NetpollEvents {
  static constexpr int kMost = 128;
  int count = 0;
  struct epoll_event events[kMost];
};

// Whether a G waits for a descriptor.
bool NetpollActive();
// Waits until a descriptor is ready, for at most `ns` (0: not at all). Ends early when broken.
// Touches nothing but *events: the M may count as stopped.
void NetpollWait(uint64_t ns, NetpollEvents* events);
// Ends the waits that the events are for; their Gs are added to `ready`. In the scheduler.
void NetpollDeliver(const NetpollEvents& events, GQueue* ready);
// What is ready now. In the scheduler, or a thread without a G.
void Netpoll(GQueue* ready);
// Registers what was left for later (see netpoll.cc); unless `all`, not what was since the last
// time. The same.
void NetpollFlush(bool all);
// Makes the M that waits come back. Any thread.
void NetpollBreak();
// sysmon: looks whether what is waited for is still there, as numbers may be closed by bare system
// calls; `must`: at once, else when that was long ago.
void NetpollVerify(uint64_t now, bool must);
// In a forked child, before its first thread.
void NetpollAfterFork();
// Under a filter of system calls: all that wait try again; nobody waits here any more.
void NetpollStop();

// --- for threads with a G (Current() is not null) ---

// One descriptor that a Waiter waits for; lies beside it on the stack of who waits.
struct FdWait {
  FdWait(Waiter* w, int d, uint32_t e, bool o) : waiter(w), fd(d), events(e), one(o) {}

  Waiter* waiter;
  int fd;               // another number if the descriptor was closed meanwhile, see NetpollClosing
  uint32_t events;      // EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP
  bool one;             // takes what comes: of several such waits one is ended at a time
  bool counts = false;  // the wait is over already if NetpollActivity is not `seen` any more
  uint32_t seen = 0;
  bool linked = false;  // lock of the descriptor's slot
  FdWait* next = nullptr;
  FdWait* prev = nullptr;
};

// The waiter, armed, waits for the descriptor. kNow: no need to; kCannot: this kind of descriptor
// cannot be waited for, or there is no memory. Nothing is entered then.
enum class Entered : uint8_t { kYes, kNow, kCannot };
Entered NetpollAdd(FdWait* f);
// After the wait. Keeps errno.
void NetpollRemove(FdWait* f);

// Something was done with the descriptor by this process that may make its other end ready for
// `events`: a hint that saves the way through the kernel. `bytes` that were written or read.
void NetpollHandOver(int fd, uint32_t events, size_t bytes);

// Counts what was done at the other end of a channel of this process. A reader looks before it
// tries, so that nothing is missed between the try and its wait.
uint32_t NetpollActivity(int fd);
// A read that had waited took all that there was, at this count.
void NetpollSetDry(int fd, uint32_t activity);
// One that had not waited found something.
void NetpollSetWet(int fd);
// A read that tried had to wait, at this count.
void NetpollFoundNothing(int fd, uint32_t activity);
// Whether the next read will have to wait: the last one took all, and nothing was done since. A
// hint.
bool NetpollIsDry(int fd, uint32_t activity);

// What is known of a descriptor number; a hint that is dropped by NetpollForget.
enum class FdKind : uint8_t {
  kUnknown,
  kPlain,     // reads and writes block the kernel thread: files, directories, what we do not know
  kNowait,    // takes RWF_NOWAIT: pipes, eventfd, timerfd
  kSocket,    // the same, with time limits
  kPollFirst  // can be polled, but knows no RWF_NOWAIT: FIFOs, terminals, inotify
};
inline constexpr unsigned kMostFds = 1u << 20;  // larger numbers are plain
FdKind NetpollKind(int fd);
void NetpollSetKind(int fd, FdKind kind);
// This process has just made it, and it blocks: nobody else has its description until NetpollShare,
// so it blocks until NetpollDisown.
// `stream`: a socket that keeps no messages apart.
void NetpollSetOwn(int fd, bool stream);
void NetpollDisown(int fd);
bool NetpollIsOwn(int fd);
// What exists now may be other processes', or be known by another number.
void NetpollShare();
// While a description's flags are not what the program wants them to be. Handlers wait.
class FlagsLock {
 public:
  explicit FlagsLock(int fd);
  ~FlagsLock();
  FlagsLock(const FlagsLock&) = delete;
  FlagsLock& operator=(const FlagsLock&) = delete;

 private:
  sync::Mutex* lock_;  // null: the number is not in the table
};
// The two are ends of one channel; equal for an eventfd.
void NetpollPair(int a, int b);
// The number names something else from now on, or nothing.
void NetpollForget(int fd);
// The last number behind fd up to which nothing is known of any.
unsigned NetpollSkip(unsigned fd);

// Before the number `fd` is closed or replaced: those who wait for it go on waiting for what it
// names now, under a number of ours.
void NetpollClosing(int fd);
// The end of an operation that began with the number `was` and ended with `now`.
void NetpollEndUse(int was, int now);

// Moves a descriptor of ours to a number that programs seldom get to; returns that, or `fd`.
int NetpollMoveHigh(int fd);
// Whether the number is one of the poller's own; moves these out of the way of a dup2 to `fd`.
bool NetpollOwns(int fd);
void NetpollMakeRoom(int fd);

}  // namespace undergo::sched
