// SPDX-License-Identifier: Apache-2.0
// Signals at the end of threads: what the process sent to itself while only one thread took it has
// been handled when that thread ends or blocks it, as the kernel's threads have it. A handler and a
// destructor may leave a thread that is on its way out.
// run:
// run: name=off pace=long env=UNDERGO=sched=off
// run: name=one env=GOMAXPROCS=1
// run: name=forced pace=long env=UNDERGO=stress=preempt
// timeout: 60
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "pthreads.h"

enum { kRounds = 200 };

static atomic_int handled, sent, ready, right_thread;
static __thread int takes;
static sem_t handled_once;

static void OnSignal(int sig) {
  (void)sig;
  if (takes) right_thread++;
  handled++;
  sem_post(&handled_once);
}
static void Mask(int how) {
  sigset_t set = SetOf(SIGUSR1, 0);
  CHECK_EQ(pthread_sigmask(how, &set, NULL), 0);
}
static void Begin(void) {
  handled = sent = ready = right_thread = 0;
  struct sigaction act = {.sa_handler = OnSignal};
  CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
  Mask(SIG_BLOCK);
}
static void SendNow(int i) {
  const union sigval value = {.sival_int = i};
  if (i % 3 == 0) CHECK_EQ(kill(getpid(), SIGUSR1), 0);
  if (i % 3 == 1) CHECK_EQ(sigqueue(getpid(), SIGUSR1, value), 0);
  if (i % 3 == 2) CHECK_EQ(syscall(SYS_kill, getpid(), SIGUSR1), 0);
}

// Waits in turn in user space, for a while in the kernel's or the scheduler's queues.
static void AwaitSent(int i) {
  while (sent != i + 1) {
    if (i % 4 == 1) sched_yield();
    if (i % 4 == 2) usleep(20);
  }
}
static void* Ends(void* arg) {
  takes = 1;
  Mask(SIG_UNBLOCK);
  ready = 1;
  AwaitSent((int)(intptr_t)arg);
  return NULL;
}
static void* Blocks(void* arg) {
  Ends(arg);
  Mask(SIG_BLOCK);
  if (Scheduled()) CHECK_EQ(handled, (int)(intptr_t)arg + 1);
  return NULL;
}
// The kernel tells a thread on another CPU by an interrupt, which may come when the thread has
// blocked the signal: it is pending then, and the next who takes it has it.
static void TakeLate(int i) {
  const struct timespec none = {0, 0};
  const sigset_t set = SetOf(SIGUSR1, 0);
  if (Scheduled() || handled != i) return;
  CHECK_EQ(sigtimedwait(&set, NULL, &none), SIGUSR1);
  handled++;
  right_thread++;
}
static void Rounds(void* (*thread)(void*)) {
  Begin();
  for (int i = 0; i < kRounds; i++) {
    ready = 0;
    pthread_t t = Start(thread, (void*)(intptr_t)i);
    while (!ready) sched_yield();
    SendNow(i);
    sent = i + 1;
    Join(t);
    TakeLate(i);
    CHECK_EQ(handled, i + 1);
    CHECK_EQ(right_thread, i + 1);
  }
}
static void AtEnd(const char* name) {
  (void)name;
  Rounds(Ends);
}
static void AtBlock(const char* name) {
  (void)name;
  Rounds(Blocks);
}

// Sent by a thread that alone takes it: handled before the call returns.
static void* SendsToItself(void* arg) {
  takes = 1;
  Mask(SIG_UNBLOCK);
  for (int i = 0; i < kRounds; i++) {
    SendNow(i);
    CHECK_EQ(handled, i + 1);
    CHECK_EQ(right_thread, i + 1);
  }
  return arg;
}
static void AtOnce(const char* name) {
  (void)name;
  Begin();
  Join(Start(SendsToItself, NULL));
}

// A storm: each signal is sent when the handler of the one before has posted.
static atomic_int stop;
static void* Storm(void* arg) {
  while (!stop) {
    CHECK_EQ(sem_wait(&handled_once), 0);
    CHECK_EQ(kill(getpid(), SIGUSR1), 0);
  }
  return arg;
}
static void* Short(void* arg) { return arg; }
static void* Makes(void* arg) {
  Mask(SIG_UNBLOCK);
  while (!stop) Join(Start(Short, NULL));
  return arg;
}
static void Storms(const char* name) {
  (void)name;
  Begin();
  for (int i = 0; i < 20; i++) {
    stop = 0;
    sem_init(&handled_once, 0, 1);
    pthread_t makes = Start(Makes, NULL), sends = Start(Storm, NULL);
    SleepMs(20);
    stop = 1;
    Join(sends);
    Join(makes);
  }
}

// pthread_exit on the way out.
static pthread_key_t key;
static atomic_int leaves;
static void Leaves(void* value) {
  leaves++;
  pthread_exit(value);
}
static void LeavesByHandler(int sig) {
  (void)sig;
  leaves++;
  pthread_exit((void*)7);
}
static void RaisesAtEnd(void* value) {
  (void)value;
  raise(SIGUSR2);
}
static void* Sets(void* arg) {
  CHECK_EQ(pthread_setspecific(key, arg), 0);
  return arg;
}
static void Outside(void (*destructor)(void*), void* result) {
  leaves = 0;
  CHECK_EQ(pthread_key_create(&key, destructor), 0);
  for (int i = 0; i < 50; i++) {
    void* got;
    pthread_t t = Start(Sets, (void*)5);
    CHECK_EQ(pthread_join(t, &got), 0);
    CHECK(got == result);
    CHECK_EQ(leaves, i + 1);
  }
  CHECK_EQ(pthread_key_delete(key), 0);
}
static void Leaving(const char* name) {
  (void)name;
  struct sigaction act = {.sa_handler = LeavesByHandler, .sa_flags = SA_NODEFER};
  CHECK_EQ(sigaction(SIGUSR2, &act, NULL), 0);
  Outside(Leaves, (void*)5);
  Outside(RaisesAtEnd, (void*)7);
}

int main(int argc, char** argv) {
  CHECK_EQ(sem_init(&handled_once, 0, 0), 0);
  static const Part parts[] = {{"at_end", AtEnd},
                               {"at_block", AtBlock},
                               {"at_once", AtOnce},
                               {"storms", Storms},
                               {"leaving", Leaving}};
  return RUN_PARTS(parts);
}
