// SPDX-License-Identifier: Apache-2.0
// pid_t vfork(void), for threads that publish their blocking calls (world/blocked_call.h).
//
// The child runs on its parent's stack and thread block, and it may end inside of a blocking call:
// by exec, or killed. What it had published would stay in its parent's record. So the record shows no
// bounds of the stack while there is a child: then every blocking call asks for the thread's id and
// finds that the record is another's. Like libc's, this keeps its return address in a register,
// because the child returns first.
#define OWN_SIZE        16      // Record
#define KEPT_OWN_SIZE   24
#define RECORD          24      // ThreadWords
#define NR_VFORK        58

        .text
        .globl  vfork
        .type   vfork, @function
vfork:
        .cfi_startproc
        endbr64
        movq    _ZN7undergo4heap12thread_wordsE@gottpoff(%rip), %rax
        movq    %fs:RECORD(%rax), %rsi
        testq   %rsi, %rsi
        je      1f
        xorl    %edx, %edx
        xchgq   %rdx, OWN_SIZE(%rsi)
        movq    %rdx, KEPT_OWN_SIZE(%rsi)
1:      popq    %rdi
        .cfi_adjust_cfa_offset -8
        .cfi_register %rip, %rdi
        movl    $NR_VFORK, %eax
        syscall
        pushq   %rdi
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rip, 0
        testq   %rax, %rax
        je      2f
        testq   %rsi, %rsi
        je      2f
        movq    KEPT_OWN_SIZE(%rsi), %rdx
        movq    %rdx, OWN_SIZE(%rsi)
2:      cmpq    $-4096, %rax
        ja      3f
        ret
3:      movl    %eax, %edi
        jmp     undergo_vfork_failed
        .cfi_endproc
        .size   vfork, . - vfork
        .section .note.GNU-stack, "", @progbits
