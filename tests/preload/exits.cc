// SPDX-License-Identifier: Apache-2.0
// Every way to end: handlers and destructors that free late, quick_exit, _exit, exit from a thread
// while others allocate, the main thread gone first, and buffered output that must still come out.
// run:
// timeout: 40
#include <pthread.h>
#include <sys/wait.h>

#include <map>
#include <string>
#include <vector>

#include "check.h"

namespace {

// Allocated early, freed last: by a static destructor and by handlers of exit.
std::map<int, std::string>* table;
std::vector<std::string> words(1000, std::string(100, 'w'));
struct LastOne {
  ~LastOne() {
    for (auto& w : words) CHECK(w.size() == 100);
    words.clear();
    free(malloc(100000));
  }
} last_one;
thread_local std::vector<char> local(10000, 'l');

void FreeTable() {
  CHECK(table->size() == 5000 && (*table)[4999].size() == 99);
  delete table;
  table = nullptr;
  for (int i = 0; i < 1000; i++) free(malloc((size_t)i * 10));
}
void MakeTable() {
  table = new std::map<int, std::string>;
  for (int i = 0; i < 5000; i++) (*table)[i] = std::string((size_t)(i % 100), 't');
}
void OnExit(int, void* p) { free(p); }
void QuickHandler() { FreeTable(); }

volatile bool started;
void* Hammer(void*) {
  local[5] = 'x';
  Random r = {(uint64_t)pthread_self()};
  for (;;) {
    std::vector<std::string> v;
    for (int i = 0; i < 20; i++) v.push_back(std::string(Below(&r, 300), 'v'));
    started = true;
  }
  return nullptr;
}
void StartHammers() {
  for (int i = 0; i < 4; i++) {
    pthread_t t;
    CHECK_EQ(pthread_create(&t, nullptr, Hammer, nullptr), 0);
  }
  while (!started) SleepMs(1);
}
void* ExitFromThread(void*) {
  printf("from a thread\n");
  exit(3);
}
void* OutliveMain(void*) {
  SleepMs(30);
  for (int i = 0; i < 10000; i++) free(malloc((size_t)i % 2000));
  printf("after main\n");
  exit(4);
}

constexpr int kLines = 30000;
void Child(int which) {
  setvbuf(stdout, (char*)malloc(1 << 20), _IOFBF, 1 << 20);
  pthread_t t;
  switch (which) {
    case 0:  // plain exit with everything registered
      MakeTable();
      atexit(FreeTable);
      on_exit(OnExit, malloc(70000));
      for (int i = 0; i < 50; i++) atexit([] { free(malloc(50)); });
      for (int i = 0; i < kLines; i++) printf("line %d\n", i);
      exit(0);
    case 1:  // exit under fire
      MakeTable();
      atexit(FreeTable);
      StartHammers();
      exit(1);
    case 2:
      MakeTable();
      at_quick_exit(QuickHandler);
      StartHammers();
      quick_exit(2);
    case 3:
      StartHammers();
      CHECK_EQ(pthread_create(&t, nullptr, ExitFromThread, nullptr), 0);
      for (;;) SleepMs(1000);
    case 4:  // the main thread ends first
      CHECK_EQ(pthread_create(&t, nullptr, OutliveMain, nullptr), 0);
      local[7] = 'm';
      pthread_exit(nullptr);
    case 5:
      StartHammers();
      _exit(5);
    case 6: {  // plugins still loaded: their destructors run in exit
      void* h = dlopen(PluginPath("ctor"), RTLD_NOW);
      CHECK_MSG(h, "dlopen: %s", dlerror());
      size_t (*plugin_local)(size_t) = (size_t(*)(size_t))dlsym(h, "PluginLocal");
      plugin_local(10);
      StartHammers();
      exit(6);
    }
    case 7: {  // replaced by another program while threads allocate
      StartHammers();
      execl("/bin/sh", "sh", "-c", "exit 7", (char*)nullptr);
    }
  }
  _exit(99);
}

}  // namespace

int main() {
  for (int round = 0; round < 4; round++)
    for (int which = 0; which < 8; which++) {
      int out[2];
      CHECK(pipe(out) == 0);
      pid_t pid = fork();
      CHECK(pid >= 0);
      if (pid == 0) {
        dup2(out[1], 1);
        close(out[0]);
        close(out[1]);
        Child(which);
      }
      close(out[1]);
      FILE* f = fdopen(out[0], "r");
      char line[100];
      int lines = 0;
      while (fgets(line, sizeof line, f)) {
        if (which == 0) CHECK(atoi(line + 5) == lines);
        lines++;
      }
      fclose(f);
      int status;
      CHECK(waitpid(pid, &status, 0) == pid);
      CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == which, "way %d: wait status %#x", which,
                status);
      CHECK_EQ(lines, which == 0 ? kLines : which == 3 || which == 4 ? 1 : 0);
    }
  puts("exits right");
  return 0;
}
