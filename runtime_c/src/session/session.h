/* The inside of a session. One thread at a time. */
#ifndef VLART_SESSION_H
#define VLART_SESSION_H

#include <stdatomic.h>

#include "session/action_queue.h"
#include "session/decode_action.h"
#include "session/lane_input.h"
#include "session/realtime_chunking.h"
#include "session/sensors.h"
#include "session/stage_versions.h"
#include "session/task_text.h"
#include "session/temporal_ensemble.h"

#define VLART_BACKEND_LIMIT 6u /* above every backend id that a plan may hold */

/* The environment of one backend, shared by the engines of the session. */
typedef struct {
  const vlart_backend_t *backend;
  void *memory;
} vlart_context_t;

struct vlart_session {
  const vlart_bundle_t *bundle;
  uint32_t lane; /* 0: all stages; as in the options */
  vlart_follower_t *follows[VLART_MAX_LANES]; /* by lane; NULL: it does not follow it */
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

#endif
