// SPDX-License-Identifier: Apache-2.0
// Waits that a descriptor can announce although the call has no flag for it: connect, the end of a
// child, batches of messages, low-water marks, large sets; and the same calls made by syscall().
// They are right, and under the scheduler they keep no kernel thread.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 60
#include <dirent.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "pthreads.h"

#define FAILS(call, error) CHECK_MSG((call) == -1 && errno == (error), "%s: %d", #call, errno)
enum { kPidfd = 3 };

static atomic_int entered, done;

static int CountIn(const char* path) {
  DIR* d = opendir(path);
  CHECK(d != NULL);
  int n = 0;
  for (struct dirent* e; (e = readdir(d)) != NULL;) n += e->d_name[0] != '.';
  closedir(d);
  return n;
}
// Of the scheduler's own: two that run, sysmon, some that were needed for a moment.
static void FewKernelThreads(void) {
  if (Scheduled()) EVENTUALLY(CountIn("/proc/self/task") <= 12);
}
static void OnSignal(int sig) { (void)sig; }
static void Handle(int flags) {
  struct sigaction act = {.sa_handler = OnSignal, .sa_flags = flags};
  CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
}

// Interrupts the call that the thread has begun, or is about to begin, until that has ended.
static void InterruptUntilEntered(pthread_t t, int count) {
  for (int left = kForeverMs / kMomentMs; entered < count; left--) {
    CHECK_MSG(left > 0, "not interrupted: %d", entered);
    CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
    Moment();
  }
}

// A listener whose queue is full does not answer: connect waits until others were accepted.
static struct sockaddr_in address;
static int listener, fillers[2];
static void Fill2(void) {
  socklen_t size = sizeof address;
  address = (struct sockaddr_in){.sin_family = AF_INET};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  listener = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(bind(listener, (struct sockaddr*)&address, size) == 0 && listen(listener, 0) == 0);
  CHECK(getsockname(listener, (struct sockaddr*)&address, &size) == 0);
  for (int i = 0; i < 2; i++) {
    fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int r = connect(fillers[i], (struct sockaddr*)&address, sizeof address);
    CHECK(r == 0 || errno == EINPROGRESS);
  }
  Moment();
}
enum { kCallers = 20 };
static void* Calls(void* arg) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), shared = -1;
  if ((intptr_t)arg % 10 == 9) shared = dup(fd);  // blocks a kernel thread
  entered++;
  int r = connect(fd, (struct sockaddr*)&address, sizeof address);
  CHECK_MSG(r == 0, "connect: %s", strerror(errno));
  CHECK(!(fcntl(fd, F_GETFL) & O_NONBLOCK));
  FAILS(connect(fd, (struct sockaddr*)&address, sizeof address), EISCONN);
  char c = 0;
  CHECK(send(fd, "a", 1, 0) == 1 && recv(fd, &c, 1, 0) == 1 && c == 'b');
  close(fd);
  if (shared >= 0) close(shared);
  done++;
  return NULL;
}
static void* IsInterrupted(void* arg) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  entered++;
  FAILS(connect(fd, (struct sockaddr*)&address, sizeof address), EINTR);
  CHECK(!(fcntl(fd, F_GETFL) & O_NONBLOCK));
  // The connection goes on; another call waits for it.
  entered++;
  int r;
  do r = connect(fd, (struct sockaddr*)&address, sizeof address);
  while (r < 0 && errno == EINTR);
  CHECK_MSG(r == 0, "second connect: %s", strerror(errno));
  close(fd);
  return arg;
}
static void* AcceptsAll(void* arg) {
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) return arg;
    char c;
    struct pollfd p = {fd, POLLIN, 0};
    if (poll(&p, 1, kForeverMs) == 1 && recv(fd, &c, 1, 0) == 1) CHECK_EQ(send(fd, "b", 1, 0), 1);
    close(fd);
  }
}
static void Connects(const char* name) {
  (void)name;
  Fill2();
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct timeval v = {0, 30000};
  CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &v, sizeof v), 0);
  struct timespec when = In(CLOCK_MONOTONIC, 30);
  FAILS(connect(fd, (struct sockaddr*)&address, sizeof address), EINPROGRESS);
  CHECK(Reached(CLOCK_MONOTONIC, when));
  close(fd);
  Handle(0);
  entered = done = 0;
  pthread_t t[kCallers], i = Start(IsInterrupted, NULL), a;
  EVENTUALLY(entered == 1);
  Moment();
  InterruptUntilEntered(i, 2);
  entered = 0;
  for (intptr_t k = 0; k < kCallers; k++) t[k] = Start(Calls, (void*)k);
  EVENTUALLY(entered == kCallers);
  FewKernelThreads();
  CHECK_EQ(done, 0);
  close(fillers[0]), close(fillers[1]);  // they say nothing
  CHECK_EQ(listen(listener, 100), 0);
  a = Start(AcceptsAll, NULL);
  for (int k = 0; k < kCallers; k++) Join(t[k]);
  Join(i);
  shutdown(listener, SHUT_RDWR);
  Join(a);
  close(listener);
}

