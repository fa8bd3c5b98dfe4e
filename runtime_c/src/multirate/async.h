/* The inside of asynchronous control: a control thread that pops an action per tick, and a worker
   that owns the session and computes the next chunk meanwhile. */
#ifndef VLART_ASYNC_H
#define VLART_ASYNC_H

#include <semaphore.h>

#include "base/handover.h"
#include "session/session.h"

/* All sources as they were at one tick. */
typedef struct {
  uint64_t tick;
  unsigned epoch;     /* of the instruction; `cancel` begins another */
  bool episode;       /* it is the first of an episode */
  uint32_t backbone;  /* to be run */
  uint64_t *versions; /* [source_count] 0: never written */
  uint8_t **data;     /* [source_count] */
} vlart_observation_t;

/* What the worker made of an observation. */
typedef struct {
  uint64_t tick; /* of the observation: action k of the chunk is for tick + k */
  unsigned epoch;
  vlart_status_t status;
  uint64_t ns;    /* from taking the observation to the end */
  float *actions; /* [chunk_steps, action_dim] */
  vlart_diag_t diag;
} vlart_result_t;

/* What the control thread asks the worker for. */
typedef struct {
  uint64_t *versions; /* [source_count] of the newest writes */
  uint64_t changes;
  unsigned latest;    /* slot of the last observation that was handed over */
  uint64_t requested; /* observations handed over */
  uint64_t tick;      /* of the last one */
  unsigned epoch;     /* and its instruction */
  bool episode;       /* the next observation begins one */
  uint32_t backbone;  /* of the next observation */
  uint64_t needed;    /* bit i: it reads source i */
} vlart_async_asking_t;

/* The chunk that answers the ticks. */
typedef struct {
  bool running;   /* there is one */
  uint64_t began; /* tick of its observation */
  float *actions; /* [chunk_steps, action_dim] */
} vlart_async_chunk_t;

/* What answers a tick without a chunk. */
typedef struct {
  float *last; /* [action_dim] the action that was handed out last */
  float *safe; /* [action_dim] the declared one; unused where the last one is held */
  bool moved;  /* `last` is one */
} vlart_async_fallback_t;

/* What the session has seen. */
typedef struct {
  uint64_t *seen; /* [source_count] versions */
  unsigned epoch;
} vlart_async_worker_t;

struct vlart_async {
  vlart_session_t *session; /* the worker's */
  vlart_async_options_t options;
  const vlart_plan_t *plan;
  uint32_t steps, dim;

  /* the control thread's */
  uint64_t tick; /* the next one */
  vlart_async_asking_t asking;
  vlart_async_chunk_t chunk;
  vlart_async_fallback_t fallback;
  vlart_ensemble_t ensemble;
  vlart_sensors_t sensors;
  vlart_async_info_t counts;
  vlart_diag_t trouble; /* of the last observation that gave no chunk */

  /* between the two */
  vlart_handover_t observing;
  vlart_observation_t observations[VLART_SLOTS];
  vlart_handover_t resulting;
  vlart_result_t results[VLART_SLOTS];
  atomic_ullong answered; /* observations that the worker is done with or has skipped */
  atomic_uint epoch;
  atomic_bool stopped;
  sem_t wake;

  vlart_async_worker_t worker;
};

#endif
