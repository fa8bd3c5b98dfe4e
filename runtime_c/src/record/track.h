/* A track: events of one thread on their way to the recorder's. Bytes in a ring, one writer and one reader, neither of
   which waits. An event that does not fit is dropped whole and counted; the count is an event of its own, in front of
   the next one that fits. */
#ifndef VLART_TRACK_H
#define VLART_TRACK_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/crc32.h"
#include "vlart/vlart.h"

#define VLART_EVENT_ALIGN 8u

typedef struct {
  uint8_t *ring; /* [capacity] */
  size_t capacity;
  uint32_t index;
  uint32_t role;
  uint32_t lane;
  uint32_t full; /* content of sources goes in */
  const vlart_crc32_table_t *crc;
  uint64_t keyframe_bytes; /* after so many a session repeats the content of its sources */
  atomic_bool open;        /* it has an owner */

  /* the owner's */
  uint64_t sequence;
  uint64_t since_keyframe;
  vlart_loss_event_record_t lost; /* not told yet */

  atomic_size_t head; /* bytes that were put in; the owner's */
  atomic_size_t tail; /* bytes that were taken; the recorder's */
  atomic_ullong events;
  atomic_ullong bytes;
  atomic_ullong lost_events;
  atomic_ullong lost_bytes;
} vlart_track_t;

/* A piece of an event. */
typedef struct {
  const void *data;
  size_t bytes;
} vlart_track_part_t;

/* Bytes of an event in the stream. */
size_t vlart_event_bytes(size_t payload);

/* [tick] Whether it was taken. The owner's thread. */
bool vlart_track_put(vlart_track_t *track, uint32_t kind, const vlart_track_part_t *parts,
                     size_t count);

/* [tick] An event that is a note alone. */
bool vlart_track_note(vlart_track_t *track, uint32_t kind, vlart_note_event_record_t note);

/* The recorder's thread: bytes of whole events that wait; the piece of them that begins `at` bytes behind the oldest, at
   most `most`; and giving the oldest back. */
size_t vlart_track_waiting(const vlart_track_t *track);
size_t vlart_track_piece(const vlart_track_t *track, size_t at, size_t most,
                         const uint8_t **out_data);
void vlart_track_taken(vlart_track_t *track, size_t bytes);

#endif
