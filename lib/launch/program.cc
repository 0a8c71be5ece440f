// SPDX-License-Identifier: Apache-2.0
// Finds the program, follows the chain of interpreters to the file that the kernel will run at
// last, and refuses what would silently run without our library.
//
// The dynamic loader reads LD_PRELOAD, so a program without one (static, static-pie) cannot be
// reached; nor can one for another machine, whose loader cannot load our library. For a program
// that gains privileges the kernel sets AT_SECURE, and then the loader ignores paths in LD_PRELOAD.
// That is the case when its set-user-ID or set-group-ID bit changes the user or the group, and when
// it has file capabilities and the user is not root. It is not when the bit names the user or group
// that we have, and neither bit counts on a nosuid mount or after PR_SET_NO_NEW_PRIVS.

#include "launch/program.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "launch/elf_file.h"
#include "launch/report.h"

namespace undergo::launch {

namespace {

constexpr char kDefaultPath[] = "/bin:/usr/bin";  // what execvp takes when PATH is not set
constexpr char kShell[] = "/bin/sh";
constexpr size_t kHeadSize = 256;  // the kernel reads as much of a script for its first line
constexpr int kMaxScripts = 5;     // and follows so many interpreters

// The file to check, and for the message how we came to it.
struct Subject {
  std::string path;
  std::string origin;  // " (interpreter of ...)", or empty
  int depth = 0;
};

void CheckFile(const Subject& subject, const char* search_path);

[[noreturn]] void Refuse(int status, const Subject& subject, const std::string& why) {
  Die(status, Quoted(subject.path) + " " + why + subject.origin);
}

// The first bytes of the file; gives up if it cannot be read.
std::string ReadHead(const Subject& subject) {
  const int fd = open(subject.path.c_str(), O_RDONLY | O_CLOEXEC);
  char head[kHeadSize];
  const ssize_t size = fd < 0 ? -1 : read(fd, head, sizeof(head));
  if (size < 0) {
    Refuse(kNotExecutable, subject,
           std::string("cannot be read, hence not checked: ") + strerror(errno));
  }
  close(fd);
  return std::string(head, static_cast<size_t>(size));
}

void CheckAccess(const Subject& subject, struct stat* status) {
  if (stat(subject.path.c_str(), status) != 0) {
    const bool missing = errno == ENOENT || errno == ENOTDIR;
    if (missing) Refuse(kNotFound, subject, "is not there");
    Refuse(kNotExecutable, subject, std::string("is out of reach: ") + strerror(errno));
  }
  if (S_ISDIR(status->st_mode)) Refuse(kNotExecutable, subject, "is a directory");
  if (!S_ISREG(status->st_mode)) Refuse(kNotExecutable, subject, "is not a regular file");
  if (faccessat(AT_FDCWD, subject.path.c_str(), X_OK, AT_EACCESS) != 0) {
    Refuse(kNotExecutable, subject, std::string("is not executable: ") + strerror(errno));
  }
}

// Whether the file's capabilities are more than an empty set.
bool HasCapabilities(const std::string& path) {
  struct {
    uint32_t magic;  // version and the effective flag
    struct {
      uint32_t permitted, inheritable;
    } sets[2];
    uint32_t root_id;
  } data;
  memset(&data, 0, sizeof(data));
  if (getxattr(path.c_str(), "security.capability", &data, sizeof(data)) < 0) return false;
  return (data.magic & 1) != 0 || data.sets[0].permitted != 0 || data.sets[1].permitted != 0;
}

void CheckPrivileges(const Subject& subject, const struct stat& status) {
  struct statvfs mount;
  if (statvfs(subject.path.c_str(), &mount) == 0 && (mount.f_flag & ST_NOSUID) != 0) return;
  const char* gain = nullptr;
  if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) {
    // Without the group's execute bit, S_ISGID means mandatory locking.
    const mode_t set_group = S_ISGID | S_IXGRP;
    const bool sets_group = (status.st_mode & set_group) == set_group;
    if (sets_group && status.st_gid != getgid()) gain = "is set-group-ID";
    if ((status.st_mode & S_ISUID) != 0 && status.st_uid != getuid()) gain = "is set-user-ID";
  }
  if (getuid() != 0 && HasCapabilities(subject.path)) gain = "has file capabilities";
  if (gain != nullptr) {
    Refuse(kBadRequest, subject,
           std::string(gain) + ", and the loader ignores LD_PRELOAD in such a program");
  }
}

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

void CheckElf(const Subject& subject, const struct stat& status) {
  const ElfFile elf = ReadElf(subject.path);
  switch (elf.problem) {
    case ElfProblem::kNone: break;
    case ElfProblem::k32Bit:
      Refuse(kBadRequest, subject, "is a 32-bit program, and undergo is for x86-64 programs only");
    case ElfProblem::kForeignMachine:
      Refuse(kBadRequest, subject,
             "is for another machine (ELF machine " + std::to_string(elf.machine) +
                 "), and undergo is for x86-64 programs only");
    case ElfProblem::kMalformed:
    case ElfProblem::kNotElf: Refuse(kNotExecutable, subject, "is a malformed ELF file");
    case ElfProblem::kUnreadable:
      Refuse(kNotExecutable, subject,
             std::string("cannot be read, hence not checked: ") + strerror(errno));
  }
  const std::string loader = BaseName(elf.loader);
  if (elf.loader.empty()) {
    // The loader itself, started by hand, has no loader either, but it reads LD_PRELOAD.
    if (BaseName(subject.path).starts_with("ld-linux-x86-64.so")) return;
    Refuse(kBadRequest, subject,
           "is statically linked, and LD_PRELOAD reaches dynamically linked programs only");
  }
  if (loader.starts_with("ld-musl") || loader.starts_with("linker")) {
    Refuse(kBadRequest, subject,
           "is linked with another C library (its loader is " + Quoted(elf.loader) +
               "), and undergo needs glibc");
  }
  if (access(elf.loader.c_str(), F_OK) != 0) {
    Refuse(kNotFound, subject, "needs the loader " + Quoted(elf.loader) + ", which is not there");
  }
  CheckPrivileges(subject, status);
}

// The words of the rest of an env line. With -S, env splits it as a shell would split plain words
// and quotes; without, the kernel has made one argument of it.
std::vector<std::string> EnvWords(const std::string& argument) {
  size_t from = std::string::npos;
  if (argument.starts_with("-S")) from = 2;
  if (argument.starts_with("-vS")) from = 3;
  if (argument.starts_with("--split-string=")) from = strlen("--split-string=");
  if (from == std::string::npos) return {argument};
  std::vector<std::string> words;
  std::string word;
  bool inside = false;
  char quote = 0;
  for (size_t i = from; i < argument.size(); ++i) {
    const char c = argument[i];
    if (quote != 0 ? c == quote : c == '"' || c == '\'') {
      quote = quote != 0 ? 0 : c;
      inside = true;
    } else if (quote == 0 && (c == ' ' || c == '\t')) {
      if (inside) words.push_back(word);
      word.clear();
      inside = false;
    } else {
      word += c;
      inside = true;
    }
  }
  if (inside) words.push_back(word);
  return words;
}

// The program that env starts when the kernel calls it for a script; empty if that is beyond us,
// and then env may find out by itself.
std::string EnvProgram(const std::string& argument) {
  const std::vector<std::string> words = EnvWords(argument);
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    const bool takes_next = word == "-u" || word == "--unset";
    if (takes_next) ++i;
    if (takes_next || word.starts_with("--unset=") || word == "--" || word == "-i" || word == "-" ||
        word == "--ignore-environment") {
      continue;
    }
    if (word.starts_with("PATH=") || word[0] == '-') return "";
    if (word.find('=') == std::string::npos) return word;
  }
  return "";
}

