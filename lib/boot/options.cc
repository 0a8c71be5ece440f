// SPDX-License-Identifier: Apache-2.0
// Parses abi/options.def out of an environment. Runs before libc is ready for use, hence calls
// nothing of it, allocates nothing and takes no lock.

#include "boot/options.h"

#include "base/fmt.h"

namespace undergo::boot {

constinit Options options;

namespace {

// Text that need not be terminated.
struct Text {
  const char* data;
  size_t size;

  bool Is(const char* other) const {
    size_t i = 0;
    for (; i < size; ++i) {
      if (other[i] == '\0' || data[i] != other[i]) return false;
    }
    return other[i] == '\0';
  }
  // Cuts off and returns what stands before the first `mark`; all of it, leaving nothing, if there
  // is none.
  Text CutBefore(char mark, bool* found) {
    size_t i = 0;
    while (i < size && data[i] != mark) ++i;
    Text head{data, i};
    *found = i < size;
    const size_t skip = *found ? i + 1 : i;
    data += skip;
    size -= skip;
    return head;
  }
};

size_t Length(const char* s) {
  size_t n = 0;
  while (s[n] != '\0') ++n;
  return n;
}

// Puts text in quotes: on one line whatever it holds, and shortened when it is long.
Fmt& Quote(Fmt& line, Text text) {
  constexpr size_t kMaxQuoted = 80;
  line.Char('"');
  for (size_t i = 0; i < text.size && i < kMaxQuoted; ++i) {
    const char c = text.data[i];
    line.Char(c >= ' ' && c != 127 ? c : '?');
  }
  return line.Char('"').Str(text.size > kMaxQuoted ? "..." : "");
}

// "kOn, kOff" as it stands in the table becomes "on|off" at compile time.
template <size_t kSize>
struct WordList {
  char text[kSize] = {};

