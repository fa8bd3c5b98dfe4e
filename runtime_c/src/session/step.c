/* [tick] Runs the stages whose sources changed. Nothing else decides whether a stage runs. */
#include "base/clock.h"
#include "base/diag.h"
#include "base/struct_size.h"
#include "plan/plan_lanes.h"
#include "session/frame_history.h"
#include "session/graph_capture.h"
#include "session/run_stage.h"
#include "session/select_backbone.h"
#include "session/session.h"
#include "session/tensor_io.h"

/* Whether stage `index` begins the recorded stages, and all of them are due. */
static bool is_graph_due(const vlart_session_t *session, uint32_t index) {
  for (uint32_t i = session->graph.begin; i < session->graph.end; i++) {
    if (vlart_stage_is_current(session, i)) {
      return false;
    }
  }
  return session->graph.begin < session->graph.end && index == session->graph.begin;
}

static vlart_status_t launch_graph(vlart_session_t *session, const vlart_clock_limit_t *clock,
                                   vlart_diag_t *diag) {
  if (session->recorded.stop_stage >= session->graph.begin &&
      session->recorded.stop_stage < session->graph.end) {
    return vlart_recorded_stop(session, session->recorded.stop_stage, diag);
  }
  if (vlart_clock_is_late(clock)) {
    return vlart_clock_missed(session, session->graph.begin, 0, clock, diag);
  }
  vlart_status_t status = vlart_graph_launch(session, diag);
  if (status != VLART_STATUS_OK) {
    session->totals.backend_failures++;
    return status;
  }
  for (uint32_t i = session->graph.begin; i < session->graph.end; i++) {
    vlart_stage_mark_run(session, i);
    session->totals.stages_run++;
    session->stages[i].last_iterations = vlart_plan_stage(&session->bundle->plan, i)->iterations;
    session->stages[i].iterations += session->stages[i].last_iterations;
    session->stages[i].last_ns = 0; /* nobody measured it */
  }
  return VLART_STATUS_OK;
}

/* Brings one stage up to date, and what is delayed of it. */
static vlart_status_t pass_stage(vlart_session_t *session, uint32_t i,
                                 const vlart_clock_limit_t *clock, bool *out_ran,
                                 vlart_diag_t *diag) {
  vlart_status_t status = VLART_STATUS_OK;
  bool refused = false;
  bool ended = vlart_pool_ended(session, i, &status, &refused, diag);
  *out_ran = ended || !vlart_stage_is_current(session, i);
  if (*out_ran) {
    if (!ended) {
      status = vlart_stage_run(session, i, clock, &refused, diag);
    }
    session->totals.stages_run += status == VLART_STATUS_OK;
    session->totals.backend_failures += refused;
  } else {
    session->totals.stages_skipped++;
  }
  if (status == VLART_STATUS_OK) {
    vlart_history_fill(session, VLART_ORIGIN_STAGE, i);
    vlart_history_passed(session, i + 1);
  }
  return status;
}

static void begin_stages(vlart_session_t *session) {
  vlart_history_fill(session, VLART_ORIGIN_SOURCE, 0);
  vlart_history_passed(session, 0);
}

/* Whether the session runs a stage at all. */
static bool is_ours(const vlart_session_t *session, uint32_t stage) {
  const vlart_plan_t *plan = &session->bundle->plan;
  return vlart_plan_owns_stage(plan, session->lanes.option, stage) &&
         (plan->serves[stage] & session->selection.backbones) != 0;
}

static vlart_status_t observe_stages(vlart_session_t *session, const vlart_clock_limit_t *clock,
                                     vlart_diag_t *diag) {
  vlart_status_t status = VLART_STATUS_OK;
  bool ran;
  begin_stages(session);
  const vlart_plan_t *plan = &session->bundle->plan;
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < plan->observing_stages; i++) {
    if (plan->observes[i] && is_ours(session, i)) {
      status = pass_stage(session, i, clock, &ran, diag);
    }
  }
  return status;
}

