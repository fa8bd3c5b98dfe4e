/* [tick] The control thread's side: observations out, an action per tick in. Nothing here waits for the
   worker: two exchanges, one post, and copies whose sizes the plan fixes. */

#include "multirate/async.h"

#include <string.h>

#include "base/diag.h"
#include "base/struct_size.h"
#include "multirate/async_recorded.h"
#include "session/select_backbone.h"
#include "session/tensor_io.h"

/* Content that was found to fit, apart from what its sensor says, goes into the next observation. */
static vlart_status_t store(vlart_async_t *async, uint32_t source, const void *data, size_t bytes,
                            vlart_diag_t *diag) {
  vlart_status_t status = vlart_sensors_check(&async->sensors, source, data, bytes, diag);
  if (status != VLART_STATUS_OK) {
    vlart_recorded_refusal(async->track, source, status);
    return status;
  }
  if ((async->asking.live >> source & 1) != 0) {
    async->asking.observation = vlart_sensors_captured(&async->sensors, source);
  }
  vlart_observation_t *o = &async->observations[async->observing.back];
  if (bytes > 0) {
    memcpy(o->data[source], data, bytes);
  }
  vlart_sensors_taken(&async->sensors, source, o->data[source], bytes);
  o->versions[source] = async->asking.versions[source] = ++async->asking.changes;
  async->asking.written |= 1ull << source;
  return VLART_STATUS_OK;
}

/* What came as a set since the last time. */
static void take_sets(vlart_async_t *async) {
  uint64_t since;
  const vlart_inbox_slot_t *slot = vlart_inbox_newest(&async->inbox, &since);
  for (uint32_t i = 0; slot != NULL && i < async->plan->source_count; i++) {
    if (slot->versions[i] > since) {
      vlart_sensors_capture(&async->sensors, i, slot->times[i]);
      store(async, i, slot->data[i], vlart_plan_source_value(async->plan, i)->bytes, NULL);
    }
  }
  if (slot != NULL && slot->observation != 0) {
    async->asking.observation = slot->observation;
  }
}

vlart_status_t vlart_async_write(vlart_async_t *async, uint32_t source, const void *data,
                                 size_t bytes, uint32_t dtype, uint32_t rank, const uint64_t *dims,
                                 vlart_diag_t *diag) {
  const char *call = "vlart_async_write";
  if (async == NULL || (data == NULL && bytes > 0) || (dims == NULL && rank > 0)) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  if (source >= async->plan->source_count) {
    return vlart_bad_argument(diag, call, "there is no source of this index");
  }
  vlart_status_t status = vlart_lane_check_source(async->session, source, diag);
  if (status == VLART_STATUS_OK && (async->asking.live >> source & 1) != 0) {
    status = vlart_written_by_one(&async->asking.writer, call, diag);
  }
  if (status == VLART_STATUS_OK) {
    status = vlart_check_shape(async->plan, source, bytes, dtype, rank, dims, diag);
  }
  if (status != VLART_STATUS_OK) {
    vlart_recorded_refusal(async->track, source, status);
    return status;
  }
  take_sets(async);
  return store(async, source, data, bytes, diag);
}

vlart_status_t vlart_async_write_all(vlart_async_t *async, const vlart_tensor_t *tensors,
                                     size_t count, uint64_t observation, uint64_t time_us,
                                     vlart_diag_t *diag) {
  const char *call = "vlart_async_write_all";
  return async == NULL
             ? vlart_bad_argument(diag, call, "a pointer is NULL")
             : vlart_inbox_write(&async->inbox, call, tensors, count, observation, time_us, diag);
}

/* What was not written since the last observation is as it was in that one. */
static void complete(vlart_async_t *async, vlart_observation_t *o) {
  const vlart_observation_t *before = &async->observations[async->asking.latest];
  for (uint32_t i = 0; i < async->plan->source_count; i++) {
    if (o->versions[i] != async->asking.versions[i]) {
      uint64_t bytes =
          vlart_plan_value(async->plan, vlart_plan_source(async->plan, i)->value)->bytes;
      if (bytes > 0) {
        memcpy(o->data[i], before->data[i], bytes);
      }
      o->versions[i] = async->asking.versions[i];
    }
  }
}

/* By what this thread has taken: what it does is then a function of its calls and of the results that they took, and a
   recording of both can be replayed. */
