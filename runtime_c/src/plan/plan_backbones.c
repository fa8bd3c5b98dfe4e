/* [open] Backbones of a plan: which stage serves which follows from what reads what. */
#include <string.h>

#include "base/diag.h"
#include "plan/plan_check.h"

static bool is_alike(const vlart_value_record_t *a, const vlart_value_record_t *b) {
  return a->dtype == b->dtype && a->rank == b->rank &&
         memcmp(a->dims, b->dims, sizeof a->dims) == 0;
}

static const char *chunk_fault(const vlart_plan_t *plan, uint32_t index) {
  const vlart_chunk_record_t *chunk = vlart_plan_chunk(plan, index);
  if (plan->writers[chunk->value].origin != VLART_ORIGIN_STAGE ||
      !is_alike(vlart_plan_value(plan, chunk->value),
                vlart_plan_value(plan, plan->policy->action_value))) {
    return "its value is no stage's, or is not of the action value's type";
  }
  for (uint32_t i = 0; i < index; i++) {
    const vlart_chunk_record_t *other = vlart_plan_chunk(plan, i);
    if (other->value == chunk->value || strcmp(vlart_plan_string(plan, other->backbone),
                                               vlart_plan_string(plan, chunk->backbone)) == 0) {
      return "its name or its value is another one's";
    }
  }
  return index > 0 || chunk->value == plan->policy->action_value
             ? NULL
             : "the first is not the action value";
}

static void serve(const vlart_plan_t *plan, uint32_t value, uint32_t backbones) {
  vlart_writer_t writer = plan->writers[value];
  if (writer.origin == VLART_ORIGIN_STAGE) {
    plan->serves[writer.index] |= backbones;
  }
}

/* The backbones of the stages that read a value. */
static uint32_t readers_of(const vlart_plan_t *plan, uint32_t value) {
  uint32_t backbones = 0;
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    const vlart_stage_record_t *stage = vlart_plan_stage(plan, i);
    for (uint32_t b = 0; b < stage->input_count; b++) {
      bool reads = vlart_plan_binding(plan, stage->input_begin + b)->value == value;
      backbones |= reads ? plan->serves[i] : 0;
    }
  }
  return backbones;
}

/* Whoever reads a carried value needs in the step before what makes it: an edge against the order of the stages. */
static bool spread_carried(const vlart_plan_t *plan) {
  bool changed = false;
  for (uint32_t i = 0; i < plan->carried_count; i++) {
    const vlart_carried_record_t *carried = vlart_plan_carried(plan, i);
    uint32_t backbones = readers_of(plan, carried->value);
    uint32_t maker = plan->writers[carried->next].index;
    changed = changed || (backbones & ~plan->serves[maker]) != 0;
    plan->serves[maker] |= backbones;
  }
  return changed;
}

/* Readers follow writers, but for delays: what is delayed runs for every observation, whoever reads it. rest: also
   stages that serve none. */
static void spread(const vlart_plan_t *plan, bool rest) {
  for (uint32_t i = plan->stage_count; i-- > 0;) {
    const vlart_stage_record_t *stage = vlart_plan_stage(plan, i);
    if (rest && (plan->serves[i] == 0 || plan->observes[i])) {
      plan->serves[i] = VLART_ALL_BACKBONES; /* an output that is no action, or a history */
    }
    for (uint32_t b = 0; b < stage->input_count; b++) {
      serve(plan, vlart_plan_binding(plan, stage->input_begin + b)->value, plan->serves[i]);
    }
    for (uint32_t c = 0; c < stage->carry_count; c++) {
      serve(plan, vlart_plan_carry(plan, stage->carry_begin + c)->initial, plan->serves[i]);
    }
  }
}

vlart_status_t vlart_plan_check_backbones(vlart_plan_t *plan, vlart_diag_t *diag) {
  uint32_t count = vlart_plan_count(plan, VLART_SECTION_CHUNKS);
  plan->backbone_count = count;
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    plan->serves[i] = count == 0 ? VLART_ALL_BACKBONES : 0;
  }
  if (count == 0) {
    return VLART_STATUS_OK;
  }
  if (count > VLART_MAX_BACKBONES) {
    vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "a plan has too many backbones", NULL);
    vlart_where(diag, "plan.bin, chunks");
    vlart_why(diag, "there are %u, this reader takes %u", count, VLART_MAX_BACKBONES);
    return VLART_STATUS_UNSUPPORTED;
  }
  bool fills = plan->consumption != NULL && plan->consumption->chunk != VLART_NONE;
  if (count == 1 || plan->policy->action_value == VLART_NONE || fills ||
      vlart_plan_count(plan, VLART_SECTION_LANES) > 0) {
    return vlart_corrupt(diag, "plan.bin", "chunks", 0,
                         "one backbone alone, or beside no action, lanes or a previous chunk");
  }
  for (uint32_t i = 0; i < count; i++) {
    const char *fault = chunk_fault(plan, i);
    if (fault != NULL) {
      return vlart_corrupt(diag, "plan.bin", "chunks", i, "%s", fault);
    }
    serve(plan, vlart_plan_chunk(plan, i)->value, 1u << i);
  }
  do {
    spread(plan, false);
  } while (spread_carried(plan));
  do {
    spread(plan, true);
  } while (spread_carried(plan));
  return VLART_STATUS_OK;
}
