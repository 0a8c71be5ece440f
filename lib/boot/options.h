// SPDX-License-Identifier: Apache-2.0
// The settings of a process and their parser. The table is abi/options.def; library and launcher
// use the same parser, so what the launcher lets through is what the library understands.
#pragma once

#include <cstddef>
#include <cstdint>

namespace undergo::boot {

inline constexpr int64_t kNoLimit = INT64_MAX;  // GOMEMLIMIT=off, in bytes
inline constexpr int64_t kNever = -1;           // a duration that is off
inline constexpr size_t kMaxNames = 1024;       // with the terminating zero
inline constexpr size_t kMaxPath = 4096;        // with the terminating zero, as the kernel counts

#define UNDERGO_WORDS(...) __VA_ARGS__
#define UNDERGO_ENUM_KEY(name, type, initial, words, help) \
  enum class type : uint8_t { UNDERGO_WORDS words };
#include "abi/options.def"

enum class OptionKind : uint8_t {
  kPercent,
  kSize,
  kCount,
  kInt,
  kSwitch,
  kDuration,
  kPath,
  kNames,
  kSignal,
  kEnum,
};

namespace internal {
template <OptionKind kind>
struct FieldOf {
  using Type = int32_t;
};
template <>
struct FieldOf<OptionKind::kSize> {
  using Type = int64_t;
};
template <>
struct FieldOf<OptionKind::kDuration> {
  using Type = int64_t;
};
template <>
struct FieldOf<OptionKind::kSwitch> {
  using Type = bool;
};
template <>
struct FieldOf<OptionKind::kPath> {
  using Type = char[kMaxPath];
};
template <>
struct FieldOf<OptionKind::kNames> {
  using Type = char[kMaxNames];
};
}  // namespace internal

// GODEBUG, one field per name, with Go's meaning of the numbers.
struct GodebugOptions {
#define UNDERGO_GODEBUG(name, initial, help) int32_t name = initial;
#include "abi/options.def"
};

// A fresh object holds the defaults. Units are in the names of the fields and, by kind, in
// abi/options.def; gomaxprocs is 0 when the user gave none, and boot/procs.h has the number then;
// dump_signal is 0 when the user named none, which means SIGQUIT in programs with threads.
struct Options {
  GodebugOptions godebug;
#define UNDERGO_VARIABLE(name, field, kind, initial, help) \
  internal::FieldOf<OptionKind::kind>::Type field = initial;
#define UNDERGO_KEY(name, field, kind, initial, help) \
  internal::FieldOf<OptionKind::kind>::Type field = initial;
#define UNDERGO_ENUM_KEY(name, type, initial, words, help) type name = type::initial;
#include "abi/options.def"
};

// The settings of this process; written once, before the program's first instruction, and read by
// everyone.
extern constinit Options options;

enum class OptionScope : uint8_t {
  kVariable,  // an environment variable of its own
  kKey,       // a key of UNDERGO=
  kGodebug,   // a key of GODEBUG=
};

// One row of abi/options.def, for the parser and for those who print it.
struct OptionInfo {
  OptionScope scope;
  OptionKind kind;
  uint16_t offset;    // of the field in Options, in bytes
  const char* name;   // as the user writes it
  const char* words;  // kEnum: "on|off|report"; else null
  const char* help;
};

extern const OptionInfo kOptionTable[];
extern const size_t kOptionCount;

// What stands for a setting's value in the help ("PERCENT|off") and the sentence that explains it.
const char* OptionForm(const OptionInfo& info);
const char* OptionAccepted(const OptionInfo& info);

// The row of that name, or null. The text need not be terminated.
const OptionInfo* FindOption(OptionScope scope, const char* name, size_t size);

// Reads one value into its field of `out`; false, and `out` unchanged, if it is malformed.
bool SetOption(const OptionInfo& info, const char* text, size_t size, Options* out);

// Reads the settings in the environment `envp` into `out`, which keeps what the environment does
// not mention. On the first malformed one returns false and fills `error` with one line that quotes
// it, names its variable and shows the accepted form; neither "undergo: " nor a newline is part of
// it. Of a variable that occurs twice the first is read, as getenv does; of a key the last, as in
// Go.
bool ParseOptions(const char* const* envp, Options* out, char* error, size_t error_size);

// Reads the value of UNDERGO (scope kKey) or GODEBUG (scope kGodebug). `origin` names where the
// text came from in the error line.
bool ParseOptionList(OptionScope scope, const char* origin, const char* text, Options* out,
                     char* error, size_t error_size);

}  // namespace undergo::boot
