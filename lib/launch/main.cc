// SPDX-License-Identifier: Apache-2.0
// The launcher: checks the settings and the program, then becomes the program with our library in
// LD_PRELOAD. Whatever would make the program run without the library is refused here, by one line.

#include <unistd.h>

#include <cstdio>

#include "launch/args.h"
#include "launch/audit.h"
#include "launch/doctor.h"
#include "launch/env.h"
#include "launch/program.h"
#include "launch/report.h"

#ifndef UNDERGO_VERSION
#define UNDERGO_VERSION "0.1.0"
#endif

int main(int argc, char** argv) {
  using namespace undergo;
  launch::Args args = launch::ParseArgs(argc, argv);
  if (args.command == launch::Command::kHelp) {
    fputs(launch::HelpText().c_str(), stdout);
    return 0;
  }
  if (args.command == launch::Command::kVersion) {
    puts("undergo " UNDERGO_VERSION);
    return 0;
  }

  boot::Options options;
  launch::Environment environment(environ);
  if (args.command == launch::Command::kAudit) launch::AddAuditSettings(&args, environment);
  launch::ApplySettings(args, &environment);
  launch::CheckSettings(&environment, &options);
  if (args.command == launch::Command::kDoctor) {
    launch::PrintDoctor(options);
    return 0;
  }

  const char* search_path = environment.Get("PATH");
  const std::string path = launch::FindProgram(args.program[0], search_path);
  launch::CheckProgram(path, search_path);
  launch::AddPreload(launch::FindLibrary(args.library), &environment);
  if (args.command == launch::Command::kAudit) {
    return launch::RunAudit(path, args.program, &environment);
  }
  launch::Run(path, args.program, environment.Entries());
}
