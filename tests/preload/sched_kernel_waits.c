// SPDX-License-Identifier: Apache-2.0
// Waits in the kernel that no descriptor announces: file locks of every kind, message queues and
// semaphores of both sorts, inotify, random bytes, regular files; all while other threads compute.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// timeout: 40
#include <mqueue.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/random.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "pthreads.h"

static char path[64];
static atomic_int inside, entered;
static long counter;

static void Lock(int fd, int how, int on) {
  struct flock l = {.l_type = on ? F_WRLCK : F_UNLCK, .l_whence = SEEK_SET};
  int r = -1;
  switch (how) {
    case 0: r = flock(fd, on ? LOCK_EX : LOCK_UN); break;
    case 1: r = fcntl(fd, F_OFD_SETLKW, &l); break;
    case 2: r = fcntl(fd, F_SETLKW, &l); break;
    case 3: r = lockf(fd, on ? F_LOCK : F_ULOCK, 0); break;
  }
  CHECK_MSG(r == 0, "lock %d: %s", how, strerror(errno));
}
// Locks of a description exclude threads, too, each of which opens the file itself.
static void* Excludes(void* arg) {
  const int how = (int)(intptr_t)arg;
  for (int i = 0; i < 50; i++) {
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    Lock(fd, how, 1);
    CHECK_EQ(inside++, 0);
    counter++;
    if (i % 10 == 0) SleepMs(1);
    inside--;
    Lock(fd, how, 0);
    close(fd);
  }
  return NULL;
}
static void FileLocks(const char* name) {
  (void)name;
  for (intptr_t how = 0; how < 2; how++) {
    counter = 0;
    pthread_t t[6];
    for (int i = 0; i < 6; i++) t[i] = Start(Excludes, (void*)how);
    for (int i = 0; i < 6; i++) Join(t[i]);
    CHECK_EQ(counter, 300);
  }
}
// Those of a process: a child holds it for a while.
static void* WaitsForChild(void* arg) {
  int fd = open(path, O_RDWR);
  Lock(fd, (int)(intptr_t)arg, 1);
  CHECK_EQ(entered, 1);
  Lock(fd, (int)(intptr_t)arg, 0);
  close(fd);
  return NULL;
}
static void ProcessLocks(const char* name) {
  (void)name;
  for (intptr_t how = 0; how < 4; how++) {
    int p[2];
    char c;
    CHECK_EQ(pipe(p), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      int fd = open(path, O_RDWR);
      Lock(fd, (int)how, 1);
      if (write(p[1], "x", 1) != 1) _exit(1);
      usleep(30000);
      _exit(0);
    }
    CHECK_EQ(read(p[0], &c, 1), 1);
    entered = 1;
    pthread_t t = Start(WaitsForChild, (void*)how);
    Join(t);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    close(p[0]), close(p[1]);
  }
}

static mqd_t there, back;
static void* Echoes(void* arg) {
  char text[32];
  unsigned priority;
  for (int i = 0; i < 100; i++) {
    CHECK_EQ(mq_receive(there, text, sizeof text, &priority), 4);
    CHECK_EQ(mq_send(back, text, 4, priority), 0);
  }
  return arg;
}
static mqd_t Queue(const char* name) {
  struct mq_attr attr = {0, 4, 32, 0, {0}};
  char full[64];
  snprintf(full, sizeof full, "/undergo-%s-%d", name, getpid());
  mqd_t q = mq_open(full, O_CREAT | O_EXCL | O_RDWR, 0600, &attr);
  if (q >= 0) mq_unlink(full);
  return q;
}
static void Queues(const char* name) {
  (void)name;
  there = Queue("there"), back = Queue("back");
  if (there < 0 || back < 0) return;
  pthread_t t = Start(Echoes, NULL);
  char text[32];
  for (int i = 0; i < 100; i++) {
    unsigned got;
    struct timespec when = In(CLOCK_REALTIME, 60000);
    CHECK_EQ(mq_send(there, (char*)&i, 4, (unsigned)i % 5), 0);
    CHECK_EQ(mq_timedreceive(back, text, sizeof text, &got, &when), 4);
    CHECK(!memcmp(text, &i, 4) && got == (unsigned)i % 5);
  }
  Join(t);
  struct timespec when = In(CLOCK_REALTIME, 20);
  CHECK(mq_timedreceive(back, text, sizeof text, NULL, &when) == -1 && errno == ETIMEDOUT);
  CHECK(Reached(CLOCK_REALTIME, when));
  mq_close(there), mq_close(back);
}

