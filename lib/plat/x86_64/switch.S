// SPDX-License-Identifier: Apache-2.0
// void undergo_switch(Addr* save, Addr load, Addr fs): see plat/context.h.
//
// The control words and the GS base are compared before they are written: writing costs more, and
// hardly any program changes them. The return address is popped, not jumped to, so that the CPU's
// return predictor stays in step as far as it can; unwinders find a saved context as a plain frame.

#include "plat/x86_64/frame.h"

        .text
        .p2align 4
        .hidden undergo_switch
        .globl  undergo_switch
        .type   undergo_switch, @function
undergo_switch:
        .cfi_startproc
        endbr64
        save_callee
        rdgsbase %rax
        push_word %rax
        reserve 8
        movq    $0, (%rsp)
        fnstcw  (%rsp)
        stmxcsr 4(%rsp)
        movq    (%rsp), %rcx            // control words of who leaves

        movq    %rsp, (%rdi)
        movq    %rsi, %rsp
        wrfsbase %rdx

        cmpq    %rcx, (%rsp)
        jne     3f
1:      pop_word %rcx
        pop_word %rcx
        cmpq    %rax, %rcx
        jne     4f
2:      restore_callee
        ret
3:      fldcw   (%rsp)
        ldmxcsr 4(%rsp)
        jmp     1b
4:      wrgsbase %rcx
        jmp     2b
        .cfi_endproc
        .size   undergo_switch, . - undergo_switch

        .p2align 4
        .hidden undergo_context_start
        .globl  undergo_context_start
        .type   undergo_context_start, @function
undergo_context_start:
        .cfi_startproc
        .cfi_undefined %rip             // the outermost frame
        xorl    %ebp, %ebp
        movq    %rbx, %rdi
        call    *%r12
        hlt
        .cfi_endproc
        .size   undergo_context_start, . - undergo_context_start
        .section .note.GNU-stack, "", @progbits