// Follows the first line of a script as the kernel does: one word, and the rest as one argument. If
// there is no word, execvp has the shell run the script.
void CheckScript(const Subject& subject, const std::string& head, const char* search_path) {
  std::string line = head.substr(2, std::min(head.find('\n'), head.size()) - 2);
  line = line.substr(0, line.find('\0'));
  const size_t start = line.find_first_not_of(" \t");
  if (start == std::string::npos) return;
  if (subject.depth >= kMaxScripts) {
    Refuse(kNotExecutable, subject, "is a script of a script of a script, too deep for the kernel");
  }
  const size_t end = line.find_first_of(" \t", start);
  const std::string origin = " (interpreter of " + Quoted(subject.path) + ")";
  const Subject interpreter{line.substr(start, end - start), origin, subject.depth + 1};
  CheckFile(interpreter, search_path);

  const size_t argument = end == std::string::npos ? end : line.find_first_not_of(" \t", end);
  if (BaseName(interpreter.path) != "env" || argument == std::string::npos) return;
  line.resize(line.find_last_not_of(" \t\r") + 1);
  const std::string name = EnvProgram(line.substr(argument));
  if (name.empty()) return;
  CheckFile({FindProgram(name, search_path), origin, subject.depth + 1}, search_path);
}

// A text for the shell, or a format that somebody has told the kernel about, passes: what becomes
// of it shows when the kernel has seen it.
void CheckFile(const Subject& subject, const char* search_path) {
  struct stat status;
  CheckAccess(subject, &status);
  const std::string head = ReadHead(subject);
  if (head.starts_with("\177ELF")) {
    CheckElf(subject, status);
  } else if (head.starts_with("#!")) {
    CheckScript(subject, head, search_path);
  }
}

