// SPDX-License-Identifier: Apache-2.0
// Recall on leaks of C programs: a list that is dropped by its head, a hash table whose values are
// overwritten, compiled regular expressions that are never freed.
// run: name=list env=GOGC=off list
// run: name=list_checked env=GOGC=off env=GODEBUG=gccheckmark=1 list
// run: name=hash env=GOGC=off hash
// run: name=regcomp env=GOGC=off regcomp
// run: name=list_stopped env=GOGC=off env=GODEBUG=gcstoptheworld=1 list
// timeout: 60
#include <regex.h>

#include "recall.h"

typedef struct Node {
  struct Node *next, *previous;
  uint64_t value;
} Node;
static NOINLINE void DropList(void) {
  Node* head = NULL;
  for (uint64_t i = 0; i < 100000; i++) {
    Node* node = malloc(sizeof *node);
    CHECK(node);
    *node = (Node){.next = head, .value = i};
    if (head) head->previous = node;
    head = node;
  }
}

typedef struct Entry {
  uint64_t key;
  char* value;
  struct Entry* next;
} Entry;
static Entry* bucket[4096];
static NOINLINE void Put(uint64_t key, uint64_t round) {
  Entry** at = &bucket[key * 0x9e3779b97f4a7c15u >> 52];
  Entry* entry = *at;
  while (entry && entry->key != key) entry = entry->next;
  if (!entry) {
    CHECK((entry = malloc(sizeof *entry)) != NULL);
    *entry = (Entry){.key = key, .next = *at};
    *at = entry;
  }
  // The old value is lost here, as in many programs.
  CHECK((entry->value = malloc(30 + key % 50)) != NULL);
  snprintf(entry->value, 30, "value %llu.%llu", (unsigned long long)key, (unsigned long long)round);
}
static NOINLINE void DropValues(void) {
  for (uint64_t round = 0; round < 78; round++)
    for (uint64_t key = 0; key < 1000; key++) Put(key, round);
  for (size_t i = 0; i < sizeof bucket / sizeof *bucket; i++)
    for (Entry* e = bucket[i]; e; e = e->next) {
      char text[30];
      snprintf(text, sizeof text, "value %llu.77", (unsigned long long)e->key);
      CHECK(!strcmp(text, e->value));
    }
  // What is still reachable now is dropped as well, so that all of it counts.
  memset(bucket, 0, sizeof bucket);
}

static NOINLINE void DropRegexes(void) {
  for (int i = 0; i < 1500; i++) {
    char pattern[100];
    regex_t regex;
    regmatch_t match[3];
    snprintf(pattern, sizeof pattern, "^([a-z]+%d[0-9]{2,5})=(foo|bar|bazz?)+;.*$", i % 10);
    CHECK_EQ(regcomp(&regex, pattern, REG_EXTENDED), 0);
    char text[60];
    snprintf(text, sizeof text, "abc%d123=bazbar; and more", i % 10);
    CHECK_EQ(regexec(&regex, text, 3, match, 0), 0);
    memset(&regex, 0, sizeof regex);
  }
}

int main(int argc, char** argv) {
  CHECK(argc == 2);
  void (*drop)(void) = !strcmp(argv[1], "list")   ? DropList
                       : !strcmp(argv[1], "hash") ? DropValues
                                                  : DropRegexes;
  MeasureRecall(argv[1], drop);
  return 0;
}