/* Every stage in the plan's order, as if one ran after the other; those that the pool ran are over. */
static vlart_status_t pass_stages(vlart_session_t *session, const vlart_clock_limit_t *clock,
                                  bool *out_published, vlart_diag_t *diag) {
  *out_published = false;
  vlart_status_t status = VLART_STATUS_OK;
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < session->bundle->plan.stage_count; i++) {
    if (!is_ours(session, i)) {
      continue;
    }
    bool ran = is_graph_due(session, i);
    if (ran) {
      status = launch_graph(session, clock, diag);
      i = session->graph.end - 1;
    } else {
      status = pass_stage(session, i, clock, &ran, diag);
    }
    if (ran && status == VLART_STATUS_OK && i == session->selection.action_stage) {
      status = vlart_queue_publish(session, diag);
      session->stages[i].current = status == VLART_STATUS_OK; /* a bad chunk is computed again */
      *out_published = true;
    }
  }
  return status;
}

static vlart_status_t run_stages(vlart_session_t *session, const vlart_clock_limit_t *clock,
                                 vlart_diag_t *diag) {
  bool acts = session->selection.action_stage != VLART_NONE;
  bool published;
  begin_stages(session);
  vlart_carried_begin(session, is_ours);
  vlart_task_before_stages(session);
  /* Also where nothing else changed: a chunk that continued another task or episode is none of this one. */
  if (acts && (!session->realtime.running ||
               !vlart_stage_is_current(session, session->selection.action_stage))) {
    vlart_realtime_fill(session);
  }
  bool due = acts && !vlart_stage_is_current(session, session->selection.action_stage);
  vlart_pool_run(session, is_ours, clock);
  vlart_status_t ran = pass_stages(session, clock, &published, diag);
  session->pool.ran = false;
  if (ran != VLART_STATUS_OK && due && !published) {
    session->stages[session->selection.action_stage].current = false; /* its chunk was not taken */
  }
  if (ran != VLART_STATUS_OK || !acts || published) {
    return ran;
  }
  if (vlart_queue_outdated(session)) {
    vlart_status_t status = vlart_queue_publish(session, diag);
    session->stages[session->selection.action_stage].current = status == VLART_STATUS_OK;
    return status;
  }
  if (session->task.ended) { /* the same chunk, of the next task */
    vlart_task_published(session);
    return vlart_queue_rewind(session, diag);
  }
  session->queue.stale = false; /* it is what the sources ask for, also after one was too old */
  return session->queue.remaining == 0 ? vlart_queue_rewind(session, diag) : VLART_STATUS_OK;
}

/* SOURCE_UNSET if a source among `needed` was never written. */
static vlart_status_t check_sources(const vlart_session_t *session, uint64_t needed,
                                    vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  uint64_t unset = needed & ~session->sources.written;
  if (unset == 0) {
    return VLART_STATUS_OK;
  }
  uint32_t source = 0;
  while ((unset >> source & 1) == 0) {
    source++;
  }
  bool before = session->sources.versions[source] > 0;
  vlart_fail(diag, VLART_STATUS_SOURCE_UNSET,
             before ? "a source has no content of this episode yet" : "a source has no content yet",
             before ? "write it, then step: what it holds was seen in the last episode" : NULL);
  vlart_where(diag, "source %u \"%s\"", source,
              vlart_plan_value_name(plan, vlart_plan_source(plan, source)->value));
  vlart_why(diag, before ? "a stage depends on it and it was not written since the episode began"
                         : "a stage depends on it and it was never written");
  return VLART_STATUS_SOURCE_UNSET;
}

vlart_status_t vlart_session_observe(vlart_session_t *session, vlart_diag_t *diag) {
  if (session == NULL) {
    return vlart_bad_argument(diag, "vlart_session_observe", "the session is NULL");
  }
  vlart_written_take(session);
  vlart_follow_text(session);
  const vlart_plan_t *plan = &session->bundle->plan;
  uint64_t needed = plan->histories & session->sources.needed;
  vlart_status_t status = vlart_recorded_refusal_of(session, diag);
  if (status == VLART_STATUS_OK) {
    status = check_sources(session, needed, diag);
  }
  if (status == VLART_STATUS_OK) {
    status = vlart_sensors_fresh(&session->sensors, needed, diag);
  }
  if (status == VLART_STATUS_OK) {
    vlart_clock_limit_t clock =
        vlart_clock_start(session->recorded.replays ? 0 : plan->policy->deadline_us);
    status = observe_stages(session, &clock, diag);
    session->totals.deadline_misses += status == VLART_STATUS_DEADLINE_MISSED;
  }
  vlart_written_end(&session->written.writer);
  vlart_recorded_observe(session, status);
  vlart_recorded_replayed(&session->recorded);
  return status;
}

