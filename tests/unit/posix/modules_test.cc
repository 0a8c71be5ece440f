// SPDX-License-Identifier: Apache-2.0
// Which files belong to a name in the list of modules.

#include "posix/modules.h"

#include <criterion/criterion.h>
#include <string.h>

using namespace undergo::posix;

namespace {

bool Matches(const char* path, const char* name) { return ModuleMatches(path, name, strlen(name)); }

}  // namespace

Test(modules, names) {
  cr_expect(Matches("/usr/lib/x86_64-linux-gnu/libfontconfig.so.1", "libfontconfig"));
  cr_expect(Matches("/usr/lib/x86_64-linux-gnu/libfontconfig.so.1.12.0", "libfontconfig"));
  cr_expect(Matches("/usr/lib/libdb-5.3.so", "libdb"));
  cr_expect(Matches("libdb.so", "libdb"));
  cr_expect(Matches("./libfoo.so", "libfoo.so"));
  cr_expect(Matches("./libfoo.so.2", "libfoo.so"));
  cr_expect(Matches("/opt/app/server", "server"));
  cr_expect(Matches("/opt/lib/libfoo2.so", "libfoo"));
  cr_expect(not(Matches("/usr/lib/libdbus-1.so.3", "libdb")));
  cr_expect(not(Matches("/usr/lib/libdb_cxx-5.3.so", "libdb")));
  cr_expect(not(Matches("/usr/libdb/other.so", "libdb")));
  cr_expect(not(Matches("/opt/xlibdb.so", "libdb")));
  cr_expect(not(Matches("/opt/libd.so", "libdb")));
  cr_expect(not(Matches("", "libdb")));
}

Test(modules, this_program_has_libc_s_malloc_which_is_not_ours) { cr_expect(HasOwnMalloc()); }
