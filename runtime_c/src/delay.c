/* Histories: the checks of delays at [open], and at [tick] how values of earlier observations move.
   An observation begins with the first write to a history source after the one before was encoded:
   then every delayed value takes what its input holds. It is encoded once the stages that feed
   delays ran. */
#include <string.h>

#include "diag.h"
#include "session.h"

static bool same_shape(const vlart_value_record_t *a, const vlart_value_record_t *b) {
  return a->dtype == b->dtype && a->rank == b->rank &&
         memcmp(a->dims, b->dims, sizeof a->dims) == 0;
}

static vlart_status_t check_histories(vlart_plan_t *plan, vlart_diag_t *diag) {
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_HISTORIES); i++) {
    const vlart_history_record_t *history = vlart_plan_history(plan, i);
    if (history->source >= plan->source_count || (plan->histories >> history->source & 1) != 0 ||
        history->frames < 2) {
      return vlart_corrupt(diag, "plan.bin", "histories", i,
                           "source %u does not exist or comes twice, or %u frames are no history",
                           history->source, history->frames);
    }
    plan->histories |= 1ull << history->source;
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_plan_check_delays(vlart_plan_t *plan, vlart_diag_t *diag) {
  vlart_status_t status = check_histories(plan, diag);
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < plan->delay_count; i++) {
    const vlart_delay_record_t *delay = vlart_plan_delay(plan, i);
    if (delay->input >= plan->value_count || delay->output >= plan->value_count) {
      return vlart_corrupt(diag, "plan.bin", "delays", i, "a value does not exist");
    }
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
    plan->delay_roots[i] = input.origin == VLART_ORIGIN_DELAY ? plan->delay_roots[input.index]
                                                              : delay->input;
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

static void move_on(vlart_session_t *session, uint32_t index) {
  const vlart_plan_t *plan = &session->bundle->plan;
  const vlart_delay_record_t *delay = vlart_plan_delay(plan, index);
  uint64_t bytes = vlart_plan_value(plan, delay->output)->bytes;
  if (bytes > 0) {
    memcpy(session->data[delay->output], session->data[delay->input], bytes);
  }
}

void vlart_history_advance(vlart_session_t *session) {
  if (!session->observed) {
    return; /* nothing is kept yet, or the one before was never encoded: this one replaces it */
  }
  for (uint32_t i = session->bundle->plan.delay_count; i > 0; i--) { /* ends of chains first */
    move_on(session, i - 1);
  }
  session->advances++;
  session->observed = false;
}

void vlart_history_fill(vlart_session_t *session, vlart_origin_t origin, uint32_t index) {
  const vlart_plan_t *plan = &session->bundle->plan;
  for (uint32_t i = 0; !session->filled && i < plan->delay_count; i++) {
    vlart_writer_t writer = plan->writers[plan->delay_roots[i]];
    if (writer.origin == origin && (origin == VLART_ORIGIN_SOURCE || writer.index == index)) {
      move_on(session, i);
    }
  }
}

void vlart_history_passed(vlart_session_t *session, uint32_t stages) {
  if (stages >= session->bundle->plan.observing_stages) {
    session->observed = true;
    session->filled = true;
  }
}

vlart_status_t vlart_session_reset(vlart_session_t *session) {
  if (session == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  session->advances++;
  session->observed = false;
  session->filled = false;
  session->queue.remaining = 0;
  return VLART_STATUS_OK;
}
