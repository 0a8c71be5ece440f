// SPDX-License-Identifier: Apache-2.0
// dlopen without RTLD_DEEPBIND: a library that binds its own malloc to libc's while the program
// uses ours would free pointers across the two. The real dlopen derives search paths and the
// namespace from its caller's address, so this must be a jump that leaves the return address alone,
// unless the plan (plat/dlopen.h) says that it does not matter.
#define RTLD_DEEPBIND 8

#include "plat/x86_64/frame.h"

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
        push_word %rdi, %rsi
        reserve 8
        call    *%rax
        release 8
        pop_word %rsi, %rdi
        testb   %al, %al
        jne     undergo_dlopen_from_here
2:      movq    undergo_real_dlopen(%rip), %rax
        testq   %rax, %rax
        je      1f
        jmp     *%rax
1:      push_word %rdi, %rsi
        reserve 8
        call    undergo_resolve_real
        release 8
        pop_word %rsi, %rdi
        jmp     *undergo_real_dlopen(%rip)
        .cfi_endproc
        .size   dlopen, . - dlopen
        .section .note.GNU-stack, "", @progbits
