/* The inside of a session. One thread at a time. */
#ifndef VLART_SESSION_H
#define VLART_SESSION_H

#include <stdatomic.h>

#include "backend.h"
#include "sensors.h"

#define VLART_BACKEND_LIMIT 6u /* above every backend id that a plan may hold */

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
  uint32_t value; /* the action value that the chunk came from */
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
  bool offered;    /* the newest chunk is not in the mean yet */
  uint32_t steps;  /* H */
  uint32_t dim;
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

/* One text of the plan: its tokenizer, and what the last call made of it. */
typedef struct {
  vlart_tokenizer_t *tokenizer;
  uint8_t *ids;  /* as the token source */
  uint8_t *mask; /* [L] */
} vlart_session_text_t;

struct vlart_follower; /* lanes.h */

struct vlart_session {
  const vlart_bundle_t *bundle;
  uint32_t lane; /* 0: all stages; as in the options */
  struct vlart_follower *follows[VLART_MAX_LANES]; /* by lane; NULL: it does not follow it */
  uint8_t *memory; /* [arena_bytes] the values that stages exchange */
  void **data;     /* [value_count] where each value lies, in memory or in a mapped file */
  uint64_t *versions;      /* [source_count] 0: never written; each change adds one */
  uint64_t sources_set;    /* bit i: source i was written */
  uint64_t sources_needed; /* bit i: a stage depends on source i */
  uint64_t sources_own;    /* bit i: source i is not written in another lane's session */
  uint64_t advances;       /* of the histories; each one changes every delayed value */
  bool observed;           /* the newest observation is encoded: the next write begins another */
  bool filled;             /* the delayed values have content */
  vlart_stage_state_t *stages; /* [stage_count] */
  vlart_context_t contexts[VLART_BACKEND_LIMIT]; /* by backend id; unused ones have no backend */
  void **addresses;      /* [largest port count, at least stage_count] for prepare and record */
  uint32_t selected;     /* as the caller said */
  uint32_t backbones;    /* bit i: backbone i is run */
  uint32_t action_value; /* of the first that is run, or VLART_NONE */
  uint32_t action_stage; /* that writes it, or VLART_NONE */
  uint32_t whole_begin;  /* stages that one launch can run, where all of them are due: */
  uint32_t whole_end;    /* [whole_begin, whole_end); empty unless the options ask for it */
  double *low;           /* [action_dim] bounds with their tolerance; infinite where there is none */
  double *high;
  vlart_queue_t queue;
  vlart_decode_t decode;
  vlart_ensemble_t ensemble;
  vlart_realtime_t realtime;
  const atomic_uint *cancelled; /* NULL, or what makes a step stop where it is not `allowed` */
  unsigned allowed;
  vlart_session_text_t *texts; /* [text records] */
  vlart_sensors_t sensors;
  vlart_session_totals_t totals;
};

/* [init] Addresses of the values in iteration k, for the engine. */
vlart_status_t vlart_session_bind(vlart_session_t *session, uint32_t stage, vlart_diag_t *diag);

/* whole.c. [init] Records the stages up to the action stage that change within a task. [tick] Runs
   them; what they gave is valid once the caller says so. */
vlart_status_t vlart_whole_record(vlart_session_t *session, vlart_diag_t *diag);
vlart_status_t vlart_whole_run(vlart_session_t *session, vlart_diag_t *diag);

/* [tick] Whether a stage need not run. */
bool vlart_stage_is_current(const vlart_session_t *session, uint32_t stage);

/* [tick] The outputs of a stage are those of its sources as they are now. */
void vlart_stage_made_current(vlart_session_t *session, uint32_t stage);

/* [tick] Decodes and checks the action value and, if it is good, makes it the queue's chunk. */
vlart_status_t vlart_queue_publish(vlart_session_t *session, vlart_diag_t *diag);

/* [tick] Whether the action value must be decoded anew: a source of the decode steps changed, or it is another
   backbone's. */
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

void vlart_ensemble_take(vlart_ensemble_t *e, const vlart_plan_t *plan, vlart_arena_t *arena);
void vlart_ensemble_init(vlart_ensemble_t *e, const vlart_plan_t *plan);
/* Takes a chunk into the mean of every tick that it predicts; its action `from` is for the next one. */
void vlart_ensemble_fold(vlart_ensemble_t *e, const float *actions, uint32_t from);
bool vlart_ensemble_ready(const vlart_ensemble_t *e); /* the next tick was predicted */
void vlart_ensemble_read(const vlart_ensemble_t *e, float *action);
void vlart_ensemble_advance(vlart_ensemble_t *e); /* to the next tick */
void vlart_ensemble_reset(vlart_ensemble_t *e);

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

/* backbones.c. [tick] Bit i: what serves one of `backbones` depends on source i. */
uint64_t vlart_sources_of(const vlart_session_t *session, uint32_t backbones);

/* [tick] Whether a tensor has the type and the shape that the plan says of a source. The pointers are not NULL
   and the source exists. What it holds is checked by vlart_sensors_check. */
vlart_status_t vlart_check_shape(const vlart_plan_t *plan, uint32_t source, size_t bytes,
                                 uint32_t dtype, uint32_t rank, const uint64_t *dims,
                                 vlart_diag_t *diag);

#endif
