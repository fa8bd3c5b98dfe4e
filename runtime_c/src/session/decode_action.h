/* From the action value to a chunk of actions. */
#ifndef VLART_DECODE_ACTION_H
#define VLART_DECODE_ACTION_H

#include "base/arena.h"
#include "vlart/vlart.h"

/* Room for the decode steps; nothing where the plan has none. */
typedef struct {
  double *numbers;  /* [chunk_steps, action_dim] what the steps hand on */
  double *column;   /* [chunk_steps] */
  float *chunk;     /* [chunk_steps, action_dim] the actions */
  uint64_t sources; /* bit i: a step reads source i */
  uint64_t seen;    /* vlart_decode_version when the chunk was decoded */
} vlart_decode_t;

/* [init] Places, or measures, what the steps need; then sets it up. */
void vlart_decode_take(vlart_session_t *draft, vlart_arena_t *arena);
void vlart_decode_init(vlart_session_t *session);

/* [tick] Decodes into decode.chunk. */
vlart_status_t vlart_decode(vlart_session_t *session, vlart_diag_t *diag);

/* [tick] Of the sources that the steps read. */
uint64_t vlart_decode_version(const vlart_session_t *session);

#endif
