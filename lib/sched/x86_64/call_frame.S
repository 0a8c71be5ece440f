// SPDX-License-Identifier: Apache-2.0
// long undergo_sched_call(void* fn, const long args[6]): calls fn(args[0], ..., args[5]).
//
// A frame around calls between EnterCall and ExitCall (sched/handoff.h), of which the unwinder asks
// undergo_sched_personality when a thread is cancelled in such a call: it leaves the call before
// any cleanup of the program runs.
#include "plat/x86_64/frame.h"

        .text
        .hidden undergo_sched_call
        .globl  undergo_sched_call
        .type   undergo_sched_call, @function
        .p2align 4
undergo_sched_call:
        .cfi_startproc
        .cfi_personality 0x1b, undergo_sched_personality
        endbr64
        reserve 8
        movq    %rdi, %r10
        movq    %rsi, %rax
        movq    (%rax), %rdi
        movq    8(%rax), %rsi
        movq    16(%rax), %rdx
        movq    24(%rax), %rcx
        movq    32(%rax), %r8
        movq    40(%rax), %r9
        xorl    %eax, %eax              // for variadic ones
        call    *%r10
        release 8
        ret
        .cfi_endproc
        .size   undergo_sched_call, . - undergo_sched_call
        .section .note.GNU-stack, "", @progbits
