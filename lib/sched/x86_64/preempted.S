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
        pushq   $0
        .cfi_adjust_cfa_offset 8
        pushfq
        .cfi_adjust_cfa_offset 8
        pushq   %rax
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rax, 0
        pushq   %rcx
        movq    _ZN7undergo4heap12thread_wordsE@gottpoff(%rip), %rax
        xorl    %ecx, %ecx
        xchgq   %rcx, %fs:RESUME(%rax)
        movq    %rcx, 24(%rsp)
        popq    %rcx
        .cfi_offset %rip, -136
        pushq   %rcx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rcx, 0
        pushq   %rdx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rdx, 0
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbx, 0
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        pushq   %rsi
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rsi, 0
        pushq   %rdi
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rdi, 0
        pushq   %r8
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r8, 0
        pushq   %r9
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r9, 0
        pushq   %r10
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r10, 0
        pushq   %r11
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r11, 0
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
        popq    %r15
        .cfi_adjust_cfa_offset -8
        popq    %r14
        .cfi_adjust_cfa_offset -8
        popq    %r13
        .cfi_adjust_cfa_offset -8
        popq    %r12
        .cfi_adjust_cfa_offset -8
        popq    %r11
        .cfi_adjust_cfa_offset -8
        popq    %r10
        .cfi_adjust_cfa_offset -8
        popq    %r9
        .cfi_adjust_cfa_offset -8
        popq    %r8
        .cfi_adjust_cfa_offset -8
        popq    %rdi
        .cfi_adjust_cfa_offset -8
        popq    %rsi
        .cfi_adjust_cfa_offset -8
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        popq    %rdx
        .cfi_adjust_cfa_offset -8
        popq    %rcx
        .cfi_adjust_cfa_offset -8
        popq    %rax
        .cfi_adjust_cfa_offset -8
        popfq
        .cfi_adjust_cfa_offset -8
        ret     $128
        .cfi_endproc
        .size   undergo_preempted, . - undergo_preempted
        .section .note.GNU-stack, "", @progbits
