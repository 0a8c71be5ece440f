// SPDX-License-Identifier: Apache-2.0
// dlopen without RTLD_DEEPBIND: a library that binds its own malloc to libc's while the program
// uses ours would free pointers across the two. The real dlopen derives search paths and the
// namespace from its caller's address, so this must be a jump that leaves the return address alone,
// unless the plan (plat/dlopen.h) says that it does not matter.
#define RTLD_DEEPBIND 8

        .text
        .globl  dlopen
        .type   dlopen, @function
dlopen:
        .cfi_startproc
        endbr64
        andl    $~RTLD_DEEPBIND, %esi
        movq    undergo_dlopen_plan(%rip), %rax
        testq   %rax, %rax
        je      2f
        movq    (%rsp), %rdx
        pushq   %rdi
        .cfi_adjust_cfa_offset 8
        pushq   %rsi
        .cfi_adjust_cfa_offset 8
        subq    $8, %rsp
        .cfi_adjust_cfa_offset 8
        call    *%rax
        addq    $8, %rsp
        .cfi_adjust_cfa_offset -8
        popq    %rsi
        .cfi_adjust_cfa_offset -8
        popq    %rdi
        .cfi_adjust_cfa_offset -8
        testb   %al, %al
        jne     undergo_dlopen_from_here
2:      movq    undergo_real_dlopen(%rip), %rax
        testq   %rax, %rax
        je      1f
        jmp     *%rax
1:      pushq   %rdi
        .cfi_adjust_cfa_offset 8
        pushq   %rsi
        .cfi_adjust_cfa_offset 8
        subq    $8, %rsp
        .cfi_adjust_cfa_offset 8
        call    undergo_resolve_real
        addq    $8, %rsp
        .cfi_adjust_cfa_offset -8
        popq    %rsi
        .cfi_adjust_cfa_offset -8
        popq    %rdi
        .cfi_adjust_cfa_offset -8
        jmp     *undergo_real_dlopen(%rip)
        .cfi_endproc
        .size   dlopen, . - dlopen
        .section .note.GNU-stack, "", @progbits
