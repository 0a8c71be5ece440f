// SPDX-License-Identifier: Apache-2.0
// Objects that only a callee-saved register of a thread holds which waits in a call of the C
// library or of the kernel. No such call may end early because of a collection, nor twice.
// run:
// run: name=poison env=UNDERGO=gc=poison
// run: name=stopped env=GODEBUG=gcstoptheworld=1
// timeout: 60
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "gc.h"

// uintptr_t CallHolding(uintptr_t hidden, void (*call)(void)): calls with ~hidden in r15 and
// returns ~r15 from after the call, as the calling convention promises that it is the same.
uintptr_t CallHolding(uintptr_t hidden, void (*call)(void));
__asm__(
    ".text\n"
    "CallHolding:\n"
    "  push %r15\n"
    "  mov %rdi, %r15\n"
    "  not %r15\n"
    "  mov %rsi, %rax\n"
    "  xor %edi, %edi\n"
    "  call *%rax\n"
    "  mov %r15, %rax\n"
    "  not %rax\n"
    "  pop %r15\n"
    "  ret\n");

static __thread int own;  // number of this thread's row
static pthread_t threads[64];
static int pipes[64][2];  // one for each row that wants one

static void Tell(int row) { CHECK_EQ(write(pipes[row][1], "x", 1), 1); }
static void TakeByte(void) {
  char c;
  CHECK_EQ(read(pipes[own][0], &c, 1), 1);
}
static long RawRead(int fd, void* to, long n) {
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "0"(SYS_read), "D"(fd), "S"(to), "d"(n)
                   : "rcx", "r11", "memory");
  return result;
}
// Not seen by any wrapper: the kernel itself starts it again after a signal.
static void Raw(void) {
  char c;
  CHECK_EQ(RawRead(pipes[own][0], &c, 1), 1);
}
static void Syscall(void) {
  char c;
  CHECK_EQ(syscall(SYS_read, pipes[own][0], &c, 1), 1);
}
static void Poll(void) {
  struct pollfd p = {.fd = pipes[own][0], .events = POLLIN};
  CHECK_EQ(poll(&p, 1, -1), 1);
}
static void PollLong(void) {
  struct pollfd p = {.fd = pipes[own][0], .events = POLLIN};
  CHECK_EQ(poll(&p, 1, 60000), 1);
}
static void Ppoll(void) {
  struct pollfd p = {.fd = pipes[own][0], .events = POLLIN};
  CHECK_EQ(ppoll(&p, 1, NULL, NULL), 1);
}
static void Select(void) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(pipes[own][0], &set);
  struct timeval limit = {60, 0};
  CHECK_EQ(select(pipes[own][0] + 1, &set, NULL, NULL, &limit), 1);
}
static void Pselect(void) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(pipes[own][0], &set);
  CHECK_EQ(pselect(pipes[own][0] + 1, &set, NULL, NULL, NULL, NULL), 1);
}
static void EpollWait(void) {
  int e = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN};
  CHECK(e >= 0 && epoll_ctl(e, EPOLL_CTL_ADD, pipes[own][0], &event) == 0);
  CHECK_EQ(epoll_wait(e, &event, 1, -1), 1);
  close(e);
}

