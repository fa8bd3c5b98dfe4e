/* CRC-32 by the processor's own instructions, where it has them. Private to crc32.c. */
#ifndef VLART_CRC32_FOLD_H
#define VLART_CRC32_FOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that one call must at least have and be a multiple of. */
#define VLART_FOLD_LEAST 64u
#define VLART_FOLD_MULTIPLE 16u

bool vlart_crc32_can_fold(void);

/* Shortens `data` to 16 bytes that leave the same remainder: the (not inverted) CRC after `data`,
   begun at `crc`, is that of `out_rest`, begun at 0. */
void vlart_crc32_fold(uint32_t crc, const uint8_t *data, size_t bytes, uint8_t out_rest[16]);

#endif
