// SPDX-License-Identifier: Apache-2.0
// void undergo_switch(Addr* save, Addr load, Addr fs): see plat/context.h.
//
// The control words and the GS base are compared before they are written: writing costs more, and
// hardly any program changes them. The return address is popped, not jumped to, so that the CPU's
// return predictor stays in step as far as it can; unwinders find a saved context as a plain frame.

        .text
        .p2align 4
        .hidden undergo_switch
        .globl  undergo_switch
        .type   undergo_switch, @function
undergo_switch:
        .cfi_startproc
        endbr64
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbx, 0
        pushq   %r12
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r12, 0
        pushq   %r13
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r13, 0
        pushq   %r14
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r14, 0
        pushq   %r15
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r15, 0
        rdgsbase %rax
        pushq   %rax
        .cfi_adjust_cfa_offset 8
        subq    $8, %rsp
        .cfi_adjust_cfa_offset 8
        movq    $0, (%rsp)
        fnstcw  (%rsp)
        stmxcsr 4(%rsp)
        movq    (%rsp), %rcx            // control words of who leaves

        movq    %rsp, (%rdi)
        movq    %rsi, %rsp
        wrfsbase %rdx

        cmpq    %rcx, (%rsp)
        jne     3f
1:      popq    %rcx
        .cfi_adjust_cfa_offset -8
        popq    %rcx
        .cfi_adjust_cfa_offset -8
        cmpq    %rax, %rcx
        jne     4f
2:      popq    %r15
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r15
        popq    %r14
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r14
        popq    %r13
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r13
        popq    %r12
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r12
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbx
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbp
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