// Each thread waits for a child of its own, in one of several ways.
enum { kChildren = 24 };
static int gate[2];
static pid_t Child(int status) {
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid != 0) return pid;
  char c;
  close(gate[1]);
  alarm(60);
  if (read(gate[0], &c, 1) < 0) status = 99;
  _exit(status);
}
static void* Waits(void* arg) {
  const int how = (int)((intptr_t)arg % 6), wanted = (int)(intptr_t)arg;
  pid_t pid = Child(wanted);
  int status = -1, fd = -1;
  struct rusage usage;
  memset(&usage, 0xff, sizeof usage);
  siginfo_t info = {0};
  CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
  if (how == 5) fd = (int)syscall(SYS_pidfd_open, pid, 0);
  entered++;
  switch (how) {
    case 0: CHECK_EQ(waitpid(pid, &status, 0), pid); break;
    case 1: CHECK_EQ(wait4(pid, &status, 0, &usage), pid); break;
    case 2:
      CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0 && info.si_pid == pid);
      CHECK_EQ(waitpid(pid, &status, 0), pid);
      break;
    case 3: CHECK_EQ(syscall(SYS_wait4, pid, &status, 0, NULL), pid); break;
    case 4: CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid); break;
    case 5:
      CHECK(waitid((idtype_t)kPidfd, (id_t)fd, &info, WEXITED) == 0 && info.si_pid == pid);
      CHECK(info.si_status == wanted && info.si_code == CLD_EXITED);
      status = wanted << 8;
      close(fd);
  }
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == wanted);
  if (how == 1) CHECK(usage.ru_utime.tv_sec >= 0);
  FAILS(waitpid(pid, &status, 0), ECHILD);
  return NULL;
}
static void* WaitsInterrupted(void* arg) {
  int status;
  entered++;
  FAILS(waitpid(*(pid_t*)arg, &status, 0), EINTR);
  entered++;
  while (waitpid(*(pid_t*)arg, &status, 0) < 0 && errno == EINTR) {  // cancelled here
  }
  return arg;
}
static void Children(const char* name) {
  (void)name;
  CHECK_EQ(pipe(gate), 0);
  entered = 0;
  pthread_t t[kChildren];
  for (intptr_t i = 0; i < kChildren; i++) t[i] = Start(Waits, (void*)i);
  EVENTUALLY(entered == kChildren);
  FewKernelThreads();
  close(gate[1]);
  for (int i = 0; i < kChildren; i++) Join(t[i]);
  close(gate[0]);
  // A handler ends the wait, a cancellation too, and no descriptor is left behind.
  CHECK_EQ(pipe(gate), 0);
  Handle(0);
  pid_t pid = Child(3);
  int before = CountIn("/proc/self/fd");
  entered = 0;
  t[0] = Start(WaitsInterrupted, &pid);
  EVENTUALLY(entered == 1);
  Moment();
  InterruptUntilEntered(t[0], 2);
  Moment();
  CHECK_EQ(pthread_cancel(t[0]), 0);
  CHECK(Join(t[0]) == PTHREAD_CANCELED);
  EVENTUALLY(CountIn("/proc/self/fd") == before);  // the library opens files for a moment
  close(gate[1]);
  int status;
  CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 3);
  close(gate[0]);
}

