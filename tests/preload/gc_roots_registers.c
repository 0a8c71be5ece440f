// SPDX-License-Identifier: Apache-2.0
// Objects that only a register of a running thread holds: each general register, low and high
// parts of vector registers, mask registers, the x87 stack, the red zone, a pushed word.
// run:
// run: name=poison env=UNDERGO=gc=poison
// run: name=stopped env=GODEBUG=gcstoptheworld=1
// timeout: 60
#include <pthread.h>
#include <stdatomic.h>

#include "gc.h"

// Set when the spinning code may go on; named by the assembly.
__attribute__((visibility("hidden"))) volatile int registers_go;
static atomic_int spinning;

// The address exists nowhere but where the second statement puts it: it comes in inverted, and
// goes out so. The red zone of the surrounding function is stepped over.
#define SPIN                         \
  "1: pause\n\t"                     \
  "cmpl $0, registers_go(%%rip)\n\t" \
  "je 1b\n\t"
#define BEGIN           \
  "sub $512, %%rsp\n\t" \
  "not %%rax\n\t"
#define END       \
  "not %%rax\n\t" \
  "add $512, %%rsp"
#define HOLD(name, keep, take, ...)                                            \
  static NOINLINE uintptr_t name(uintptr_t hidden) {                           \
    __asm__ volatile(BEGIN keep SPIN take END : "+a"(hidden) : : __VA_ARGS__); \
    return hidden;                                                             \
  }
