/* The inside of a recorder: the tracks, and the thread that writes what is in them. */
#ifndef VLART_RECORDER_INSIDE_H
#define VLART_RECORDER_INSIDE_H

#include <pthread.h>

#include "base/crc32.h"
#include "record/block_writer.h"
#include "record/track.h"
#include "record/wall_clock.h"

struct vlart_recorder {
  uint32_t plan_crc32;
  uint64_t plan_bytes;
  vlart_recorder_options_t options; /* without zeros that mean a default */
  vlart_track_t *tracks;            /* [options.tracks] */
  atomic_uint used;
  vlart_block_writer_t writer;
  vlart_wall_clock_t clock;
  pthread_t thread;
  atomic_bool stopped;
};

/* [init] A track for what is recorded; UNSUPPORTED where all are taken. `call`: for the diagnostic. */
vlart_status_t vlart_recorder_track(vlart_recorder_t *recorder, uint32_t role, uint32_t lane,
                                    const char *call, vlart_diag_t *diag,
                                    vlart_track_t **out_track);

/* [init] Whether a plan is the recorder's. */
bool vlart_recorder_is_of(const vlart_recorder_t *recorder, const void *plan, size_t bytes);

#endif
