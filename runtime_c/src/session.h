/* The inside of a session. One thread at a time. */
#ifndef VLART_SESSION_H
#define VLART_SESSION_H

#include "backend.h"

#define VLART_BACKEND_LIMIT 4u /* above every backend id that a plan may hold */

/* One stage of a running session. */
typedef struct {
  const vlart_backend_t *backend;
  void *engine;
  uint64_t *seen; /* [dep_count] version of each source when the stage last ran */
  uint64_t seen_advances; /* of the histories, when the stage last ran */
  bool current;   /* the last run ended well; with `seen`, whether the stage may be skipped */
  bool readable;  /* the outputs are those of a whole run */
  uint64_t runs;
  uint64_t iterations;
  uint64_t last_ns;
  uint64_t total_ns;
  uint64_t min_ns;
  uint64_t max_ns;
} vlart_stage_state_t;

/* The environment of one backend, shared by the engines of the session. */
typedef struct {
  const vlart_backend_t *backend;
  void *memory;
} vlart_context_t;

/* The last chunk that passed the checks. */
typedef struct {
  float *actions;     /* [chunk_steps, action_dim] */
  uint32_t position;  /* next action */
  uint32_t remaining; /* actions still to hand out */
  bool stale;
  uint64_t chunks;
} vlart_queue_t;

struct vlart_session {
  const vlart_bundle_t *bundle;
  uint8_t *memory; /* [arena_bytes] the values that stages exchange */
  void **data;     /* [value_count] where each value lies, in memory or in a mapped file */
  uint64_t *versions;      /* [source_count] 0: never written; each change adds one */
  uint64_t sources_set;    /* bit i: source i was written */
  uint64_t sources_needed; /* bit i: a stage depends on source i */
  uint64_t advances;       /* of the histories; each one changes every delayed value */
  bool observed;           /* the newest observation is encoded: the next write begins another */
  bool filled;             /* the delayed values have content */
  vlart_stage_state_t *stages; /* [stage_count] */
  vlart_context_t contexts[VLART_BACKEND_LIMIT]; /* by backend id; unused ones have no backend */
  void **addresses;      /* [largest port count] for prepare */
  uint32_t action_stage; /* that writes the action value, or VLART_NONE */
  double *low;           /* [action_dim] bounds with their tolerance; infinite where there is none */
  double *high;
  vlart_queue_t queue;
  vlart_session_totals_t totals;
};

/* [init] Addresses of the values in iteration k, for the engine. */
vlart_status_t vlart_session_bind(vlart_session_t *session, uint32_t stage, vlart_diag_t *diag);

/* [tick] Checks the action value and, if it is good, makes it the queue's chunk. */
vlart_status_t vlart_queue_publish(vlart_session_t *session, vlart_diag_t *diag);

/* [tick] Hands the same chunk out again from its beginning. */
void vlart_queue_rewind(vlart_session_t *session);

/* [tick] Before a history source is written: begins an observation, if the last one is encoded. */
void vlart_history_advance(vlart_session_t *session);

/* [tick] First observation: fills the delays of sources, or of what stage `index` wrote. */
void vlart_history_fill(vlart_session_t *session, vlart_origin_t origin, uint32_t index);

/* [tick] The first `stages` stages are up to date: the observation may be encoded with that. */
void vlart_history_passed(vlart_session_t *session, uint32_t stages);

/* [tick] Index of the first element that is not finite, or `count`. Integers are always finite. */
size_t vlart_first_not_finite(const void *data, size_t count, uint32_t dtype);

#endif