static void Timeout(double least, double is) {
  CHECK_MSG(is >= least, "row %d: waited %.3f s of %.3f s", own, is, least);
}
static void PollTimeout(void) {
  double start = Seconds();
  CHECK_EQ(poll(NULL, 0, 200), 0);
  Timeout(0.199, Seconds() - start);
}
static void Nanosleep(void) {
  double start = Seconds();
  struct timespec t = {0, 200000000};
  CHECK_EQ(nanosleep(&t, NULL), 0);
  Timeout(0.2, Seconds() - start);
}
static void ClockNanosleep(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  t.tv_sec++;
  double start = Seconds();
  CHECK_EQ(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t, NULL), 0);
  Timeout(0.98, Seconds() - start);
}
static void Usleep(void) {
  double start = Seconds();
  CHECK_EQ(usleep(200000), 0);
  Timeout(0.2, Seconds() - start);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER,
                       condition_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int condition_holds;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_barrier_t barrier;
static sem_t semaphore[2];
static void CondWait(void) {
  pthread_mutex_lock(&condition_mutex);
  while (!condition_holds) CHECK_EQ(pthread_cond_wait(&condition, &condition_mutex), 0);
  pthread_mutex_unlock(&condition_mutex);
}
static void CondTimedwait(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  t.tv_sec += 60;
  pthread_mutex_lock(&condition_mutex);
  while (!condition_holds) CHECK_EQ(pthread_cond_timedwait(&condition, &condition_mutex, &t), 0);
  pthread_mutex_unlock(&condition_mutex);
}
static void Broadcast(int row) {
  (void)row;
  pthread_mutex_lock(&condition_mutex);
  condition_holds = 1;
  pthread_cond_broadcast(&condition);
  pthread_mutex_unlock(&condition_mutex);
}
static void MutexLock(void) {
  CHECK_EQ(pthread_mutex_lock(&mutex), 0);
  pthread_mutex_unlock(&mutex);
}
static void MutexUnlock(int row) {
  (void)row;
  CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
}
static void Rdlock(void) {
  CHECK_EQ(pthread_rwlock_rdlock(&rwlock), 0);
  pthread_rwlock_unlock(&rwlock);
}
static void RwUnlock(int row) {
  (void)row;
  CHECK_EQ(pthread_rwlock_unlock(&rwlock), 0);
}
static void BarrierWait(void) {
  int rc = pthread_barrier_wait(&barrier);
  CHECK(rc == 0 || rc == PTHREAD_BARRIER_SERIAL_THREAD);
}
static void BarrierRelease(int row) {
  (void)row;
  pthread_barrier_wait(&barrier);
}
static void SemWait(void) { CHECK_EQ(sem_wait(&semaphore[0]), 0); }
static void SemTimedwait(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  t.tv_sec += 60;
  CHECK_EQ(sem_timedwait(&semaphore[1], &t), 0);
}
static void PostFirst(int row) {
  (void)row;
  sem_post(&semaphore[0]);
}
static void PostSecond(int row) {
  (void)row;
  sem_post(&semaphore[1]);
}
static void* ReadByte(void* row) {
  own = (int)(intptr_t)row;
  TakeByte();
  return (void*)7;
}
static void Join(void) {
  pthread_t t;
  void* result;
  CHECK_EQ(pthread_create(&t, NULL, ReadByte, (void*)(intptr_t)own), 0);
  CHECK_EQ(pthread_join(t, &result), 0);
  CHECK(result == (void*)7);
}

static void Handle(int sig) { (void)sig; }
static sigset_t only_usr2, none;
static void Sigwait(void) {
  int sig;
  CHECK_EQ(sigwait(&only_usr2, &sig), 0);
  CHECK_EQ(sig, SIGUSR2);
}
static void Sigwaitinfo(void) { CHECK_EQ(sigwaitinfo(&only_usr2, NULL), SIGUSR2); }
static void Sigtimedwait(void) {
  struct timespec limit = {60, 0};
  CHECK_EQ(sigtimedwait(&only_usr2, NULL, &limit), SIGUSR2);
}
static void Sigsuspend(void) {
  CHECK_EQ(sigsuspend(&none), -1);
  CHECK_EQ(errno, EINTR);
}
static void Kill(int row) { CHECK_EQ(pthread_kill(threads[row], SIGUSR2), 0); }

static int listener, sockets[2][2], message_queue, semaphores, locked_file;
static struct sockaddr_un address;
static void Accept(void) {
  int fd = accept(listener, NULL, NULL);
  CHECK_MSG(fd >= 0, "accept: %s", strerror(errno));
  close(fd);
}
static void Connect(int row) {
  (void)row;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  socklen_t size =
      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(address.sun_path + 1));
  CHECK_EQ(connect(fd, (struct sockaddr*)&address, size), 0);
  close(fd);
}
static void Recv(void) {
  char c;
  CHECK_EQ(recv(sockets[0][0], &c, 1, 0), 1);
}
static void SendFirst(int row) {
  (void)row;
  CHECK_EQ(send(sockets[0][1], "x", 1, 0), 1);
}
static void Recvmsg(void) {
  char c;
  struct iovec part = {&c, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  CHECK_EQ(recvmsg(sockets[1][0], &message, 0), 1);
}
static void SendSecond(int row) {
  (void)row;
  CHECK_EQ(send(sockets[1][1], "x", 1, 0), 1);
}
static void Msgrcv(void) {
  struct {
    long type;
    char text[8];
  } message;
  CHECK_EQ(msgrcv(message_queue, &message, sizeof message.text, 0, 0), 1);
}
static void Msgsnd(int row) {
  (void)row;
  struct {
    long type;
    char text[8];
  } message = {1, "x"};
  CHECK_EQ(msgsnd(message_queue, &message, 1, 0), 0);
}
static void Semop(void) {
  struct sembuf down = {0, -1, 0};
  CHECK_EQ(semop(semaphores, &down, 1), 0);
}
static void SemopUp(int row) {
  (void)row;
  struct sembuf up = {0, 1, 0};
  CHECK_EQ(semop(semaphores, &up, 1), 0);
}
static void Flock(void) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", locked_file);
  int fd = open(path, O_RDWR | O_CLOEXEC);  // another open file: flock belongs to that
  CHECK(fd >= 0);
  CHECK_EQ(flock(fd, LOCK_EX), 0);
  close(fd);
}
static void Funlock(int row) {
  (void)row;
  CHECK_EQ(flock(locked_file, LOCK_UN), 0);
}
static void FullPipe(void) {
  static char bytes[4096];
  int fd = pipes[own][1];
  CHECK_EQ(fcntl(fd, F_SETPIPE_SZ, 4096), 4096);
  CHECK_EQ(write(fd, bytes, 4096), 4096);
  CHECK_EQ(write(fd, bytes, 4096), 4096);
}
static void Drain(int row) {
  char bytes[4096];
  CHECK_EQ(read(pipes[row][0], bytes, 4096), 4096);
}
static atomic_int word;
static void Futex(void) {
  while (word == 0) {
    long rc = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    CHECK(rc == 0 || errno == EAGAIN);
  }
}
static void FutexWake(int row) {
  (void)row;
  word = 1;
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
static int event;
static void EventRead(void) {
  eventfd_t value;
  CHECK_EQ(eventfd_read(event, &value), 0);
}
static void EventWrite(int row) {
  (void)row;
  eventfd_write(event, 1);
}
static pid_t child;
static void Waitpid(void) {
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFSIGNALED(status));
}
static void KillChild(int row) {
  (void)row;
  kill(child, SIGKILL);
}
static void None(int row) { (void)row; }

