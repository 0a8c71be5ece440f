// SPDX-License-Identifier: Apache-2.0
// Touches memory before a run is measured. In a virtual machine the first use of a guest page makes
// the host find one (measured: 10 s for 4 GB, 0.3 s for the same memory right afterwards), and a few
// seconds after it was freed the guest may have reported it free again. Untouched, that would be
// charged to whoever comes first, or to whoever prefers large pages.
//   warm MEGABYTES
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

int main(int argc, char** argv) {
  const size_t size = (size_t)(argc > 1 ? atol(argv[1]) : 0) << 20;
  if (size == 0) {
    fprintf(stderr, "warm: usage: warm MEGABYTES\n");
    return 2;
  }
  char* memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    perror("warm");
    return 1;
  }
  madvise(memory, size, MADV_HUGEPAGE);  // whole regions of the guest, not what is left of some
  for (size_t at = 0; at < size; at += 4096) memory[at] = 1;
  return 0;
}