// Bash's test: a zero byte in the first line.
bool LooksBinary(const std::string& head) {
  return head.substr(0, head.find('\n')).find('\0') != std::string::npos;
}

}  // namespace

std::string FindProgram(const std::string& name, const char* search_path) {
  if (name.empty()) Die(kNotFound, "the name of the program is empty");
  if (name.find('/') != std::string::npos) return name;
  const std::string path = search_path != nullptr ? search_path : kDefaultPath;
  std::string denied;
  for (size_t from = 0, to = 0; to != std::string::npos; from = to + 1) {
    to = path.find(':', from);
    const std::string directory = path.substr(from, to == std::string::npos ? to : to - from);
    const std::string candidate = directory.empty() ? name : directory + "/" + name;
    struct stat status;
    if (stat(candidate.c_str(), &status) != 0) continue;
    if (S_ISREG(status.st_mode) && faccessat(AT_FDCWD, candidate.c_str(), X_OK, AT_EACCESS) == 0) {
      return candidate;
    }
    if (denied.empty()) denied = candidate;
  }
  if (!denied.empty()) return denied;  // the check tells what is wrong with it
  Die(kNotFound, "program " + Quoted(name) + " is not in PATH");
}

void CheckProgram(const std::string& path, const char* search_path) {
  CheckFile({path, "", 0}, search_path);
}

void Run(const std::string& path, char** argv, char** environment) {
  execve(path.c_str(), argv, environment);
  if (errno == ENOEXEC) {
    if (LooksBinary(ReadHead({path, "", 0}))) {
      Die(kNotExecutable, Quoted(path) + " is no program that this kernel knows");
    }
    CheckFile({kShell, " (interpreter of " + Quoted(path) + ")", 1}, nullptr);
    std::vector<char*> shell_argv = {const_cast<char*>(kShell), const_cast<char*>(path.c_str())};
    for (char** arg = argv + 1; *arg != nullptr; ++arg) shell_argv.push_back(*arg);
    shell_argv.push_back(nullptr);
    execve(kShell, shell_argv.data(), environment);
  }
  const int status = errno == ENOENT ? kNotFound : kNotExecutable;
  Die(status, "cannot run " + Quoted(path) + ": " + strerror(errno));
}

}  // namespace undergo::launch
