/* The inside of asynchronous control: a control thread that pops an action per tick, and a worker
   that owns the session and computes the next chunk meanwhile. */
#ifndef VLART_ASYNC_H
#define VLART_ASYNC_H

#include <semaphore.h>

#include "base/handover.h"
#include "session/session.h"

/* All sources as they were at one tick. */
typedef struct {
  uint64_t tick;        /* of those that chunks are counted by */
  unsigned epoch;       /* of the instruction; `cancel` begins another */
  uint64_t observation; /* its name */
  uint64_t request;     /* counted */
  unsigned episode;     /* counted, since one that begins an episode may be replaced */
  uint64_t written;     /* bit i: source i was, in this episode */
  uint32_t backbone;    /* to be run */
  uint64_t *versions;   /* [source_count] 0: never written */
  uint8_t **data;       /* [source_count] */
} vlart_observation_t;

/* What the worker made of an observation. */
typedef struct {
  uint64_t tick; /* of the observation: action k of the chunk is for tick + k */
  unsigned epoch;
  uint64_t request; /* that it answers */
  uint64_t task;    /* of the session, counted: predictions of two are not averaged */
  vlart_made_of_t made_of;
  vlart_status_t status;
  uint64_t ns;    /* from taking the observation to the end */
  float *actions; /* [chunk_steps, action_dim] */
  vlart_diag_t diag;
} vlart_result_t;

/* What the control thread asks the worker for. */
typedef struct {
  uint64_t *versions; /* [source_count] of the newest writes */
  uint64_t changes;
  unsigned latest;         /* slot of the last observation that was handed over */
  uint64_t requested;      /* observations handed over */
  uint64_t answered;       /* the newest of them whose result was taken */
  uint64_t tick;           /* of the last one */
  uint64_t since;          /* tick of the observation whose chunk is awaited */
  unsigned epoch;          /* and its instruction */
  unsigned episode;        /* of the next observation */
  uint32_t backbone;       /* of the next observation */
  uint64_t needed;         /* bit i: it reads source i */
  uint64_t live;           /* bit i: source i is an observation */
  uint64_t written;        /* bit i: source i was, in this episode */
  uint64_t observation;    /* name of the next one */
  atomic_uintptr_t writer; /* the thread that writes it source by source */
} vlart_async_asking_t;

/* The chunk that answers the ticks. */
typedef struct {
  bool running;   /* there is one */
  uint64_t began; /* tick of its observation */
  uint64_t task;  /* of the newest one */
  vlart_made_of_t made_of;
  float *actions; /* [chunk_steps, action_dim] */
} vlart_async_chunk_t;

/* Two counts: pops, which the caller sees, and the ticks that chunks are counted by. A pop that consumes nothing is
   none of the latter, so that observations and chunks stand still with the robot. */
typedef struct {
  uint64_t pops;
  uint64_t now;
  bool standing; /* nothing was executed since the episode began, or since the chunk was dropped */
} vlart_async_clock_t;

/* What the session has seen. */
typedef struct {
  uint64_t *seen; /* [source_count] versions */
  unsigned epoch;
  unsigned episode;
  bool computed; /* a result waits to be delivered: vlart_async_compute */
} vlart_async_worker_t;

struct vlart_async {
  vlart_session_t *session; /* the worker's */
  vlart_async_options_t options;
  const vlart_plan_t *plan;
  uint32_t steps, dim;

  /* the control thread's */
  vlart_async_clock_t clock;
  vlart_async_asking_t asking;
  vlart_async_chunk_t chunk;
  vlart_handed_t handed;
  float
      *safe; /* [action_dim] what answers a tick without a chunk, unless the last action is held */
  vlart_ensemble_t ensemble;
  vlart_sensors_t sensors;
  vlart_inbox_t inbox;
  vlart_async_info_t counts;
  vlart_diag_t trouble; /* of the last observation that gave no chunk */

  /* between the two */
  vlart_handover_t observing;
  vlart_observation_t observations[VLART_SLOTS];
  vlart_handover_t resulting;
  vlart_result_t results[VLART_SLOTS];
  atomic_uint epoch;
  atomic_bool stopped;
  sem_t wake;

  vlart_async_worker_t worker;
  vlart_track_t *track; /* the control thread's; NULL: nothing records */
};

#endif
