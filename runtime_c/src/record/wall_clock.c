#include "record/wall_clock.h"

#include <time.h>

#include "base/clock.h"

enum { TRIES = 16, APART_NS = 1000000 };

/* Who reads a recording as it grows goes back 64 MiB at most (vlart/recording/growing.py): a half of that. */
#define MOST_BLOCKS 8192u

/* Both clocks, and how long it took to read them: a thread that waited in between has read two moments. */
typedef struct {
  uint64_t wall_ns;
  uint64_t clock_ns;
  uint64_t apart_ns;
} reading_t;

static reading_t read_clocks(void) {
  struct timespec wall = {0};
  uint64_t before = vlart_now_ns();
  clock_gettime(CLOCK_REALTIME, &wall);
  uint64_t apart = vlart_now_ns() - before;
  uint64_t seconds = wall.tv_sec < 0 ? 0 : (uint64_t)wall.tv_sec;
  return (reading_t){.wall_ns = seconds * 1000000000u + (uint64_t)wall.tv_nsec,
                     .clock_ns = before + apart / 2,
                     .apart_ns = apart};
}

static int64_t difference(const reading_t *reading) {
  return (int64_t)(reading->wall_ns - reading->clock_ns);
}

void vlart_wall_clock_begin(vlart_wall_clock_t *clock, uint64_t *out_wall_ns,
                            uint64_t *out_clock_ns) {
  reading_t best = read_clocks();
  for (int i = 1; i < TRIES && best.apart_ns > APART_NS; i++) {
    reading_t reading = read_clocks();
    best = reading.apart_ns < best.apart_ns ? reading : best;
  }
  *clock = (vlart_wall_clock_t){.told_ns = difference(&best)};
  *out_wall_ns = best.wall_ns;
  *out_clock_ns = best.clock_ns;
}

void vlart_wall_clock_repeat(vlart_wall_clock_t *clock, vlart_block_writer_t *writer,
                             uint64_t now_ns) {
  if (clock->changes == 0) {
    return;
  }
  clock->told_block = writer->sequence;
  vlart_clock_event_record_t event = {.wall_ns = now_ns + (uint64_t)clock->told_ns,
                                      .moved_ns = clock->moved_ns,
                                      .changes = clock->changes};
  vlart_block_writer_tell_clock(writer, event, now_ns);
}

void vlart_wall_clock_look(vlart_wall_clock_t *clock, vlart_block_writer_t *writer) {
  reading_t reading = read_clocks();
  int64_t moved = (int64_t)((uint64_t)difference(&reading) - (uint64_t)clock->told_ns);
  if (reading.apart_ns > APART_NS ||
      (moved <= VLART_CLOCK_MOVED_NS && moved >= -VLART_CLOCK_MOVED_NS)) {
    return;
  }
  clock->told_ns = difference(&reading);
  clock->moved_ns = moved;
  clock->changes++;
  vlart_wall_clock_repeat(clock, writer, reading.clock_ns);
}

void vlart_wall_clock_keep(vlart_wall_clock_t *clock, vlart_block_writer_t *writer,
                           uint64_t now_ns) {
  uint64_t half = writer->block_count / 2 < MOST_BLOCKS ? writer->block_count / 2 : MOST_BLOCKS;
  if (writer->sequence - clock->told_block >= half) {
    vlart_wall_clock_repeat(clock, writer, now_ns);
  }
}
