// SPDX-License-Identifier: Apache-2.0
// Seccomp: a filter answers system calls by an error, which the collector survives, or by a signal,
// which the program does not.
//
// A filter that the program installs is seen before the kernel sees it, and is a small program: it
// is run here for each call that the collector makes. Filters that were inherited cannot be read
// without privilege. Their effect is tried out once, by a copy of the process that nobody misses.
//
// Rejected: a handler for SIGSYS (it belongs to the program, and verdicts that kill send none);
// doing without unusual calls as soon as there is any filter (containers have one).
#include "gc/filter.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>

#include "base/atomic.h"
#include "plat/copy.h"
#include "plat/pagemap.h"
#include "plat/syscall.h"
#include "plat/vm.h"

namespace undergo::gc {

namespace {

enum class Use : uint8_t { kAlways, kUffd, kSnapshot, kPipes, kPlacement };
struct Call {
  int number;
  Use use;
  uint64_t args[4];  // those that filters look at
};

constexpr uint64_t kThread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                             CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID |
                             CLONE_CHILD_CLEARTID;
constexpr uint64_t kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS;
constexpr uint64_t kReadWrite = PROT_READ | PROT_WRITE;
constexpr uint64_t kPagemapScan = 0xc0606610;

constexpr Call kCalls[] = {
    {__NR_clone, Use::kAlways, {kThread}},
    {__NR_exit, Use::kAlways, {}},
    {__NR_futex, Use::kAlways, {0, FUTEX_WAIT | FUTEX_PRIVATE_FLAG}},
    {__NR_futex, Use::kAlways, {0, FUTEX_WAKE | FUTEX_PRIVATE_FLAG}},
    {__NR_nanosleep, Use::kAlways, {}},
    {__NR_sched_yield, Use::kAlways, {}},
    {__NR_membarrier, Use::kAlways, {MEMBARRIER_CMD_PRIVATE_EXPEDITED}},
    {__NR_rt_tgsigqueueinfo, Use::kAlways, {0, 0, 33}},
    {__NR_tgkill, Use::kAlways, {}},
    {__NR_rt_sigprocmask, Use::kAlways, {SIG_SETMASK}},
    {__NR_rt_sigaction, Use::kAlways, {33}},
    {__NR_rt_sigreturn, Use::kAlways, {}},
    {__NR_gettid, Use::kAlways, {}},
    {__NR_getpid, Use::kAlways, {}},
    {__NR_prctl, Use::kAlways, {PR_SET_NAME}},
    {__NR_openat, Use::kAlways, {static_cast<uint32_t>(AT_FDCWD), 0, O_RDONLY | O_CLOEXEC}},
    {__NR_close, Use::kAlways, {}},
    {__NR_read, Use::kAlways, {3}},
    {__NR_pread64, Use::kAlways, {3}},
    {__NR_fstat, Use::kAlways, {3}},
    {__NR_newfstatat, Use::kAlways, {}},
    {__NR_readlinkat, Use::kAlways, {}},
    {__NR_getdents64, Use::kAlways, {3}},
    {__NR_ioctl, Use::kAlways, {3, kPagemapScan}},
    {__NR_process_vm_readv, Use::kAlways, {}},
    {__NR_mincore, Use::kAlways, {}},
    {__NR_sysinfo, Use::kAlways, {}},
    {__NR_prlimit64, Use::kAlways, {}},
    {__NR_mmap, Use::kAlways, {0, kOsPageSize, kReadWrite, kAnonymous}},
    {__NR_munmap, Use::kAlways, {}},
    {__NR_mprotect, Use::kAlways, {0, kOsPageSize, kReadWrite}},
    {__NR_madvise, Use::kAlways, {0, kOsPageSize, MADV_DONTNEED}},
    {__NR_userfaultfd, Use::kUffd, {O_CLOEXEC | O_NONBLOCK | 1}},
    {__NR_fcntl, Use::kUffd, {3, F_DUPFD_CLOEXEC}},
    {__NR_fcntl, Use::kUffd, {3, F_GETFL}},
    {__NR_ioctl, Use::kUffd, {3, UFFDIO_API}},
    {__NR_ioctl, Use::kUffd, {3, UFFDIO_REGISTER}},
    {__NR_ioctl, Use::kUffd, {3, UFFDIO_UNREGISTER}},
    {__NR_ioctl, Use::kUffd, {3, UFFDIO_WRITEPROTECT}},
    {__NR_fcntl, Use::kPipes, {3, F_GETFL}},
    {__NR_fcntl, Use::kPipes, {3, F_GETPIPE_SZ}},
    {__NR_fcntl, Use::kPipes, {3, F_SETPIPE_SZ}},
    {__NR_ioctl, Use::kPipes, {3, FIONREAD}},
    {__NR_pipe2, Use::kPipes, {0, O_CLOEXEC | O_NONBLOCK}},
    {__NR_tee, Use::kPipes, {3, 4}},
    {__NR_getcpu, Use::kPlacement, {}},
    {__NR_sched_getaffinity, Use::kPlacement, {}},
    {__NR_sched_setaffinity, Use::kPlacement, {}},
    {__NR_clone, Use::kSnapshot, {CLONE_FILES | CLONE_UNTRACED}},
    {__NR_wait4, Use::kSnapshot, {}},
    {__NR_kill, Use::kSnapshot, {}},
    {__NR_getppid, Use::kSnapshot, {}},
    {__NR_close_range, Use::kSnapshot, {}},
    {__NR_write, Use::kSnapshot, {3}},
    {__NR_exit_group, Use::kSnapshot, {}},
    {__NR_prctl, Use::kSnapshot, {PR_SET_PDEATHSIG}},
    {__NR_mmap, Use::kSnapshot, {0, kOsPageSize, kReadWrite, MAP_SHARED | MAP_ANONYMOUS}},
    {__NR_mremap, Use::kSnapshot, {0, kOsPageSize, kOsPageSize, MREMAP_MAYMOVE | MREMAP_FIXED}},
};

// One run of the classic BPF machine, as far as the kernel allows it to filters.
class Machine {
 public:
  Machine(const sock_filter* program, size_t length) : program_(program), length_(length) {}