static bool is_busy(const vlart_async_t *async) {
  return async->asking.answered < async->asking.requested;
}

/* What is being computed for a cancelled instruction is not waited for. */
static bool is_awaited(const vlart_async_t *async) {
  return is_busy(async) &&
         async->asking.epoch == atomic_load_explicit(&async->epoch, memory_order_relaxed);
}

/* Rows of a chunk that may be handed out; at most all, see vlart_async_init. */
static uint64_t limit_of(const vlart_async_t *async) {
  return (uint64_t)async->plan->policy->execute_steps + async->options.stale_ticks;
}

/* The chunk begins at the tick of its observation: what is over is dropped. */
static void begin_chunk(vlart_async_t *async, const vlart_result_t *r) {
  uint64_t over = async->clock.now - r->tick;
  async->counts.chunks++;
  async->counts.latency_ns = r->ns;
  async->counts.late_ticks = (uint32_t)(over < UINT32_MAX ? over : UINT32_MAX);
  if (async->ensemble.on && r->task != async->chunk.task) {
    vlart_ensemble_reset(&async->ensemble);
  }
  async->chunk.task = r->task;
  if (over >= limit_of(async)) {
    async->counts.discarded++;
    return;
  }
  memcpy(async->chunk.actions, r->actions, (size_t)async->steps * async->dim * sizeof *r->actions);
  async->chunk.began = r->tick;
  async->chunk.made_of = r->made_of;
  async->chunk.running = true;
  async->ensemble.offered =
      async->ensemble.on; /* to the next tick that it answers: another one may replace it */
}

static void take_result(vlart_async_t *async) {
  if (!vlart_handover_take(&async->resulting)) {
    return;
  }
  const vlart_result_t *r = &async->results[async->resulting.front];
  async->asking.answered = r->request;
  async->asking.since = async->asking.tick; /* the worker goes on with what waited, the newest */
  vlart_async_recorded_result(async, r);
  if (r->epoch != atomic_load_explicit(&async->epoch, memory_order_relaxed)) {
    async->counts.discarded++;
  } else if (r->status == VLART_STATUS_OK) {
    begin_chunk(async, r);
    async->counts.status = VLART_STATUS_OK;
  } else {
    async->counts.failures++;
    async->counts.status = r->status;
    async->trouble = r->diag;
  }
}