  // NOLINTNEXTLINE(google-explicit-constructor): a literal is what the table holds.
  consteval WordList(const char (&source)[kSize]) {
    size_t n = 0;
    bool at_start = true;
    for (size_t i = 0; i + 1 < kSize; ++i) {
      if (source[i] == '(' || source[i] == ')' || source[i] == ' ') continue;
      if (source[i] == ',') {
        text[n++] = '|';
        at_start = true;
      } else if (at_start) {
        ++i;  // past the k
        text[n++] = static_cast<char>(source[i] - 'A' + 'a');
        at_start = false;
      } else {
        text[n++] = source[i];
      }
    }
  }
};

#define UNDERGO_ENUM_KEY(name, type, initial, words, help) \
  constexpr WordList kWordsOf_##name(#words);
#include "abi/options.def"

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Digits alone, up to `limit`.
bool ParseDigits(Text text, uint64_t limit, uint64_t* out) {
  if (text.size == 0) return false;
  uint64_t value = 0;
  for (size_t i = 0; i < text.size; ++i) {
    if (!IsDigit(text.data[i])) return false;
    const uint64_t digit = static_cast<uint64_t>(text.data[i] - '0');
    if (value > (limit - digit) / 10) return false;
    value = value * 10 + digit;
  }
  *out = value;
  return true;
}

// A 32-bit decimal number; a minus sign may stand before it, a plus sign may not: Go's runtime
// knows none.
bool ParseInt32(Text text, int32_t* out) {
  const bool negative = text.size > 0 && text.data[0] == '-';
  if (negative) text = {text.data + 1, text.size - 1};
  uint64_t value = 0;
  if (!ParseDigits(text, negative ? uint64_t{1} << 31 : INT32_MAX, &value)) return false;
  const int64_t number = static_cast<int64_t>(value);
  *out = static_cast<int32_t>(negative ? -number : number);
  return true;
}

// Go's byte counts: digits and then B, KiB, MiB, GiB, TiB or nothing; no sign, space or fraction.
bool ParseSize(Text text, int64_t* out) {
  unsigned shift = 0;
  if (text.size > 0 && text.data[text.size - 1] == 'B') {
    text.size -= 1;
    if (text.size > 1 && text.data[text.size - 1] == 'i') {
      switch (text.data[text.size - 2]) {
        case 'K': shift = 10; break;
        case 'M': shift = 20; break;
        case 'G': shift = 30; break;
        case 'T': shift = 40; break;
        default: return false;
      }
      text.size -= 2;
    }
  }
  uint64_t value = 0;
  if (!ParseDigits(text, static_cast<uint64_t>(INT64_MAX) >> shift, &value)) return false;
  *out = static_cast<int64_t>(value << shift);
  return true;
}

// The unit at the head of `text`, in nanoseconds, and its length; 0 if there is none.
uint64_t DurationUnit(Text text, size_t* length) {
  struct Unit {
    char name[4];
    uint64_t ns;
  };
  static constexpr Unit kUnits[] = {
      {"ns", 1},
      {"us", 1'000},
      {"ms", 1'000'000},
      {"s", 1'000'000'000},
      {"m", 60'000'000'000},
      {"h", 3'600'000'000'000},
  };
  size_t n = 0;
  while (n < text.size && text.data[n] >= 'a' && text.data[n] <= 'z') ++n;
  *length = n;
  for (const Unit& unit : kUnits) {
    if (Text{text.data, n}.Is(unit.name)) return unit.ns;
  }
  return 0;
}

// Go's durations without a sign: one or more of number and unit, the number with a fraction or not;
// or 0.
bool ParseDuration(Text text, int64_t* out) {
  if (text.Is("0")) {
    *out = 0;
    return true;
  }
  uint64_t total = 0;
  bool any = false;
  while (text.size > 0) {
    size_t whole = 0;
    while (whole < text.size && IsDigit(text.data[whole])) ++whole;
    size_t end = whole;
    if (end < text.size && text.data[end] == '.') {
      ++end;
      while (end < text.size && IsDigit(text.data[end])) ++end;
    }
    const size_t fraction = end > whole ? end - whole - 1 : 0;
    if (whole + fraction == 0) return false;
    size_t unit_size = 0;
    const uint64_t unit = DurationUnit({text.data + end, text.size - end}, &unit_size);
    if (unit == 0) return false;
    uint64_t count = 0;
    if (whole > 0 && !ParseDigits({text.data, whole}, INT64_MAX / unit, &count)) return false;
    uint64_t ns = count * unit;
    uint64_t place = unit;
    for (size_t i = 0; i < fraction; ++i) {
      place /= 10;
      ns += static_cast<uint64_t>(text.data[whole + 1 + i] - '0') * place;
    }
    if (ns > INT64_MAX - total) return false;
    total += ns;
    text = {text.data + end + unit_size, text.size - end - unit_size};
    any = true;
  }
  *out = static_cast<int64_t>(total);
  return any;
}

// The position of `text` in a list such as "on|off"; -1 if it is not there.
int FindWord(const char* words, Text text) {
  Text rest{words, Length(words)};
  bool more = true;
  for (int i = 0; more; ++i) {
    const Text word = rest.CutBefore('|', &more);
    if (word.size == text.size && __builtin_memcmp(word.data, text.data, word.size) == 0) return i;
  }
  return -1;
}

// A number whose type has a value for "off".
template <typename Number>
bool ParseOr(bool (*parse)(Text, Number*), Text text, Number off, Number* field) {
  if (text.Is("off")) {
    *field = off;
    return true;
  }
  return parse(text, field);
}

bool SetPath(Text text, char* field) {
  if (text.size == 0 || text.size >= kMaxPath) return false;
  __builtin_memcpy(field, text.data, text.size);
  field[text.size] = '\0';
  return true;
}

// Names of files without folders, none of them empty.
bool SetNames(Text text, char* field) {
  if (text.size >= kMaxNames) return false;
  Text rest = text;
  for (bool more = true; more;) {
    const Text name = rest.CutBefore(':', &more);
    if (name.size == 0) return false;
    for (size_t i = 0; i < name.size; ++i) {
      if (name.data[i] == '/' || name.data[i] <= ' ') return false;
    }
  }
  __builtin_memcpy(field, text.data, text.size);
  field[text.size] = '\0';
  return true;
}

// Signals that may ask for something: none that a fault raises, none that means a child or a stop.
bool ParseSignal(Text text, int32_t* out) {
  struct Named {
    char name[8];
    int32_t number;
  };
  static constexpr Named kSignals[] = {
      {"HUP", 1},   {"INT", 2},    {"QUIT", 3}, {"USR1", 10}, {"USR2", 12},
      {"ALRM", 14}, {"TERM", 15},  {"URG", 23}, {"XCPU", 24}, {"VTALRM", 26},
      {"PROF", 27}, {"WINCH", 28}, {"IO", 29},  {"PWR", 30},
  };
  if (text.size > 3 && Text{text.data, 3}.Is("SIG")) text = {text.data + 3, text.size - 3};
  for (const Named& s : kSignals) {
    if (!text.Is(s.name)) continue;
    *out = s.number;
    return true;
  }
  return false;
}

bool SetText(const OptionInfo& info, Text text, Options* out) {
  char* const field = reinterpret_cast<char*>(out) + info.offset;
  switch (info.kind) {
    case OptionKind::kInt: return ParseInt32(text, reinterpret_cast<int32_t*>(field));
    case OptionKind::kCount: {
      int32_t value = 0;
      if (!ParseInt32(text, &value)) return false;
      *reinterpret_cast<int32_t*>(field) = value > 0 ? value : 0;
      return true;
    }
    case OptionKind::kPercent: {
      int32_t value = 0;
      if (!ParseOr<int32_t>(ParseInt32, text, -1, &value)) return false;
      *reinterpret_cast<int32_t*>(field) = value >= 0 ? value : -1;
      return true;
    }
    case OptionKind::kSize:
      return ParseOr(ParseSize, text, kNoLimit, reinterpret_cast<int64_t*>(field));
    case OptionKind::kDuration:
      return ParseOr(ParseDuration, text, kNever, reinterpret_cast<int64_t*>(field));
    case OptionKind::kSwitch:
      if (!text.Is("on") && !text.Is("off")) return false;
      *reinterpret_cast<bool*>(field) = text.Is("on");
      return true;
    case OptionKind::kPath: return SetPath(text, field);
    case OptionKind::kNames: return SetNames(text, field);
    case OptionKind::kSignal:
      return ParseOr<int32_t>(ParseSignal, text, -1, reinterpret_cast<int32_t*>(field));
    case OptionKind::kEnum: {
      const int index = FindWord(info.words, text);
      if (index < 0) return false;
      *reinterpret_cast<uint8_t*>(field) = static_cast<uint8_t>(index);
      return true;
    }
  }
  return false;
}

// What is left of `entry` after "NAME=", or null if it is another variable.
const char* ValueOf(const char* entry, const char* name) {
  for (; *name != '\0'; ++name, ++entry) {
    if (*entry != *name) return nullptr;
  }
  return *entry == '=' ? entry + 1 : nullptr;
}

// Once per variable: a second entry of the same name is not read.
class FirstOnly {
 public:
  bool operator()(size_t index) {
    const uint64_t bit = uint64_t{1} << index;
    const bool first = (seen_ & bit) == 0;
    seen_ |= bit;
    return first;
  }

 private:
  uint64_t seen_ = 0;
};

void DescribeMalformed(const OptionInfo& info, const char* origin, Text text, Fmt& line) {
  Quote(line.Str(origin).Str("="), text).Str(" is malformed: ");
  if (info.scope == OptionScope::kGodebug || info.scope == OptionScope::kKey)
    line.Str(info.name).Str(" ");
  line.Str("takes ").Str(OptionAccepted(info));
}

void DescribeUnknownKey(OptionScope scope, const char* origin, Text text, Fmt& line) {
  Quote(line.Str(origin).Str("="), text).Str(" is malformed: the keys are");
  const char* separator = " ";
  for (size_t i = 0; i < kOptionCount; ++i) {
    const OptionInfo& info = kOptionTable[i];
    if (info.scope != scope) continue;
    line.Str(separator).Str(info.name).Str("=").Str(OptionForm(info));
    separator = ", ";
  }
}

bool ParseElement(OptionScope scope, const char* origin, Text element, Options* out, Fmt& line) {
  bool has_value = false;
  Text value = element;
  const Text key = value.CutBefore('=', &has_value);
  const OptionInfo* info = FindOption(scope, key.data, key.size);
  if (info == nullptr && scope == OptionScope::kGodebug && has_value) return true;
  if (info == nullptr && scope == OptionScope::kGodebug) {
    Quote(line.Str(origin).Str("="), element)
        .Str(" is malformed: it takes name=integer,... such as gctrace=1");
    return false;
  }
  if (info == nullptr) {
    DescribeUnknownKey(scope, origin, element, line);
    return false;
  }
  if (has_value && SetText(*info, value, out)) return true;
  DescribeMalformed(*info, origin, element, line);
  return false;
}

}  // namespace

#define UNDERGO_VARIABLE(name, field, kind, initial, help) \
  {OptionScope::kVariable, OptionKind::kind, offsetof(Options, field), #name, nullptr, help},
#define UNDERGO_KEY(name, field, kind, initial, help) \
  {OptionScope::kKey, OptionKind::kind, offsetof(Options, field), #name, nullptr, help},
#define UNDERGO_ENUM_KEY(name, type, initial, words, help) \
  {OptionScope::kKey,       OptionKind::kEnum,             \
   offsetof(Options, name), #name,                         \
   kWordsOf_##name.text,    help},
#define UNDERGO_GODEBUG(name, initial, help) \
  {OptionScope::kGodebug, OptionKind::kInt, offsetof(Options, godebug.name), #name, nullptr, help},
constexpr OptionInfo kOptionTable[] = {
#include "abi/options.def"
};
constexpr size_t kOptionCount = sizeof(kOptionTable) / sizeof(kOptionTable[0]);
static_assert(kOptionCount < 62, "FirstOnly holds one bit per row and two more");

const char* OptionForm(const OptionInfo& info) {
  switch (info.kind) {
    case OptionKind::kPercent: return "PERCENT|off";
    case OptionKind::kSize: return "SIZE|off";
    case OptionKind::kCount: return "N";
    case OptionKind::kInt: return "INTEGER";
    case OptionKind::kSwitch: return "on|off";
    case OptionKind::kDuration: return "DELAY|off";
    case OptionKind::kPath: return "PATH";
    case OptionKind::kNames: return "NAME:...";
    case OptionKind::kSignal: return "SIG|off";
    case OptionKind::kEnum: return info.words;
  }
  return "";
}

const char* OptionAccepted(const OptionInfo& info) {
  switch (info.kind) {
    case OptionKind::kPercent: return "a whole number of percent such as 100, or off";
    case OptionKind::kSize:
      return "digits followed by B, KiB, MiB, GiB, TiB or nothing, such as 512MiB, or off";
    case OptionKind::kCount: return "a whole number such as 4";
    case OptionKind::kInt: return "a whole number such as 1";
    case OptionKind::kDuration: return "a duration such as 1s, 250ms or 1m30s, or off";
    case OptionKind::kPath: return "a path of 1 to 4095 bytes";
    case OptionKind::kNames:
      return "names of modules without folders, separated by colons, such as libfoo.so:libbar.so";
    case OptionKind::kSignal:
      return "a signal of HUP, INT, QUIT, USR1, USR2, ALRM, TERM, URG, XCPU, VTALRM, PROF, WINCH, "
             "IO, PWR, or off";
    case OptionKind::kSwitch:
    case OptionKind::kEnum: return OptionForm(info);
  }
  return "";
}

const OptionInfo* FindOption(OptionScope scope, const char* name, size_t size) {
  for (const OptionInfo& info : kOptionTable) {
    if (info.scope == scope && Text{name, size}.Is(info.name)) return &info;
  }
  return nullptr;
}

bool SetOption(const OptionInfo& info, const char* text, size_t size, Options* out) {
  return SetText(info, {text, size}, out);
}

bool ParseOptionList(OptionScope scope, const char* origin, const char* text, Options* out,
                     char* error, size_t error_size) {
  Fmt line(error, error_size);
  Text rest{text, Length(text)};
  while (rest.size > 0) {
    bool more = false;
    const Text element = rest.CutBefore(',', &more);
    if (element.size > 0 && !ParseElement(scope, origin, element, out, line)) return false;
  }
  return true;
}

bool ParseOptions(const char* const* envp, Options* out, char* error, size_t error_size) {
  FirstOnly first;
  for (; *envp != nullptr; ++envp) {
    if (const char* value = ValueOf(*envp, "UNDERGO")) {
      if (!first(kOptionCount)) continue;
      if (!ParseOptionList(OptionScope::kKey, "UNDERGO", value, out, error, error_size))
        return false;
    } else if (const char* list = ValueOf(*envp, "GODEBUG")) {
      if (!first(kOptionCount + 1)) continue;
      if (!ParseOptionList(OptionScope::kGodebug, "GODEBUG", list, out, error, error_size))
        return false;
    } else {
      for (size_t i = 0; i < kOptionCount; ++i) {
        const OptionInfo& info = kOptionTable[i];
        if (info.scope != OptionScope::kVariable) continue;
        const char* text = ValueOf(*envp, info.name);
        if (text == nullptr || !first(i)) continue;
        const size_t size = Length(text);
        if (size == 0 || SetText(info, {text, size}, out)) continue;
        Fmt line(error, error_size);
        DescribeMalformed(info, info.name, {text, size}, line);
        return false;
      }
    }
  }
  return true;
}

}  // namespace undergo::boot
