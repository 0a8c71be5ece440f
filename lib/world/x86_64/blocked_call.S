// SPDX-License-Identifier: Apache-2.0
// long undergo_world_blocked_call(void* fn, const long args[6]): see world/blocked_call.h.
//
// The frame holds all callee-saved registers; the arguments lie in the caller's frame. The order of
// the two lines marked (1) and of the two marked (2) is the protocol of blocked_call.cc.
//
//   rbx  fn, later its result    rbp  args    r12  the record, 0: nothing is published
//   r13  what was published before: not 0 only inside a handler that was installed behind our back
#define BLOCKED_SP      0       // Record
#define OWN_LOW         8
#define OWN_SIZE        16
#define BUSY            8       // ThreadWords
#define RECORD          24

#include "plat/x86_64/frame.h"

        .text
        .hidden undergo_world_blocked_call
        .globl  undergo_world_blocked_call
        .type   undergo_world_blocked_call, @function
        .p2align 4
undergo_world_blocked_call:
        .cfi_startproc
        .cfi_personality 0x1b, undergo_world_personality
        endbr64
        save_callee
        reserve 8
        movq    %rdi, %rbx
        movq    %rsi, %rbp

        movq    _ZN7undergo4heap12thread_wordsE@gottpoff(%rip), %rax
        xorl    %r12d, %r12d
        cmpl    $0, %fs:BUSY(%rax)
        jne     .Lcall
        movq    %fs:RECORD(%rax), %r12
        testq   %r12, %r12
        je      .Lwhose
        movq    %rsp, %rcx
        subq    OWN_LOW(%r12), %rcx
        cmpq    OWN_SIZE(%r12), %rcx
        jae     .Lwhose
.Lmine:
        movq    BLOCKED_SP(%r12), %r13
        movq    %rsp, BLOCKED_SP(%r12)                  // (1)
        cmpl    $0, undergo_world_stopping(%rip)        // (1)
        jne     .Lenter
.Lcall:
        movq    (%rbp), %rdi
        movq    8(%rbp), %rsi
        movq    16(%rbp), %rdx
        movq    24(%rbp), %rcx
        movq    32(%rbp), %r8
        movq    40(%rbp), %r9
        xorl    %eax, %eax                              // for variadic ones
        call    *%rbx
        testq   %r12, %r12
        je      .Lout
        movq    %r13, BLOCKED_SP(%r12)                  // (2)
        cmpl    $0, undergo_world_stopping(%rip)        // (2)
        jne     .Lleave
.Lout:
        addq    $8, %rsp
        .cfi_remember_state
        .cfi_adjust_cfa_offset -8
        restore_callee
        ret
        .cfi_restore_state

.Lwhose:
        call    undergo_world_own_record
        movq    %rax, %r12
        testq   %rax, %rax
        jne     .Lmine
        jmp     .Lcall
.Lenter:
        movq    %r12, %rdi
        call    undergo_world_enter
        jmp     .Lcall
.Lleave:
        movq    %rax, %rbx
        movq    %r12, %rdi
        movq    %rsp, %rsi
        movq    %r13, %rdx
        call    undergo_world_leave
        movq    %rbx, %rax
        jmp     .Lout
        .cfi_endproc
        .size   undergo_world_blocked_call, . - undergo_world_blocked_call
        .section .note.GNU-stack, "", @progbits
