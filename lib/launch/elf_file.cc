// SPDX-License-Identifier: Apache-2.0
// Reads the ELF header and the program headers of a file.

#include "launch/elf_file.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include <cstddef>

namespace undergo::launch {

namespace {

ElfFile Problem(ElfProblem problem, int machine = 0) {
  ElfFile file;
  file.problem = problem;
  file.machine = machine;
  return file;
}

// True if all of the bytes are there.
bool ReadAt(int fd, uint64_t offset, void* buffer, size_t size) {
  return offset <= INT64_MAX &&
         pread(fd, buffer, size, static_cast<off_t>(offset)) == static_cast<ssize_t>(size);
}

ElfFile ReadOpen(int fd) {
  Elf64_Ehdr header;
  memset(&header, 0, sizeof(header));
  const ssize_t size = pread(fd, &header, sizeof(header), 0);
  if (size < 0) return Problem(ElfProblem::kUnreadable);
  if (size < SELFMAG || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
    return Problem(ElfProblem::kNotElf);
  }
  // Up to and with the machine, both classes have the same layout.
  if (static_cast<size_t>(size) < offsetof(Elf64_Ehdr, e_version)) {
    return Problem(ElfProblem::kMalformed);
  }
  const bool swapped = header.e_ident[EI_DATA] == ELFDATA2MSB;
  const int machine = swapped ? __builtin_bswap16(header.e_machine) : header.e_machine;
  if (header.e_ident[EI_CLASS] == ELFCLASS32) return Problem(ElfProblem::k32Bit, machine);
  if (machine != EM_X86_64) return Problem(ElfProblem::kForeignMachine, machine);
  if (size != sizeof(header) || swapped || header.e_ident[EI_CLASS] != ELFCLASS64 ||
      (header.e_type != ET_EXEC && header.e_type != ET_DYN) ||
      header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0) {
    return Problem(ElfProblem::kMalformed);
  }

  ElfFile file;
  file.machine = machine;
  file.type = header.e_type;
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    if (!ReadAt(fd, header.e_phoff + i * sizeof(segment), &segment, sizeof(segment))) {
      return Problem(ElfProblem::kMalformed, machine);
    }
    if (segment.p_type != PT_INTERP) continue;
    if (segment.p_filesz < 2 || segment.p_filesz > PATH_MAX) {
      return Problem(ElfProblem::kMalformed, machine);
    }
    std::string loader(segment.p_filesz, '\0');
    if (!ReadAt(fd, segment.p_offset, loader.data(), loader.size()) || loader.back() != '\0') {
      return Problem(ElfProblem::kMalformed, machine);
    }
    file.loader = loader.c_str();
    break;
  }
  return file;
}

}  // namespace

ElfFile ReadElf(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return Problem(ElfProblem::kUnreadable);
  const ElfFile file = ReadOpen(fd);
  close(fd);
  return file;
}

}  // namespace undergo::launch
