// SPDX-License-Identifier: Apache-2.0
// Settings: what Go accepts is accepted with Go's meaning; anything else is refused with one line.

#include "boot/options.h"

#include <criterion/criterion.h>

#include <cstring>
#include <string>
#include <vector>

using namespace undergo::boot;

namespace {

struct Parsed {
  bool ok;
  Options options;
  std::string error;
};

Parsed Parse(std::vector<const char*> environment) {
  Parsed parsed{};
  char error[512] = "";
  environment.push_back(nullptr);
  parsed.ok = ParseOptions(environment.data(), &parsed.options, error, sizeof(error));
  parsed.error = error;
  return parsed;
}

void ExpectRefused(const char* entry, std::vector<const char*> pieces) {
  const Parsed parsed = Parse({"HOME=/root", entry});
  cr_expect(not(parsed.ok), "%s was accepted", entry);
  for (const char* piece : pieces) {
    cr_expect(parsed.error.find(piece) != std::string::npos, "%s: no '%s' in '%s'", entry, piece,
              parsed.error.c_str());
  }
  cr_expect(parsed.error.find('\n') == std::string::npos, "%s: more than one line", entry);
}

void ExpectGogc(const char* entry, int32_t want) {
  const Parsed parsed = Parse({entry});
  cr_expect(parsed.ok, "%s: %s", entry, parsed.error.c_str());
  cr_expect(parsed.options.gogc_percent == want, "%s: %d", entry, parsed.options.gogc_percent);
}

void ExpectLimit(const char* entry, int64_t want) {
  const Parsed parsed = Parse({entry});
  cr_expect(parsed.ok, "%s: %s", entry, parsed.error.c_str());
  cr_expect(parsed.options.gomemlimit_bytes == want, "%s: %ld", entry,
            parsed.options.gomemlimit_bytes);
}

void ExpectPurge(const char* entry, int64_t want) {
  const Parsed parsed = Parse({entry});
  cr_expect(parsed.ok, "%s: %s", entry, parsed.error.c_str());
  cr_expect(parsed.options.purge_ns == want, "%s: %ld", entry, parsed.options.purge_ns);
}

constexpr int64_t kMilli = 1'000'000;
constexpr int64_t kSecond = 1'000'000'000;

}  // namespace

Test(options, empty_environment_leaves_the_defaults) {
  const Parsed parsed = Parse({});
  cr_assert(parsed.ok);
  cr_expect(parsed.options.gogc_percent == 100);
  cr_expect(parsed.options.gomemlimit_bytes == INT64_MAX);
  cr_expect(parsed.options.gomaxprocs == 0);
  cr_expect(parsed.options.gc == GcMode::kOn);
  cr_expect(parsed.options.sched);
  cr_expect(parsed.options.badfree == BadFreeAction::kAbort);
  cr_expect(parsed.options.stats == StatsMode::kOff);
  cr_expect(parsed.options.thp == ThpMode::kAuto);
  cr_expect(parsed.options.purge_ns == kSecond);
  cr_expect(parsed.options.log[0] == '\0');
  cr_expect(parsed.options.godebug.gctrace == 0);
  cr_expect(parsed.options.godebug.containermaxprocs == 1);
  cr_expect(parsed.options.godebug.memprofilerate == 512 * 1024);
}

Test(options, empty_variables_are_as_good_as_unset) {
  const Parsed parsed = Parse({"GOGC=", "GOMEMLIMIT=", "GOMAXPROCS=", "GODEBUG=", "UNDERGO="});
  cr_assert(parsed.ok, "%s", parsed.error.c_str());
  cr_expect(parsed.options.gogc_percent == 100);
  cr_expect(parsed.options.gomemlimit_bytes == kNoLimit);
}

Test(options, gogc) {
  ExpectGogc("GOGC=off", -1);
  ExpectGogc("GOGC=50", 50);
  ExpectGogc("GOGC=0", 0);
  ExpectGogc("GOGC=007", 7);
  ExpectGogc("GOGC=-1", -1);
  ExpectGogc("GOGC=-2147483648", -1);
  ExpectGogc("GOGC=2147483647", 2147483647);
  for (const char* bad : {"GOGC=abc", "GOGC=10%", "GOGC= 10", "GOGC=10 ", "GOGC=+10", "GOGC=-",
                          "GOGC=1.5", "GOGC=OFF", "GOGC=2147483648", "GOGC=-2147483649",
                          "GOGC=99999999999999999999", "GOGC=0x10"}) {
    ExpectRefused(bad, {"GOGC=\"", bad + 5, "percent", "off"});
  }
}

