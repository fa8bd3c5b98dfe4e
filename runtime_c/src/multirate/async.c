/* [tick] The control thread's side: observations out, an action per tick in. Nothing here waits for the
   worker: two exchanges, one post, and copies whose sizes the plan fixes. */

#include "multirate/async.h"

#include <string.h>

#include "base/diag.h"
#include "base/struct_size.h"
#include "session/select_backbone.h"
#include "session/tensor_io.h"

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
  if (status == VLART_STATUS_OK) {
    status = vlart_check_shape(async->plan, source, bytes, dtype, rank, dims, diag);
  }
  if (status == VLART_STATUS_OK) {
    status = vlart_sensors_check(&async->sensors, source, data, bytes, diag);
  }
  if (status != VLART_STATUS_OK) {
    return status;
  }
  vlart_observation_t *o = &async->observations[async->observing.back];
  if (bytes > 0) {
    memcpy(o->data[source], data, bytes);
  }
  vlart_sensors_taken(&async->sensors, source, o->data[source], bytes);
  o->versions[source] = async->asking.versions[source] = ++async->asking.changes;
  return VLART_STATUS_OK;
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

vlart_status_t vlart_async_request(vlart_async_t *async) {
  if (async == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  async->trouble.struct_size = sizeof async->trouble;
  vlart_status_t status =
      vlart_sensors_fresh(&async->sensors, async->asking.needed, &async->trouble);
  if (status != VLART_STATUS_OK) { /* nothing is computed of it: the chunk goes on to its end */
    async->counts.failures++;
    async->counts.status = status;
    return status;
  }
  vlart_observation_t *o = &async->observations[async->observing.back];
  complete(async, o);
  o->tick = async->asking.tick = async->tick;
  o->epoch = async->asking.epoch = atomic_load_explicit(&async->epoch, memory_order_relaxed);
  o->episode = async->asking.episode;
  o->backbone = async->asking.backbone;
  async->asking.episode = false;
  async->asking.latest = async->observing.back;
  async->asking.requested++;
  vlart_handover_give(&async->observing);
  sem_post(&async->wake);
  return VLART_STATUS_OK;
}

vlart_status_t vlart_async_cancel(vlart_async_t *async, uint32_t how) {
  if (async == NULL || how > VLART_CANCEL_EPISODE) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  atomic_fetch_add_explicit(&async->epoch, 1, memory_order_acq_rel);
  async->asking.episode |= how == VLART_CANCEL_EPISODE;
  if (how != VLART_CANCEL_KEEP) {
    async->chunk.running = false;
    vlart_ensemble_reset(&async->ensemble);
  }
  return VLART_STATUS_OK;
}

/* The chunk begins at the tick of its observation: what is over is dropped. */
static void begin_chunk(vlart_async_t *async, const vlart_result_t *r) {
  uint64_t over = async->tick - r->tick;
  async->counts.chunks++;
  async->counts.latency_ns = r->ns;
  async->counts.late_ticks = (uint32_t)(over < UINT32_MAX ? over : UINT32_MAX);
  if (over >= async->steps) {
    async->counts.discarded++;
    return;
  }
  memcpy(async->chunk.actions, r->actions, (size_t)async->steps * async->dim * sizeof *r->actions);
  async->chunk.began = r->tick;
  async->chunk.running = true;
  if (async->ensemble.on) {
    vlart_ensemble_fold(&async->ensemble, async->chunk.actions, (uint32_t)over);
  }
}

static void take_result(vlart_async_t *async) {
  if (!vlart_handover_take(&async->resulting)) {
    return;
  }
  const vlart_result_t *r = &async->results[async->resulting.front];
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

/* Ticks that the chunk may still answer, the next one among them. */
static uint32_t left(const vlart_async_t *async) {
  uint64_t over = async->tick - async->chunk.began;
  uint64_t limit = (uint64_t)async->plan->policy->execute_steps + async->options.stale_ticks;
  return async->chunk.running && over < limit ? (uint32_t)(limit - over) : 0;
}

static bool is_busy(const vlart_async_t *async) {
  return atomic_load_explicit(&async->answered, memory_order_acquire) < async->asking.requested;
}

static vlart_status_t safe_action(vlart_async_t *async, float *action, vlart_diag_t *diag) {
  if (async->options.safe == VLART_SAFE_HOLD && !async->fallback.moved) {
    vlart_fail(diag, VLART_STATUS_QUEUE_EMPTY, "there is no action to execute", NULL);
    vlart_where(diag, "tick %llu", (unsigned long long)async->tick);
    vlart_why(diag, "no chunk has come yet, and there is no last action to hold");
    return VLART_STATUS_QUEUE_EMPTY;
  }
  async->counts.safe_actions++;
  memcpy(action,
         async->options.safe == VLART_SAFE_HOLD ? async->fallback.last : async->fallback.safe,
         async->dim * sizeof *action);
  vlart_fail(diag, VLART_STATUS_SAFE_ACTION, "the declared safe action is executed", NULL);
  vlart_where(diag, "tick %llu", (unsigned long long)async->tick);
  vlart_why(diag,
            async->counts.status == VLART_STATUS_OK ? "the next chunk has not come%s"
                                                    : "the last observation gave no chunk: %s",
            async->counts.status == VLART_STATUS_OK ? "" : async->trouble.what);
  return VLART_STATUS_SAFE_ACTION;
}

static vlart_status_t late(const vlart_async_t *async, vlart_diag_t *diag) {
  uint64_t waited = async->tick - async->asking.tick;
  if (async->options.deadline_ticks == 0 || !is_busy(async) ||
      waited <= async->options.deadline_ticks) {
    return VLART_STATUS_OK;
  }
  vlart_fail(diag, VLART_STATUS_DEADLINE_MISSED, "the next chunk is late",
             "the last safe chunk goes on; replan earlier, or make the policy faster");
  vlart_where(diag, "tick %llu", (unsigned long long)async->tick);
  vlart_why(diag, "%llu ticks have passed since the observation, the limit is %u",
            (unsigned long long)waited, async->options.deadline_ticks);
  return VLART_STATUS_DEADLINE_MISSED;
}

vlart_status_t vlart_async_pop(vlart_async_t *async, float *action, size_t dim,
                               vlart_diag_t *diag) {
  if (async == NULL || action == NULL || dim != async->dim) {
    return vlart_bad_argument(diag, "vlart_async_pop", "a pointer is NULL, or `dim` is another");
  }
  take_result(async);
  vlart_status_t status;
  bool mean = async->ensemble.on && vlart_ensemble_ready(&async->ensemble);
  if (left(async) == 0 || (async->ensemble.on && !mean)) {
    status = safe_action(async, action, diag);
  } else {
    status = late(async, diag);
    if (mean) {
      vlart_ensemble_read(&async->ensemble, action);
    } else {
      memcpy(action, async->chunk.actions + (async->tick - async->chunk.began) * dim,
             dim * sizeof *action);
    }
    memcpy(async->fallback.last, action, dim * sizeof *action);
    async->fallback.moved = true;
  }
  if (async->ensemble.on) {
    vlart_ensemble_advance(&async->ensemble);
  }
  async->tick++;
  async->counts.deadline_misses += status == VLART_STATUS_DEADLINE_MISSED;
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
  uint64_t over = async->tick - async->chunk.began;
  info.tick = async->tick;
  info.remaining = left(async);
  info.busy = is_busy(async);
  /* what is being computed for a cancelled instruction need not be waited for */
  bool awaited =
      info.busy && async->asking.epoch == atomic_load_explicit(&async->epoch, memory_order_relaxed);
  info.due = !awaited && (!async->chunk.running ||
                          over + async->options.lead_ticks >= async->plan->policy->execute_steps);
  return vlart_copy_out(out_info, &info, sizeof info);
}

vlart_status_t vlart_async_select(vlart_async_t *async, uint32_t backbone, vlart_diag_t *diag) {
  const char *call = "vlart_async_select";
  if (async == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  vlart_status_t status = vlart_check_backbone(async->plan, backbone, call, diag);
  if (status == VLART_STATUS_OK && async->plan->backbone_count > 0) {
    async->asking.backbone = backbone;
    async->asking.needed = vlart_sources_of(async->session, vlart_backbone_bits(backbone));
  }
  return status;
}
