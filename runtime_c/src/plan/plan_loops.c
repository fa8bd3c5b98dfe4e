/* [open] Checks which loops the data ends: that each has a condition that it carries, and no output that an iteration
   left out would have written. */
#include "base/diag.h"
#include "plan/plan_check.h"

/* The carry of a stage with this result; VLART_NONE if there is none. */
static uint32_t find_carry(const vlart_plan_t *plan, const vlart_stage_record_t *stage,
                           uint32_t result) {
  for (uint32_t i = 0; i < stage->carry_count; i++) {
    if (vlart_plan_carry(plan, stage->carry_begin + i)->result == result) {
      return stage->carry_begin + i;
    }
  }
  return VLART_NONE;
}

static bool has_rows(const vlart_plan_t *plan, const vlart_stage_record_t *stage) {
  for (uint32_t i = 0; i < stage->output_count; i++) {
    if (vlart_plan_binding(plan, stage->output_begin + i)->mode == VLART_BINDING_MODE_ROW) {
      return true;
    }
  }
  return false;
}

vlart_status_t vlart_plan_check_loops(vlart_plan_t *plan, vlart_diag_t *diag) {
  uint32_t next = 0;
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    plan->loop_ends[i] = VLART_NONE;
    plan->conditions[i] = VLART_NONE;
  }
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_LOOP_ENDS); i++) {
    const vlart_loop_end_record_t *end = vlart_plan_loop_end(plan, i);
    if (end->stage < next) {
      return vlart_corrupt(diag, "plan.bin", "loop_ends", i, "stage %u comes twice or too late",
                           end->stage);
    }
    next = end->stage + 1;
    const vlart_stage_record_t *stage = vlart_plan_stage(plan, end->stage);
    const vlart_value_record_t *value = vlart_plan_value(plan, end->condition);
    uint32_t carry = find_carry(plan, stage, end->condition);
    if (carry == VLART_NONE || value->dtype != VLART_DTYPE_BOOL || value->bytes != 1) {
      return vlart_corrupt(diag, "plan.bin", "loop_ends", i,
                           "value %u is not one bool that stage %u carries", end->condition,
                           end->stage);
    }
    if (has_rows(plan, stage)) {
      return vlart_corrupt(diag, "plan.bin", "loop_ends", i,
                           "stage %u writes a row in every iteration, also in those behind its end",
                           end->stage);
    }
    plan->loop_ends[end->stage] = i;
    plan->conditions[end->stage] = carry;
  }
  return VLART_STATUS_OK;
}
