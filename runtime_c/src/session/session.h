/* The inside of a session. One thread at a time. */
#ifndef VLART_SESSION_H
#define VLART_SESSION_H

#include <stdatomic.h>

#include "session/action_queue.h"
#include "session/carried_values.h"
#include "session/decode_action.h"
#include "session/handed_action.h"
#include "session/inbox.h"
#include "session/lane_input.h"
#include "session/lifetimes.h"
#include "session/realtime_chunking.h"
#include "session/recorded.h"
#include "session/sensors.h"
#include "session/stage_pool.h"
#include "session/stage_versions.h"
#include "session/task_text.h"
#include "session/temporal_ensemble.h"

#define VLART_BACKEND_LIMIT 7u /* above every backend id that a plan may hold */

/* The environment of one backend, shared by the engines of the session. */
typedef struct {
  const vlart_backend_t *backend;
  void *memory;
} vlart_context_t;

typedef struct {
  uint32_t option;  /* 0: all stages; as in the options */
  unsigned episode; /* that this session is at; counted by the control loop's */
  vlart_follower_t *follows[VLART_MAX_LANES]; /* by lane; NULL: it does not follow it */
} vlart_session_lanes_t;

typedef struct {
  uint8_t *memory; /* [arena_bytes] the values that stages exchange */
  void **at;       /* [value_count] where each value lies, in memory or in a mapped file */
} vlart_session_values_t;

/* Sets of sources: bit i is source i. */
typedef struct {
  uint64_t *versions; /* [source_count] 0: never written; each change adds one */
  uint64_t written;
  uint64_t needed; /* a stage depends on it */
  uint64_t own;    /* not written in another lane's session */
} vlart_session_sources_t;

typedef struct {
  uint64_t advances; /* each one changes every delayed value */
  bool encoded;      /* the newest observation is: the next write begins another */
  bool filled;       /* the delayed values have content */
} vlart_session_history_t;

typedef struct {
  vlart_context_t contexts[VLART_BACKEND_LIMIT]; /* by backend id; unused ones have no backend */
  void **addresses; /* [largest port count, at least stage_count] for prepare and record */
} vlart_session_engines_t;

/* Which backbones run, and which value their actions come from. */
typedef struct {
  uint32_t backbone;  /* as the caller said */
  uint32_t runs;      /* the one that is run: of buckets, as the text asks; or VLART_BACKBONE_ALL */
  uint32_t backbones; /* bit i: backbone i is run */
  uint32_t action_value; /* of the first that is run, or VLART_NONE */
  uint32_t action_stage; /* that writes it, or VLART_NONE */
} vlart_session_selection_t;

/* Stages that one launch can run, where all of them are due: [begin, end). Empty unless the options ask
   for it. */
typedef struct {
  uint32_t begin;
  uint32_t end;
} vlart_session_graph_t;

/* Of an action, with their tolerance; infinite where there is none. */
typedef struct {
  double *low;  /* [action_dim] */
  double *high; /* [action_dim] */
} vlart_session_bounds_t;

typedef struct {
  const atomic_uint *epoch; /* NULL, or what makes a step stop where it is not `allowed` */
  unsigned allowed;
} vlart_session_cancel_t;

/* What is written towards the next step. */
typedef struct {
  uint64_t observation;    /* its name: of the newest set, or the time of the newest write */
  atomic_uintptr_t writer; /* the thread that writes it source by source; 0: none yet */
  uint64_t live;           /* bit i: source i is of class observation or faster */
  uint64_t seen;           /* bit i: of class observation or tick: an episode needs it anew */
} vlart_session_written_t;

struct vlart_session {
  const vlart_bundle_t *bundle;
  vlart_session_lanes_t lanes;
  vlart_session_values_t values;
  vlart_session_sources_t sources;
  vlart_session_history_t history;
  vlart_session_carried_t carried;
  vlart_session_engines_t engines;
  vlart_stage_state_t *stages; /* [stage_count] */
  vlart_stage_pool_t pool;
  vlart_session_selection_t selection;
  vlart_session_graph_t graph;
  vlart_session_bounds_t bounds;
  vlart_queue_t queue;
  vlart_decode_t decode;
  vlart_ensemble_t ensemble;
  vlart_realtime_t realtime;
  vlart_session_cancel_t cancel;
  vlart_task_t task;
  vlart_session_text_t *texts; /* [text records] */
  vlart_sensors_t sensors;
  vlart_inbox_t inbox;
  vlart_session_written_t written;
  vlart_handed_t handed;
  vlart_recorded_t recorded;
  vlart_session_totals_t totals;
};

#endif
