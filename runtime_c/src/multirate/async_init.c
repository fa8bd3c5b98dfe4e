/* [init] Places asynchronous control in its arena, and ends it. */
#include <errno.h>
#include <string.h>

#include "base/diag.h"
#include "base/float_scan.h"
#include "base/struct_size.h"
#include "multirate/async.h"

static vlart_status_t read_options(const vlart_session_t *session,
                                   const vlart_async_options_t *given, const char *call,
                                   vlart_diag_t *diag, vlart_async_options_t *out) {
  if (session == NULL) {
    return vlart_bad_argument(diag, call, "the session is NULL");
  }
  vlart_status_t status =
      vlart_copy_in(out, offsetof(vlart_async_options_t, expire), sizeof *out, given, call, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  if (session->selection.action_stage == VLART_NONE) {
    return vlart_bad_argument(diag, call, "this bundle has no action value");
  }
  if (out->expire > VLART_EXPIRE_EXECUTION || out->reserved != 0) {
    return vlart_bad_argument(diag, call, "`expire` is not a rule");
  }
  if (out->safe > VLART_SAFE_GIVEN ||
      (out->safe == VLART_SAFE_GIVEN) != (out->safe_action != NULL)) {
    return vlart_bad_argument(diag, call, "`safe` and `safe_action` do not agree");
  }
  const vlart_policy_record_t *policy = session->bundle->plan.policy;
  if (out->safe_action != NULL && vlart_first_not_finite(out->safe_action, policy->action_dim,
                                                         VLART_DTYPE_F32) < policy->action_dim) {
    return vlart_bad_argument(diag, call, "the safe action is not finite");
  }
  for (uint32_t d = 0; out->safe != VLART_SAFE_HOLD && d < policy->action_dim; d++) {
    double safe = out->safe_action == NULL ? 0 : (double)out->safe_action[d];
    if (safe < session->bounds.low[d] || safe > session->bounds.high[d]) {
      vlart_fail(diag, VLART_STATUS_ACTION_OUT_OF_RANGE,
                 "the safe action is outside the bounds of the policy",
                 "give one within them, or hold the last action");
      vlart_where(diag, "%s, dimension %u", call, d);
      vlart_why(diag, "it is %g, the bounds are %g and %g", safe, session->bounds.low[d],
                session->bounds.high[d]);
      return VLART_STATUS_ACTION_OUT_OF_RANGE;
    }
  }
  if (session->bundle->plan.histories != 0) {
    vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "this policy looks back on earlier observations",
               "step it in the control thread, and observe at every tick");
    vlart_where(diag, "%s", call);
    vlart_why(diag, "an observation that the worker has not begun is replaced by the next");
    return VLART_STATUS_UNSUPPORTED;
  }
  uint32_t most = policy->chunk_steps - policy->execute_steps;
  bool to_end = out->stale_ticks == 0 || out->stale_ticks > most;
  out->stale_ticks = to_end ? most : out->stale_ticks;
  return VLART_STATUS_OK;
}

static vlart_async_t *take_async(vlart_async_t *draft, const vlart_session_t *session,
                                 vlart_arena_t *arena) {
  const vlart_plan_t *plan = &session->bundle->plan;
  vlart_async_t *async = vlart_arena_take(arena, 1, sizeof *async);
  draft->plan = plan;
  draft->steps = plan->policy->chunk_steps;
  draft->dim = plan->policy->action_dim;
  size_t numbers = (size_t)draft->steps * draft->dim;
  draft->asking.versions =
      vlart_arena_take(arena, plan->source_count, sizeof *draft->asking.versions);
  draft->worker.seen = vlart_arena_take(arena, plan->source_count, sizeof *draft->worker.seen);
  draft->chunk.actions = vlart_arena_take(arena, numbers, sizeof *draft->chunk.actions);
  draft->safe = vlart_arena_take(arena, draft->dim, sizeof *draft->safe);
  vlart_handed_take(&draft->handed, plan, arena);
  vlart_inbox_take(&draft->inbox, plan, arena);
  vlart_ensemble_take(&draft->ensemble, plan, arena);
  vlart_sensors_take(&draft->sensors, plan, arena);
  for (unsigned k = 0; k < VLART_SLOTS; k++) {
    vlart_observation_t *o = &draft->observations[k];
    o->versions = vlart_arena_take(arena, plan->source_count, sizeof *o->versions);
    o->data = vlart_arena_take(arena, plan->source_count, sizeof *o->data);
    for (uint32_t i = 0; i < plan->source_count; i++) {
      uint64_t bytes = vlart_plan_value(plan, vlart_plan_source(plan, i)->value)->bytes;
      uint8_t *room = vlart_arena_take(arena, bytes, 1);
      if (o->data != NULL) {
        o->data[i] = room;
      }
    }
    draft->results[k].actions = vlart_arena_take(arena, numbers, sizeof(float));
  }
  return async;
}

