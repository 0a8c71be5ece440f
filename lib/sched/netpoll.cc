// SPDX-License-Identifier: Apache-2.0
// Waiting for deadlines.
#include "sched/netpoll.h"

#include "plat/futex.h"

namespace undergo::sched {

namespace {
constinit uint32_t broken = 0;  // atomic futex; 1: come back
}

bool NetpollActive() { return false; }

void Netpoll(uint64_t ns, GQueue*) {
  if (ns != 0 && LoadAcquire(&broken) == 0) {  // pairs: NetpollBreak
    if (ns == ~uint64_t{0}) {
      plat::FutexWait(&broken, 0);
    } else {
      plat::FutexWaitFor(&broken, 0, ns);
    }
  }
  StoreRelaxed(&broken, 0u);
}

void NetpollBreak() {
  if (ExchangeAcqRel(&broken, 1u) == 0) plat::FutexWake(&broken, 1);  // pairs: Netpoll
}

void NetpollAfterFork() { broken = 0; }

}  // namespace undergo::sched