typedef struct Message {
  long type;
  int value;
} Message;
static int queue_id, sem_id;
static void* SysV(void* arg) {
  Message m;
  for (int i = 0; i < 50; i++) {
    CHECK_EQ(msgrcv(queue_id, &m, sizeof m.value, 1, 0), sizeof m.value);
    m.type = 2;
    CHECK_EQ(msgsnd(queue_id, &m, sizeof m.value, 0), 0);
    struct sembuf down = {0, -1, 0}, up = {1, 1, SEM_UNDO};
    CHECK_EQ(semop(sem_id, &down, 1), 0);
    CHECK_EQ(semop(sem_id, &up, 1), 0);
  }
  return arg;
}
static void Ipc(const char* name) {
  (void)name;
  queue_id = msgget(IPC_PRIVATE, 0600 | IPC_CREAT);
  sem_id = semget(IPC_PRIVATE, 2, 0600 | IPC_CREAT);
  if (queue_id < 0 || sem_id < 0) return;
  pthread_t t = Start(SysV, NULL);
  for (int i = 0; i < 50; i++) {
    Message m = {1, i};
    CHECK_EQ(msgsnd(queue_id, &m, sizeof m.value, 0), 0);
    CHECK_EQ(msgrcv(queue_id, &m, sizeof m.value, 2, 0), sizeof m.value);
    CHECK_EQ(m.value, i);
    struct sembuf up = {0, 1, 0}, down = {1, -1, SEM_UNDO};
    CHECK(semop(sem_id, &up, 1) == 0 && semop(sem_id, &down, 1) == 0);
  }
  Join(t);
  CHECK(msgctl(queue_id, IPC_RMID, NULL) == 0 && semctl(sem_id, 0, IPC_RMID) == 0);
}

static void* Watches(void* arg) {
  char buffer[4096] __attribute__((aligned(8)));
  ssize_t n = read(*(int*)arg, buffer, sizeof buffer);
  CHECK(n >= (ssize_t)sizeof(struct inotify_event));
  CHECK(((struct inotify_event*)buffer)->mask & IN_MODIFY);
  return NULL;
}
static void* ReadsFile(void* arg) {
  char buffer[1000];
  for (int i = 0; i < 200; i++) {
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && pwrite(fd, "data", 4, 100) == 4 && pread(fd, buffer, 104, 0) == 104);
    CHECK(!memcmp(buffer + 100, "data", 4) && fsync(fd) == 0);
    close(fd);
    CHECK_EQ(getrandom(buffer, sizeof buffer, 0), sizeof buffer);
  }
  return arg;
}
static void Rest(const char* name) {
  (void)name;
  int fd = inotify_init1(0);
  CHECK(fd >= 0 && inotify_add_watch(fd, path, IN_MODIFY) >= 0);
  pthread_t w = Start(Watches, &fd), t[4];
  Moment();
  for (int i = 0; i < 4; i++) t[i] = Start(ReadsFile, NULL);
  for (int i = 0; i < 4; i++) Join(t[i]);
  Join(w);
  close(fd);
  // A child as a descriptor.
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    usleep(10000);
    _exit(7);
  }
  fd = (int)syscall(SYS_pidfd_open, child, 0);
  CHECK(fd >= 0);
  siginfo_t info;
  CHECK_EQ(waitid((idtype_t)P_PIDFD, (id_t)fd, &info, WEXITED), 0);
  CHECK(info.si_pid == child && info.si_status == 7);
  close(fd);
}

int main(int argc, char** argv) {
  snprintf(path, sizeof path, "/tmp/undergo-locks-%d", getpid());
  int fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
  CHECK(fd >= 0);
  static const Part parts[] = {{"file_locks", FileLocks},
                               {"process_locks", ProcessLocks},
                               {"queues", Queues},
                               {"ipc", Ipc},
                               {"rest", Rest}};
  int status = RUN_PARTS(parts);
  unlink(path);
  return status;
}
