// SPDX-License-Identifier: Apache-2.0
// pid_t vfork(void)
//
// The child runs on its parent's stack and thread block. It may end inside of a blocking call, by
// exec or killed, and what it had published (world/blocked_call.h) would stay in its parent's record:
// so the record shows no bounds of the stack while there is a child. Then every blocking call asks
// for the thread's id and finds that the record is another's. And the child must not schedule: the
// parent's G is held in a blocking call (posix/spawn.cc). Like libc's, this keeps what it needs in
// registers, because the child returns first and writes over the stack.
#define OWN_SIZE        16      // Record
#define RECORD          24      // ThreadWords
#define NR_VFORK        58

        .text
        .globl  vfork
        .type   vfork, @function
vfork:
        .cfi_startproc
        endbr64
        subq    $8, %rsp
        .cfi_adjust_cfa_offset 8
        call    undergo_vfork_begin
        addq    $8, %rsp
        .cfi_adjust_cfa_offset -8
        movq    %rax, %r8                       // the G
        movq    _ZN7undergo4heap12thread_wordsE@gottpoff(%rip), %rax
        movq    %fs:RECORD(%rax), %rsi
        testq   %rsi, %rsi
        je      1f
        xorl    %edx, %edx
        xchgq   %rdx, OWN_SIZE(%rsi)
1:      popq    %rdi
        .cfi_adjust_cfa_offset -8
        .cfi_register %rip, %rdi
        movl    $NR_VFORK, %eax
        syscall
        pushq   %rdi
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rip, 0
        testq   %rax, %rax
        je      3f
        testq   %rsi, %rsi
        je      2f
        movq    %rdx, OWN_SIZE(%rsi)
2:      movl    %eax, %edi
        movq    %r8, %rsi
        jmp     undergo_vfork_end
3:      ret
        .cfi_endproc
        .size   vfork, . - vfork
        .section .note.GNU-stack, "", @progbits
