// SPDX-License-Identifier: Apache-2.0
// One request at a time, sent by signal 33 with its address as the value (world/signal.cc). It is
// sent again when it was swallowed by somebody else's handler, so the request names its thread.
#include "world/remote_call.h"

#include <errno.h>

#include "plat/futex.h"
#include "plat/syscall.h"
#include "plat/thread.h"
#include "world/stop.h"

namespace undergo::world {

constinit sync::Mutex remote_call_lock;

namespace {

constexpr uint64_t kPatience = 10'000'000;  // ns

struct Request {
  int tid;  // atomic; 0: none
  long number;
  long args[3];
  long result;
  uint32_t done;  // atomic futex; 1: result is set
};
constinit Request request = {};  // remote_call_lock, then the thread that it names

}  // namespace

long CallOn(int tid, long number, long a, long b, long c) {
  request = {0, number, {a, b, c}, 0, 0};
  StoreRelease(&request.tid, tid);           // pairs: AnswerCall
  while (LoadAcquire(&request.done) == 0) {  // pairs: AnswerCall
    EnsureHandler();
    if (SendStopSignal(tid, &request) == -ESRCH) return -ESRCH;
    plat::FutexWaitFor(&request.done, 0, kPatience);
    if (LoadAcquire(&request.done) == 0 && plat::IsGone(tid)) return -ESRCH;  // pairs: AnswerCall
  }
  StoreRelaxed(&request.tid, 0);
  return request.result;
}

bool AnswerCall(const void* value) {
  if (value != &request) return false;
  if (LoadAcquire(&request.tid) != plat::Syscall(__NR_gettid)) return true;  // pairs: CallOn
  if (LoadRelaxed(&request.done) != 0) return true;
  const long* args = request.args;
  request.result = plat::Syscall(request.number, args[0], args[1], args[2]);
  StoreRelease(&request.done, 1u);  // pairs: CallOn
  plat::FutexWake(&request.done, 1);
  return true;
}

}  // namespace undergo::world
