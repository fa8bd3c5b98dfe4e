/* [open] Histories of a plan: which values are kept of earlier observations, and which stages must therefore
   run for every observation. */
#include <string.h>

#include "base/diag.h"
#include "plan/plan_check.h"

static bool same_shape(const vlart_value_record_t *a, const vlart_value_record_t *b) {
  return a->dtype == b->dtype && a->rank == b->rank &&
         memcmp(a->dims, b->dims, sizeof a->dims) == 0;
}

static vlart_status_t check_histories(vlart_plan_t *plan, vlart_diag_t *diag) {
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_HISTORIES); i++) {
    const vlart_history_record_t *history = vlart_plan_history(plan, i);
    if ((plan->histories >> history->source & 1) != 0 || history->frames < 2) {
      return vlart_corrupt(diag, "plan.bin", "histories", i,
                           "source %u comes twice, or %u frames are no history", history->source,
                           history->frames);
    }
    plan->histories |= 1ull << history->source;
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_plan_check_delays(vlart_plan_t *plan, vlart_diag_t *diag) {
  vlart_status_t status = check_histories(plan, diag);
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < plan->delay_count; i++) {
    const vlart_delay_record_t *delay = vlart_plan_delay(plan, i);
    const vlart_value_record_t *output = vlart_plan_value(plan, delay->output);
    if (!same_shape(vlart_plan_value(plan, delay->input), output)) {
      return vlart_corrupt(diag, "plan.bin", "delays", i,
                           "input and output differ in shape or element type");
    }
    if (output->storage != VLART_STORAGE_ARENA ||
        plan->writers[delay->output].origin != VLART_ORIGIN_NOBODY ||
        delay->input == delay->output) {
      return vlart_corrupt(diag, "plan.bin", "delays", i, "value %u has another writer",
                           delay->output);
    }
    vlart_writer_t input = plan->writers[delay->input];
    plan->delay_roots[i] =
        input.origin == VLART_ORIGIN_DELAY ? plan->delay_roots[input.index] : delay->input;
    plan->writers[delay->output] = (vlart_writer_t){VLART_ORIGIN_DELAY, i};
  }
  return status;
}

/* Which stages depend on an earlier observation, and which must run for every observation. */
static void find_stages(vlart_plan_t *plan) {
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    const vlart_stage_record_t *stage = vlart_plan_stage(plan, i);
    plan->looks_back[i] = 0;
    plan->observes[i] = 0;
    for (uint32_t k = 0; k < stage->input_count; k++) {
      uint32_t value = vlart_plan_binding(plan, stage->input_begin + k)->value;
      vlart_writer_t writer = plan->writers[value];
      plan->looks_back[i] |= writer.origin == VLART_ORIGIN_DELAY ||
                             (writer.origin == VLART_ORIGIN_STAGE && writer.index < i &&
                              plan->looks_back[writer.index]);
    }
  }
  for (uint32_t i = 0; i < plan->delay_count; i++) {
    vlart_writer_t writer = plan->writers[plan->delay_roots[i]];
    if (writer.origin == VLART_ORIGIN_STAGE) {
      plan->observes[writer.index] = 1;
    }
  }
  for (uint32_t i = plan->stage_count; i > 0; i--) {
    const vlart_stage_record_t *stage = vlart_plan_stage(plan, i - 1);
    for (uint32_t k = 0; plan->observes[i - 1] && k < stage->input_count; k++) {
      uint32_t value = vlart_plan_binding(plan, stage->input_begin + k)->value;
      vlart_writer_t writer = plan->writers[value];
      if (writer.origin == VLART_ORIGIN_STAGE && writer.index < i - 1) {
        plan->observes[writer.index] = 1;
      }
    }
  }
}

vlart_status_t vlart_plan_check_delay_flow(vlart_plan_t *plan, vlart_diag_t *diag) {
  find_stages(plan);
  for (uint32_t i = 0; i < plan->delay_count; i++) {
    vlart_writer_t writer = plan->writers[plan->delay_roots[i]];
    bool newest = writer.origin == VLART_ORIGIN_SOURCE
                      ? (plan->histories >> writer.index & 1) != 0
                      : writer.origin == VLART_ORIGIN_STAGE && !plan->looks_back[writer.index] &&
                            (plan->depends[writer.index] & ~plan->histories) == 0;
    if (!newest) {
      return vlart_corrupt(diag, "plan.bin", "delays", i,
                           "value %u does not depend on the newest observation alone",
                           plan->delay_roots[i]);
    }
  }
  plan->observing_stages = 0; /* index behind the last one */
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    plan->observing_stages = plan->observes[i] ? i + 1 : plan->observing_stages;
  }
  return VLART_STATUS_OK;
}