static const struct {
  const char* name;
  void (*wait)(void);
  void (*release)(int row);
} rows[] = {{"read", TakeByte, Tell},
            {"read by an instruction", Raw, Tell},
            {"read by syscall()", Syscall, Tell},
            {"poll", Poll, Tell},
            {"poll with a limit", PollLong, Tell},
            {"ppoll", Ppoll, Tell},
            {"select", Select, Tell},
            {"pselect", Pselect, Tell},
            {"epoll_wait", EpollWait, Tell},
            {"poll to its limit", PollTimeout, None},
            {"nanosleep", Nanosleep, None},
            {"clock_nanosleep", ClockNanosleep, None},
            {"usleep", Usleep, None},
            {"pthread_cond_wait", CondWait, Broadcast},
            {"pthread_cond_timedwait", CondTimedwait, Broadcast},
            {"pthread_mutex_lock", MutexLock, MutexUnlock},
            {"pthread_rwlock_rdlock", Rdlock, RwUnlock},
            {"pthread_barrier_wait", BarrierWait, BarrierRelease},
            {"sem_wait", SemWait, PostFirst},
            {"sem_timedwait", SemTimedwait, PostSecond},
            {"pthread_join", Join, Tell},
            {"sigwait", Sigwait, Kill},
            {"sigwaitinfo", Sigwaitinfo, Kill},
            {"sigtimedwait", Sigtimedwait, Kill},
            {"sigsuspend", Sigsuspend, Kill},
            {"accept", Accept, Connect},
            {"recv", Recv, SendFirst},
            {"recvmsg", Recvmsg, SendSecond},
            {"msgrcv", Msgrcv, Msgsnd},
            {"semop", Semop, SemopUp},
            {"flock", Flock, Funlock},
            {"write to a full pipe", FullPipe, Drain},
            {"futex", Futex, FutexWake},
            {"eventfd_read", EventRead, EventWrite},
            {"waitpid", Waitpid, KillChild}};
