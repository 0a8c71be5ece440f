// SPDX-License-Identifier: Apache-2.0
// Blocks that the C library allocates and the program frees, and the other way round: locale,
// iconv, resolver, qsort, printf, scanf, regex, stdio, directories, search tables, word expansion.
// run:
// timeout: 30
#include <dirent.h>
#include <fnmatch.h>
#include <glob.h>
#include <iconv.h>
#include <langinfo.h>
#include <locale.h>
#include <netdb.h>
#include <pwd.h>
#include <regex.h>
#include <search.h>
#include <spawn.h>
#include <wchar.h>
#include <wordexp.h>

#include "check.h"

static int CompareInt(const void* a, const void* b) {
  int x = *(const int*)a, y = *(const int*)b;
  return (x > y) - (x < y);
}
static int CompareText(const void* a, const void* b) { return strcmp(a, b); }

static void Strings(void) {
  char *s, *t, *word = NULL;
  CHECK(asprintf(&s, "%d %s %*d", 5, "five", 100, 7) == 107);
  t = strdup(s);
  CHECK(!strcmp(s, t));
  free(s);
  s = strndup(t, 6);
  CHECK(!strcmp(s, "5 five"));
  free(t);
  CHECK(sscanf("hello world", "%ms", &word) == 1 && !strcmp(word, "hello"));
  free(word);
  free(s);
  wchar_t* w = wcsdup(L"wide");
  CHECK(w && wcslen(w) == 4);
  free(w);
  // A width and positions that make printf allocate, and an error text.
  s = malloc(300000);
  CHECK(snprintf(s, 300000, "%2$*1$d", 200000, 7) == 200000);
  CHECK(snprintf(s, 300000, "%.5000f", 1.0 / 3) == 5002);
  errno = ENOENT;
  CHECK(snprintf(s, 300000, "%m") > 5);
  free(s);
}

static void Streams(void) {
  char path[] = "/tmp/undergo-test-XXXXXX";
  int fd = mkstemp(path);
  CHECK(fd >= 0);
  FILE* f = fdopen(fd, "w+");
  setvbuf(f, NULL, _IOFBF, 100000);
  for (int i = 0; i < 2000; i++) fprintf(f, "%d %.*s\n", i, i, "");
  fprintf(f, "%0100000d\n", 1);
  rewind(f);
  char* line = NULL;
  size_t size = 0;
  ssize_t n;
  int lines = 0;
  ssize_t longest = 0;
  while ((n = getline(&line, &size, f)) > 0) {
    lines++;
    if (n > longest) longest = n;
    // Given back to getline after the program resized it.
    if (lines % 500 == 0) line = realloc(line, size = size * 2 + 10);
  }
  CHECK(lines == 2001 && longest == 100001);
  free(line);
  fclose(f);
  unlink(path);
  char* text;
  size_t length;
  f = open_memstream(&text, &length);
  for (int i = 0; i < 20000; i++) fprintf(f, "%d,", i);
  fclose(f);
  CHECK(length > 100000 && strlen(text) == length);
  free(text);
  f = fmemopen(NULL, 1000, "w+");
  CHECK(f && fputs("inside", f) >= 0);
  fclose(f);
  FILE* many[100];
  for (int i = 0; i < 100; i++)
    CHECK((many[i] = fopen("/dev/null", "w")) != NULL && fputs("x", many[i]) >= 0);
  for (int i = 0; i < 100; i++) fclose(many[i]);
}

static void Files(void) {
  char* cwd = getcwd(NULL, 0);
  CHECK(cwd && cwd[0] == '/');
  free(cwd);
  char* real = realpath("/usr/../usr/lib/.", NULL);
  CHECK(real && !strcmp(real, "/usr/lib"));
  free(real);
  struct dirent** names;
  int n = scandir("/etc", &names, NULL, alphasort);
  CHECK(n > 5);
  while (n-- > 0) free(names[n]);
  free(names);
  DIR* dirs[30];
  for (int i = 0; i < 30; i++) CHECK((dirs[i] = opendir("/")) != NULL && readdir(dirs[i]));
  for (int i = 0; i < 30; i++) closedir(dirs[i]);
  glob_t g;
  CHECK(glob("/etc/*", 0, NULL, &g) == 0 && g.gl_pathc > 5);
  globfree(&g);
  wordexp_t w;
  CHECK(wordexp("one two \"three four\" $((1+2))", &w, WRDE_NOCMD) == 0 && w.we_wordc == 4);
  CHECK(!strcmp(w.we_wordv[3], "3"));
  wordfree(&w);
  struct passwd* p = getpwnam("root");
  CHECK(p && p->pw_uid == 0);
}

