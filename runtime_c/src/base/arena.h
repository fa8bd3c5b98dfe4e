/* Hands out pieces of the arena that the caller gave. The same code measures and places: with a
   NULL base nothing is handed out and only `used` grows, so the two can never disagree. */
#ifndef VLART_ARENA_H
#define VLART_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
  uint8_t *base; /* NULL while measuring */
  size_t bytes;  /* SIZE_MAX while measuring */
  size_t used;
  bool full; /* a piece did not fit, or a size overflowed */
} vlart_arena_t;

/* Pieces are aligned to 64 bytes, and so is the first: an unaligned base costs up to 63 bytes. */
void vlart_arena_measure(vlart_arena_t *arena);
void vlart_arena_place(vlart_arena_t *arena, void *base, size_t bytes);

/* Zeroed room for `count` elements; NULL while measuring or when full. */
void *vlart_arena_take(vlart_arena_t *arena, size_t count, size_t element_bytes);

/* What a caller must give so that every piece fits wherever its arena begins. */
size_t vlart_arena_required(const vlart_arena_t *arena);

#endif
