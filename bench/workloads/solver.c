// SPDX-License-Identifier: Apache-2.0
// Logic-program style search: the queens problem over immutable lists of heap-allocated terms.
// Each choice point copies what is left of its candidates; backtracking releases it again.
//   solver [board] [repeats]
#include "bench.h"

typedef struct Term {
  struct Term* tail;
  int column;
} Term;

// A frame of the search, of the size of an interpreter's environment record.
typedef struct {
  Term* candidates;
  Term* placed;
  int depth;
  char registers[44];
} Frame;

static Term* Cons(int column, Term* tail) {
  Term* term = Must(malloc(sizeof(Term)));
  term->column = column;
  term->tail = tail;
  return term;
}

static void Release(Term* list) {
  while (list != NULL) {
    Term* tail = list->tail;
    free(list);
    list = tail;
  }
}

static Term* Without(const Term* list, int column) {
  Term* copy = NULL;
  for (; list != NULL; list = list->tail) {
    if (list->column != column) copy = Cons(list->column, copy);
  }
  return copy;
}

static int Safe(const Term* placed, int column) {
  for (int distance = 1; placed != NULL; placed = placed->tail, ++distance) {
    const int gap = placed->column - column;
    if (gap == distance || gap == -distance) return 0;
  }
  return 1;
}

static uint64_t Search(const Frame* frame) {
  if (frame->candidates == NULL) {
    uint64_t solution = 0;
    for (const Term* term = frame->placed; term != NULL; term = term->tail) {
      solution = solution * 31 + (uint64_t)term->column;
    }
    return solution | 1;
  }
  uint64_t found = 0;
  for (const Term* choice = frame->candidates; choice != NULL; choice = choice->tail) {
    if (!Safe(frame->placed, choice->column)) continue;
    Frame* next = Must(malloc(sizeof(Frame)));
    memcpy(next->registers, frame->registers, sizeof(next->registers));
    next->registers[frame->depth] = (char)choice->column;
    next->depth = frame->depth + 1;
    next->candidates = Without(frame->candidates, choice->column);
    next->placed = Cons(choice->column, frame->placed);
    found += Search(next);
    next->placed->tail = NULL;
    Release(next->placed);
    Release(next->candidates);
    free(next);
  }
  return found;
}

int main(int argc, char** argv) {
  const int board = (int)Argument(argc, argv, 1, 10);
  const long repeats = Argument(argc, argv, 2, 250);
  Expect(board > 0 && board <= 32, "board size");
  uint64_t sum = 0;
  for (long i = 0; i < repeats; ++i) {
    Frame root = {0};
    for (int column = 0; column < board; ++column) root.candidates = Cons(column, root.candidates);
    sum = Mix(sum, Search(&root));
    Release(root.candidates);
  }
  return Finish(sum);
}
