/* Part of vlart.h: asynchronous control.

   Two threads: the control thread calls pop once per tick of the robot, at its rate; a worker that
   the caller starts is inside vlart_async_serve and owns the session. Action k of a chunk is for
   tick t + k, where t is the tick of its observation: what is over when it comes is dropped.

   Which pops are ticks in that sense is a rule, since a robot that stood still is still where it was seen:
     until the first action of an episode, or after a    none: the first chunk begins at its row 0, however
     cancel with DROP or EPISODE, was handed out           late it is
     one that hands an action of a chunk out (also a     always one: a chunk that comes late begins so many
     mean, also with DEADLINE_MISSED)                      rows later
     one that is answered by the safe action             by options.expire
   A cancel with KEEP changes nothing of this: the new instruction's chunk begins at the tick of its observation.

   A deadline (options.deadline_ticks) is missed where an action of the last chunk is handed out more than so many of
   these ticks after the observation whose chunk is awaited:
     request, where none is awaited        counts from this observation
     request, where one is awaited         waits behind it and changes no count, whatever its instruction and backbone
     a result is taken (by request,        ends the count, whatever it is; if observations wait behind, the newest is
     pop, info, trouble)                     awaited now, and counts from its own tick
     a cancel of any kind                  ends it, until the next request

     if (info.due) { write ...; request; }    // never waits for the worker
     pop                                      // always answers: the chunk, or the safe action

   Pop, write, request, cancel and info do not wait: the cost is copies of the plan's sizes and, in
   request, one post of a semaphore. What the queue of the plan says (QUEUE, ENSEMBLE, REALTIME) holds
   here too: ensembles are means per tick, and real-time chunks are computed with the last one's rest.
   Phases, ownership and structs are as in vlart.h. */
#ifndef VLART_ASYNC_API_H
#define VLART_ASYNC_API_H

#include "vlart/vlart.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a tick is answered with when no chunk is left. */
#define VLART_SAFE_HOLD 0u  /* the action that was handed out last */
#define VLART_SAFE_ZERO 1u  /* zeros; as a given action, refused outside the policy's bounds */
#define VLART_SAFE_GIVEN 2u /* safe_action */

/* What a tick consumes that the safe action answers. */
#define VLART_EXPIRE_TIME 0u /* a row of what is being computed: the world goes on meanwhile */
#define VLART_EXPIRE_EXECUTION \
  1u /* nothing: the next chunk begins where its observation saw the robot */

/* What becomes of the chunk that is being executed when what is computed is cancelled. */
#define VLART_CANCEL_KEEP 0u /* it goes on until another one comes */
#define VLART_CANCEL_DROP 1u /* the safe action is executed until then */
#define VLART_CANCEL_EPISODE \
  2u /* the same, and the next observation begins an episode: nothing of the last one is
        held, averaged or continued, and what was observed must be written again */

typedef struct {
  size_t struct_size;
  uint32_t lead_ticks;      /* so many ticks before execute_steps a replan is due */
  uint32_t stale_ticks;     /* so many ticks after execute_steps a chunk may go on; 0: to its end */
  uint32_t deadline_ticks;  /* from an observation to its chunk, see above; 0: none */
  uint32_t safe;            /* VLART_SAFE_... */
  const float *safe_action; /* [action_dim], for VLART_SAFE_GIVEN; copied */
  uint64_t deadline_us;     /* of one step of the worker, microseconds; 0: the plan's */
  uint32_t expire;          /* VLART_EXPIRE_... */
  uint32_t reserved;
} vlart_async_options_t;

typedef struct {
  size_t struct_size;
  uint64_t tick;            /* the next one; counts pops */
  uint32_t remaining;       /* ticks that the chunk may still answer */
  uint32_t due;             /* 1: write an observation and request */
  uint32_t busy;            /* 1: the worker has an observation */
  uint32_t late_ticks;      /* that the newest chunk took to come; they were dropped from it */
  uint64_t chunks;          /* good ones that came */
  uint64_t discarded;       /* cancelled, or over before they came */
  uint64_t failures;        /* observations that gave no good chunk */
  uint64_t safe_actions;    /* ticks that no chunk answered */
  uint64_t deadline_misses; /* ticks that a late chunk's predecessor answered */
  uint64_t latency_ns;      /* of the newest chunk: writing, stepping */
  vlart_status_t status;    /* of the newest observation that was answered, since the last cancel */
  uint32_t reserved;
  uint64_t idle_ticks; /* pops that consumed nothing */
} vlart_async_info_t;

/* [init] */
VLART_API vlart_status_t vlart_async_required_bytes(const vlart_session_t *session,
                                                    const vlart_async_options_t *options,
                                                    vlart_diag_t *diag, size_t *out_bytes);

/* [init] The session belongs to the worker from here to vlart_async_close. A policy that looks back on
   earlier observations is UNSUPPORTED: one that is replaced would be missing. */
VLART_API vlart_status_t vlart_async_init(vlart_session_t *session,
                                          const vlart_async_options_t *options, void *arena,
                                          size_t arena_bytes, vlart_diag_t *diag,
                                          vlart_async_t **out_async);

/* The worker's thread is in here until vlart_async_stop. */
VLART_API vlart_status_t vlart_async_serve(vlart_async_t *async);

/* In place of a worker: computes for the newest observation, if there is one that was not answered, and
   returns. For hosts without threads, and for simulations in which a replan takes a stated time. */
VLART_API vlart_status_t vlart_async_answer(vlart_async_t *async);

/* Any thread, after the last request: serve returns once the stage that runs has ended. */
VLART_API void vlart_async_stop(vlart_async_t *async);

/* After the worker has returned; before vlart_session_close. NULL is allowed. */
VLART_API void vlart_async_close(vlart_async_t *async);

/* [tick] As vlart_session_write, into the next observation. The control thread. */
VLART_API vlart_status_t vlart_async_write(vlart_async_t *async, uint32_t source, const void *data,
                                           size_t bytes, uint32_t dtype, uint32_t rank,
                                           const uint64_t *dims, vlart_diag_t *diag);

/* [tick] Hands the observation of this tick to the worker; what was not written is as it was. An
   observation that it has not begun is replaced. A result that came is taken first. The control thread. */
VLART_API vlart_status_t vlart_async_request(vlart_async_t *async);

/* [tick] The action of this tick; ticks are counted here. OK; DEADLINE_MISSED with an action, where
   the next chunk is late and the last goes on; SAFE_ACTION with the safe action; QUEUE_EMPTY with
   none, where nothing of this episode can be held yet: wait for info.remaining. A rate limit of the plan
   holds as for vlart_session_pop: an action that it refuses is answered by the safe action, which is always
   brought within it. The control thread. */
VLART_API vlart_status_t vlart_async_pop(vlart_async_t *async, float *action, size_t dim,
                                         vlart_diag_t *diag);

/* [tick] What is being computed is for another instruction: it ends at the next stage and its chunk
   never comes. `how`: VLART_CANCEL_... Then write and request. The control thread. */
VLART_API vlart_status_t vlart_async_cancel(vlart_async_t *async, uint32_t how);

/* [tick] Why the newest observation that was answered gave no chunk, since the last cancel: info.status, and in `diag`
   which source, stage or number it is; OK leaves `diag` as it is. The control thread. */
VLART_API vlart_status_t vlart_async_trouble(vlart_async_t *async, vlart_diag_t *diag);

/* [tick] The control thread. */
VLART_API vlart_status_t vlart_async_info(vlart_async_t *async, vlart_async_info_t *out_info);

#ifdef __cplusplus
}
#endif

#endif
