// SPDX-License-Identifier: Apache-2.0
// Recall on documents and XPath results of libxml2 that are never freed. The library is loaded at
// run time, so that the program builds without it.
// run: env=GOGC=off
// timeout: 60
#include "recall.h"

typedef struct Object {  // the head of an xmlXPathObject
  int type;
  void* nodes;
  int boolean;
  double number;
} Object;
static void* (*read_memory)(const char*, int, const char*, const char*, int);
static void* (*new_context)(void*);
static Object* (*evaluate)(const unsigned char*, void*);

static NOINLINE void DropDocument(int i) {
  char text[12000];
  int n = snprintf(text, sizeof text, "<r>");
  for (int k = 0; k < 60; k++)
    n += snprintf(text + n, sizeof text - (size_t)n, "<e id=\"%d\" name=\"n%d\">text %d</e>", k, i,
                  k * i);
  n += snprintf(text + n, sizeof text - (size_t)n, "</r>");
  void* document = read_memory(text, n, "x", NULL, 0);
  CHECK(document);
  Object* result = evaluate((const unsigned char*)"sum(/r/e/@id)", new_context(document));
  CHECK(result && result->number == 60 * 59 / 2);
}
static NOINLINE void DropDocuments(void) {
  for (int i = 0; i < 200; i++) DropDocument(i);
}

int main(void) {
  void* library = dlopen("libxml2.so.2", RTLD_NOW);
  if (!library) SKIP("libxml2 is not installed");
  *(void**)&read_memory = dlsym(library, "xmlReadMemory");
  *(void**)&new_context = dlsym(library, "xmlXPathNewContext");
  *(void**)&evaluate = dlsym(library, "xmlXPathEvalExpression");
  CHECK(read_memory && new_context && evaluate);
  DropDocument(0);  // what the library keeps for ever is made now
  MeasureRecall("libxml2", DropDocuments);
  return 0;
}
