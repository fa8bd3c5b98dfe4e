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
  uint32_t executed;  /* actions handed out since the chunk came */
  bool stale;
  uint64_t chunks;
} vlart_queue_t;

/* Room for the decode steps; nothing where the plan has none. */
typedef struct {
  double *numbers; /* [chunk_steps, action_dim] what the steps hand on */
  double *column;  /* [chunk_steps] */
  float *chunk;    /* [chunk_steps, action_dim] the actions */
  uint64_t sources; /* bit i: a step reads source i */
  uint64_t seen;    /* vlart_decode_version when the chunk was decoded */
} vlart_decode_t;

/* The mean of the chunks so far, per tick ahead. */
typedef struct {
  bool on;
  bool offered;    /* queue.actions is not in the mean yet */
  double *mean;    /* [chunk_steps, action_dim] a ring: slot (first + k) % H is k ticks ahead */
  uint32_t *count; /* [chunk_steps] chunks in the mean of a slot */
  double *weight;  /* [chunk_steps] exp(-m * i) */
  double *total;   /* [chunk_steps + 1] sum of the first n weights */
  uint32_t first;
} vlart_ensemble_t;

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
  vlart_decode_t decode;
  vlart_ensemble_t ensemble;
  vlart_realtime_t realtime;
  vlart_session_totals_t totals;
};

/* [init] Addresses of the values in iteration k, for the engine. */
vlart_status_t vlart_session_bind(vlart_session_t *session, uint32_t stage, vlart_diag_t *diag);

/* [tick] Decodes and checks the action value and, if it is good, makes it the queue's chunk. */
vlart_status_t vlart_queue_publish(vlart_session_t *session, vlart_diag_t *diag);

/* [tick] Whether the action value must be decoded anew: a source of the decode steps changed. */
bool vlart_queue_outdated(const vlart_session_t *session);

/* [tick] Hands the same chunk out again. */
vlart_status_t vlart_queue_rewind(vlart_session_t *session, vlart_diag_t *diag);

/* [tick] After a failed step: what is left may be handed out, and is old. */
void vlart_queue_keep(vlart_session_t *session);

/* [tick] Forgets all chunks. */
void vlart_queue_reset(vlart_session_t *session);

/* decode.c, ensemble.c, realtime.c. _take: [init] places or measures what they need; _init: [init]
   once the session is placed; the others: [tick]. */
void vlart_decode_take(vlart_session_t *draft, vlart_arena_t *arena);
void vlart_decode_init(vlart_session_t *session);
vlart_status_t vlart_decode(vlart_session_t *session, vlart_diag_t *diag); /* into decode.chunk */
uint64_t vlart_decode_version(const vlart_session_t *session); /* of the sources that it reads */

void vlart_ensemble_take(vlart_session_t *draft, vlart_arena_t *arena);
void vlart_ensemble_init(vlart_session_t *session);
void vlart_ensemble_offer(vlart_session_t *session); /* queue.actions, for the next pop */
bool vlart_ensemble_ready(const vlart_session_t *session); /* the next tick was predicted */
void vlart_ensemble_pop(vlart_session_t *session, float *action);
void vlart_ensemble_reset(vlart_session_t *session);

void vlart_realtime_take(vlart_session_t *draft, vlart_arena_t *arena);
void vlart_realtime_init(vlart_session_t *session);
void vlart_realtime_written(vlart_session_t *session, uint32_t source); /* by the caller */
void vlart_realtime_fill(vlart_session_t *session); /* the previous chunk and its weights */
uint64_t vlart_realtime_dropped(const vlart_session_t *session); /* pops since the observation */
vlart_status_t vlart_realtime_late(const vlart_session_t *session, vlart_diag_t *diag);
void vlart_realtime_publish(vlart_session_t *session);
void vlart_realtime_reset(vlart_session_t *session);

/* [tick] Before a history source is written: begins an observation, if the last one is encoded. */
void vlart_history_advance(vlart_session_t *session);

/* [tick] First observation: fills the delays of sources, or of what stage `index` wrote. */
void vlart_history_fill(vlart_session_t *session, vlart_origin_t origin, uint32_t index);

/* [tick] The first `stages` stages are up to date: the observation may be encoded with that. */
void vlart_history_passed(vlart_session_t *session, uint32_t stages);

/* [tick] Index of the first element that is not finite, or `count`. Integers are always finite. */
size_t vlart_first_not_finite(const void *data, size_t count, uint32_t dtype);

#endif
