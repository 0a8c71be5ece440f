// SPDX-License-Identifier: Apache-2.0
// What happens around the program's dlopen (x86_64/dlopen.S). The real dlopen must see the caller's
// address where search paths depend on it; only elsewhere it may be called from here, so that there
// is something after it.
#pragma once

extern "C" {

// True: the real dlopen gives the same when this library calls it. Null: never.
using undergo_dlopen_plan_type = bool (*)(const char* path, int mode, const void* caller);
extern __attribute__((visibility("hidden"))) undergo_dlopen_plan_type undergo_dlopen_plan;
// Called after such a call.
using undergo_dlopen_done_type = void (*)();
extern __attribute__((visibility("hidden"))) undergo_dlopen_done_type undergo_dlopen_done;
}