  uint32_t Run(const seccomp_data& data) {
    data_ = &data;
    a_ = x_ = 0;
    for (size_t pc = 0; pc < length_; ++pc) {
      const sock_filter& i = program_[pc];
      switch (BPF_CLASS(i.code)) {
        case BPF_LD: a_ = Load(i); break;
        case BPF_LDX: x_ = Load(i); break;
        case BPF_ST: memory_[i.k % BPF_MEMWORDS] = a_; break;
        case BPF_STX: memory_[i.k % BPF_MEMWORDS] = x_; break;
        case BPF_ALU: a_ = Compute(i); break;
        case BPF_JMP: pc += Jump(i); break;
        case BPF_RET: return BPF_RVAL(i.code) == BPF_A ? a_ : i.k;
        case BPF_MISC:
          (BPF_MISCOP(i.code) == BPF_TAX ? x_ : a_) = BPF_MISCOP(i.code) == BPF_TAX ? a_ : x_;
          break;
      }
    }
    return SECCOMP_RET_ALLOW;  // the kernel does not install such a program
  }

 private:
  uint32_t Load(const sock_filter& i) const {
    uint32_t word = 0;
    switch (BPF_MODE(i.code)) {
      case BPF_IMM: return i.k;
      case BPF_MEM: return memory_[i.k % BPF_MEMWORDS];
      case BPF_LEN: return sizeof *data_;
      default: break;
    }
    if (i.k <= sizeof *data_ - sizeof word) {
      __builtin_memcpy(&word, reinterpret_cast<const char*>(data_) + i.k, sizeof word);
    }
    return word;
  }
  uint32_t Compute(const sock_filter& i) const {
    uint32_t v = BPF_SRC(i.code) == BPF_X ? x_ : i.k;
    switch (BPF_OP(i.code)) {
      case BPF_ADD: return a_ + v;
      case BPF_SUB: return a_ - v;
      case BPF_MUL: return a_ * v;
      case BPF_DIV: return v != 0 ? a_ / v : 0;
      case BPF_MOD: return v != 0 ? a_ % v : 0;
      case BPF_AND: return a_ & v;
      case BPF_OR: return a_ | v;
      case BPF_XOR: return a_ ^ v;
      case BPF_LSH: return v < 32 ? a_ << v : 0;
      case BPF_RSH: return v < 32 ? a_ >> v : 0;
      default: return -a_;
    }
  }
  size_t Jump(const sock_filter& i) const {
    uint32_t v = BPF_SRC(i.code) == BPF_X ? x_ : i.k;
    switch (BPF_OP(i.code)) {
      case BPF_JA: return i.k;
      case BPF_JEQ: return a_ == v ? i.jt : i.jf;
      case BPF_JGT: return a_ > v ? i.jt : i.jf;
      case BPF_JGE: return a_ >= v ? i.jt : i.jf;
      default: return (a_ & v) != 0 ? i.jt : i.jf;
    }
  }

