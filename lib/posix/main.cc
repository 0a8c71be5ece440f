// SPDX-License-Identifier: Apache-2.0
// pthread_exit in main, and cancellation of the main thread.
//
// Natively the unwinding ends in libc's caller of main, which ends the kernel thread if others
// live. With the scheduler that may be any M, with a P in its hands. So main gets a landing place
// of ours, nearer than libc's, which ends the main G: the process ends with its last thread.
#include <pthread.h>
#include <setjmp.h>

#include "posix/posix.h"
#include "sched/sched.h"
#include "sched/tcb.h"
#include "sched/thread.h"

extern "C" void __pthread_unwind_next(__pthread_unwind_buf_t* buf) __attribute__((noreturn));

namespace undergo::posix {

namespace {

using MainFunction = int (*)(int, char**, char**);
constinit MainFunction programs_main = nullptr;

int Main(int argc, char** argv, char** envp) {
  __pthread_unwind_buf_t landing;
  int landed = __sigsetjmp(reinterpret_cast<struct __jmp_buf_tag*>(&landing.__cancel_jmp_buf), 0);
  if (landed != 0) {
    if (sched::Active() && sched::Self() == &sched::main_g) sched::EndMain();
    __pthread_unwind_next(&landing);
  }
  sched::__pthread_register_cancel(&landing);
  int result = programs_main(argc, argv, envp);
  sched::__pthread_unregister_cancel(&landing);
  return result;
}

}  // namespace

int __libc_start_main(MainFunction main, int argc, char** argv, void (*init)(), void (*fini)(),
                      void (*rtld_fini)(), void* stack_end) {
  if (real::__libc_start_main == nullptr) real::Resolve();
  programs_main = main;
  if (sched::Configured()) main = Main;
  return real::__libc_start_main(main, argc, argv, init, fini, rtld_fini, stack_end);
}

}  // namespace undergo::posix
