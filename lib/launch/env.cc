// SPDX-License-Identifier: Apache-2.0
// Builds the environment of the program: LD_PRELOAD, the settings, and the search for the library.

#include "launch/env.h"

#include <elf.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch/elf_file.h"
#include "launch/report.h"

namespace undergo::launch {

namespace {

constexpr char kLibraryName[] = "libundergo.so";

std::vector<std::string> Split(const std::string& text, const char* separators) {
  std::vector<std::string> parts;
  size_t from = 0;
  while (from < text.size()) {
    const size_t to = text.find_first_of(separators, from);
    if (to != from) parts.push_back(text.substr(from, to - from));
    if (to == std::string::npos) break;
    from = to + 1;
  }
  return parts;
}

std::string KeyOf(const std::string& element) { return element.substr(0, element.find('=')); }

// `old` without the elements whose key occurs in `added`, and then `added`.
std::string MergeLists(const char* old, const std::vector<std::string>& added) {
  std::string merged;
  for (const std::string& element : Split(old != nullptr ? old : "", ",")) {
    bool replaced = false;
    for (const std::string& other : added) replaced = replaced || KeyOf(other) == KeyOf(element);
    if (!replaced) merged += (merged.empty() ? "" : ",") + element;
  }
  for (const std::string& element : added) merged += (merged.empty() ? "" : ",") + element;
  return merged;
}

std::string BaseName(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

bool SameFile(const std::string& a, const std::string& b) {
  struct stat x, y;
  return stat(a.c_str(), &x) == 0 && stat(b.c_str(), &y) == 0 && x.st_dev == y.st_dev &&
         x.st_ino == y.st_ino;
}

// The directory of the launcher's own file. /proc may be missing, and then the path by which the
// kernel started us has to do.
std::string OwnDirectory() {
  char path[PATH_MAX];
  const char* started_as = reinterpret_cast<const char*>(getauxval(AT_EXECFN));
  if (realpath("/proc/self/exe", path) == nullptr &&
      (started_as == nullptr || realpath(started_as, path) == nullptr)) {
    return ".";
  }
  const std::string whole = path;
  return whole.substr(0, whole.rfind('/'));
}

}  // namespace

Environment::Environment(char** environment) {
  for (; *environment != nullptr; ++environment) entries_.push_back(*environment);
}

const char* Environment::Get(const char* name) const {
  const size_t size = strlen(name);
  for (const std::string& entry : entries_) {
    if (entry.compare(0, size, name) == 0 && entry[size] == '=') return entry.c_str() + size + 1;
  }
  return nullptr;
}

void Environment::Set(const std::string& name, const std::string& value) {
  const std::string prefix = name + "=";
  std::erase_if(entries_, [&](const std::string& entry) { return entry.starts_with(prefix); });
  entries_.push_back(prefix + value);
}

char** Environment::Entries() {
  pointers_.clear();
  for (std::string& entry : entries_) pointers_.push_back(entry.data());
  pointers_.push_back(nullptr);
  return pointers_.data();
}

void ApplySettings(const Args& args, Environment* environment) {
  std::vector<std::string> keys;
  for (const Setting& setting : args.settings) {
    if (setting.info->scope == boot::OptionScope::kVariable) {
      environment->Set(setting.info->name, setting.value);
    } else {
      keys.push_back(std::string(setting.info->name) + "=" + setting.value);
    }
  }
  if (!keys.empty()) environment->Set("UNDERGO", MergeLists(environment->Get("UNDERGO"), keys));
  if (!args.godebug.empty()) {
    const std::vector<std::string> names = Split(args.godebug, ",");
    environment->Set("GODEBUG", MergeLists(environment->Get("GODEBUG"), names));
  }
}

void AddPreload(const std::string& library, Environment* environment) {
  std::string preload = library;
  const char* old = environment->Get("LD_PRELOAD");
  for (const std::string& entry : Split(old != nullptr ? old : "", ": ")) {
    if (BaseName(entry) == kLibraryName || SameFile(entry, library)) continue;
    preload += ":" + entry;
  }
  environment->Set("LD_PRELOAD", preload);
}

void CheckSettings(Environment* environment, boot::Options* out) {
  char error[512];
  if (!boot::ParseOptions(environment->Entries(), out, error, sizeof(error))) {
    Die(kBadRequest, error);
  }
}

std::string FindLibrary(const std::string& given) {
  char path[PATH_MAX];
  const std::string directory = OwnDirectory();
  const std::string beside = directory + "/" + kLibraryName;
  const std::string installed = directory + "/../lib/undergo/" + kLibraryName;
  const bool found = !given.empty() ? realpath(given.c_str(), path) != nullptr
                                    : realpath(beside.c_str(), path) != nullptr ||
                                          realpath(installed.c_str(), path) != nullptr;
  if (!found && !given.empty()) {
    Die(kBadRequest, "--library=" + Quoted(given) + ": " + strerror(errno));
  }
  if (!found) {
    Die(kBadRequest, std::string(kLibraryName) + " is neither at " + Quoted(beside) + " nor at " +
                         Quoted(installed) + "; --library=PATH names it");
  }
  const std::string library = path;
  if (library.find_first_of(": ") != std::string::npos) {
    Die(kBadRequest, Quoted(library) +
                         " holds a blank or a colon, which separate the paths in "
                         "LD_PRELOAD");
  }
  const ElfFile elf = ReadElf(library);
  if (elf.problem != ElfProblem::kNone || elf.type != ET_DYN) {
    Die(kBadRequest, Quoted(library) + " is not a library for this machine");
  }
  return library;
}

}  // namespace undergo::launch
