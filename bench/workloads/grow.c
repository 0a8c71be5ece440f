// SPDX-License-Identifier: Apache-2.0
// Growth by realloc: strings that are appended to by a few bytes, vectors that double, a few that
// grow by half, one that reaches tens of megabytes, and shrinking to fit at the end.
//   grow [rounds] [megabytes of the big one]
#include "bench.h"

enum { kStrings = 2000, kVectors = 200 };

typedef struct {
  unsigned char* data;
  size_t used, capacity;
} Buffer;

static void Append(Buffer* buffer, size_t count, size_t capacity) {
  if (capacity > buffer->capacity) {
    buffer->data = Must(realloc(buffer->data, capacity));
    buffer->capacity = capacity;
  }
  memset(buffer->data + buffer->used, (int)(buffer->used & 0xff), count);
  buffer->used += count;
}

static uint64_t Close(Buffer* buffer) {
  const uint64_t sum = buffer->used * 3 + buffer->data[buffer->used / 2] + buffer->data[0];
  free(buffer->data);
  memset(buffer, 0, sizeof(*buffer));
  return sum;
}

int main(int argc, char** argv) {
  const long rounds = Argument(argc, argv, 1, 40);
  const size_t big = (size_t)Argument(argc, argv, 2, 48) << 20;
  static Buffer strings[kStrings], vectors[kVectors];
  Rng rng = RngSeed(14);
  uint64_t sum = 0;
  for (long round = 0; round < rounds; ++round) {
    for (long i = 0; i < 40L * kStrings; ++i) {  // no slack kept: one realloc per append
      Buffer* string = &strings[RngBelow(&rng, kStrings)];
      const size_t count = RngBetween(&rng, 1, 48);
      Append(string, count, string->used + count);
    }
    for (long i = 0; i < 300L * kVectors; ++i) {
      const uint64_t index = RngBelow(&rng, kVectors);
      Buffer* vector = &vectors[index];
      const size_t count = RngBetween(&rng, 8, 256);
      size_t capacity = vector->capacity ? vector->capacity : 64;
      while (capacity < vector->used + count) {
        capacity = index % 4 == 0 ? capacity + capacity / 2 : capacity * 2;
      }
      Append(vector, count, capacity);
    }
    for (int i = 0; i < kVectors; i += 2) {
      vectors[i].data = Must(realloc(vectors[i].data, vectors[i].used));
      vectors[i].capacity = vectors[i].used;
    }
    for (int i = 0; i < kStrings; ++i) {
      if (strings[i].data != NULL) sum = Mix(sum, Close(&strings[i]));
    }
    for (int i = 0; i < kVectors; ++i) {
      if (vectors[i].data != NULL) sum = Mix(sum, Close(&vectors[i]));
    }
    if (round % 8 != 0) continue;
    Buffer log = {0};
    while (log.used < big) {
      const int full = log.used + 65536 > log.capacity;
      Append(&log, 65536, full ? log.capacity + log.capacity / 4 + 65536 : log.capacity);
    }
    sum = Mix(sum, Close(&log));
  }
  return Finish(sum);
}
