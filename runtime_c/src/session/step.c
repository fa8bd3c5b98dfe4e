/* [tick] Runs the stages whose sources changed. Nothing else decides whether a stage runs. */
#include "base/clock.h"
#include "base/diag.h"
#include "base/struct_size.h"
#include "plan/plan_lanes.h"
#include "session/frame_history.h"
#include "session/graph_capture.h"
#include "session/session.h"

typedef struct {
  uint64_t began_ns;
  uint64_t limit_ns; /* from began_ns; UINT64_MAX: none */
} clock_limit_t;

static bool is_late(const clock_limit_t *clock) {
  return clock->limit_ns != UINT64_MAX && vlart_now_ns() - clock->began_ns > clock->limit_ns;
}

static bool is_cancelled(const vlart_session_t *session) {
  return session->cancel.epoch != NULL &&
         atomic_load_explicit(session->cancel.epoch, memory_order_acquire) !=
             session->cancel.allowed;
}

static vlart_status_t cancelled(const vlart_session_t *session, uint32_t stage,
                                vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_CANCELLED, "the step was cancelled", NULL);
  vlart_where(diag, "before stage \"%s\"", vlart_plan_stage_name(&session->bundle->plan, stage));
  vlart_why(diag, "another instruction came");
  return VLART_STATUS_CANCELLED;
}

static vlart_status_t missed(const vlart_session_t *session, uint32_t stage, uint32_t iteration,
                             const clock_limit_t *clock, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  vlart_fail(diag, VLART_STATUS_DEADLINE_MISSED, "the step ran out of time",
             "execute the stale chunk or stop; step again to finish what is missing");
  vlart_where(diag, "before stage \"%s\", iteration %u of %u", vlart_plan_stage_name(plan, stage),
              iteration, vlart_plan_stage(plan, stage)->iterations);
  vlart_why(diag, "%llu us have passed, the limit is %llu us",
            (unsigned long long)((vlart_now_ns() - clock->began_ns) / 1000),
            (unsigned long long)(clock->limit_ns / 1000));
  return VLART_STATUS_DEADLINE_MISSED;
}

static void mark_run(vlart_session_t *session, uint32_t index) {
  vlart_stage_made_current(session, index);
  session->stages[index].runs++;
  session->totals.stages_run++;
}

static void count_time(vlart_stage_state_t *state, uint64_t ns) {
  state->min_ns = state->total_ns == 0 || ns < state->min_ns ? ns : state->min_ns;
  state->last_ns = ns;
  state->total_ns += ns;
  state->max_ns = ns > state->max_ns ? ns : state->max_ns;
}

static vlart_status_t run_stage(vlart_session_t *session, uint32_t index,
                                const clock_limit_t *clock, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  const vlart_stage_record_t *stage = vlart_plan_stage(plan, index);
  vlart_stage_state_t *state = &session->stages[index];
  uint64_t began_ns = vlart_now_ns();
  state->current = false; /* a run that is cut leaves mixed outputs */
  for (uint32_t k = 0; k < stage->iterations; k++) {
    if (is_late(clock)) {
      return missed(session, index, k, clock, diag);
    }
    if (is_cancelled(session)) {
      return cancelled(session, index, diag);
    }
    state->readable = false;
    vlart_status_t status = state->backend->run(state->engine, k, diag);
    if (status != VLART_STATUS_OK) {
      session->totals.backend_failures++;
      return status;
    }
    state->iterations++;
  }
  mark_run(session, index);
  count_time(state, vlart_now_ns() - began_ns);
  return VLART_STATUS_OK;
}

/* Whether stage `index` begins the recorded stages, and all of them are due. */
static bool is_graph_due(const vlart_session_t *session, uint32_t index) {
  for (uint32_t i = session->graph.begin; i < session->graph.end; i++) {
    if (vlart_stage_is_current(session, i)) {
      return false;
    }
  }
  return session->graph.begin < session->graph.end && index == session->graph.begin;
}

static vlart_status_t launch_graph(vlart_session_t *session, const clock_limit_t *clock,
                                   vlart_diag_t *diag) {
  if (is_late(clock)) {
    return missed(session, session->graph.begin, 0, clock, diag);
  }
  vlart_status_t status = vlart_graph_launch(session, diag);
  if (status != VLART_STATUS_OK) {
    session->totals.backend_failures++;
    return status;
  }
  for (uint32_t i = session->graph.begin; i < session->graph.end; i++) {
    mark_run(session, i);
    session->stages[i].iterations += vlart_plan_stage(&session->bundle->plan, i)->iterations;
    session->stages[i].last_ns = 0; /* nobody measured it */
  }
  return VLART_STATUS_OK;
}

