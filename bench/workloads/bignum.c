// SPDX-License-Identifier: Apache-2.0
// Single-threaded number theory with heap-allocated big integers: Pollard's rho over a product of
// two primes. Every operation makes a fresh number of 8 to 48 bytes and drops its operands.
//   bignum [steps]
#include "bench.h"

typedef struct {
  uint32_t length;  // used limbs, no leading zero limb, 0 for the number 0
  uint32_t limb[];
} Number;

static Number* NewNumber(uint32_t length) {
  Number* number = Must(malloc(sizeof(Number) + length * sizeof(uint32_t)));
  number->length = length;
  return number;
}

static Number* Trim(Number* number) {
  while (number->length > 0 && number->limb[number->length - 1] == 0) --number->length;
  return number;
}

static Number* FromWord(uint64_t word) {
  Number* number = NewNumber(2);
  number->limb[0] = (uint32_t)word;
  number->limb[1] = (uint32_t)(word >> 32);
  return Trim(number);
}

static Number* Copy(const Number* a) {
  Number* copy = NewNumber(a->length);
  memcpy(copy->limb, a->limb, a->length * sizeof(uint32_t));
  return copy;
}

static int Compare(const Number* a, const Number* b) {
  if (a->length != b->length) return a->length < b->length ? -1 : 1;
  for (uint32_t i = a->length; i-- > 0;) {
    if (a->limb[i] != b->limb[i]) return a->limb[i] < b->limb[i] ? -1 : 1;
  }
  return 0;
}

static Number* Add(const Number* a, const Number* b) {
  if (a->length < b->length) return Add(b, a);
  Number* sum = NewNumber(a->length + 1);
  uint64_t carry = 0;
  for (uint32_t i = 0; i < a->length; ++i) {
    carry += (uint64_t)a->limb[i] + (i < b->length ? b->limb[i] : 0);
    sum->limb[i] = (uint32_t)carry;
    carry >>= 32;
  }
  sum->limb[a->length] = (uint32_t)carry;
  return Trim(sum);
}

// a - b for a >= b.
static Number* Subtract(const Number* a, const Number* b) {
  Number* rest = NewNumber(a->length);
  int64_t borrow = 0;
  for (uint32_t i = 0; i < a->length; ++i) {
    borrow += (int64_t)a->limb[i] - (i < b->length ? (int64_t)b->limb[i] : 0);
    rest->limb[i] = (uint32_t)borrow;
    borrow >>= 32;
  }
  return Trim(rest);
}

static Number* Multiply(const Number* a, const Number* b) {
  Number* product = NewNumber(a->length + b->length);
  memset(product->limb, 0, product->length * sizeof(uint32_t));
  for (uint32_t i = 0; i < a->length; ++i) {
    uint64_t carry = 0;
    for (uint32_t j = 0; j < b->length; ++j) {
      carry += (uint64_t)a->limb[i] * b->limb[j] + product->limb[i + j];
      product->limb[i + j] = (uint32_t)carry;
      carry >>= 32;
    }
    product->limb[i + b->length] = (uint32_t)carry;
  }
  return Trim(product);
}

static Number* ShiftLeft(const Number* a, unsigned bits) {
  Number* shifted = NewNumber(a->length + 1);
  uint64_t carry = 0;
  for (uint32_t i = 0; i < a->length; ++i) {
    carry |= (uint64_t)a->limb[i] << bits;
    shifted->limb[i] = (uint32_t)carry;
    carry >>= 32;
  }
  shifted->limb[a->length] = (uint32_t)carry;
  return shifted;  // untrimmed: the division wants the extra limb
}

// a mod m by schoolbook division on normalised copies; m has at least two limbs.
static Number* Modulo(const Number* a, const Number* m) {
  if (Compare(a, m) < 0) return Copy(a);
  const unsigned bits = (unsigned)__builtin_clz(m->limb[m->length - 1]);
  Number* u = ShiftLeft(a, bits);
  Number* v = Trim(ShiftLeft(m, bits));
  const uint32_t n = v->length;
  for (uint32_t j = u->length - n; j-- > 0;) {
    const uint64_t head = ((uint64_t)u->limb[j + n] << 32) | u->limb[j + n - 1];
    uint64_t digit = head / v->limb[n - 1];
    uint64_t rest = head % v->limb[n - 1];
    while (digit >> 32 || (uint32_t)digit * (uint64_t)v->limb[n - 2] >
                              ((rest << 32) | u->limb[j + n - 2])) {
      --digit;
      rest += v->limb[n - 1];
      if (rest >> 32) break;
    }
    int64_t borrow = 0;
    uint64_t carry = 0;
    for (uint32_t i = 0; i < n; ++i) {
      carry += digit * v->limb[i];
      borrow += (int64_t)u->limb[i + j] - (int64_t)(uint32_t)carry;
      u->limb[i + j] = (uint32_t)borrow;
      borrow >>= 32;
      carry >>= 32;
    }
    borrow += (int64_t)u->limb[j + n] - (int64_t)carry;
    u->limb[j + n] = (uint32_t)borrow;
    if (borrow < 0) {  // the digit was one too large: add the divisor back
      carry = 0;
      for (uint32_t i = 0; i < n; ++i) {
        carry += (uint64_t)u->limb[i + j] + v->limb[i];
        u->limb[i + j] = (uint32_t)carry;
        carry >>= 32;
      }
      u->limb[j + n] += (uint32_t)carry;
    }
  }
  Number* remainder = NewNumber(n);
  uint64_t window = 0;
  for (uint32_t i = n; i-- > 0;) {
    window = (window << 32) | u->limb[i];
    remainder->limb[i] = (uint32_t)(window >> bits);
  }
  free(u);
  free(v);
  return Trim(remainder);
}

// x*x + c mod m: the step of the walk.
static Number* Step(Number* x, const Number* c, const Number* m) {
  Number* square = Multiply(x, x);
  Number* sum = Add(square, c);
  Number* next = Modulo(sum, m);
  free(square);
  free(sum);
  free(x);
  return next;
}

int main(int argc, char** argv) {
  const long steps = Argument(argc, argv, 1, 1500000);
  Number* p = FromWord(2305843009213693951u);   // 2^61 - 1
  Number* q = FromWord(18446744073709551557u);  // the largest prime below 2^64
  Number* m = Multiply(p, q);
  Number* c = FromWord(12345677);
  Number* slow = FromWord(2);
  Number* fast = FromWord(2);
  Number* product = FromWord(1);
  for (long i = 0; i < steps; ++i) {
    slow = Step(slow, c, m);
    fast = Step(Step(fast, c, m), c, m);
    Number* gap = Compare(slow, fast) < 0 ? Subtract(fast, slow) : Subtract(slow, fast);
    Number* wide = Multiply(product, gap);
    free(product);
    product = Modulo(wide, m);
    free(wide);
    free(gap);
  }
  uint64_t sum = 0;
  for (uint32_t i = 0; i < product->length; ++i) sum = Mix(sum, product->limb[i]);
  for (uint32_t i = 0; i < fast->length; ++i) sum = Mix(sum, fast->limb[i]);
  free(p), free(q), free(m), free(c), free(slow), free(fast), free(product);
  return Finish(sum);
}