static void TextTools(void) {
  for (int i = 0; i < 20; i++) {
    regex_t re;
    regmatch_t m[3];
    CHECK_EQ(regcomp(&re, "^([a-z]+)[0-9]{2,5}(foo|bar|[[:space:]]*)+$", REG_EXTENDED), 0);
    CHECK(regexec(&re, "hello123foobar  foo", 3, m, 0) == 0 && m[1].rm_eo == 5);
    CHECK(regexec(&re, "123", 3, m, 0) == REG_NOMATCH);
    regfree(&re);
    CHECK(regcomp(&re, "([a-z", REG_EXTENDED) != 0);
  }
  iconv_t c = iconv_open("UTF-16LE", "UTF-8");
  if (c != (iconv_t)-1) {
    char in[] = "h\xc3\xa9llo", out[40], *from = in, *to = out;
    size_t left = 6, room = sizeof out;
    CHECK(iconv(c, &from, &left, &to, &room) == 0 && room == sizeof out - 10);
    iconv_close(c);
  }
  CHECK(setlocale(LC_ALL, "") || setlocale(LC_ALL, "C"));
  setlocale(LC_ALL, "C.UTF-8");
  CHECK(nl_langinfo(CODESET));
  locale_t l = newlocale(LC_ALL_MASK, "C.UTF-8", NULL);
  if (l) {
    locale_t d = duplocale(l);
    freelocale(l);
    freelocale(d);
  }
  setlocale(LC_ALL, "C");
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_flags = AI_NUMERICHOST}, *list;
  CHECK(getaddrinfo("127.0.0.1", "80", &hints, &list) == 0 && list);
  freeaddrinfo(list);
  if (getaddrinfo("localhost", "80", NULL, &list) == 0) freeaddrinfo(list);
}

static void Tables(void) {
  enum { kCount = 400000 };
  int* numbers = malloc(kCount * sizeof(int));
  Random r = {3};
  for (int i = 0; i < kCount; i++) numbers[i] = (int)Next(&r);
  qsort(numbers, kCount, sizeof(int), CompareInt);
  for (int i = 1; i < kCount; i++) CHECK(numbers[i - 1] <= numbers[i]);
  free(numbers);
  void* root = NULL;
  for (int i = 0; i < 5000; i++) {
    char text[20];
    snprintf(text, sizeof text, "k%d", i * 7919 % 5000);
    CHECK(tsearch(strdup(text), &root, CompareText));
  }
  tdestroy(root, free);
  CHECK(hcreate(1000));
  for (int i = 0; i < 700; i++) {
    char text[20];
    snprintf(text, sizeof text, "h%d", i);
    ENTRY e = {strdup(text), NULL};
    CHECK(hsearch(e, ENTER));
  }
  hdestroy();
  for (int i = 0; i < 2000; i++) {
    char name[20];
    snprintf(name, sizeof name, "UNDERGO_TEST_%d", i);
    CHECK_EQ(setenv(name, "a value of some length", 1), 0);
  }
  CHECK(!strcmp(getenv("UNDERGO_TEST_1999"), "a value of some length"));
  for (int i = 0; i < 2000; i++) {
    char name[20];
    snprintf(name, sizeof name, "UNDERGO_TEST_%d", i);
    CHECK_EQ(unsetenv(name), 0);
  }
}

int main(void) {
  for (int round = 0; round < 3; round++) {
    Strings();
    Streams();
    Files();
    TextTools();
    Tables();
  }
  puts("libc right");
  return 0;
}
