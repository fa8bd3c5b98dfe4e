/* Real-time chunking: a new chunk continues the last one. */
#ifndef VLART_REALTIME_CHUNKING_H
#define VLART_REALTIME_CHUNKING_H

#include "base/arena.h"
#include "vlart/vlart.h"

/* Ticks are counted in pops. */
typedef struct {
  bool on;
  bool fills;            /* the plan names a previous chunk */
  bool running;          /* there is a last chunk */
  uint64_t pops;         /* since init */
  uint64_t observed;     /* `pops` when an observation was last written */
  uint64_t began;        /* `observed` of the last chunk */
  uint64_t observations; /* bit i: source i is an observation */
  uint64_t filled;       /* bit i: source i is filled by us */
  uint64_t given;        /* of these, which the caller wrote since the last chunk */
  uint8_t *chunk;        /* the last chunk, as the previous chunk is to be */
  float *scratch;        /* [chunk_steps] */
} vlart_realtime_t;

/* [init] Places, or measures, what is kept of the last chunk; then sets it up. */
void vlart_realtime_take(vlart_session_t *draft, vlart_arena_t *arena);
void vlart_realtime_init(vlart_session_t *session);

/* [tick] */
void vlart_realtime_written(vlart_session_t *session, uint32_t source); /* by the caller */
void vlart_realtime_fill(vlart_session_t *session); /* the previous chunk and its weights */
uint64_t vlart_realtime_dropped(const vlart_session_t *session); /* pops since the observation */
vlart_status_t vlart_realtime_late(const vlart_session_t *session, vlart_diag_t *diag);
void vlart_realtime_publish(vlart_session_t *session);
void vlart_realtime_forget(vlart_realtime_t *r); /* the next chunk continues none */
void vlart_realtime_reset(vlart_realtime_t *r);  /* and what is held was observed now */

#endif
