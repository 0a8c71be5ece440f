// SPDX-License-Identifier: Apache-2.0
// Saving registers with what unwinders and debuggers need to know about it; for the .S files.
#pragma once

// Words that are no register of the caller's, or one that is still where it was.
        .macro  push_word what:vararg
        .irp    w, \what
        pushq   \w
        .cfi_adjust_cfa_offset 8
        .endr
        .endm
        .macro  pop_word what:vararg
        .irp    w, \what
        popq    \w
        .cfi_adjust_cfa_offset -8
        .endr
        .endm
        .macro  reserve bytes
        subq    $\bytes, %rsp
        .cfi_adjust_cfa_offset \bytes
        .endm
        .macro  release bytes
        addq    $\bytes, %rsp
        .cfi_adjust_cfa_offset -(\bytes)
        .endm

// Registers of the caller's, from now on found on the stack; and back.
        .macro  save reg:vararg
        .irp    r, \reg
        pushq   %\r
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %\r, 0
        .endr
        .endm
        .macro  restore reg:vararg
        .irp    r, \reg
        popq    %\r
        .cfi_adjust_cfa_offset -8
        .cfi_restore %\r
        .endr
        .endm

// All that the ABI wants kept.
        .macro  save_callee
        save    rbp, rbx, r12, r13, r14, r15
        .endm
        .macro  restore_callee
        restore r15, r14, r13, r12, rbx, rbp
        .endm
