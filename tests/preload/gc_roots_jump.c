// SPDX-License-Identifier: Apache-2.0
// Objects that only saved contexts hold: registers in a jmp_buf (rbp and rsp are mangled there),
// stacks of coroutines in heap memory and in mappings, alternate signal stacks, the frame below a
// signal handler.
// run:
// run: name=poison env=UNDERGO=gc=poison
// timeout: 60
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "gc.h"

enum { kStack = 64 << 10 };
static Held held;

// SaveWith(hidden, buffer): _setjmp(buffer) with ~hidden in rbp.
// SaveOn(hidden_top, buffer, hidden): _setjmp(buffer) with rsp on another stack, where ~hidden was
// pushed. Neither leaves a copy of an address anywhere else.
void SaveWith(uintptr_t hidden, jmp_buf* buffer);
void SaveOn(uintptr_t hidden_top, jmp_buf* buffer, uintptr_t hidden);
__asm__(
    ".text\n"
    "SaveWith:\n"
    "  push %rbp\n"
    "  mov %rdi, %rbp\n"
    "  not %rbp\n"
    "  mov %rsi, %rdi\n"
    "  call _setjmp@PLT\n"
    "  pop %rbp\n"
    "  ret\n"
    "SaveOn:\n"
    "  push %rbx\n"
    "  mov %rsp, %rbx\n"
    "  not %rdi\n"
    "  mov %rdi, %rsp\n"
    "  xor %edi, %edi\n"
    "  not %rdx\n"
    "  push %rdx\n"
    "  xor %edx, %edx\n"
    "  sub $8, %rsp\n"
    "  mov %rsi, %rdi\n"
    "  call _setjmp@PLT\n"
    "  mov %rbx, %rsp\n"
    "  pop %rbx\n"
    "  ret\n");

static jmp_buf* buffers;
static NOINLINE void FillBuffers(void) {
  CHECK((buffers = calloc(kHeld, sizeof *buffers)) != NULL);
  for (int i = 0; i < kHeld; i++) {
    MakeHeld(&held, i);
    SaveWith(held.hidden[i], &buffers[i]);
  }
}
static void MangledFrame(const char* name) {
  FillBuffers();
  CollectHard(name);
  CheckHeld(&held, name);
  free(buffers);
}

static uintptr_t stacks[kHeld];
static NOINLINE void FillStacks(void) {
  CHECK((buffers = calloc(kHeld, sizeof *buffers)) != NULL);
  for (int i = 0; i < kHeld; i++) {
    char* stack = calloc(1, kStack);
    CHECK(stack);
    stacks[i] = Hide(stack);
    MakeHeld(&held, i);
    SaveOn(Hide(stack + kStack - 64), &buffers[i], held.hidden[i]);
  }
}
static void MangledStack(const char* name) {
  FillStacks();
  CollectHard(name);
  CheckHeld(&held, name);
  for (int i = 0; i < kHeld; i++) free(Reveal(stacks[i]));
  free(buffers);
}

