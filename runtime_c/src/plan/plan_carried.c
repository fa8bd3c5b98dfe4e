/* [open] Values that a step takes from the one before: where each comes from, and which stages run in every step for
   their sake. */
#include <string.h>

#include "base/diag.h"
#include "plan/plan_check.h"

static bool same_type(uint32_t dtype, uint32_t rank, const uint64_t *dims,
                      const vlart_value_record_t *value) {
  return dtype == value->dtype && rank == value->rank &&
         memcmp(dims, value->dims, sizeof value->dims) == 0;
}

static const char *carried_fault(const vlart_plan_t *plan, uint32_t index) {
  const vlart_carried_record_t *carried = vlart_plan_carried(plan, index);
  const vlart_value_record_t *value = vlart_plan_value(plan, carried->value);
  const vlart_value_record_t *next = vlart_plan_value(plan, carried->next);
  if (!same_type(next->dtype, next->rank, next->dims, value)) {
    return "value and next differ in shape or element type";
  }
  if (value->storage != VLART_STORAGE_ARENA || next->storage != VLART_STORAGE_ARENA ||
      plan->writers[carried->value].origin != VLART_ORIGIN_NOBODY) {
    return "its value has another writer, or it is constant";
  }
  if (carried->initial != VLART_NONE) {
    const vlart_weight_record_t *initial = vlart_plan_weight(plan, carried->initial);
    if (!same_type(initial->dtype, initial->rank, initial->dims, value)) {
      return "what it begins with differs in shape or element type";
    }
  }
  for (uint32_t i = 0; i < index; i++) {
    if (vlart_plan_carried(plan, i)->next == carried->next) {
      return "its next value is another one's";
    }
  }
  return NULL;
}

vlart_status_t vlart_plan_check_carried(vlart_plan_t *plan, vlart_diag_t *diag) {
  if (plan->carried_count > VLART_MAX_CARRIED) {
    vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "a plan carries too many values", NULL);
    vlart_where(diag, "plan.bin, carried");
    vlart_why(diag, "there are %u, this reader takes %u", plan->carried_count, VLART_MAX_CARRIED);
    return VLART_STATUS_UNSUPPORTED;
  }
  for (uint32_t i = 0; i < plan->carried_count; i++) {
    const char *fault = carried_fault(plan, i);
    if (fault != NULL) {
      return vlart_corrupt(diag, "plan.bin", "carried", i, "%s", fault);
    }
    plan->writers[vlart_plan_carried(plan, i)->value] = (vlart_writer_t){VLART_ORIGIN_CARRIED, i};
  }
  return VLART_STATUS_OK;
}

/* Whether a binding's value lies in another place in every other step. */
static bool alternates(const vlart_plan_t *plan, uint32_t value) {
  for (uint32_t i = 0; i < plan->carried_count; i++) {
    const vlart_carried_record_t *carried = vlart_plan_carried(plan, i);
    if (carried->value == value || carried->next == value) {
      return true;
    }
  }
  return false;
}

static void find_stages(vlart_plan_t *plan) {
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    const vlart_stage_record_t *stage = vlart_plan_stage(plan, i);
    plan->continues[i] = 0;
    plan->places[i] = 1;
    for (uint32_t k = 0; plan->carried_count > 0 && k < stage->input_count; k++) {
      uint32_t value = vlart_plan_binding(plan, stage->input_begin + k)->value;
      vlart_writer_t writer = plan->writers[value];
      plan->continues[i] |= writer.origin == VLART_ORIGIN_CARRIED ||
                            (writer.origin == VLART_ORIGIN_STAGE && writer.index < i &&
                             plan->continues[writer.index]);
      plan->places[i] = alternates(plan, value) ? 2 : plan->places[i];
    }
    for (uint32_t k = 0; plan->carried_count > 0 && k < stage->output_count; k++) {
      uint32_t value = vlart_plan_binding(plan, stage->output_begin + k)->value;
      plan->places[i] = alternates(plan, value) ? 2 : plan->places[i];
    }
  }
}

vlart_status_t vlart_plan_check_carried_flow(vlart_plan_t *plan, vlart_diag_t *diag) {
  find_stages(plan);
  for (uint32_t i = 0; i < plan->carried_count; i++) {
    const vlart_carried_record_t *carried = vlart_plan_carried(plan, i);
    vlart_writer_t writer = plan->writers[carried->next];
    if (writer.origin != VLART_ORIGIN_STAGE || !plan->continues[writer.index]) {
      return vlart_corrupt(diag, "plan.bin", "carried", i,
                           "value %u is not made anew by every step", carried->next);
    }
  }
  for (uint32_t i = 0; i < plan->delay_count; i++) {
    vlart_writer_t writer = plan->writers[plan->delay_roots[i]];
    if (writer.origin == VLART_ORIGIN_CARRIED ||
        (writer.origin == VLART_ORIGIN_STAGE && plan->continues[writer.index])) {
      return vlart_corrupt(diag, "plan.bin", "delays", i, "it depends on a carried value");
    }
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_plan_check_carried_lanes(const vlart_plan_t *plan, vlart_diag_t *diag) {
  for (uint32_t i = 0; plan->lane_count > 0 && i < plan->stage_count; i++) {
    if (plan->continues[i] && plan->lanes[i] != plan->lane_count) {
      return vlart_corrupt(diag, "plan.bin", "stages", i,
                           "it depends on a carried value, and is a lane's");
    }
  }
  return VLART_STATUS_OK;
}
