/* Weights are gigabytes and all of them are checked at open, so this has two fast ways: folding by
   the processor's instructions, and slicing by 8 with a table for the rest and everywhere else. */

#include "base/crc32.h"

#include <string.h>

#include "base/crc32_fold.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "libvlart reads little-endian records in place; a big-endian host needs another reader"
#endif

void vlart_crc32_init(vlart_crc32_table_t *out_table) {
  for (uint32_t b = 0; b < 256; b++) {
    uint32_t crc = b;
    for (int bit = 0; bit < 8; bit++) {
      crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    out_table->byte[0][b] = crc;
  }
  for (uint32_t b = 0; b < 256; b++) {
    for (int k = 1; k < 8; k++) {
      uint32_t before = out_table->byte[k - 1][b];
      out_table->byte[k][b] = before >> 8 ^ out_table->byte[0][before & 255];
    }
  }
}

static uint32_t slice(const vlart_crc32_table_t *table, uint32_t crc, const uint8_t *p,
                      size_t bytes) {
  for (; bytes >= 8; bytes -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    word ^= crc;
    crc = table->byte[7][word & 255] ^ table->byte[6][word >> 8 & 255] ^
          table->byte[5][word >> 16 & 255] ^ table->byte[4][word >> 24 & 255] ^
          table->byte[3][word >> 32 & 255] ^ table->byte[2][word >> 40 & 255] ^
          table->byte[1][word >> 48 & 255] ^ table->byte[0][word >> 56];
  }
  for (; bytes > 0; bytes--, p++) {
    crc = crc >> 8 ^ table->byte[0][(crc ^ *p) & 255];
  }
  return crc;
}

uint32_t vlart_crc32_by_table(const vlart_crc32_table_t *table, uint32_t crc, const void *data,
                              size_t bytes) {
  return ~slice(table, ~crc, data, bytes);
}

uint32_t vlart_crc32(const vlart_crc32_table_t *table, uint32_t crc, const void *data,
                     size_t bytes) {
  const uint8_t *p = data;
  crc = ~crc;
  if (bytes >= VLART_FOLD_LEAST && vlart_crc32_can_fold()) {
    uint8_t rest[16];
    size_t folded = bytes - bytes % VLART_FOLD_MULTIPLE;
    vlart_crc32_fold(crc, p, folded, rest);
    crc = slice(table, 0, rest, sizeof rest);
    p += folded;
    bytes -= folded;
  }
  return ~slice(table, crc, p, bytes);
}
