/* [tick] Ends loops when the data says so. An engine writes the condition where the host reads it: stages exchange their
   values in memory that both reach. */
#include "session/loop_end.h"

#include <string.h>

#include "base/diag.h"
#include "session/bind_addresses.h"
#include "session/session.h"

static bool condition(const vlart_session_t *session, uint32_t stage, uint32_t iteration) {
  const vlart_plan_t *plan = &session->bundle->plan;
  const vlart_carry_record_t *carry = vlart_plan_carry(plan, plan->conditions[stage]);
  uint32_t value =
      vlart_carried_output(carry, iteration, vlart_plan_stage(plan, stage)->iterations);
  return *(const uint8_t *)session->values.at[value] != 0;
}

bool vlart_loop_is_over(const vlart_session_t *session, uint32_t stage, uint32_t iteration) {
  const vlart_plan_t *plan = &session->bundle->plan;
  return iteration + 1 == vlart_plan_stage(plan, stage)->iterations ||
         (plan->loop_ends[stage] != VLART_NONE && condition(session, stage, iteration));
}

vlart_status_t vlart_loop_finish(vlart_session_t *session, uint32_t stage, uint32_t iteration,
                                 vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  if (plan->loop_ends[stage] == VLART_NONE) {
    return VLART_STATUS_OK;
  }
  const vlart_stage_record_t *record = vlart_plan_stage(plan, stage);
  if (vlart_plan_loop_end(plan, plan->loop_ends[stage])->must_end != 0 &&
      !condition(session, stage, iteration)) {
    vlart_fail(diag, VLART_STATUS_LOOP_NOT_ENDED, "a loop that must end did not",
               "execute the stale chunk or stop; write a new observation, then step");
    vlart_where(diag, "stage \"%s\"", vlart_plan_stage_name(plan, stage));
    vlart_why(diag, "its condition was false after all %u iterations", record->iterations);
    return VLART_STATUS_LOOP_NOT_ENDED;
  }
  for (uint32_t i = 0; i < record->carry_count; i++) {
    const vlart_carry_record_t *carry = vlart_plan_carry(plan, record->carry_begin + i);
    uint32_t value = vlart_carried_output(carry, iteration, record->iterations);
    if (value != carry->result) {
      memcpy(session->values.at[carry->result], session->values.at[value],
             vlart_plan_value(plan, value)->bytes);
    }
  }
  return VLART_STATUS_OK;
}
