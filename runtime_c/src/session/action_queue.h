/* The chunk of actions that a session hands out. */
#ifndef VLART_ACTION_QUEUE_H
#define VLART_ACTION_QUEUE_H

#include <stdbool.h>
#include "session/lane_input.h"

/* What a chunk was computed from. */
typedef struct {
  uint64_t observation; /* its name */
  uint64_t lanes[VLART_MAX_LANES];
} vlart_made_of_t;

/* The last chunk that passed the checks. */
typedef struct {
  float *actions;     /* [chunk_steps, action_dim] */
  uint32_t position;  /* next action */
  uint32_t remaining; /* actions still to hand out */
  uint32_t executed;  /* actions handed out since the chunk came */
  bool stale;
  uint64_t chunks;
  uint32_t value; /* the action value that the chunk came from */
  vlart_made_of_t made_of;
} vlart_queue_t;

/* [tick] Decodes and checks the action value and, if it is good, makes it the queue's chunk. */
vlart_status_t vlart_queue_publish(vlart_session_t *session, vlart_diag_t *diag);

/* [tick] Whether the action value must be decoded anew: a source of the decode steps changed, or it is another
   backbone's. */
bool vlart_queue_outdated(const vlart_session_t *session);

/* [tick] Hands the same chunk out again. */
vlart_status_t vlart_queue_rewind(vlart_session_t *session, vlart_diag_t *diag);

/* [tick] After a failed step: what is left may be handed out, and is old. */
void vlart_queue_keep(vlart_session_t *session);

/* What is said of an action of a chunk. */
vlart_action_info_t vlart_action_info(const vlart_made_of_t *made_of, uint64_t chunk, uint32_t row);

/* [tick] Forgets the chunk. */
void vlart_queue_reset(vlart_session_t *session);

#endif
