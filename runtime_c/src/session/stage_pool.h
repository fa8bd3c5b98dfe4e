/* Stages that do not depend on each other run at the same time: the calling thread and the pool's workers take them, those
   first that the actions wait for longest. What comes of a step is what its stages give one after the other: a value
   has one writer, and of several stages that fail the first of the plan is told.

   No thread waits for a lock. A stage goes from BLOCKED to READY when the last stage that it reads is done, to RUNNING
   with the one thread that takes it, and to DONE or FAILED; each is one atomic write, before which all that it
   stands for was written. */
#ifndef VLART_STAGE_POOL_H
#define VLART_STAGE_POOL_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "bundle/backend.h"
#include "session/run_stage.h"

typedef struct {
  atomic_uint state; /* see stage_pool.c */
  atomic_uint waits; /* values that it reads of stages that are not done */
  uint32_t edge_begin;
  uint32_t edge_count; /* stages that read what it writes, once for each value */
  double chain;        /* operations of it and of the longest chain behind it */
  bool acts;           /* the actions wait for it */
  bool anywhere;       /* its engine may run beside others, in any thread */
  bool refused;        /* its engine failed */
  vlart_status_t status;
  const vlart_diag_t *diag; /* of the thread that ran it */
} vlart_pool_stage_t;

typedef struct {
  vlart_session_t *session;
  pthread_t thread;
  vlart_diag_t diag;
} vlart_pool_worker_t;

typedef struct {
  uint32_t worker_count; /* besides the calling thread; 0: one stage after the other */
  uint32_t started;
  vlart_pool_stage_t *stages;   /* [stage_count] */
  uint32_t *edges;              /* [inputs of all stages] */
  uint32_t *order;              /* [stage_count] who goes first */
  vlart_pool_worker_t *workers; /* [worker_count] */
  vlart_diag_t diag;            /* the calling thread's */
  vlart_clock_limit_t clock;    /* of the step */
  atomic_uint failed;           /* the first stage of the plan that failed in this step */
  atomic_bool stopped;
  sem_t work; /* a stage is ready */
  sem_t done; /* a worker ended one */
  bool open;  /* the two are */
  bool ran;   /* the stages of this step */
} vlart_stage_pool_t;

/* [init] Takes its arrays, or measures them. parallel: stages at a time. */
void vlart_pool_take(vlart_stage_pool_t *pool, const vlart_plan_t *plan, uint32_t parallel,
                     vlart_arena_t *arena);

/* [init] With the engines placed: starts the workers, which run as the calling thread does. */
vlart_status_t vlart_pool_start(vlart_session_t *session, vlart_diag_t *diag);

/* Ends the workers; for a session that failed to start, too. */
void vlart_pool_stop(vlart_session_t *session);

/* [tick] Runs the due stages of those that are `ours`, if there are two at least and workers. */
void vlart_pool_run(vlart_session_t *session, bool (*ours)(const vlart_session_t *, uint32_t),
                    const vlart_clock_limit_t *clock);

/* [tick] Whether vlart_pool_run ran a stage of this step; how that ended is told once. */
bool vlart_pool_ended(vlart_session_t *session, uint32_t stage, vlart_status_t *out_status,
                      bool *out_refused, vlart_diag_t *diag);

#endif
