// SPDX-License-Identifier: Apache-2.0
// Forced collections with many parked threads and two that run and allocate; how long the world was
// stopped is in the trace on stderr (GODEBUG=gctrace=1).
//   stop PARKED COLLECTIONS
#include <undergo/undergo.h>

#include "schedbench.h"

static sem_t gate, ready;
static volatile int stop;
static void* Parks(void* arg) {
  sem_post(&ready);
  while (sem_wait(&gate) != 0) {
  }
  return arg;
}
typedef struct Node {
  struct Node* next;
  char bytes[100];
} Node;
static void* Runs(void* arg) {
  Node* list = NULL;
  for (long n = 0; !stop; n++) {
    Node* node = Must(malloc(sizeof *node));
    Fill(node->bytes, sizeof node->bytes, (uint64_t)n);
    node->next = list;
    list = node;
    while (n % 1000 == 999 && list) {
      node = list;
      list = list->next;
      free(node);
    }
  }
  return arg;
}

int main(int argc, char** argv) {
  const long parked = Argument(argc, argv, 1, 10000), collections = Argument(argc, argv, 2, 20);
  pthread_attr_t attr = SmallStacks();
  sem_init(&gate, 0, 0), sem_init(&ready, 0, 0);
  pthread_t *t = Must(calloc((size_t)parked, sizeof *t)), run[2];
  for (long i = 0; i < parked; i++) Try(pthread_create(&t[i], &attr, Parks, NULL), "create");
  for (long i = 0; i < parked; i++) sem_wait(&ready);
  for (int i = 0; i < 2; i++) run[i] = Start(Runs, NULL);
  for (long i = 0; i < collections; i++) {
    if (undergo_gc) undergo_gc();
    usleep(20000);
  }
  stop = 1;
  for (int i = 0; i < 2; i++) Join(run[i]);
  for (long i = 0; i < parked; i++) sem_post(&gate);
  for (long i = 0; i < parked; i++) Join(t[i]);
  free(t);
  return 0;
}
