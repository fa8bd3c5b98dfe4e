
#include "base/arena.h"

#include <string.h>

#include "vlart/vlart_layout.h"

void vlart_arena_measure(vlart_arena_t *arena) { *arena = (vlart_arena_t){.bytes = SIZE_MAX}; }

void vlart_arena_place(vlart_arena_t *arena, void *base, size_t bytes) {
  size_t slack = (size_t)(-(uintptr_t)base & (VLART_ALIGN - 1));
  *arena = (vlart_arena_t){.full = base == NULL || bytes < slack};
  if (!arena->full) {
    arena->base = (uint8_t *)base + slack;
    arena->bytes = bytes - slack;
  }
}

void *vlart_arena_take(vlart_arena_t *arena, size_t count, size_t element_bytes) {
  size_t bytes;
  size_t rounded;
  size_t end;
  if (arena->full || __builtin_mul_overflow(count, element_bytes, &bytes) ||
      __builtin_add_overflow(bytes, VLART_ALIGN - 1, &rounded) ||
      __builtin_add_overflow(arena->used, rounded & ~(size_t)(VLART_ALIGN - 1), &end) ||
      end > arena->bytes) {
    arena->full = true;
    return NULL;
  }
  void *piece = arena->base == NULL ? NULL : arena->base + arena->used;
  arena->used = end;
  if (piece != NULL) {
    memset(piece, 0, bytes);
  }
  return piece;
}

size_t vlart_arena_required(const vlart_arena_t *arena) {
  size_t bytes;
  bool overflow = __builtin_add_overflow(arena->used, VLART_ALIGN - 1, &bytes);
  return arena->full || overflow ? SIZE_MAX : bytes;
}
