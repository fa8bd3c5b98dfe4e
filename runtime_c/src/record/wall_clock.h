/* The wall clock while a recording is made: what the recording says of it, and whether that still holds. After the head
   was written, of the recorder's thread alone. */
#ifndef VLART_WALL_CLOCK_H
#define VLART_WALL_CLOCK_H

#include "record/block_writer.h"

#define VLART_CLOCK_MOVED_NS 10000000 /* what moved by no more than this is not told */

typedef struct {
  int64_t told_ns;  /* CLOCK_REALTIME - CLOCK_MONOTONIC, as the recording says it */
  int64_t moved_ns; /* by the last change */
  uint64_t changes;
  uint64_t told_block; /* in which the last change was told last */
} vlart_wall_clock_t;

/* [init] The reading of the head. */
void vlart_wall_clock_begin(vlart_wall_clock_t *clock, uint64_t *out_wall_ns,
                            uint64_t *out_clock_ns);

/* Whether it was set since it was told last, which then is told. */
void vlart_wall_clock_look(vlart_wall_clock_t *clock, vlart_block_writer_t *writer);

/* Tells the last change again before it is overwritten. Between any two events. */
void vlart_wall_clock_keep(vlart_wall_clock_t *clock, vlart_block_writer_t *writer,
                           uint64_t now_ns);

/* Tells it again now: the block that told it may be lost. */
void vlart_wall_clock_repeat(vlart_wall_clock_t *clock, vlart_block_writer_t *writer,
                             uint64_t now_ns);

#endif
