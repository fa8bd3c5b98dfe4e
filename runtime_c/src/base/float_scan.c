/* [tick] Numbers that no policy was trained on, found bit by bit: no floating-point unit is asked, so flags,
   rounding modes and -ffast-math of a caller change nothing. In blocks, which compilers make vectors of. */

#include "base/float_scan.h"

#include <string.h>

#include "vlart/vlart.h"
#include "vlart/vlart_layout.h"

enum { BLOCK = 256 };

/* A float whose exponent bits are all set is an infinity or a NaN. The caller's data may have any alignment. */
#define FIRST_NOT_FINITE(name, type)                                       \
  static size_t name(const uint8_t *floats, size_t count, type exponent) { \
    size_t i = 0;                                                          \
    for (; i + BLOCK <= count; i += BLOCK) {                               \
      type words[BLOCK];                                                   \
      unsigned bad = 0;                                                    \
      memcpy(words, floats + i * sizeof(type), sizeof words);              \
      for (size_t k = 0; k < BLOCK; k++) {                                 \
        bad |= (words[k] & exponent) == exponent;                          \
      }                                                                    \
      if (bad != 0) {                                                      \
        break;                                                             \
      }                                                                    \
    }                                                                      \
    for (; i < count; i++) {                                               \
      type word;                                                           \
      memcpy(&word, floats + i * sizeof word, sizeof word);                \
      if ((word & exponent) == exponent) {                                 \
        return i;                                                          \
      }                                                                    \
    }                                                                      \
    return count;                                                          \
  }
FIRST_NOT_FINITE(first_not_finite_16, uint16_t)
FIRST_NOT_FINITE(first_not_finite_32, uint32_t)
FIRST_NOT_FINITE(first_not_finite_64, uint64_t)
#undef FIRST_NOT_FINITE

size_t vlart_first_not_finite(const void *data, size_t count, uint32_t dtype) {
  switch (dtype) {
    case VLART_DTYPE_F16: return first_not_finite_16(data, count, 0x7C00u);
    case VLART_DTYPE_BF16: return first_not_finite_16(data, count, 0x7F80u);
    case VLART_DTYPE_F32: return first_not_finite_32(data, count, 0x7F800000u);
    case VLART_DTYPE_F64: return first_not_finite_64(data, count, 0x7FF0000000000000u);
    default: return count;
  }
}

static bool is_minus_infinity(const uint8_t *number, uint32_t dtype) {
  uint64_t word = 0;
  switch (dtype) {
    case VLART_DTYPE_F16: memcpy(&word, number, 2); return word == 0xFC00u;
    case VLART_DTYPE_BF16: memcpy(&word, number, 2); return word == 0xFF80u;
    case VLART_DTYPE_F32: memcpy(&word, number, 4); return word == 0xFF800000u;
    default: memcpy(&word, number, 8); return word == 0xFFF0000000000000u;
  }
}

size_t vlart_first_not_a_result(const void *data, size_t count, uint32_t dtype) {
  const uint8_t *floats = data;
  size_t width = vlart_dtype_bytes(dtype);
  size_t i = vlart_first_not_finite(floats, count, dtype);
  while (i < count && is_minus_infinity(floats + i * width, dtype)) {
    i++;
    i += vlart_first_not_finite(floats + i * width, count - i, dtype);
  }
  return i;
}

size_t vlart_first_outside(const void *data, size_t count, const float *low, const float *high,
                           size_t bounds) {
  const uint8_t *floats = data;
  size_t i = 0;
  for (float l = low[0], h = high[0]; bounds == 1 && i + BLOCK <= count; i += BLOCK) {
    float numbers[BLOCK];
    unsigned bad = 0;
    memcpy(numbers, floats + i * sizeof(float), sizeof numbers);
    for (size_t k = 0; k < BLOCK; k++) {
      bad |= (unsigned)(numbers[k] < l) | (unsigned)(numbers[k] > h);
    }
    if (bad != 0) {
      break;
    }
  }
  for (size_t b = 0; i < count; i++, b = b + 1 == bounds ? 0 : b + 1) {
    float number;
    memcpy(&number, floats + i * sizeof number, sizeof number);
    if (number < low[b] || number > high[b]) {
      return i;
    }
  }
  return count;
}

#define FLUSH(name, type)                                                        \
  static bool name(type *words, size_t count, type exponent, type sign) {        \
    size_t i = 0;                                                                \
    type found = 0;                                                              \
    for (; i + BLOCK <= count; i += BLOCK) {                                     \
      type *block = words + i;                                                   \
      type tiny = 0;                                                             \
      for (size_t k = 0; k < BLOCK; k++) {                                       \
        tiny |= (block[k] & exponent) == 0 ? (type)(block[k] & ~sign) : (type)0; \
      }                                                                          \
      for (size_t k = 0; tiny != 0 && k < BLOCK; k++) {                          \
        block[k] &= (block[k] & exponent) == 0 ? sign : (type) - 1;              \
      }                                                                          \
      found |= tiny;                                                             \
    }                                                                            \
    for (; i < count; i++) {                                                     \
      if ((words[i] & exponent) == 0) {                                          \
        found |= words[i] & ~sign;                                               \
        words[i] &= sign;                                                        \
      }                                                                          \
    }                                                                            \
    return found != 0;                                                           \
  }
FLUSH(flush_32, uint32_t)
FLUSH(flush_64, uint64_t)
#undef FLUSH

bool vlart_flush_denormals(void *data, size_t count, uint32_t dtype) {
  switch (dtype) {
    case VLART_DTYPE_F32: return flush_32(data, count, 0x7F800000u, 0x80000000u);
    case VLART_DTYPE_F64: return flush_64(data, count, 0x7FF0000000000000u, 0x8000000000000000u);
    default: return false;
  }
}
