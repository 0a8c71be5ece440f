// SPDX-License-Identifier: Apache-2.0
// The launcher's command line.
#pragma once

#include <string>
#include <vector>

#include "boot/options.h"

namespace undergo::launch {

struct Setting {
  const boot::OptionInfo* info;
  std::string value;  // well-formed
};

enum class Command {
  kRun,
  kAudit,
  kDoctor,
  kHelp,
  kVersion,
};

struct Args {
  Command command = Command::kRun;
  std::vector<Setting> settings;
  std::string godebug;       // of --godebug, well-formed; empty if it was not given
  std::string library;       // of --library; empty if it was not given
  char** program = nullptr;  // PROGRAM and its arguments, up to a null pointer
};

// Reads the command line; gives up with status 2 if there is something wrong with it.
Args ParseArgs(int argc, char** argv);

// The text of --help: at most 24 lines of 80 columns.
std::string HelpText();

// The option that stands for a setting, without the dashes: the name in lower case.
std::string FlagOf(const boot::OptionInfo& info);

}  // namespace undergo::launch