// Coroutines that wait in the middle of a function, which holds an object.
static ucontext_t back, routines[kHeld];
static void Routine(int i) {
  void* volatile p = MakeHeld(&held, i);
  swapcontext(&routines[i], &back);
  CheckObject(p, (uint64_t)i + 1, "a coroutine");
}
static NOINLINE void Start(int i, void* stack) {
  CHECK_EQ(getcontext(&routines[i]), 0);
  routines[i].uc_stack.ss_sp = stack;
  routines[i].uc_stack.ss_size = kStack;
  routines[i].uc_link = &back;
  makecontext(&routines[i], (void (*)(void))(void*)Routine, 1, i);
  CHECK_EQ(swapcontext(&back, &routines[i]), 0);
}
static void Resume(void) {
  for (int i = 0; i < kHeld; i++) CHECK_EQ(swapcontext(&back, &routines[i]), 0);
}
static void HeapStack(const char* name) {
  for (int i = 0; i < kHeld; i++) {
    void* stack = malloc(kStack);
    CHECK(stack);
    Start(i, stack);
  }
  CollectHard(name);
  Resume();
  CheckHeld(&held, name);
  for (int i = 0; i < kHeld; i++) free(routines[i].uc_stack.ss_sp);
  memset(routines, 0, sizeof routines);
}
static void MappedStack(const char* name) {
  char* area = mmap(NULL, (size_t)kHeld * kStack, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(area != MAP_FAILED);
  for (int i = 0; i < kHeld; i++) Start(i, area + (size_t)i * kStack);
  CollectHard(name);
  Resume();
  CheckHeld(&held, name);
  munmap(area, (size_t)kHeld * kStack);
  memset(routines, 0, sizeof routines);
}
// The collection happens while the thread itself is on a coroutine's stack.
static ucontext_t outside, inside;
static const char* inside_name;
static void Inside(void) {
  for (int i = 0; i < kHeld; i++) MakeHeld(&held, i);
  void* volatile objects[kHeld];
  for (int i = 0; i < kHeld; i++) objects[i] = Reveal(held.hidden[i]);
  CollectHard(inside_name);
  for (int i = 0; i < kHeld; i++) CHECK(objects[i] == Reveal(held.hidden[i]));
}
static void OnCoroutine(const char* name) {
  inside_name = name;
  enum { kDeep = 1 << 20 };
  CHECK_EQ(getcontext(&inside), 0);
  CHECK((inside.uc_stack.ss_sp = malloc(kDeep)) != NULL);
  inside.uc_stack.ss_size = kDeep;
  inside.uc_link = &outside;
  void* volatile below = NewObject(77);  // on the thread's own stack meanwhile
  makecontext(&inside, Inside, 0);
  CHECK_EQ(swapcontext(&outside, &inside), 0);
  CheckObject(below, 77, name);
  free(below);
  CheckHeld(&held, name);
  free(inside.uc_stack.ss_sp);
}

// The memory of a signal stack is known to the kernel only, in a thread that sleeps.
static pthread_barrier_t barrier;
static uintptr_t hidden_altstack[2];
static NOINLINE void SetAltstack(int i) {
  stack_t stack = {.ss_size = kStack};
  CHECK((stack.ss_sp = malloc(kStack)) != NULL);
  Fill(stack.ss_sp, kStack, (uint64_t)i);
  hidden_altstack[i] = Hide(stack.ss_sp);
  CHECK_EQ(sigaltstack(&stack, NULL), 0);
}
static NOINLINE void DropAltstack(int i) {
  stack_t none = {.ss_flags = SS_DISABLE}, was;
  CHECK_EQ(sigaltstack(&none, &was), 0);
  CHECK(was.ss_sp == Reveal(hidden_altstack[i]));
  // Frames of handlers, the collector's too, lie in the upper part.
  CHECK_MSG(Verify(was.ss_sp, kStack / 2, (uint64_t)i) == kStack / 2, "a signal stack was lost");
  free(was.ss_sp);
}
static void* AltstackThread(void* arg) {
  SetAltstack(1);
  Scrub();
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
  DropAltstack(1);
  return arg;
}
static void Altstack(const char* name) {
  pthread_t t;
  CHECK_EQ(pthread_barrier_init(&barrier, NULL, 2), 0);
  SetAltstack(0);
  CHECK_EQ(pthread_create(&t, NULL, AltstackThread, NULL), 0);
  pthread_barrier_wait(&barrier);
  CollectHard(name);
  pthread_barrier_wait(&barrier);
  pthread_join(t, NULL);
  DropAltstack(0);
}

// A thread spins in a handler on its signal stack; frame and stack hold one object each.
static atomic_int in_handler, leave;
static uintptr_t in_stack;
static void Handle(int sig) {
  (void)sig;
  void* volatile p = Reveal(in_stack);
  in_handler = 1;
  while (!leave) {
  }
  CheckObject(p, 6, "the signal stack");
}
static void* HandlerThread(void* arg) {
  stack_t stack = {.ss_sp = malloc(kStack), .ss_size = kStack}, none = {.ss_flags = SS_DISABLE};
  CHECK(stack.ss_sp && sigaltstack(&stack, NULL) == 0);
  void* volatile p = Reveal((uintptr_t)arg);
  CHECK_EQ(raise(SIGUSR1), 0);
  CheckObject(p, 5, "the frame below a handler");
  CHECK_EQ(sigaltstack(&none, NULL), 0);
  free(stack.ss_sp);
  return NULL;
}
static void Handler(const char* name) {
  struct sigaction action = {.sa_handler = Handle, .sa_flags = SA_ONSTACK};
  CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
  uintptr_t in_frame = Hide(NewObject(5));
  in_stack = Hide(NewObject(6));
  pthread_t t;
  CHECK_EQ(pthread_create(&t, NULL, HandlerThread, (void*)in_frame), 0);
  while (!in_handler) SleepMs(1);
  CollectHard(name);
  leave = 1;
  pthread_join(t, NULL);
  free(Reveal(in_frame));
  free(Reveal(in_stack));
}

static const Part parts[] = {{"mangled-frame", MangledFrame},
                             {"mangled-stack", MangledStack},
                             {"heap-stack", HeapStack},
                             {"mapped-stack", MappedStack},
                             {"on-coroutine", OnCoroutine},
                             {"altstack", Altstack},
                             {"handler", Handler}};

int main(int argc, char** argv) { return RUN_PARTS(parts); }
