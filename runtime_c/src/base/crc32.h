/* CRC-32 (IEEE 802.3, reflected, as zlib). The table is the caller's, so that there is no global. */
#ifndef VLART_CRC32_H
#define VLART_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* 8 KiB; fits on a stack. */
typedef struct {
  uint32_t byte[8][256]; /* [k][b]: effect of byte b followed by k zero bytes */
} vlart_crc32_table_t;

void vlart_crc32_init(vlart_crc32_table_t *out_table);

/* CRC of `data` continued from `crc`; 0 to begin. */
uint32_t vlart_crc32(const vlart_crc32_table_t *table, uint32_t crc, const void *data,
                     size_t bytes);

/* The same without the processor's help; vlart_crc32 falls back to it, and a test compares. */
uint32_t vlart_crc32_by_table(const vlart_crc32_table_t *table, uint32_t crc, const void *data,
                              size_t bytes);

#endif
