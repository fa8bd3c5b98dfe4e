/* [tick] Runs a stage, iteration by iteration, within the step's time. */
#include "session/run_stage.h"

#include "base/clock.h"
#include "base/diag.h"
#include "session/loop_end.h"
#include "session/session.h"

vlart_clock_limit_t vlart_clock_start(uint64_t deadline_us) {
  bool limited = deadline_us > 0 && deadline_us < UINT64_MAX / 1000;
  return (vlart_clock_limit_t){vlart_now_ns(), limited ? deadline_us * 1000 : UINT64_MAX};
}

bool vlart_clock_is_late(const vlart_clock_limit_t *clock) {
  return clock->limit_ns != UINT64_MAX && vlart_now_ns() - clock->began_ns > clock->limit_ns;
}

static bool is_cancelled(const vlart_session_t *session) {
  return session->cancel.epoch != NULL && !session->recorded.replays &&
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

vlart_status_t vlart_clock_missed(const vlart_session_t *session, uint32_t stage,
                                  uint32_t iteration, const vlart_clock_limit_t *clock,
                                  vlart_diag_t *diag) {
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

void vlart_stage_mark_run(vlart_session_t *session, uint32_t index) {
  vlart_stage_made_current(session, index);
  session->stages[index].runs++;
}

static void count_time(vlart_stage_state_t *state, uint64_t ns) {
  state->min_ns = state->total_ns == 0 || ns < state->min_ns ? ns : state->min_ns;
  state->last_ns = ns;
  state->total_ns += ns;
  state->max_ns = ns > state->max_ns ? ns : state->max_ns;
}

vlart_status_t vlart_stage_run(vlart_session_t *session, uint32_t index,
                               const vlart_clock_limit_t *clock, bool *out_refused,
                               vlart_diag_t *diag) {
  *out_refused = false;
  vlart_stage_state_t *state = &session->stages[index];
  uint64_t began_ns = vlart_now_ns();
  state->current = false; /* a run that is cut leaves mixed outputs */
  uint32_t k = 0;
  if (vlart_recorded_stops(&session->recorded, index)) {
    return vlart_recorded_stop(session, index, diag);
  }
  for (;; k++) {
    if (vlart_clock_is_late(clock)) {
      return vlart_clock_missed(session, index, k, clock, diag);
    }
    if (is_cancelled(session)) {
      return cancelled(session, index, diag);
    }
    state->readable = false;
    vlart_status_t ran =
        state->backend->run(state->engine, vlart_carried_addresses(session, index, k), diag);
    if (ran != VLART_STATUS_OK) {
      *out_refused = true;
      return ran;
    }
    state->iterations++;
    if (vlart_loop_is_over(session, index, k)) {
      break;
    }
  }
  vlart_status_t status = vlart_loop_finish(session, index, k, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  state->last_iterations = k + 1;
  vlart_stage_mark_run(session, index);
  count_time(state, vlart_now_ns() - began_ns);
  return VLART_STATUS_OK;
}