// Batches: all of recvmmsg's messages are waited for, nothing of sendmmsg's is lost.
enum { kBatch = 50, kPiece = 40000 };
static int ends[2];
static void* SendsBatch(void* arg) {
  char* data = malloc(kPiece);
  Fill(data, kPiece, 5);
  struct mmsghdr m[kBatch] = {0};
  struct iovec v[kBatch][2];
  for (int i = 0; i < kBatch; i++) {
    v[i][0] = (struct iovec){data, 1000}, v[i][1] = (struct iovec){data + 1000, kPiece - 1000};
    m[i].msg_hdr.msg_iov = v[i], m[i].msg_hdr.msg_iovlen = 2;
  }
  CHECK_EQ(sendmmsg(ends[1], m, kBatch, 0), kBatch);
  for (int i = 0; i < kBatch; i++) CHECK_EQ(m[i].msg_len, kPiece);
  free(data);
  return arg;
}
static void Batches(const char* name) {
  (void)name;
  char* data = malloc(kPiece);
  for (int type = 0; type < 2; type++) {
    CHECK_EQ(socketpair(AF_UNIX, type ? SOCK_SEQPACKET : SOCK_STREAM, 0, ends), 0);
    pthread_t t = Start(SendsBatch, NULL);
    for (int i = 0; i < kBatch; i++) {
      CHECK_EQ(recv(ends[0], data, kPiece, type ? 0 : MSG_WAITALL), kPiece);
      CHECK_EQ(Verify(data, kPiece, 5), kPiece);
    }
    Join(t);
    close(ends[0]), close(ends[1]);
  }
  free(data);
}
static void* SendsSlowly(void* arg) {
  for (int i = 0; i < 5; i++) {
    SleepMs(3);
    CHECK_EQ(send(ends[1], &i, sizeof i, 0), sizeof i);
  }
  return arg;
}
static void Messages(const char* name) {
  Batches(name);
  struct mmsghdr m[5] = {0};
  struct iovec v[5];
  int got[5];
  for (int i = 0; i < 5; i++) {
    v[i] = (struct iovec){&got[i], sizeof got[i]};
    m[i].msg_hdr.msg_iov = &v[i], m[i].msg_hdr.msg_iovlen = 1;
  }
  CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
  pthread_t t = Start(SendsSlowly, NULL);
  CHECK_EQ(recvmmsg(ends[0], m, 5, 0, NULL), 5);
  for (int i = 0; i < 5; i++) CHECK(got[i] == i && m[i].msg_len == sizeof got[i]);
  Join(t);
  t = Start(SendsSlowly, NULL);
  int n = recvmmsg(ends[0], m, 5, MSG_WAITFORONE, NULL);
  CHECK(n >= 1 && n <= 5);
  Join(t);
  while (recv(ends[0], got, sizeof got, MSG_DONTWAIT) > 0) {
  }
  // The time counts when a message has come.
  struct timespec limit = {0, 1};
  t = Start(SendsSlowly, NULL);
  CHECK_EQ(recvmmsg(ends[0], m, 5, 0, &limit), 1);
  CHECK(limit.tv_sec == 0 && limit.tv_nsec == 0);
  Join(t);
  close(ends[0]);
  FAILS(sendmmsg(ends[1], m, 1, MSG_NOSIGNAL), ECONNREFUSED);
  close(ends[1]);
}

// SO_RCVLOWAT: a read waits for so many bytes, or for the end.
static void* SendsBytes(void* arg) {
  for (int i = 0; i < 12; i++) {
    SleepMs(1);
    CHECK_EQ(send(ends[1], "0123456789" + i % 10, 1, 0), 1);
  }
  shutdown(ends[1], SHUT_WR);
  return arg;
}
static void LowWater(const char* name) {
  (void)name;
  for (int how = 0; how < 4; how++) {
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    int low = 8;
    CHECK_EQ(setsockopt(ends[0], SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low), 0);
    char text[64];
    struct iovec v = {text, sizeof text};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    pthread_t t = Start(SendsBytes, NULL);
    ssize_t n = how == 0   ? recv(ends[0], text, sizeof text, 0)
                : how == 1 ? read(ends[0], text, sizeof text)
                : how == 2 ? readv(ends[0], &v, 1)
                           : recvmsg(ends[0], &m, 0);
    CHECK_MSG(n >= 8, "way %d: %zd bytes", how, n);
    for (ssize_t more; (more = read(ends[0], text, sizeof text)) > 0;) n += more;
    CHECK_EQ(n, 12);
    Join(t);
    close(ends[0]), close(ends[1]);
  }
}

// More threads than anybody wants kernel threads for, each with a large set.
enum { kSet = 40, kLookers = 80 };
static int set[kSet][2];
static void* LooksAtMany(void* arg) {
  const int how = (int)((intptr_t)arg % 3);
  struct pollfd p[kSet];
  fd_set s;
  FD_ZERO(&s);
  for (int i = 0; i < kSet; i++) {
    p[i] = (struct pollfd){set[i][0], POLLIN, 0};
    FD_SET(set[i][0], &s);
  }
  entered++;
  switch (how) {
    case 0: CHECK_EQ(poll(p, kSet, -1), 1); break;
    case 1: CHECK_EQ(ppoll(p, kSet, NULL, NULL), 1); break;
    case 2: CHECK_EQ(select(FD_SETSIZE, &s, NULL, NULL, NULL), 1); break;
  }
  if (how < 2) CHECK(p[kSet - 1].revents == POLLIN && p[0].revents == 0);
  if (how == 2) CHECK(FD_ISSET(set[kSet - 1][0], &s) && !FD_ISSET(set[0][0], &s));
  done++;
  return NULL;
}
static void LargeSets(const char* name) {
  (void)name;
  pthread_t t[kLookers];
  entered = done = 0;
  for (int i = 0; i < kSet; i++) CHECK_EQ(pipe(set[i]), 0);
  for (intptr_t i = 0; i < kLookers; i++) t[i] = Start(LooksAtMany, (void*)i);
  EVENTUALLY(entered == kLookers);
  Moment();
  CHECK_EQ(done, 0);
  CHECK_EQ(write(set[kSet - 1][1], "x", 1), 1);
  for (int i = 0; i < kLookers; i++) Join(t[i]);
  for (int i = 0; i < kSet; i++) close(set[i][0]), close(set[i][1]);
}

