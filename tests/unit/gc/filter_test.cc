// SPDX-License-Identifier: Apache-2.0
// Filters of system calls: which of them would kill for what the collector calls.
#include "gc/filter.h"

#include <criterion/criterion.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/syscall.h>

#include <vector>

using namespace undergo;

namespace {

using Program = std::vector<sock_filter>;

constexpr uint32_t kNumber = offsetof(seccomp_data, nr);
constexpr uint32_t kArch = offsetof(seccomp_data, arch);
constexpr uint32_t Arg(int i) {
  return offsetof(seccomp_data, args) + 8 * static_cast<uint32_t>(i);
}

sock_filter Load(uint32_t at) { return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at); }
sock_filter Return(uint32_t verdict) { return BPF_STMT(BPF_RET | BPF_K, verdict); }
sock_filter IfEqual(uint32_t k, uint8_t yes, uint8_t no) {
  return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, yes, no);
}

gc::FilterVerdict Judge(const Program& p) { return gc::JudgeFilter(p.data(), p.size()); }

// One call gets this verdict, all others are allowed.
Program One(int call, uint32_t verdict) {
  return {Load(kNumber), IfEqual(static_cast<uint32_t>(call), 0, 1), Return(verdict),
          Return(SECCOMP_RET_ALLOW)};
}

bool Harmless(const gc::FilterVerdict& v) { return !v.deadly && !v.no_uffd && !v.no_snapshot; }

}  // namespace

Test(filter, verdicts) {
  cr_expect(Harmless(Judge({Return(SECCOMP_RET_ALLOW)})));
  cr_expect(Harmless(Judge({Return(SECCOMP_RET_LOG)})));
  cr_expect(Harmless(Judge({Return(SECCOMP_RET_ERRNO | 1)})));
  for (uint32_t deadly : {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP,
                          SECCOMP_RET_TRACE, SECCOMP_RET_USER_NOTIF}) {
    gc::FilterVerdict v = Judge({Return(deadly)});
    cr_expect(v.deadly && v.no_uffd && v.no_snapshot);
  }
}

Test(filter, single_calls) {
  gc::FilterVerdict v = Judge(One(SYS_userfaultfd, SECCOMP_RET_KILL_PROCESS));
  cr_expect(!v.deadly && v.no_uffd && !v.no_snapshot);
  v = Judge(One(SYS_wait4, SECCOMP_RET_KILL_PROCESS));
  cr_expect(!v.deadly && !v.no_uffd && v.no_snapshot);
  v = Judge(One(SYS_sched_setaffinity, SECCOMP_RET_KILL_PROCESS));
  cr_expect(Harmless(v) && v.no_placement && !v.no_pipes);
  v = Judge(One(SYS_process_vm_readv, SECCOMP_RET_TRAP));
  cr_expect(v.deadly);
  cr_expect(Harmless(Judge(One(SYS_userfaultfd, SECCOMP_RET_ERRNO))));
  cr_expect(Harmless(Judge(One(SYS_ptrace, SECCOMP_RET_KILL_PROCESS))));
}

Test(filter, by_architecture) {
  Program p = {Load(kArch), IfEqual(AUDIT_ARCH_X86_64, 1, 0), Return(SECCOMP_RET_KILL_PROCESS),
               Return(SECCOMP_RET_ALLOW)};
  cr_expect(Harmless(Judge(p)));
  p[1] = IfEqual(AUDIT_ARCH_I386, 1, 0);
  cr_expect(Judge(p).deadly);
}

// Threads yes, processes no: as sandboxes look at the flags of clone.
Test(filter, by_argument) {
  Program p = {Load(kNumber),
               IfEqual(SYS_clone, 0, 3),
               Load(Arg(0)),
               BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0),
               Return(SECCOMP_RET_KILL_PROCESS),
               Return(SECCOMP_RET_ALLOW)};
  gc::FilterVerdict v = Judge(p);
  cr_expect(!v.deadly && !v.no_uffd && v.no_snapshot);
}

// The rest of the machine: a word put together by arithmetic is compared with the number.
Test(filter, arithmetic) {
  struct Step {
    uint16_t op;
    uint32_t k;
  };
  // ((((((7 + 9) * 40 - 9) / 2) | 8) ^ 1) << 1 >> 1 & 0x3ff) % 1000, which is 314.
  uint32_t want = 7;
  Program p = {BPF_STMT(BPF_LD | BPF_IMM, 7)};
  for (Step s : {Step{BPF_ADD, 9},
                 {BPF_MUL, 40},
                 {BPF_SUB, 9},
                 {BPF_DIV, 2},
                 {BPF_OR, 8},
                 {BPF_XOR, 1},
                 {BPF_LSH, 1},
                 {BPF_RSH, 1},
                 {BPF_AND, 0x3ff},
                 {BPF_MOD, 1000}}) {
    p.push_back(BPF_STMT(static_cast<uint16_t>(BPF_ALU | s.op | BPF_K), s.k));
    switch (s.op) {
      case BPF_ADD: want += s.k; break;
      case BPF_MUL: want *= s.k; break;
      case BPF_SUB: want -= s.k; break;
      case BPF_DIV: want /= s.k; break;
      case BPF_OR: want |= s.k; break;
      case BPF_XOR: want ^= s.k; break;
      case BPF_LSH: want <<= s.k; break;
      case BPF_RSH: want >>= s.k; break;
      case BPF_AND: want &= s.k; break;
      default: want %= s.k; break;
    }
  }
  Program more = {BPF_STMT(BPF_ST, 3),
                  BPF_STMT(BPF_LDX | BPF_MEM, 3),
                  BPF_STMT(BPF_LD | BPF_IMM, 1),
                  BPF_STMT(BPF_MISC | BPF_TXA, 0),
                  BPF_STMT(BPF_ALU | BPF_NEG, 0),
                  BPF_STMT(BPF_MISC | BPF_TAX, 0),
                  BPF_STMT(BPF_LD | BPF_IMM, 0),
                  BPF_STMT(BPF_ALU | BPF_SUB | BPF_X, 0),
                  IfEqual(want, 0, 1),
                  Return(SECCOMP_RET_ALLOW),
                  Return(SECCOMP_RET_KILL_PROCESS)};
  p.insert(p.end(), more.begin(), more.end());
  cr_expect(Harmless(Judge(p)));
  p[p.size() - 3] = IfEqual(want + 1, 0, 1);
  cr_expect(Judge(p).deadly);
}

Test(filter, none_inherited) {
  gc::FilterVerdict v = gc::TryOutFilter();
  cr_expect(Harmless(v) && !v.unknown);
}
