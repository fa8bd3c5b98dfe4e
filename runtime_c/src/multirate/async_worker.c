/* The worker: takes the newest observation, steps the session, hands the chunk over. */
#include <string.h>

#include "base/clock.h"
#include "multirate/async.h"
#include "multirate/async_recorded.h"

/* What changed since the last observation goes into the session; a source that is refused keeps what it had, and what
   was observed in another episode does not count as written in this one. */
static vlart_status_t write_sources(vlart_async_t *async, const vlart_observation_t *o,
                                    vlart_diag_t *diag) {
  uint64_t old = async->session->written.seen & ~o->written;
  vlart_status_t status = VLART_STATUS_OK;
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < async->plan->source_count; i++) {
    if (o->versions[i] == async->worker.seen[i] || (old >> i & 1) != 0) {
      continue;
    }
    const vlart_value_record_t *value =
        vlart_plan_value(async->plan, vlart_plan_source(async->plan, i)->value);
    status = vlart_session_write(async->session, i, o->data[i], value->bytes, value->dtype,
                                 value->rank, value->dims, diag);
    async->worker.seen[i] = o->versions[i];
  }
  return status;
}

static vlart_status_t compute(vlart_async_t *async, const vlart_observation_t *o,
                              vlart_diag_t *diag) {
  vlart_session_t *session = async->session;
  session->realtime.pops = o->tick; /* ticks are the control thread's */
  if (o->episode != async->worker.episode) {
    vlart_session_reset(session);
  } else if (o->epoch != async->worker.epoch) {
    vlart_end_task(session); /* the last instruction's chunk leads nowhere */
  }
  async->worker.episode = o->episode;
  async->worker.epoch = o->epoch;
  session->cancel.allowed = o->epoch;
  vlart_status_t status = vlart_session_select(session, o->backbone, diag);
  if (status == VLART_STATUS_OK) {
    status = write_sources(async, o, diag);
  }
  session->realtime.observed = o->tick; /* also of what was not written anew */
  session->written.observation = o->observation;
  if (status == VLART_STATUS_OK) {
    status = async->options.deadline_us == 0
                 ? vlart_session_step(session, diag)
                 : vlart_session_step_deadline(session, async->options.deadline_us, diag);
  }
  if (status == VLART_STATUS_OK && session->realtime.on) {
    vlart_realtime_publish(session); /* also what was not computed anew is of this tick now */
  }
  return status;
}

static void compute_result(vlart_async_t *async, const vlart_observation_t *o) {
  vlart_result_t *r = &async->results[async->resulting.back];
  uint64_t began = vlart_now_ns();
  vlart_async_recorded_take(async, o);
  r->diag.struct_size = sizeof r->diag;
  r->status = compute(async, o, &r->diag);
  r->tick = o->tick;
  r->epoch = o->epoch;
  r->request = o->request;
  r->task = async->session->task.number;
  r->made_of = async->session->queue.made_of;
  r->made_of.observation = o->observation;
  r->ns = vlart_now_ns() - began;
  if (r->status == VLART_STATUS_OK) {
    memcpy(r->actions, async->session->queue.actions,
           (size_t)async->steps * async->dim * sizeof *r->actions);
  }
}

/* The newest observation answers for those that it replaced. */
static void answer_newest(vlart_async_t *async, bool deliver) {
  if (vlart_handover_take(&async->observing)) {
    compute_result(async, &async->observations[async->observing.front]);
    async->worker.computed = !deliver;
    if (deliver) {
      vlart_handover_give(&async->resulting);
    }
  }
}

static vlart_status_t answer_all(vlart_async_t *async, bool deliver) {
  if (async == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  while (sem_trywait(&async->wake) == 0) {
    /* all of them are answered at once */
  }
  answer_newest(async, deliver);
  return VLART_STATUS_OK;
}

vlart_status_t vlart_async_answer(vlart_async_t *async) { return answer_all(async, true); }

vlart_status_t vlart_async_compute(vlart_async_t *async) { return answer_all(async, false); }

vlart_status_t vlart_async_deliver(vlart_async_t *async) {
  if (async == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  if (async->worker.computed) {
    vlart_handover_give(&async->resulting);
    async->worker.computed = false;
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_async_serve(vlart_async_t *async) {
  if (async == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  while (!atomic_load_explicit(&async->stopped, memory_order_acquire)) {
    if (sem_wait(&async->wake) == 0 &&
        !atomic_load_explicit(&async->stopped, memory_order_acquire)) {
      answer_newest(async, true);
    }
  }
  return VLART_STATUS_OK;
}