Test(options, gomemlimit) {
  ExpectLimit("GOMEMLIMIT=off", kNoLimit);
  ExpectLimit("GOMEMLIMIT=0", 0);
  ExpectLimit("GOMEMLIMIT=12345", 12345);
  ExpectLimit("GOMEMLIMIT=77B", 77);
  ExpectLimit("GOMEMLIMIT=1KiB", 1 << 10);
  ExpectLimit("GOMEMLIMIT=512MiB", 512L << 20);
  ExpectLimit("GOMEMLIMIT=3GiB", 3L << 30);
  ExpectLimit("GOMEMLIMIT=2TiB", 2L << 40);
  ExpectLimit("GOMEMLIMIT=9223372036854775807", INT64_MAX);
  ExpectLimit("GOMEMLIMIT=8388607TiB", 8388607L << 40);
  for (const char* bad :
       {"GOMEMLIMIT=1KB", "GOMEMLIMIT=1G", "GOMEMLIMIT=1Gi", "GOMEMLIMIT=1 MiB", "GOMEMLIMIT=-1",
        "GOMEMLIMIT=+1", "GOMEMLIMIT=1.5GiB", "GOMEMLIMIT=MiB", "GOMEMLIMIT=B", "GOMEMLIMIT=iB",
        "GOMEMLIMIT=1iB", "GOMEMLIMIT=1mib", "GOMEMLIMIT=1PiB", "GOMEMLIMIT=1MiBB",
        "GOMEMLIMIT=9223372036854775808", "GOMEMLIMIT=8388608TiB",
        "GOMEMLIMIT=18446744073709551616", "GOMEMLIMIT=none"}) {
    ExpectRefused(bad, {"GOMEMLIMIT=\"", bad + 11, "KiB, MiB, GiB, TiB", "off"});
  }
}

Test(options, gomaxprocs) {
  cr_expect(Parse({"GOMAXPROCS=3"}).options.gomaxprocs == 3);
  cr_expect(Parse({"GOMAXPROCS=0"}).options.gomaxprocs == 0);
  cr_expect(Parse({"GOMAXPROCS=-4"}).options.gomaxprocs == 0);
  cr_expect(Parse({"GOMAXPROCS=-4"}).ok);
  for (const char* bad : {"GOMAXPROCS=two", "GOMAXPROCS=2x", "GOMAXPROCS=4294967297"}) {
    ExpectRefused(bad, {"GOMAXPROCS=\"", bad + 11, "whole number"});
  }
}

Test(options, godebug_is_a_list_in_which_the_last_wins) {
  const Parsed parsed = Parse({"GODEBUG=gctrace=1,schedtrace=1000,,gctrace=2,madvdontneed=0,"});
  cr_assert(parsed.ok, "%s", parsed.error.c_str());
  cr_expect(parsed.options.godebug.gctrace == 2);
  cr_expect(parsed.options.godebug.schedtrace == 1000);
  cr_expect(parsed.options.godebug.madvdontneed == 0);
  cr_expect(parsed.options.godebug.scavtrace == 0);
}

Test(options, godebug_names_of_other_programs_are_ignored) {
  const Parsed parsed = Parse({"GODEBUG=netdns=go+1,http2client=0,gctrace=1,x509ignoreCN="});
  cr_assert(parsed.ok, "%s", parsed.error.c_str());
  cr_expect(parsed.options.godebug.gctrace == 1);
}

Test(options, godebug_refuses_what_is_malformed) {
  ExpectRefused("GODEBUG=gctrace=yes", {"GODEBUG=\"gctrace=yes\"", "whole number"});
  ExpectRefused("GODEBUG=netdns=go,gctrace", {"GODEBUG=\"gctrace\"", "whole number"});
  ExpectRefused("GODEBUG=gctrace=", {"GODEBUG=\"gctrace=\""});
  ExpectRefused("GODEBUG=gctrace=1;scavtrace=1", {"gctrace=1;scavtrace=1"});
  ExpectRefused("GODEBUG=1", {"GODEBUG=\"1\"", "name=integer"});
}

