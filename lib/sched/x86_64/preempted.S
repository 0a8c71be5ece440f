// SPDX-License-Identifier: Apache-2.0
// undergo_preempted: where a thread goes on that was interrupted between two instructions.
//
// The handler of the preemption signal (sched/preempt.cc) has left the interrupted instruction's
// address in thread_words. Here everything that the thread can have in registers goes on its
// stack, the scheduler runs others, and everything comes back.
//
// What undergo_give_way gets as its argument, in words of 8 bytes: 0 to 9 r15 to r8, rdi, rsi;
// 10 rbp; 11 to 14 rbx, rdx, rcx, rax; 15 the flags; 16 the address; then the red zone.
//
//   the first push:  | address | 128 bytes of red zone | the thread's frame ...
#define RESUME  72      // ThreadWords

#include "plat/x86_64/frame.h"

        .text
        .hidden undergo_preempted
        .globl  undergo_preempted
        .type   undergo_preempted, @function
        .p2align 4
undergo_preempted:
        .cfi_startproc
        .cfi_signal_frame
        .cfi_def_cfa %rsp, 128
        .cfi_undefined %rip
        push_word $0
        pushfq
        .cfi_adjust_cfa_offset 8
        save    rax
        pushq   %rcx
        movq    _ZN7undergo4heap12thread_wordsE@gottpoff(%rip), %rax
        xorl    %ecx, %ecx
        xchgq   %rcx, %fs:RESUME(%rax)
        movq    %rcx, 24(%rsp)
        popq    %rcx
        .cfi_offset %rip, -136
        save    rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
        movq    %rsp, %rbp
        .cfi_def_cfa_register %rbp
        cld
        subq    undergo_xsave_size(%rip), %rsp
        andq    $-64, %rsp
        // The header behind the legacy area says what is there; XSAVE writes only a part of it.
        xorl    %eax, %eax
        movq    %rax, 512(%rsp)
        movq    %rax, 520(%rsp)
        movq    %rax, 528(%rsp)
        movq    %rax, 536(%rsp)
        movq    %rax, 544(%rsp)
        movq    %rax, 552(%rsp)
        movq    %rax, 560(%rsp)
        movq    %rax, 568(%rsp)
        movl    $-1, %eax
        movl    $-1, %edx
        xsave64 (%rsp)
        movq    %rbp, %rdi
        call    undergo_give_way
        movl    $-1, %eax
        movl    $-1, %edx
        xrstor64 (%rsp)
        movq    %rbp, %rsp
        .cfi_def_cfa_register %rsp
        pop_word %r15, %r14, %r13, %r12, %r11, %r10, %r9, %r8, %rdi, %rsi, %rbp, %rbx, %rdx, %rcx, %rax
        popfq
        .cfi_adjust_cfa_offset -8
        ret     $128
        .cfi_endproc
        .size   undergo_preempted, . - undergo_preempted
        .section .note.GNU-stack, "", @progbits