#define HOLD_GENERAL(reg)                                          \
  HOLD(In_##reg, "mov %%rax, %%" #reg "\n\t xor %%eax, %%eax\n\t", \
       "mov %%" #reg ", %%rax\n\t xor %%" #reg ", %%" #reg "\n\t", #reg, "memory", "cc")

HOLD(In_rax, "", "", "memory", "cc")
HOLD_GENERAL(rbx)
HOLD_GENERAL(rcx)
HOLD_GENERAL(rdx)
HOLD_GENERAL(rsi)
HOLD_GENERAL(rdi)
HOLD_GENERAL(r8)
HOLD_GENERAL(r9)
HOLD_GENERAL(r10)
HOLD_GENERAL(r11)
HOLD_GENERAL(r12)
HOLD_GENERAL(r13)
HOLD_GENERAL(r14)
HOLD_GENERAL(r15)
HOLD(In_rbp, "push %%rbp\n\t mov %%rax, %%rbp\n\t xor %%eax, %%eax\n\t",
     "mov %%rbp, %%rax\n\t pop %%rbp\n\t", "memory", "cc")
HOLD(Pushed, "push %%rax\n\t xor %%eax, %%eax\n\t", "pop %%rax\n\t", "memory", "cc")
HOLD(RedZone, "mov %%rax, -128(%%rsp)\n\t xor %%eax, %%eax\n\t", "mov -128(%%rsp), %%rax\n\t",
     "memory", "cc")
HOLD(In_xmm0, "movq %%rax, %%xmm0\n\t xor %%eax, %%eax\n\t", "movq %%xmm0, %%rax\n\t", "xmm0",
     "memory", "cc")
HOLD(In_xmm15_high, "movq %%rax, %%xmm15\n\t pslldq $8, %%xmm15\n\t xor %%eax, %%eax\n\t",
     "psrldq $8, %%xmm15\n\t movq %%xmm15, %%rax\n\t", "xmm15", "memory", "cc")
HOLD(In_mm0, "movq %%rax, %%mm0\n\t xor %%eax, %%eax\n\t", "movq %%mm0, %%rax\n\t emms\n\t",
     "memory", "cc")
HOLD(In_ymm9_high,
     "vmovq %%rax, %%xmm9\n\t vperm2i128 $8, %%ymm9, %%ymm9, %%ymm9\n\t xor %%eax, %%eax\n\t",
     "vextracti128 $1, %%ymm9, %%xmm9\n\t vmovq %%xmm9, %%rax\n\t vzeroupper\n\t", "xmm9", "memory",
     "cc")

#if defined __AVX512F__
#error "compile for the base machine: the compiler must not use these registers by itself"
#endif
// The names of these registers are no clobbers without -mavx512f; nobody else uses them here.
HOLD(In_zmm5_top,
     "vpbroadcastq %%rax, %%zmm5\n\t vpxor %%xmm4, %%xmm4, %%xmm4\n\t"
     "valignq $1, %%zmm4, %%zmm5, %%zmm4\n\t vpxor %%xmm5, %%xmm5, %%xmm5\n\t"
     "xor %%eax, %%eax\n\t",
     "vextracti64x4 $1, %%zmm4, %%ymm4\n\t vextracti128 $1, %%ymm4, %%xmm4\n\t"
     "vpextrq $1, %%xmm4, %%rax\n\t vzeroupper\n\t",
     "xmm4", "xmm5", "memory", "cc")
HOLD(In_zmm20, "vpbroadcastq %%rax, %%zmm20\n\t xor %%eax, %%eax\n\t",
     "vmovq %%xmm20, %%rax\n\t vpxorq %%zmm20, %%zmm20, %%zmm20\n\t", "memory", "cc")
HOLD(In_k3, "kmovq %%rax, %%k3\n\t xor %%eax, %%eax\n\t",
     "kmovq %%k3, %%rax\n\t kxorq %%k3, %%k3, %%k3\n\t", "memory", "cc")

enum { kAlways, kAvx2, kAvx512, kAvx512Bw };
static const struct {
  const char* name;
  uintptr_t (*hold)(uintptr_t);
  int needs;
} ways[] = {{"rax", In_rax, 0},
            {"rbx", In_rbx, 0},
            {"rcx", In_rcx, 0},
            {"rdx", In_rdx, 0},
            {"rsi", In_rsi, 0},
            {"rdi", In_rdi, 0},
            {"rbp", In_rbp, 0},
            {"r8", In_r8, 0},
            {"r9", In_r9, 0},
            {"r10", In_r10, 0},
            {"r11", In_r11, 0},
            {"r12", In_r12, 0},
            {"r13", In_r13, 0},
            {"r14", In_r14, 0},
            {"r15", In_r15, 0},
            {"a pushed word", Pushed, 0},
            {"the red zone", RedZone, 0},
            {"xmm0", In_xmm0, 0},
            {"high part of xmm15", In_xmm15_high, 0},
            {"mm0", In_mm0, 0},
            {"high part of ymm9", In_ymm9_high, kAvx2},
            {"top of zmm4", In_zmm5_top, kAvx512},
            {"zmm20", In_zmm20, kAvx512},
            {"k3", In_k3, kAvx512Bw}};
// So many threads spin at one time: more would only wait for a processor.
enum { kWays = sizeof ways / sizeof *ways, kTogether = 4 };
static uintptr_t hidden[kWays], came_back[kWays];

static int Has(int needs) {
  __builtin_cpu_init();
  if (needs == kAvx2) return __builtin_cpu_supports("avx2");
  if (needs == kAvx512) return __builtin_cpu_supports("avx512f");
  if (needs == kAvx512Bw) return __builtin_cpu_supports("avx512bw");
  return 1;
}

static void* Spin(void* number) {
  const size_t way = (size_t)number;
  uintptr_t mine = hidden[way];
  atomic_fetch_add(&spinning, 1);
  came_back[way] = ways[way].hold(mine);
  return NULL;
}

static void TryWays(const size_t* way, int count) {
  pthread_t thread[kTogether];
  registers_go = 0;
  spinning = 0;
  for (int i = 0; i < count; i++) hidden[way[i]] = Hide(NewObject(way[i]));
  Scrub();
  for (int i = 0; i < count; i++)
    CHECK_EQ(pthread_create(&thread[i], NULL, Spin, (void*)way[i]), 0);
  while (spinning < count) SleepMs(1);
  SleepMs(5);  // from the counter into the loop
  CollectHard("registers");
  registers_go = 1;
  for (int i = 0; i < count; i++) {
    pthread_join(thread[i], NULL);
    const char* name = ways[way[i]].name;
    CHECK_MSG(came_back[way[i]] == hidden[way[i]], "the test does not hold by %s", name);
    CheckObject(Reveal(hidden[way[i]]), way[i], name);
    free(Reveal(hidden[way[i]]));
  }
}

int main(void) {
  size_t chosen[kTogether];
  int count = 0;
  for (size_t way = 0; way < kWays; way++) {
    if (Has(ways[way].needs)) chosen[count++] = way;
    if (count == kTogether || way == kWays - 1) {
      TryWays(chosen, count);
      count = 0;
    }
  }
  puts("all right");
  return 0;
}