Test(options, every_key_of_undergo) {
  const Parsed parsed =
      Parse({"UNDERGO=gc=quarantine,sched=on,badfree=ignore,stats=exit,"
             "log=/tmp/a=b.log,purge=250ms,thp=always,stress=stop,tracking=snapshot,"
             "dump=SIGUSR1,deadlock=abort"});
  cr_assert(parsed.ok, "%s", parsed.error.c_str());
  cr_expect(parsed.options.gc == GcMode::kQuarantine);
  cr_expect(parsed.options.sched);
  cr_expect(parsed.options.badfree == BadFreeAction::kIgnore);
  cr_expect(parsed.options.stats == StatsMode::kExit);
  cr_expect(strcmp(parsed.options.log, "/tmp/a=b.log") == 0);
  cr_expect(parsed.options.purge_ns == 250 * kMilli);
  cr_expect(parsed.options.thp == ThpMode::kAlways);
  cr_expect(parsed.options.stress == StressMode::kStop);
  cr_expect(parsed.options.tracking == TrackingMode::kSnapshot);
  cr_expect(parsed.options.dump_signal == 10);
  cr_expect(parsed.options.deadlock == DeadlockMode::kAbort);
}

Test(options, every_word_of_every_enum) {
  for (size_t i = 0; i < kOptionCount; ++i) {
    const OptionInfo& info = kOptionTable[i];
    if (info.kind != OptionKind::kEnum) continue;
    const std::string words = info.words;
    int index = 0;
    for (size_t from = 0, to = 0; to != std::string::npos; from = to + 1, ++index) {
      to = words.find('|', from);
      const std::string word = words.substr(from, to == std::string::npos ? to : to - from);
      Options options;
      cr_expect(SetOption(info, word.data(), word.size(), &options), "%s=%s", info.name,
                word.c_str());
      cr_expect(reinterpret_cast<const uint8_t*>(&options)[info.offset] == index, "%s=%s",
                info.name, word.c_str());
      cr_expect(not(SetOption(info, word.data(), word.size() - 1, &options)), "%s short",
                info.name);
    }
    cr_expect(index >= 2, "%s has %d words", info.name, index);
  }
}

Test(options, undergo_refuses_unknown_keys_and_values) {
  ExpectRefused("UNDERGO=gc=maybe", {"UNDERGO=\"gc=maybe\"", "on|off|report|poison|quarantine"});
  ExpectRefused("UNDERGO=gc", {"UNDERGO=\"gc\"", "on|off|report|poison|quarantine"});
  ExpectRefused("UNDERGO=gc=", {"UNDERGO=\"gc=\""});
  ExpectRefused("UNDERGO=GC=on", {"UNDERGO=\"GC=on\"", "keys are", "gc=on|off", "thp=auto|off"});
  ExpectRefused("UNDERGO=sched=off,colour=red", {"\"colour=red\"", "keys are", "log=PATH"});
  ExpectRefused("UNDERGO=sched=1", {"\"sched=1\"", "on|off"});
  ExpectRefused("UNDERGO=log=", {"\"log=\"", "path"});
  for (const char* bad : {"UNDERGO=dump=", "UNDERGO=dump=KILL", "UNDERGO=dump=SIG",
                          "UNDERGO=dump=quit", "UNDERGO=dump=3", "UNDERGO=dump=SEGV"}) {
    ExpectRefused(bad, {"dump takes a signal of HUP, INT, QUIT", "or off"});
  }
  ExpectRefused("UNDERGO=deadlock=on", {"deadlock takes note|abort|off"});
  for (const char* bad : {"UNDERGO=nocollect=", "UNDERGO=nocollect=a::b",
                          "UNDERGO=nocollect=a:", "UNDERGO=nocollect=/lib/a.so"}) {
    ExpectRefused(bad, {"nocollect takes names of modules", "libfoo.so:libbar.so"});
  }
  ExpectRefused("UNDERGO= gc=on", {"\" gc=on\"", "keys are"});
  ExpectRefused("UNDERGO==on", {"\"=on\"", "keys are"});
}