vlart_status_t vlart_async_request(vlart_async_t *async) {
  if (async == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  take_result(async); /* of what waits, the worker has begun what was asked until now, not this */
  take_sets(async);
  vlart_written_end(&async->asking.writer);
  async->trouble.struct_size = sizeof async->trouble;
  vlart_status_t status =
      vlart_sensors_fresh(&async->sensors, async->asking.needed, &async->trouble);
  if (status != VLART_STATUS_OK) { /* nothing is computed of it: the chunk goes on to its end */
    async->counts.failures++;
    async->counts.status = status;
    vlart_async_recorded_request(async, NULL, status);
    return status;
  }
  vlart_observation_t *o = &async->observations[async->observing.back];
  complete(async, o);
  if (!is_awaited(async)) { /* otherwise this one waits behind another, whose chunk is awaited */
    async->asking.since = async->clock.now;
  }
  o->tick = async->asking.tick = async->clock.now;
  o->epoch = async->asking.epoch = atomic_load_explicit(&async->epoch, memory_order_relaxed);
  o->episode = async->asking.episode;
  o->written = async->asking.written;
  o->backbone = async->asking.backbone;
  o->observation = async->asking.observation;
  async->asking.latest = async->observing.back;
  o->request = ++async->asking.requested;
  vlart_async_recorded_request(async, o, VLART_STATUS_OK);
  vlart_handover_give(&async->observing);
  sem_post(&async->wake);
  return VLART_STATUS_OK;
}

vlart_status_t vlart_async_cancel(vlart_async_t *async, uint32_t how) {
  if (async == NULL || how > VLART_CANCEL_EPISODE) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  vlart_async_recorded_cancel(async, how);
  atomic_fetch_add_explicit(&async->epoch, 1, memory_order_acq_rel);
  async->counts.status = VLART_STATUS_OK; /* what went wrong was another task's */
  if (how != VLART_CANCEL_KEEP) {
    async->chunk.running = false;
    async->clock.standing = true;
    vlart_ensemble_reset(&async->ensemble);
  }
  if (how == VLART_CANCEL_EPISODE) {
    take_sets(async); /* a set that waits was seen before, too */
    async->asking.written = 0;
    async->asking
        .episode++; /* the session's part ends with the next observation: vlart_end_episode */
    vlart_handed_end_episode(&async->handed);
  }
  return VLART_STATUS_OK;
}

/* Ticks that the chunk may still answer, the next one among them. */
static uint32_t left(const vlart_async_t *async) {
  uint64_t over = async->clock.now - async->chunk.began;
  uint64_t limit = limit_of(async);
  return async->chunk.running && over < limit ? (uint32_t)(limit - over) : 0;
}

static vlart_status_t safe_action(vlart_async_t *async, float *action, vlart_diag_t *diag) {
  bool holds = async->options.safe == VLART_SAFE_HOLD;
  if (holds && !async->handed.moved) {
    vlart_fail(diag, VLART_STATUS_QUEUE_EMPTY, "there is no action to execute", NULL);
    vlart_where(diag, "tick %llu", (unsigned long long)async->clock.pops);
    vlart_why(diag,
              async->counts.status == VLART_STATUS_OK
                  ? "no chunk has come yet, and there is no last action to hold%s"
                  : "there is no last action to hold, and the last observation gave no chunk: %s",
              async->counts.status == VLART_STATUS_OK ? "" : async->trouble.what);
    return VLART_STATUS_QUEUE_EMPTY;
  }
  async->counts.safe_actions++;
  memcpy(action, holds ? async->handed.last : async->safe, async->dim * sizeof *action);
  if (!holds) {
    vlart_handed_give(&async->handed, action, (vlart_action_info_t){0});
  }
  vlart_fail(diag, VLART_STATUS_SAFE_ACTION, "the declared safe action is executed", NULL);
  vlart_where(diag, "tick %llu", (unsigned long long)async->clock.pops);
  vlart_why(diag,
            async->counts.status == VLART_STATUS_OK ? "the next chunk has not come%s"
                                                    : "the last observation gave no chunk: %s",
            async->counts.status == VLART_STATUS_OK ? "" : async->trouble.what);
  return VLART_STATUS_SAFE_ACTION;
}

static vlart_status_t late(const vlart_async_t *async, vlart_diag_t *diag) {
  uint64_t waited = async->clock.now - async->asking.since;
  if (async->options.deadline_ticks == 0 || !is_awaited(async) ||
      waited <= async->options.deadline_ticks) {
    return VLART_STATUS_OK;
  }
  vlart_fail(diag, VLART_STATUS_DEADLINE_MISSED, "the next chunk is late",
             "the last safe chunk goes on; replan earlier, or make the policy faster");
  vlart_where(diag, "tick %llu", (unsigned long long)async->clock.pops);
  vlart_why(diag, "%llu ticks have passed since the observation, the limit is %u",
            (unsigned long long)waited, async->options.deadline_ticks);
  return VLART_STATUS_DEADLINE_MISSED;
}

/* The chunk's action of this tick, or the mean of all. A chunk enters the mean where it answers a tick: at most one
   does for each, which is what the mean has room for. */
static void read_action(vlart_async_t *async, float *action) {
  uint32_t row = (uint32_t)(async->clock.now - async->chunk.began);
  if (!async->ensemble.on) {
    memcpy(action, async->chunk.actions + (size_t)row * async->dim, async->dim * sizeof *action);
    return;
  }
  if (async->ensemble.offered) {
    vlart_ensemble_fold(&async->ensemble, async->chunk.actions, row);
    async->ensemble.offered = false;
  }
  vlart_ensemble_read(&async->ensemble, action);
}

/* The action of this tick, in handed.next; one that the plan refuses ends its chunk, which no other one continues. */
static bool is_refused(vlart_async_t *async) {
  read_action(async, async->handed.next);
  async->trouble.struct_size = sizeof async->trouble;
  if (!vlart_handed_refuses(&async->handed, async->handed.next, &async->trouble)) {
    return false;
  }
  async->counts.failures++;
  async->counts.status = VLART_STATUS_ACTION_TOO_FAR;
  async->chunk.running = false;
  vlart_ensemble_reset(&async->ensemble);
  if (async->session->realtime.on) {
    atomic_fetch_add_explicit(&async->epoch, 1, memory_order_acq_rel);
  }
  return true;
}

vlart_status_t vlart_async_popped(const vlart_async_t *async, vlart_action_info_t *out_info) {
  return async == NULL ? VLART_STATUS_BAD_ARGUMENT : vlart_handed_info(&async->handed, out_info);
}

vlart_status_t vlart_async_pop(vlart_async_t *async, float *action, size_t dim,
                               vlart_diag_t *diag) {
  if (async == NULL || action == NULL || dim != async->dim) {
    return vlart_bad_argument(diag, "vlart_async_pop", "a pointer is NULL, or `dim` is another");
  }
  take_result(async);
  vlart_status_t status;
  const vlart_ensemble_t *e = &async->ensemble;
  if (left(async) == 0 || (e->on && !e->offered && !vlart_ensemble_ready(e)) || is_refused(async)) {
    status = safe_action(async, action, diag);
  } else {
    status = late(async, diag);
    vlart_handed_give(&async->handed, async->handed.next,
                      vlart_action_info(&async->chunk.made_of, async->counts.chunks,
                                        (uint32_t)(async->clock.now - async->chunk.began)));
    memcpy(action, async->handed.last, dim * sizeof *action);
    async->clock.standing = false;
  }
  bool executed = status == VLART_STATUS_OK || status == VLART_STATUS_DEADLINE_MISSED;
  async->clock.pops++;
  if (executed || (!async->clock.standing && async->options.expire == VLART_EXPIRE_TIME)) {
    async->clock.now++;
    if (async->ensemble.on) {
      vlart_ensemble_advance(&async->ensemble);
    }
  } else {
    async->counts.idle_ticks++;
  }
  async->counts.deadline_misses += status == VLART_STATUS_DEADLINE_MISSED;
  vlart_async_recorded_pop(async, action, status);
  return status;
}

vlart_status_t vlart_async_time(vlart_async_t *async, uint64_t now_us) {
  if (async == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  vlart_sensors_time(&async->sensors, now_us);
  return VLART_STATUS_OK;
}

vlart_status_t vlart_async_stamp(vlart_async_t *async, uint32_t source, uint32_t sequence,
                                 uint64_t time_us, vlart_diag_t *diag) {
  const char *call = "vlart_async_stamp";
  return async == NULL
             ? vlart_bad_argument(diag, call, "a pointer is NULL")
             : vlart_sensors_stamp(&async->sensors, source, sequence, time_us, call, diag);
}

vlart_status_t vlart_async_sensor(const vlart_async_t *async, uint32_t source,
                                  vlart_sensor_info_t *out_info) {
  return async == NULL ? VLART_STATUS_BAD_ARGUMENT
                       : vlart_sensors_info(&async->sensors, source, out_info);
}

vlart_status_t vlart_async_info(vlart_async_t *async, vlart_async_info_t *out_info) {
  if (async == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  take_result(async);
  vlart_async_info_t info = async->counts;
  uint64_t over = async->clock.now - async->chunk.began;
  info.tick = async->clock.pops;
  info.remaining = left(async);
  info.busy = is_busy(async);
  info.due = !is_awaited(async) &&
             (!async->chunk.running ||
              over + async->options.lead_ticks >= async->plan->policy->execute_steps);
  return vlart_copy_out_since(out_info, &info, offsetof(vlart_async_info_t, idle_ticks),
                              sizeof info);
}

vlart_status_t vlart_async_trouble(vlart_async_t *async, vlart_diag_t *diag) {
  if (async == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  take_result(async);
  if (async->counts.status == VLART_STATUS_OK || diag == NULL) {
    return async->counts.status;
  }
  vlart_status_t copied = vlart_copy_out(diag, &async->trouble, sizeof async->trouble);
  return copied == VLART_STATUS_OK ? async->counts.status : copied;
}

vlart_status_t vlart_async_select(vlart_async_t *async, uint32_t backbone, vlart_diag_t *diag) {
  const char *call = "vlart_async_select";
  if (async == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  vlart_status_t status = vlart_check_backbone(async->plan, backbone, call, diag);
  if (status == VLART_STATUS_OK && async->plan->backbone_count > 0) {
    async->asking.backbone = backbone;
    vlart_async_recorded_select(async, backbone);
    async->asking.needed = vlart_sources_of(async->session, vlart_backbone_bits(backbone));
  }
  return status;
}
