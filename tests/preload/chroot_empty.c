// SPDX-License-Identifier: Apache-2.0
// Without /proc, /sys and /dev: a process that moves into an empty root after its start, and one
// that is started in a root that holds its libraries only.
// needs: root
// run: name=moved moved
// run: name=started started
#include <ftw.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "check.h"

static void* Work(void* arg) {
  Random r = {(uint64_t)(uintptr_t)arg};
  for (int i = 0; i < 30000; i++) {
    size_t n = 1 + Below(&r, Below(&r, 100) ? 2000 : 3000000);
    unsigned char* p = Below(&r, 2) ? malloc(n) : calloc(1, n);
    CHECK(p);
    p[0] = p[n - 1] = 1;
    p = realloc(p, n + 100);
    CHECK(p && p[0] == 1 && p[n - 1] == 1);
    free(p);
  }
  return NULL;
}
static void WorkAll(void) {
  pthread_t t[3];
  for (size_t i = 0; i < 3; i++) CHECK_EQ(pthread_create(&t[i], NULL, Work, (void*)(i + 1)), 0);
  Work((void*)7);
  for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
  malloc_trim(0);
  struct mallinfo2 m = mallinfo2();
  CHECK(m.arena + m.hblkhd > 0);
  for (int i = 0; i < 5; i++) {
    pid_t pid = fork();
    if (pid == 0) {
      Work((void*)5);
      exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
}

static void Copy(const char* from, const char* root) {
  char to[8192];
  snprintf(to, sizeof to, "%s%s", root, from);
  for (char* c = to + strlen(root) + 1; *c; c++)
    if (*c == '/') {
      *c = 0;
      mkdir(to, 0755);
      *c = '/';
    }
  int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
  CHECK_MSG(in >= 0 && out >= 0, "copy of %s: %s", from, strerror(errno));
  static char buffer[1 << 16];
  ssize_t n;
  while ((n = read(in, buffer, sizeof buffer)) > 0) CHECK(write(out, buffer, (size_t)n) == n);
  close(in);
  close(out);
}

static int Remove(const char* path, const struct stat* s, int type, struct FTW* f) {
  (void)s, (void)type, (void)f;
  return remove(path);
}

int main(int argc, char** argv) {
  if (argc > 2) {
    WorkAll();
    puts("no root right");
    return 0;
  }
  char root[] = "/tmp/undergo-root-XXXXXX";
  CHECK(mkdtemp(root));
  char self[4096];
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  CHECK(n > 0);
  self[n] = 0;
  int started = !strcmp(argv[1], "started");
  if (started) {
    // Every file that is mapped here is what the loader needs there, and the loader by its usual
    // name.
    FILE* maps = fopen("/proc/self/maps", "r");
    CHECK(maps);
    char line[4400], path[4200];
    while (fgets(line, sizeof line, maps))
      if (sscanf(line, "%*s %*s %*s %*s %*s %4199s", path) == 1 && path[0] == '/') Copy(path, root);
    fclose(maps);
    Copy("/lib64/ld-linux-x86-64.so.2", root);
    const char* preload = getenv("LD_PRELOAD");
    if (preload) Copy(preload, root);
  }
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    if (chroot(root) || chdir("/")) _exit(kSkipped);
    if (started) {
      execl(self, "chroot_empty", argv[1], "inside", (char*)NULL);
      CHECK_MSG(0, "exec in the new root: %s", strerror(errno));
    }
    WorkAll();
    puts("no root right");
    exit(0);
  }
  int status;
  CHECK(waitpid(pid, &status, 0) == pid);
  nftw(root, Remove, 16, FTW_DEPTH | FTW_PHYS);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kSkipped) SKIP("chroot is not allowed here");
  CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status %#x", status);
  return 0;
}
