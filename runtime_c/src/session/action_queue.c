/* [tick] The action queue: decodes and checks a new chunk, keeps the last safe one, hands actions
   out. What is special to ensembles and real-time chunking is in
   temporal_ensemble.c and realtime_chunking.c. */
#include "session/action_queue.h"

#include <string.h>

#include "base/diag.h"
#include "base/float_scan.h"
#include "base/struct_size.h"
#include "session/session.h"

static vlart_status_t reject(vlart_session_t *session, vlart_status_t status, size_t element,
                             const float *chunk, vlart_diag_t *diag) {
  const vlart_policy_record_t *policy = session->bundle->plan.policy;
  uint32_t d = (uint32_t)(element % policy->action_dim);
  session->totals.chunks_rejected++;
  vlart_fail(diag, status, "the new actions are not safe",
             "execute the stale chunk or stop; check the inputs and the bounds of the policy");
  vlart_where(diag, "action %zu of the chunk, dimension %u", element / policy->action_dim, d);
  if (status == VLART_STATUS_ACTION_NOT_FINITE) {
    vlart_why(diag, "it is %g", (double)chunk[element]);
  } else {
    vlart_why(diag, "it is %g, the bounds are %g and %g", (double)chunk[element],
              session->bounds.low[d], session->bounds.high[d]);
  }
  return status;
}