// By number.
static void* RawReads(void* arg) {
  char c = 0;
  struct timespec t = {0, 2000000};
  struct pollfd p = {ends[0], POLLIN, 0};
  entered++;
  CHECK_EQ(syscall(SYS_poll, &p, 1, -1), 1);
  CHECK(syscall(SYS_read, ends[0], &c, 1) == 1 && c == 'r');  // no cancellation point
  CHECK_EQ(syscall(SYS_nanosleep, &t, NULL), 0);
  struct timespec none = {0, -1};
  FAILS(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &none, NULL), EINVAL);
  done++;
  pthread_testcancel();
  CheckFailed(__FILE__, __LINE__, "not cancelled");
  return arg;
}
static void* RawMask(void* arg) {
  (void)arg;
  uint64_t usr2 = 1ull << (SIGUSR2 - 1), old = ~0ull, now = 0;
  CHECK_EQ(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &usr2, &old, 8), 0);
  CHECK_EQ(old & usr2, 0);
  for (int i = 0; i < 20; i++) {  // wherever it runs meanwhile
    SleepMs(1);
    sigset_t mask;
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0 && sigismember(&mask, SIGUSR2) == 1);
  }
  CHECK(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &now, 8) == 0 && (now & usr2) != 0);
  void* wild = (void*)8;
  FAILS(syscall(SYS_rt_sigprocmask, SIG_BLOCK, wild, NULL, 8), EFAULT);
  FAILS(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, wild, 8), EFAULT);
  FAILS(syscall(SYS_rt_sigpending, wild, 8), EFAULT);
  FAILS(syscall(SYS_rt_sigsuspend, wild, 8), EFAULT);
  FAILS(syscall(SYS_rt_sigtimedwait, wild, NULL, NULL, 8), EFAULT);
  FAILS(syscall(SYS_ppoll, NULL, 0, NULL, wild, 8), EFAULT);
  return NULL;
}
static void* NoMask(void* arg) {
  for (int i = 0; i < 20; i++) {
    SleepMs(1);
    sigset_t mask;
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0 && sigismember(&mask, SIGUSR2) == 0);
  }
  return arg;
}
static void Numbers(const char* name) {
  (void)name;
  entered = done = 0;
  CHECK_EQ(syscall(SYS_pipe2, ends, 0), 0);
  pthread_t t[20];
  for (int i = 0; i < 20; i++) t[i] = Start(RawReads, NULL);
  EVENTUALLY(entered == 20);
  Moment();
  FewKernelThreads();
  for (int i = 0; i < 20; i++) CHECK_EQ(pthread_cancel(t[i]), 0);
  Moment();
  CHECK_EQ(done, 0);
  for (int i = 0; i < 20; i++) CHECK_EQ(syscall(SYS_write, ends[1], "r", 1), 1);
  for (int i = 0; i < 20; i++) CHECK(Join(t[i]) == PTHREAD_CANCELED);
  CHECK_EQ(done, 20);
  struct pollfd p = {ends[0], POLLIN, 0};
  struct timespec time = {60, 0};
  CHECK_EQ(syscall(SYS_write, ends[1], "r", 1), 1);
  CHECK_EQ(syscall(SYS_ppoll, &p, 1, &time, NULL, 8), 1);
  CHECK(time.tv_sec == 59);
  fd_set s;
  FD_ZERO(&s);
  FD_SET(ends[0], &s);
  struct {
    void* set;
    size_t size;
  } mask = {NULL, 8};
  time.tv_sec = 60, time.tv_nsec = 0;
  CHECK_EQ(syscall(SYS_pselect6, ends[0] + 1, &s, NULL, NULL, &time, &mask), 1);
  CHECK(FD_ISSET(ends[0], &s) && time.tv_sec == 59);
  CHECK(syscall(SYS_close, ends[0]) == 0 && syscall(SYS_close, ends[1]) == 0);
  for (int i = 0; i < 6; i++) t[i] = Start(i % 2 ? RawMask : NoMask, NULL);
  for (int i = 0; i < 6; i++) Join(t[i]);
}

int main(int argc, char** argv) {
  // The last one leaves idle kernel threads behind, for some seconds.
  static const Part parts[] = {{"connects", Connects}, {"children", Children},
                               {"messages", Messages}, {"low_water", LowWater},
                               {"numbers", Numbers},   {"large_sets", LargeSets}};
  return RUN_PARTS(parts);
}