Test(options, durations_are_those_of_go) {
  ExpectPurge("UNDERGO=purge=off", kNever);
  ExpectPurge("UNDERGO=purge=0", 0);
  ExpectPurge("UNDERGO=purge=0s", 0);
  ExpectPurge("UNDERGO=purge=1s", kSecond);
  ExpectPurge("UNDERGO=purge=15ns", 15);
  ExpectPurge("UNDERGO=purge=2us", 2000);
  ExpectPurge("UNDERGO=purge=1.5s", 1500 * kMilli);
  ExpectPurge("UNDERGO=purge=.25s", 250 * kMilli);
  ExpectPurge("UNDERGO=purge=2.s", 2 * kSecond);
  ExpectPurge("UNDERGO=purge=1m30s", 90 * kSecond);
  ExpectPurge("UNDERGO=purge=1h1m1s1ms", 3661 * kSecond + kMilli);
  ExpectPurge("UNDERGO=purge=9223372036854775807ns", INT64_MAX);
  for (const char* bad :
       {"UNDERGO=purge=1", "UNDERGO=purge=s", "UNDERGO=purge=1sec", "UNDERGO=purge=-1s",
        "UNDERGO=purge=.s", "UNDERGO=purge=1 s", "UNDERGO=purge=", "UNDERGO=purge=1s2",
        "UNDERGO=purge=9223372036854775808ns", "UNDERGO=purge=2562048h", "UNDERGO=purge=5124096h",
        "UNDERGO=purge=2562047h9000000000s"}) {
    ExpectRefused(bad, {bad + 8, "duration"});
  }
}

Test(options, first_variable_wins_and_similar_names_do_not_count) {
  const Parsed parsed = Parse({"XGOGC=1", "GOGC2=2", "GOGC=3", "GOGC=x", "UNDERGO=stats=exit",
                               "UNDERGO=bad", "UNDERGONE=bad", "GODEBUG=gctrace=1", "GODEBUG=1"});
  cr_assert(parsed.ok, "%s", parsed.error.c_str());
  cr_expect(parsed.options.gogc_percent == 3);
  cr_expect(parsed.options.stats == StatsMode::kExit);
  cr_expect(parsed.options.godebug.gctrace == 1);
}

Test(options, an_error_is_one_short_printable_line) {
  const std::string entry = "GOGC=1\n\t\x01" + std::string(10000, 'z');
  const Parsed parsed = Parse({entry.c_str()});
  cr_assert(not(parsed.ok));
  cr_expect(parsed.error.size() < 200, "%zu bytes", parsed.error.size());
  for (char c : parsed.error) cr_expect(c >= ' ' && c < 127);

  char tiny[8];
  Options options;
  const char* environment[] = {"GOGC=nonsense", nullptr};
  cr_expect(not(ParseOptions(environment, &options, tiny, sizeof(tiny))));
  cr_expect(strlen(tiny) == 7);
}

Test(options, a_path_must_fit) {
  Options options;
  const OptionInfo* log = FindOption(OptionScope::kKey, "log", 3);
  cr_assert(log != nullptr);
  const std::string path(kMaxPath, 'p');
  cr_expect(SetOption(*log, path.data(), kMaxPath - 1, &options));
  cr_expect(strlen(options.log) == kMaxPath - 1);
  cr_expect(not(SetOption(*log, path.data(), kMaxPath, &options)));
}

Test(options, each_row_is_found_and_explained) {
  for (size_t i = 0; i < kOptionCount; ++i) {
    const OptionInfo& info = kOptionTable[i];
    cr_expect(FindOption(info.scope, info.name, strlen(info.name)) == &info, "%s", info.name);
    cr_expect(
        strlen(OptionForm(info)) > 0 && strlen(OptionAccepted(info)) > 0 && strlen(info.help) > 0,
        "%s", info.name);
  }
  cr_expect(FindOption(OptionScope::kKey, "gctrace", 7) == nullptr);
}