/* Brings one stage up to date, and what is delayed of it. */
static vlart_status_t pass_stage(vlart_session_t *session, uint32_t i, const clock_limit_t *clock,
                                 bool *out_ran, vlart_diag_t *diag) {
  vlart_status_t status = VLART_STATUS_OK;
  *out_ran = !vlart_stage_is_current(session, i);
  if (*out_ran) {
    status = run_stage(session, i, clock, diag);
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

static vlart_status_t observe_stages(vlart_session_t *session, const clock_limit_t *clock,
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

static vlart_status_t run_stages(vlart_session_t *session, const clock_limit_t *clock,
                                 vlart_diag_t *diag) {
  bool acts = session->selection.action_stage != VLART_NONE;
  bool published = false;
  begin_stages(session);
  if (acts && !vlart_stage_is_current(session, session->selection.action_stage)) {
    vlart_realtime_fill(session);
  }
  for (uint32_t i = 0; i < session->bundle->plan.stage_count; i++) {
    if (!is_ours(session, i)) {
      continue;
    }
    bool ran = is_graph_due(session, i);
    vlart_status_t status;
    if (ran) {
      status = launch_graph(session, clock, diag);
      i = session->graph.end - 1;
    } else {
      status = pass_stage(session, i, clock, &ran, diag);
    }
    if (!ran) {
      continue;
    }
    if (status == VLART_STATUS_OK && i == session->selection.action_stage) {
      status = vlart_queue_publish(session, diag);
      session->stages[i].current = status == VLART_STATUS_OK; /* a bad chunk is computed again */
      published = true;
    }
    if (status != VLART_STATUS_OK) {
      return status;
    }
  }
  if (!acts || published) {
    return VLART_STATUS_OK;
  }
  if (vlart_queue_outdated(session)) {
    vlart_status_t status = vlart_queue_publish(session, diag);
    session->stages[session->selection.action_stage].current = status == VLART_STATUS_OK;
    return status;
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
  vlart_fail(diag, VLART_STATUS_SOURCE_UNSET, "a source has no content yet", NULL);
  vlart_where(diag, "source %u \"%s\"", source,
              vlart_plan_value_name(plan, vlart_plan_source(plan, source)->value));
  vlart_why(diag, "a stage depends on it and it was never written");
  return VLART_STATUS_SOURCE_UNSET;
}

static clock_limit_t start_clock(uint64_t deadline_us) {
  bool limited = deadline_us > 0 && deadline_us < UINT64_MAX / 1000;
  return (clock_limit_t){vlart_now_ns(), limited ? deadline_us * 1000 : UINT64_MAX};
}

vlart_status_t vlart_session_observe(vlart_session_t *session, vlart_diag_t *diag) {
  if (session == NULL) {
    return vlart_bad_argument(diag, "vlart_session_observe", "the session is NULL");
  }
  const vlart_plan_t *plan = &session->bundle->plan;
  uint64_t needed = plan->histories & session->sources.needed;
  vlart_status_t status = check_sources(session, needed, diag);
  if (status == VLART_STATUS_OK) {
    status = vlart_sensors_fresh(&session->sensors, needed, diag);
  }
  if (status == VLART_STATUS_OK) {
    clock_limit_t clock = start_clock(plan->policy->deadline_us);
    status = observe_stages(session, &clock, diag);
    session->totals.deadline_misses += status == VLART_STATUS_DEADLINE_MISSED;
  }
  return status;
}

vlart_status_t vlart_session_step_deadline(vlart_session_t *session, uint64_t deadline_us,
                                           vlart_diag_t *diag) {
  if (session == NULL) {
    return vlart_bad_argument(diag, "vlart_session_step", "the session is NULL");
  }
  vlart_status_t status = vlart_lanes_take(session, diag);
  if (status != VLART_STATUS_OK) {
    vlart_queue_keep(session); /* what is left of the chunk is old, and may be handed out */
    return status;
  }
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
  clock_limit_t clock = start_clock(deadline_us);
  session->totals.steps++;
  status = run_stages(session, &clock, diag);
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
  vlart_queue_reset(session);
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
                               .max_ns = state->max_ns};
  return vlart_copy_out(out_stats, &stats, sizeof stats);
}

vlart_status_t vlart_session_totals(const vlart_session_t *session,
                                    vlart_session_totals_t *out_totals) {
  return session == NULL ? VLART_STATUS_BAD_ARGUMENT
                         : vlart_copy_out(out_totals, &session->totals, sizeof session->totals);
}