static vlart_status_t step(vlart_session_t *session, uint64_t deadline_us, vlart_diag_t *diag) {
  vlart_status_t status = vlart_lanes_take(session, diag);
  if (status == VLART_STATUS_OK) {
    status = vlart_recorded_refusal_of(session, diag);
  }
  if (status == VLART_STATUS_SOURCE_UNSET) {
    return status;
  }
  if (status != VLART_STATUS_OK) {
    vlart_queue_keep(session); /* what is left of the chunk is old, and may be handed out */
    return status;
  }
  vlart_follow_text(session);
  status = check_sources(session, session->sources.needed, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  status =
      vlart_sensors_fresh(&session->sensors, session->sources.needed & session->sources.own, diag);
  if (status != VLART_STATUS_OK) {
    vlart_queue_keep(session);
    return status;
  }
  vlart_clock_limit_t clock = vlart_clock_start(session->recorded.replays ? 0 : deadline_us);
  session->totals.steps++;
  status = run_stages(session, &clock, diag);
  if (status == VLART_STATUS_OK) {
    vlart_carried_commit(session, is_ours);
  }
  session->totals.last_step_ns = vlart_now_ns() - clock.began_ns;
  if (status == VLART_STATUS_DEADLINE_MISSED) {
    session->totals.deadline_misses++;
  } else if (session->totals.last_step_ns > clock.limit_ns) {
    session->totals.deadline_overruns++;
  }
  if (status != VLART_STATUS_OK && session->selection.action_stage != VLART_NONE &&
      !vlart_stage_is_current(session, session->selection.action_stage)) {
    vlart_queue_keep(session);
  }
  return status;
}

vlart_status_t vlart_session_step_deadline(vlart_session_t *session, uint64_t deadline_us,
                                           vlart_diag_t *diag) {
  if (session == NULL) {
    return vlart_bad_argument(diag, "vlart_session_step", "the session is NULL");
  }
  vlart_written_take(session);
  vlart_status_t status = step(session, deadline_us, diag);
  vlart_written_end(&session->written.writer);
  vlart_recorded_step(session, deadline_us, status);
  vlart_recorded_replayed(&session->recorded);
  return status;
}

vlart_status_t vlart_session_step(vlart_session_t *session, vlart_diag_t *diag) {
  uint64_t deadline_us = session == NULL ? 0 : session->bundle->plan.policy->deadline_us;
  return vlart_session_step_deadline(session, deadline_us, diag);
}

vlart_status_t vlart_session_invalidate(vlart_session_t *session) {
  if (session == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  for (uint32_t i = 0; i < session->bundle->plan.stage_count; i++) {
    session->stages[i].current = false;
  }
  vlart_end_task(session);
  vlart_realtime_reset(&session->realtime);
  vlart_queue_reset(session);
  vlart_recorded_call(session, VLART_EVENT_KIND_INVALIDATE, 0);
  return VLART_STATUS_OK;
}

vlart_status_t vlart_session_stats(const vlart_session_t *session, uint32_t stage,
                                   vlart_stage_stats_t *out_stats) {
  if (session == NULL || stage >= session->bundle->plan.stage_count) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  const vlart_stage_state_t *state = &session->stages[stage];
  vlart_stage_stats_t stats = {.runs = state->runs,
                               .iterations = state->iterations,
                               .last_ns = state->last_ns,
                               .total_ns = state->total_ns,
                               .min_ns = state->min_ns,
                               .max_ns = state->max_ns,
                               .last_iterations = state->last_iterations};
  return vlart_copy_out_since(out_stats, &stats, offsetof(vlart_stage_stats_t, last_iterations),
                              sizeof stats);
}

vlart_status_t vlart_session_totals(const vlart_session_t *session,
                                    vlart_session_totals_t *out_totals) {
  return session == NULL ? VLART_STATUS_BAD_ARGUMENT
                         : vlart_copy_out(out_totals, &session->totals, sizeof session->totals);
}