enum { kRows = sizeof rows / sizeof *rows };
static uintptr_t hidden[kRows], came_back[kRows];
static atomic_int waiting, done[kRows];

static void* Thread(void* row) {
  own = (int)(intptr_t)row;
  atomic_fetch_add(&waiting, 1);
  came_back[own] = CallHolding(hidden[own], rows[own].wait);
  done[own] = 1;
  return NULL;
}

static void Prepare(void) {
  sigset_t usr2;
  sigemptyset(&none);
  sigemptyset(&only_usr2);
  sigaddset(&only_usr2, SIGUSR2);
  usr2 = only_usr2;
  struct sigaction action = {.sa_handler = Handle};
  CHECK_EQ(sigaction(SIGUSR2, &action, NULL), 0);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &usr2, NULL), 0);
  for (int row = 0; row < kRows; row++) CHECK_EQ(pipe2(pipes[row], O_CLOEXEC), 0);
  pthread_mutex_lock(&mutex);
  pthread_rwlock_wrlock(&rwlock);
  CHECK_EQ(pthread_barrier_init(&barrier, NULL, 2), 0);
  sem_init(&semaphore[0], 0, 0);
  sem_init(&semaphore[1], 0, 0);
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path + 1, 60, "undergo-test-%d", (int)getpid());  // an abstract name
  socklen_t size =
      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(address.sun_path + 1));
  listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK_EQ(bind(listener, (struct sockaddr*)&address, size), 0);
  CHECK_EQ(listen(listener, 5), 0);
  for (int i = 0; i < 2; i++) CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets[i]), 0);
  CHECK((message_queue = msgget(IPC_PRIVATE, 0600)) >= 0);
  CHECK((semaphores = semget(IPC_PRIVATE, 1, 0600)) >= 0);
  FILE* file = tmpfile();
  CHECK(file);
  locked_file = fileno(file);
  CHECK_EQ(flock(locked_file, LOCK_EX), 0);
  CHECK((event = eventfd(0, EFD_CLOEXEC)) >= 0);
  child = fork();
  CHECK(child >= 0);
  if (child == 0)
    for (;;) pause();
}

int main(void) {
  Prepare();
  for (int row = 0; row < kRows; row++) hidden[row] = Hide(NewObject((uint64_t)row));
  Scrub();
  pthread_attr_t small;
  CHECK_EQ(pthread_attr_init(&small), 0);
  CHECK_EQ(pthread_attr_setstacksize(&small, 128 << 10), 0);
  for (int row = 0; row < kRows; row++)
    CHECK_EQ(pthread_create(&threads[row], &small, Thread, (void*)(intptr_t)row), 0);
  while (waiting < kRows) SleepMs(1);
  SleepMs(30);
  CollectHard("waiting threads");
  for (int row = 0; row < kRows; row++)
    CHECK_MSG(rows[row].release == None || !done[row], "%s ended before its time", rows[row].name);
  for (int row = 0; row < kRows; row++) rows[row].release(row);
  for (int row = 0; row < kRows; row++) {
    CHECK_EQ(pthread_join(threads[row], NULL), 0);
    CHECK_MSG(came_back[row] == hidden[row], "%s: r15 was changed", rows[row].name);
    CheckObject(Reveal(hidden[row]), (uint64_t)row, rows[row].name);
    free(Reveal(hidden[row]));
  }
  msgctl(message_queue, IPC_RMID, NULL);
  semctl(semaphores, 0, IPC_RMID);
  puts("all right");
  return 0;
}
