// SPDX-License-Identifier: Apache-2.0
// A page that the kernel empties in copies of the process (MADV_WIPEONFORK) tells a copy from a
// process that shares the memory: both have another id.
#include "world/foreign.h"

#include <errno.h>
#include <linux/kcmp.h>
#include <linux/mman.h>

#include "base/atomic.h"
#include "plat/syscall.h"
#include "plat/vm.h"
#include "world/record.h"

namespace undergo::world {

namespace {

constexpr int kMaxForeign = 8;
constinit int foreign[kMaxForeign] = {};  // atomic; process ids, 0: free
constinit uint32_t overflow = 0;          // atomic; 1: there were more at a time
constinit uint32_t* mark = nullptr;       // 1 in the page's own process; null: no such page

int Pid() { return static_cast<int>(plat::Syscall(__NR_getpid)); }

bool Shares(int pid) {
  long r = plat::Syscall(__NR_kcmp, Pid(), pid, KCMP_VM, 0, 0);
  if (r == -EPERM || r == -ENOSYS) return !plat::IsError(plat::Syscall(__NR_kill, pid, 0));
  return r == 0;
}

}  // namespace

void MarkOwnMemory() {
  if (process_id == 0) process_id = Pid();
  if (mark == nullptr) {
    auto* page = static_cast<uint32_t*>(plat::MapPages(kOsPageSize));
    if (page == nullptr) return;
    if (plat::IsError(plat::Syscall(__NR_madvise, page, kOsPageSize, MADV_WIPEONFORK))) {
      plat::Unmap(reinterpret_cast<Addr>(page), kOsPageSize);
      return;
    }
    mark = page;
  }
  *mark = 1;
}

void MarkOwnMemoryAgain() {
  if (mark != nullptr) *mark = 1;
}

Whose WhoseMemory() {
  if (Pid() == process_id) return Whose::kOurs;
  return mark == nullptr || LoadRelaxed(mark) == 0 ? Whose::kCopy : Whose::kForeign;
}

void NoteForeign() {
  int pid = Pid();
  for (int& f : foreign) {
    int seen = LoadAcquire(&f);  // pairs: itself
    if (seen == pid) return;
    if ((seen == 0 || !Shares(seen)) && CasAcqRel(&f, &seen, pid)) return;  // pairs: ForeignLives
  }
  StoreRelaxed(&overflow, 1u);
}

bool ForeignLives() {
  if (LoadRelaxed(&overflow) != 0) return true;
  for (int& f : foreign) {
    int pid = LoadAcquire(&f);  // pairs: NoteForeign
    if (pid == 0) continue;
    if (Shares(pid)) return true;
    CasAcqRel(&f, &pid, 0);  // pairs: NoteForeign
  }
  return false;
}

}  // namespace undergo::world
