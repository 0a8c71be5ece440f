// SPDX-License-Identifier: Apache-2.0
// Reads the launcher's command line. The options for settings come from abi/options.def.

#include "launch/args.h"

#include <cstring>

#include "launch/report.h"

namespace undergo::launch {

namespace {

using boot::OptionInfo;
using boot::OptionScope;

// The setting that has this option; null if there is none.
const OptionInfo* FindFlag(const std::string& flag) {
  for (size_t i = 0; i < boot::kOptionCount; ++i) {
    const OptionInfo& info = boot::kOptionTable[i];
    if (info.scope != OptionScope::kGodebug && FlagOf(info) == flag) return &info;
  }
  return nullptr;
}

void AddSetting(const OptionInfo& info, const std::string& value, Args* args) {
  boot::Options scratch;
  const std::string option = "--" + FlagOf(info) + "=";
  if (!boot::SetOption(info, value.data(), value.size(), &scratch)) {
    Die(kBadRequest, option + Quoted(value) + " is malformed: takes " + boot::OptionAccepted(info));
  }
  if (info.scope == OptionScope::kKey && value.find(',') != std::string::npos) {
    Die(kBadRequest, option + Quoted(value) + " holds a comma, which separates keys in UNDERGO");
  }
  args->settings.push_back({&info, value});
}

void SetGodebug(const std::string& value, Args* args) {
  boot::Options scratch;
  char error[512];
  if (!boot::ParseOptionList(OptionScope::kGodebug, "--godebug", value.c_str(), &scratch, error,
                             sizeof(error))) {
    Die(kBadRequest, error);
  }
  args->godebug = value;
}

// Takes one option with a value; false if there is no such option.
bool TakeOption(const std::string& flag, const std::string& value, Args* args) {
  if (flag == "godebug") {
    SetGodebug(value, args);
  } else if (flag == "library") {
    if (value.empty()) Die(kBadRequest, "--library=\"\" is malformed: takes the path of a file");
    args->library = value;
  } else if (const OptionInfo* info = FindFlag(flag)) {
    AddSetting(*info, value, args);
  } else {
    return false;
  }
  return true;
}

// Whether there is an option of that name that takes a value.
bool TakesValue(const std::string& flag) {
  return flag == "godebug" || flag == "library" || FindFlag(flag) != nullptr;
}

std::string HelpLine(const std::string& option, const char* help) {
  std::string line = "  --" + option;
  line.resize(line.size() < 40 ? 40 : line.size() + 1, ' ');
  return line + help + "\n";
}

// Reads options from argv[*i] on, up to the first word that is none. True when "--" ended them.
bool TakeOptions(int argc, char** argv, int* i, Args* args) {
  for (; *i < argc && argv[*i][0] == '-'; ++*i) {
    const std::string word = argv[*i];
    if (word == "--") {
      ++*i;
      return true;
    }
    if (word == "--help" || word == "-h") args->command = Command::kHelp;
    if (word == "--version") args->command = Command::kVersion;
    if (args->command == Command::kHelp || args->command == Command::kVersion) return true;
    const size_t equals = word.find('=');
    const std::string flag = word.substr(0, 2) == "--" ? word.substr(2, equals - 2) : "";
    if (!TakesValue(flag)) {
      Die(kBadRequest, "unknown option " + Quoted(word) + "; undergo --help lists the options");
    }
    if (equals != std::string::npos) {
      TakeOption(flag, word.substr(equals + 1), args);
    } else if (*i + 1 < argc) {
      TakeOption(flag, argv[++*i], args);
    } else {
      Die(kBadRequest, "option " + Quoted(word) + " needs a value: " + word + "=VALUE");
    }
  }
  return false;
}

}  // namespace

std::string FlagOf(const OptionInfo& info) {
  std::string flag = info.name;
  for (char& c : flag) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return flag;
}

Args ParseArgs(int argc, char** argv) {
  Args args;
  int i = 1;
  const bool dashes = TakeOptions(argc, argv, &i, &args);
  if (args.command != Command::kRun) return args;
  if (!dashes && i < argc && strcmp(argv[i], "doctor") == 0) args.command = Command::kDoctor;
  if (!dashes && i < argc && strcmp(argv[i], "audit") == 0) {
    args.command = Command::kAudit;
    ++i;
    TakeOptions(argc, argv, &i, &args);
    if (args.command != Command::kAudit) return args;
  }
  args.program = argv + i;
  if (args.command == Command::kDoctor && args.program[1] != nullptr) {
    Die(kBadRequest, "doctor takes no argument, not " + Quoted(args.program[1]) +
                         "; undergo -- doctor runs a program of that name");
  }
  if (args.program[0] == nullptr) {
    Die(kBadRequest, "no program given: undergo [options] [--] PROGRAM [ARGS]");
  }
  return args;
}

std::string HelpText() {
  std::string text =
      "Usage: undergo [options] [--] PROGRAM [ARGS]   run PROGRAM under undergo\n"
      "       undergo audit [options] [--] PROGRAM    may PROGRAM be collected?\n"
      "       undergo doctor                          show what this machine offers\n"
      "Options (settings go before GOGC, UNDERGO=KEY=VALUE,... of the environment):\n";
  for (size_t i = 0; i < boot::kOptionCount; ++i) {
    const OptionInfo& info = boot::kOptionTable[i];
    if (info.scope == OptionScope::kGodebug) continue;
    text += HelpLine(FlagOf(info) + "=" + boot::OptionForm(info), info.help);
  }
  text += HelpLine("godebug=NAME=N,...", "trace and debug settings, as in Go");
  text += HelpLine("library=PATH", "the library to use instead of ours");
  text += HelpLine("version, --help", "print the version, or this page");
  text += "Exit status: PROGRAM's; 2 bad setting, 126 not executable, 127 not found.\n";
  return text;
}

}  // namespace undergo::launch