vlart_status_t vlart_async_required_bytes(const vlart_session_t *session,
                                          const vlart_async_options_t *options, vlart_diag_t *diag,
                                          size_t *out_bytes) {
  const char *call = "vlart_async_required_bytes";
  vlart_async_t draft = {0};
  vlart_arena_t arena;
  if (out_bytes == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  vlart_status_t status = read_options(session, options, call, diag, &draft.options);
  if (status == VLART_STATUS_OK) {
    vlart_arena_measure(&arena);
    take_async(&draft, session, &arena);
    *out_bytes = vlart_arena_required(&arena);
  }
  return status;
}

vlart_status_t vlart_async_init(vlart_session_t *session, const vlart_async_options_t *options,
                                void *arena_base, size_t arena_bytes, vlart_diag_t *diag,
                                vlart_async_t **out_async) {
  vlart_async_t draft = {.session = session, .asking.episode = 1, .clock.standing = true};
  vlart_arena_t arena;
  if (out_async == NULL) {
    return vlart_bad_argument(diag, "vlart_async_init", "a pointer is NULL");
  }
  *out_async = NULL;
  vlart_status_t status = read_options(session, options, "vlart_async_init", diag, &draft.options);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  vlart_arena_place(&arena, arena_base, arena_bytes);
  vlart_async_t *async = take_async(&draft, session, &arena);
  if (arena.full) {
    vlart_arena_measure(&arena);
    take_async(&draft, session, &arena);
    return vlart_arena_too_small(diag, "vlart_async_init", vlart_arena_required(&arena),
                                 arena_bytes);
  }
  memcpy(async, &draft, sizeof draft);
  vlart_handover_init(&async->observing);
  vlart_handover_init(&async->resulting);
  atomic_init(&async->epoch, 0);
  atomic_init(&async->stopped, false);
  if (sem_init(&async->wake, 0, 0) != 0) {
    unsigned error = (unsigned)errno;
    vlart_fail(diag, VLART_STATUS_OUT_OF_MEMORY, "the system gives no semaphore",
               "close sessions that are not needed any more");
    vlart_where(diag, "%s", "vlart_async_init");
    vlart_why(diag, "sem_init failed with errno %u", error);
    return VLART_STATUS_OUT_OF_MEMORY;
  }
  vlart_ensemble_init(&async->ensemble, async->plan);
  if (async->options.safe == VLART_SAFE_GIVEN) {
    memcpy(async->safe, async->options.safe_action, async->dim * sizeof(float));
  }
  async->options.safe_action = NULL; /* the caller's */
  vlart_sensors_init(&async->sensors, &session->sensors.options, session->realtime.filled);
  vlart_inbox_init(&async->inbox, session, &session->sensors.options);
  vlart_handed_init(&async->handed, async->plan);
  atomic_init(&async->asking.writer, 0);
  async->asking.live = session->written.live;
  session->sensors.trusting = true;
  async->asking.needed = session->sources.needed;
  async->asking.backbone = session->selection.backbone;
  session->cancel.epoch = &async->epoch;
  *out_async = async;
  return VLART_STATUS_OK;
}

void vlart_async_stop(vlart_async_t *async) {
  if (async != NULL) {
    atomic_fetch_add_explicit(&async->epoch, 1, memory_order_acq_rel); /* a step ends early */
    atomic_store_explicit(&async->stopped, true, memory_order_release);
    sem_post(&async->wake);
  }
}

void vlart_async_close(vlart_async_t *async) {
  if (async != NULL) {
    async->session->cancel.epoch = NULL;
    async->session->sensors.trusting = false;
    sem_destroy(&async->wake);
  }
}