/* What pop hands out from now on, of the chunk in `actions`. */
static vlart_status_t begin_chunk(vlart_session_t *session, vlart_diag_t *diag) {
  vlart_queue_t *queue = &session->queue;
  const vlart_policy_record_t *policy = session->bundle->plan.policy;
  queue->executed = 0;
  queue->position = 0;
  queue->remaining = policy->execute_steps;
  if (session->ensemble.on) {
    session->ensemble.offered = true; /* for the next pop */
  } else if (session->realtime.on) {
    uint64_t dropped = vlart_realtime_dropped(session);
    queue->remaining = 0;
    if (dropped >= policy->chunk_steps) {
      return vlart_realtime_late(session, diag);
    }
    queue->position = (uint32_t)dropped;
    queue->remaining = policy->chunk_steps - queue->position;
    vlart_realtime_publish(session);
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_queue_rewind(vlart_session_t *session, vlart_diag_t *diag) {
  return begin_chunk(session, diag);
}

bool vlart_queue_outdated(const vlart_session_t *session) {
  return session->queue.value != session->selection.action_value ||
         (session->decode.sources != 0 && session->decode.seen != vlart_decode_version(session));
}

void vlart_queue_keep(vlart_session_t *session) {
  session->queue.stale = true;
  const vlart_ensemble_t *e = &session->ensemble;
  if (e->on && session->queue.remaining == 0 && (e->offered || vlart_ensemble_ready(e))) {
    session->queue.remaining = 1;
  }
}

void vlart_queue_reset(vlart_session_t *session) {
  session->queue.remaining = 0;
  session->queue.position = 0;
  session->queue.executed = 0;
  session->queue.stale = false;
}

vlart_status_t vlart_queue_publish(vlart_session_t *session, vlart_diag_t *diag) {
  const vlart_policy_record_t *policy = session->bundle->plan.policy;
  const float *chunk = session->values.at[session->selection.action_value];
  size_t count = (size_t)policy->chunk_steps * policy->action_dim;
  if (vlart_plan_count(&session->bundle->plan, VLART_SECTION_DECODES) > 0) {
    vlart_status_t status = vlart_decode(session, diag);
    if (status != VLART_STATUS_OK) {
      session->totals.chunks_rejected++;
      return status;
    }
    chunk = session->decode.chunk;
  }
  if (session->realtime.on && vlart_realtime_dropped(session) >= policy->chunk_steps) {
    session->totals.chunks_rejected++;
    return vlart_realtime_late(session, diag);
  }
  size_t bad = vlart_first_not_finite(chunk, count, VLART_DTYPE_F32);
  if (bad < count) {
    return reject(session, VLART_STATUS_ACTION_NOT_FINITE, bad, chunk, diag);
  }
  for (size_t i = 0; i < count; i += policy->action_dim) {
    for (uint32_t d = 0; d < policy->action_dim; d++) {
      double action = (double)chunk[i + d];
      if (action < session->bounds.low[d] || action > session->bounds.high[d]) {
        return reject(session, VLART_STATUS_ACTION_OUT_OF_RANGE, i + d, chunk, diag);
      }
    }
  }
  memcpy(session->queue.actions, chunk, count * sizeof *chunk);
  session->queue.stale = false;
  session->queue.chunks++;
  session->queue.value = session->selection.action_value;
  session->queue.made_of.observation = session->written.observation;
  vlart_lanes_taken(session, session->queue.made_of.lanes);
  session->decode.seen = vlart_decode_version(session);
  vlart_task_published(session);
  return begin_chunk(session, diag);
}

vlart_action_info_t vlart_action_info(const vlart_made_of_t *made_of, uint64_t chunk,
                                      uint32_t row) {
  vlart_action_info_t info = {.observation = made_of->observation, .chunk = chunk, .row = row};
  memcpy(info.lanes, made_of->lanes, sizeof info.lanes);
  return info;
}

static vlart_status_t nothing_to_pop(const vlart_session_t *session, size_t dim,
                                     vlart_diag_t *diag) {
  const char *call = "vlart_session_pop";
  if (session->selection.action_stage == VLART_NONE) {
    return vlart_bad_argument(diag, call, "this bundle has no action value");
  }
  if (dim != session->bundle->plan.policy->action_dim) {
    vlart_bad_argument(diag, call, "");
    vlart_why(diag, "an action has %u numbers, %zu are asked for",
              session->bundle->plan.policy->action_dim, dim);
    return VLART_STATUS_BAD_ARGUMENT;
  }
  vlart_fail(diag, VLART_STATUS_QUEUE_EMPTY, "there is no action to execute", NULL);
  vlart_where(diag, "%s", call);
  vlart_why(diag,
            session->queue.chunks == 0 ? "no good chunk was computed yet%s"
                                       : "all actions to be executed were handed out%s",
            "");
  return VLART_STATUS_QUEUE_EMPTY;
}

static void read_mean(vlart_ensemble_t *e, const float *actions, float *action) {
  if (e->offered) {
    vlart_ensemble_fold(e, actions, 0);
    e->offered = false;
  }
  vlart_ensemble_read(e, action);
}

static vlart_status_t pop_one(vlart_session_t *session, float *action, size_t dim,
                              vlart_diag_t *diag) {
  vlart_queue_t *queue = &session->queue;
  if (queue->remaining == 0 || dim != session->bundle->plan.policy->action_dim) {
    return nothing_to_pop(session, dim, diag);
  }
  float *next = session->handed.next;
  if (session->ensemble.on) {
    read_mean(&session->ensemble, queue->actions, next);
  } else {
    memcpy(next, queue->actions + (size_t)queue->position * dim, dim * sizeof *next);
  }
  if (vlart_handed_refuses(&session->handed, next, diag)) {
    vlart_end_task(session); /* neither averaged nor continued */
    queue->remaining = 0;
    return VLART_STATUS_ACTION_TOO_FAR;
  }
  vlart_handed_give(&session->handed, next,
                    vlart_action_info(&queue->made_of, queue->chunks, queue->position));
  memcpy(action, next, dim * sizeof *action);
  if (session->ensemble.on) {
    vlart_ensemble_advance(&session->ensemble);
  }
  queue->position++;
  queue->remaining--;
  queue->executed++;
  session->realtime.pops++;
  return VLART_STATUS_OK;
}

vlart_status_t vlart_session_pop(vlart_session_t *session, float *action, size_t dim,
                                 vlart_diag_t *diag) {
  if (session == NULL || action == NULL) {
    return vlart_bad_argument(diag, "vlart_session_pop", "a pointer is NULL");
  }
  vlart_status_t status = pop_one(session, action, dim, diag);
  vlart_recorded_pop(session, action, 1, status);
  return status;
}

static vlart_status_t pop_rows(vlart_session_t *session, float *actions, size_t rows, size_t dim,
                               vlart_diag_t *diag) {
  if (session->queue.remaining < rows || dim != session->bundle->plan.policy->action_dim) {
    return nothing_to_pop(session, dim, diag);
  }
  uint64_t pops = session->realtime.pops;
  vlart_handed_t before = vlart_handed_keep(&session->handed);
  vlart_status_t status = VLART_STATUS_OK;
  for (size_t i = 0; status == VLART_STATUS_OK && i < rows; i++) {
    status = pop_one(session, actions + i * dim, dim, diag);
  }
  if (status != VLART_STATUS_OK) { /* the chunk is over: what it handed out goes nowhere */
    session->realtime.pops = pops;
    vlart_handed_return(&session->handed, &before);
  }
  return status;
}

vlart_status_t vlart_session_pop_rows(vlart_session_t *session, float *actions, size_t rows,
                                      size_t dim, vlart_diag_t *diag) {
  if (session == NULL || actions == NULL || rows == 0) {
    return vlart_bad_argument(diag, "vlart_session_pop_rows", "a pointer is NULL, or `rows` is 0");
  }
  vlart_status_t status = pop_rows(session, actions, rows, dim, diag);
  vlart_recorded_pop(session, actions, rows, status);
  return status;
}

vlart_status_t vlart_session_popped(const vlart_session_t *session, vlart_action_info_t *out_info) {
  return session == NULL ? VLART_STATUS_BAD_ARGUMENT
                         : vlart_handed_info(&session->handed, out_info);
}

static bool is_due(const vlart_session_t *session) {
  return session->queue.remaining == 0 ||
         session->queue.executed >= session->bundle->plan.policy->execute_steps;
}

vlart_status_t vlart_session_queue(const vlart_session_t *session, vlart_queue_info_t *out_info) {
  if (session == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  vlart_queue_info_t info = {.remaining = session->queue.remaining,
                             .position = session->queue.position,
                             .stale = session->queue.stale,
                             .due = is_due(session),
                             .chunks = session->queue.chunks};
  return vlart_copy_out(out_info, &info, sizeof info);
}
