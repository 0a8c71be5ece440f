// SPDX-License-Identifier: Apache-2.0
// Shapes of pointers: into the middle, one past the end, with tags in low or high bits, at four
// byte alignment, NaN-boxed. Each shape in a global and in a heap object that a global holds.
// run:
// run: name=poison env=UNDERGO=gc=poison
// timeout: 60
#include "gc.h"

typedef struct __attribute__((packed)) Packed {
  int events;
  void* pointer;
} Packed;
_Static_assert(sizeof(Packed) == 12, "every other pointer is not aligned");

// One place for each shape: words, or packed records.
typedef union Words {
  uintptr_t word[kHeld];
  Packed packed[kHeld];
} Words;

typedef uintptr_t Shape(uintptr_t p, int i);
static Words global;
static Words* in_heap;
static Held held;

static uintptr_t Start(uintptr_t p, int i) {
  (void)i;
  return p;
}
static uintptr_t Interior(uintptr_t p, int i) { return p + (uintptr_t)i * 3 + 1; }
static uintptr_t LastByte(uintptr_t p, int i) {
  (void)i;
  return p + kObjectBytes - 1;
}
static uintptr_t PastEnd(uintptr_t p, int i) {
  (void)i;
  return p + kObjectBytes;
}
static uintptr_t LowTag(uintptr_t p, int i) { return p | (uintptr_t)(i % 8); }
static uintptr_t HighTag(uintptr_t p, int i) { return p | (uintptr_t)(i * 1021 + 1) << 48; }
static uintptr_t HighBit(uintptr_t p, int i) {
  (void)i;
  return p | (uintptr_t)1 << 63;
}
static uintptr_t NanBox(uintptr_t p, int i) { return p | (uintptr_t)(0xfff8 + i % 8) << 48; }
static uintptr_t HighAndLow(uintptr_t p, int i) {
  return (p + 8) | (uintptr_t)(i % 8) | (uintptr_t)(i + 1) << 52;
}

static NOINLINE void StoreWords(Words* words, Shape* shape) {
  for (int i = 0; i < kHeld; i++) words->word[i] = shape((uintptr_t)MakeHeld(&held, i), i);
}
static NOINLINE void StorePacked(Words* words) {
  for (int i = 0; i < kHeld; i++)
    words->packed[i] = (Packed){.events = i, .pointer = MakeHeld(&held, i)};
}

static void Try(Shape* shape, const char* name) {
  for (int heap = 0; heap < 2; heap++) {
    char place[80];
    snprintf(place, sizeof place, "%s, %s", name, heap ? "in the heap" : "in a global");
    Words* words = &global;
    if (heap) CHECK((words = in_heap = calloc(1, sizeof *in_heap)) != NULL);
    if (shape)
      StoreWords(words, shape);
    else
      StorePacked(words);
    CollectHard(place);
    for (int i = 0; shape && i < kHeld; i++)
      CHECK(words->word[i] == shape((uintptr_t)Reveal(held.hidden[i]), i));
    CheckHeld(&held, place);
    memset(&global, 0, sizeof global);
    free(in_heap);
    in_heap = NULL;
  }
}

// Blocks whose size is a whole number of 16 bytes, so that the end is the next slot unless the
// heap leaves a byte between them; the only pointer is the end pointer.
static NOINLINE void StoreEnds(size_t size) {
  for (int i = 0; i < kHeld; i++) {
    char* p = malloc(size);
    CHECK(p);
    Fill(p, size, (uint64_t)i);
    held.hidden[i] = Hide(p);
    global.word[i] = (uintptr_t)(p + size);
  }
}
static void ExactEnds(const char* name) {
  static const size_t sizes[] = {16, 32, 48, 64, 128, 256, 1024, 4096, 8192, 65536, 262144};
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    StoreEnds(sizes[s]);
    CollectHard(name);
    for (int i = 0; i < kHeld; i++)
      CHECK_MSG(Verify(Reveal(held.hidden[i]), sizes[s], (uint64_t)i) == sizes[s],
                "%s: an object of %zu was lost", name, sizes[s]);
    for (int i = 0; i < kHeld; i++) free(Reveal(held.hidden[i]));
    memset(&global, 0, sizeof global);
  }
}

// The pointer lies in the last word that the program may write, not in what it asked for.
static NOINLINE void StoreAtTail(void*** box, int i) {
  *box = malloc(100);
  CHECK(*box);
  size_t usable = malloc_usable_size(*box);
  memset(*box, 0, usable);
  (*box)[usable / 8 - 1] = MakeHeld(&held, i);
}
static void** boxes[kHeld];
static void UsableTail(const char* name) {
  for (int i = 0; i < kHeld; i++) StoreAtTail(&boxes[i], i);
  CollectHard(name);
  CheckHeld(&held, name);
  for (int i = 0; i < kHeld; i++) free(boxes[i]);
  memset(boxes, 0, sizeof boxes);
}

#define TRY(part, shape) \
  static void part(const char* name) { Try(shape, name); }
TRY(TryStart, Start)
TRY(TryInterior, Interior)
TRY(TryLastByte, LastByte)
TRY(TryPastEnd, PastEnd)
TRY(TryLowTag, LowTag)
TRY(TryHighTag, HighTag)
TRY(TryHighBit, HighBit)
TRY(TryNanBox, NanBox)
TRY(TryHighAndLow, HighAndLow)
TRY(TryPacked, NULL)

static const Part parts[] = {
    {"start", TryStart},      {"interior", TryInterior}, {"last-byte", TryLastByte},
    {"past-end", TryPastEnd}, {"low-tag", TryLowTag},    {"high-tag", TryHighTag},
    {"high-bit", TryHighBit}, {"nan-box", TryNanBox},    {"high-and-low", TryHighAndLow},
    {"packed", TryPacked},    {"exact-ends", ExactEnds}, {"usable-tail", UsableTail}};

int main(int argc, char** argv) { return RUN_PARTS(parts); }