  const sock_filter* program_;
  size_t length_;
  const seccomp_data* data_ = nullptr;
  uint32_t a_ = 0, x_ = 0;
  uint32_t memory_[BPF_MEMWORDS] = {};
};

// Errors are survived, and so is what a tracer or another process may decide, but not in time.
bool IsDeadly(uint32_t verdict) {
  uint32_t action = verdict & SECCOMP_RET_ACTION_FULL;
  return action != SECCOMP_RET_ALLOW && action != SECCOMP_RET_LOG && action != SECCOMP_RET_ERRNO;
}

// Whether a copy of the process is alive after these calls. *unknown: there was no copy.
bool Survives(void (*calls)(), bool* unknown) {
  auto* alive = static_cast<uint32_t*>(plat::MapShared(kOsPageSize));
  if (alive == nullptr) {
    *unknown = true;
    return false;
  }
  long copy = plat::CopyProcess();
  if (copy == 0) {
    calls();
    StoreRelease(alive, 1u);  // pairs: below
    plat::EndCopy();
  }
  bool survived = false;
  if (copy > 0) {
    plat::CopyHasEnded(copy, true);
    survived = LoadAcquire(alive) != 0;  // pairs: above
  } else {
    *unknown = true;
  }
  plat::Unmap(reinterpret_cast<Addr>(alive), kOsPageSize);
  return survived;
}

void TryCommon() {
  plat::PageMap pages;
  uint32_t word = 1, read = 0;
  auto nothing = [](void*, Addr, Addr) {};
  Addr page = AlignDown(reinterpret_cast<Addr>(&word), kOsPageSize);
  pages.ForEachRun(page, page + kOsPageSize, plat::FilePages::kReport, nothing, nullptr);
  plat::SafeRead(reinterpret_cast<Addr>(&word), &read, sizeof read);
  plat::Syscall(__NR_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
  plat::Syscall(__NR_rt_tgsigqueueinfo, 0, 0, 0, nullptr);
  plat::SwapInUse();
}

void TryPipes() {
  int ends[2] = {-1, -1}, bytes;
  plat::Syscall(__NR_pipe2, &ends[0], O_CLOEXEC | O_NONBLOCK);
  plat::Syscall(__NR_ioctl, ends[0], FIONREAD, &bytes);
  plat::Syscall(__NR_fcntl, ends[1], F_GETFL);
  plat::Syscall(__NR_fcntl, ends[1], F_SETPIPE_SZ,
                plat::Syscall(__NR_fcntl, ends[0], F_GETPIPE_SZ));
  plat::Syscall(__NR_tee, ends[0], ends[1], 1, 2);
}

void TryPlacement() {
  plat::Syscall(__NR_getcpu, nullptr, nullptr, nullptr);
  plat::Syscall(__NR_sched_getaffinity, 0, 0, nullptr);
  plat::Syscall(__NR_sched_setaffinity, 0, 0, nullptr);
}

void TryUffd() {
  long fd = plat::Syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1);
  struct uffdio_api api = {};
  api.api = UFFD_API;
  plat::Syscall(__NR_ioctl, fd, UFFDIO_API, &api);
}

}  // namespace

uint32_t AskFilter(const sock_filter* program, size_t length, const FilteredCall& call) {
  seccomp_data data = {};
  data.nr = call.number;
  data.arch = AUDIT_ARCH_X86_64;
  for (int i = 0; i < 4; ++i) data.args[i] = call.args[i];
  return Machine(program, length).Run(data);
}

FilterVerdict JudgeFilter(const sock_filter* program, size_t length) {
  FilterVerdict verdict;
  for (const Call& call : kCalls) {
    FilteredCall asked = {call.number, {}};
    __builtin_memcpy(asked.args, call.args, sizeof asked.args);
    if (!IsDeadly(AskFilter(program, length, asked))) continue;
    if (call.use == Use::kAlways) verdict.deadly = true;
    if (call.use == Use::kUffd) verdict.no_uffd = true;
    if (call.use == Use::kSnapshot) verdict.no_snapshot = true;
    if (call.use == Use::kPipes) verdict.no_pipes = true;
    if (call.use == Use::kPlacement) verdict.no_placement = true;
  }
  return verdict;
}

FilterVerdict TryOutFilter() {
  FilterVerdict verdict;
  if (plat::Syscall(__NR_prctl, PR_GET_SECCOMP, 0, 0, 0, 0) != SECCOMP_MODE_FILTER) return verdict;
  verdict.deadly = !Survives(TryCommon, &verdict.unknown);
  verdict.no_uffd = verdict.deadly || !Survives(TryUffd, &verdict.unknown);
  verdict.no_pipes = verdict.deadly || !Survives(TryPipes, &verdict.unknown);
  verdict.no_placement = verdict.deadly || !Survives(TryPlacement, &verdict.unknown);
  return verdict;
}

}  // namespace undergo::gc
