// SPDX-License-Identifier: Apache-2.0
// Drops lists until 400 MB are gone, beside some that stay: what collector and scavenger print.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct Item {
  struct Item* next;
  char text[100];
} Item;

static Item* kept[64];

int main(void) {
  for (int round = 0; round < 400; round++) {
    Item* list = NULL;
    for (int i = 0; i < 1 << 20; i += sizeof(Item)) {
      Item* item = malloc(sizeof *item);
      if (item == NULL) return 1;
      memset(item->text, i, sizeof item->text);
      item->next = list;
      list = item;
    }
    kept[round * 7 % 64] = list;
  }
  return 0;
}
