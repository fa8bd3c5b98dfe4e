/* x86-64: carry-less multiplication folds 64 bytes at a time. Moving 128 bits of the message
   forward by n bits multiplies them by x^n modulo the polynomial, which is one constant per half.
   Method: Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
   Instruction", Intel 2009; its constants for the reflected polynomial 0xEDB88320.
   aarch64: the CRC32X instruction takes 8 bytes; the sum is handed on as 4 of the 16 bytes. */

#include "base/crc32_fold.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

#define FOLD __attribute__((target("pclmul,sse2")))

bool vlart_crc32_can_fold(void) { return __builtin_cpu_supports("pclmul") != 0; }

FOLD static __m128i load(const uint8_t *data) {
  return _mm_loadu_si128((const __m128i *)(const void *)data);
}

FOLD static __m128i forward(__m128i x, __m128i constants, __m128i next) {
  __m128i low = _mm_clmulepi64_si128(x, constants, 0x00);
  __m128i high = _mm_clmulepi64_si128(x, constants, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

FOLD void vlart_crc32_fold(uint32_t crc, const uint8_t *data, size_t bytes, uint8_t out_rest[16]) {
  const __m128i by_512 = _mm_set_epi64x(0x01C6E41596, 0x0154442BD4);
  const __m128i by_128 = _mm_set_epi64x(0x00CCAA009E, 0x01751997D0);
  __m128i lane[4];
  for (size_t i = 0; i < 4; i++) {
    lane[i] = load(data + 16 * i);
  }
  lane[0] = _mm_xor_si128(lane[0], _mm_cvtsi32_si128((int)crc));
  const uint8_t *end = data + bytes;
  for (data += 64; end - data >= 64; data += 64) {
    for (size_t i = 0; i < 4; i++) {
      lane[i] = forward(lane[i], by_512, load(data + 16 * i));
    }
  }
  __m128i x = lane[0];
  for (int i = 1; i < 4; i++) {
    x = forward(x, by_128, lane[i]);
  }
  for (; end - data >= 16; data += 16) {
    x = forward(x, by_128, load(data));
  }
  memcpy(out_rest, &x, 16);
}

#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>

#define HAS_CRC32 (1ul << 7) /* HWCAP_CRC32 of the Linux ABI */

bool vlart_crc32_can_fold(void) { return (getauxval(AT_HWCAP) & HAS_CRC32) != 0; }

__attribute__((target("+crc"))) void vlart_crc32_fold(uint32_t crc, const uint8_t *data,
                                                      size_t bytes, uint8_t out_rest[16]) {
  for (; bytes > 16; bytes -= 8, data += 8) {
    uint64_t word;
    memcpy(&word, data, 8);
    crc = __crc32d(crc, word);
  }
  memcpy(out_rest, data, 16);
  for (int i = 0; i < 4; i++) {
    out_rest[i] ^= (uint8_t)(crc >> 8 * i);
  }
}

#else

bool vlart_crc32_can_fold(void) { return false; }

void vlart_crc32_fold(uint32_t crc, const uint8_t *data, size_t bytes, uint8_t out_rest[16]) {
  (void)crc;
  (void)data;
  (void)bytes;
  memset(out_rest, 0, 16); /* not reached: can_fold said no */
}

#endif
