// SPDX-License-Identifier: Apache-2.0
// Compiler attributes under short names: the only place that knows the spelling.
#pragma once

#define UNDERGO_LIKELY(x) __builtin_expect(!!(x), 1)
#define UNDERGO_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define UNDERGO_NOINLINE __attribute__((noinline))
#define UNDERGO_COLD __attribute__((noinline, cold))
#define UNDERGO_INLINE __attribute__((always_inline)) inline
#define UNDERGO_EXPORT __attribute__((visibility("default")))
// The one TLS model that needs no call and no allocation to reach a variable.
#define UNDERGO_TLS __thread __attribute__((tls_model("initial-exec")))

// A second exported name of a function. libc's headers give the targets attributes that the
// private names do not repeat; only gcc has an opinion on that.
#define UNDERGO_ALIAS(name) __attribute__((visibility("default"), alias(#name)))
#ifndef __clang__
#define UNDERGO_ALLOW_PLAIN_ALIASES _Pragma("GCC diagnostic ignored \"-Wmissing-attributes\"")
#else
#define UNDERGO_ALLOW_PLAIN_ALIASES
#endif
