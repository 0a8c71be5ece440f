// SPDX-License-Identifier: Apache-2.0
// The environment that the program will get: ours, with the command line's settings worked in.
#pragma once

#include <string>
#include <vector>

#include "launch/args.h"

namespace undergo::launch {

class Environment {
 public:
  explicit Environment(char** environment);

  const char* Get(const char* name) const;  // null if it is not there
  void Set(const std::string& name, const std::string& value);

  // The entries up to a null pointer; valid until the next change.
  char** Entries();

 private:
  std::vector<std::string> entries_;
  std::vector<char*> pointers_;
};

// Puts the settings of the command line in; a key of theirs replaces the environment's.
void ApplySettings(const Args& args, Environment* environment);

// Puts the library before what LD_PRELOAD already holds, without anything that is undergo, too.
void AddPreload(const std::string& library, Environment* environment);

// Gives up with status 2 if the library would refuse a setting.
void CheckSettings(Environment* environment, boot::Options* out);

// The absolute path of the library: `given` if that is not empty, else the one beside the launcher
// or in ../lib/undergo. Gives up with status 2 if there is none that could be loaded.
std::string FindLibrary(const std::string& given);

}  // namespace undergo::launch
