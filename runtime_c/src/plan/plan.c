
#include "plan/plan.h"

#include "base/diag.h"

vlart_status_t vlart_plan_read(const uint8_t *data, size_t bytes, vlart_diag_t *diag,
                               vlart_plan_t *out_plan) {
  *out_plan = (vlart_plan_t){0};
  if (bytes > VLART_MAX_PLAN_BYTES) {
    vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "the plan is too large", NULL);
    vlart_where(diag, "plan.bin");
    vlart_why(diag, "it has %zu bytes, this reader takes %u", bytes, VLART_MAX_PLAN_BYTES);
    return VLART_STATUS_UNSUPPORTED;
  }
  vlart_status_t status =
      vlart_container_open(data, bytes, VLART_PLAN_MAGIC, "plan.bin", diag, &out_plan->file);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  uint32_t policies = vlart_plan_count(out_plan, VLART_SECTION_POLICY);
  if (policies != 1) {
    return vlart_corrupt(diag, "plan.bin", "policy", 0, "there are %u records instead of 1",
                         policies);
  }
  out_plan->policy = vlart_record(&out_plan->file.tables[VLART_SECTION_POLICY], 0);
  out_plan->file_count = vlart_plan_count(out_plan, VLART_SECTION_FILES);
  out_plan->value_count = vlart_plan_count(out_plan, VLART_SECTION_VALUES);
  out_plan->source_count = vlart_plan_count(out_plan, VLART_SECTION_SOURCES);
  out_plan->weight_count = vlart_plan_count(out_plan, VLART_SECTION_WEIGHTS);
  out_plan->stage_count = vlart_plan_count(out_plan, VLART_SECTION_STAGES);
  out_plan->carried_count = vlart_plan_count(out_plan, VLART_SECTION_CARRIED);
  out_plan->delay_count = vlart_plan_count(out_plan, VLART_SECTION_DELAYS);
  return VLART_STATUS_OK;
}

static uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

void vlart_plan_take(vlart_plan_t *plan, vlart_arena_t *arena) {
  uint32_t most = larger(larger(plan->file_count, plan->value_count),
                         larger(plan->weight_count, plan->stage_count));
  uint32_t bindings = vlart_plan_count(plan, VLART_SECTION_BINDINGS);
  plan->writers = vlart_arena_take(arena, plan->value_count, sizeof *plan->writers);
  plan->names = vlart_arena_take(arena, plan->value_count, sizeof *plan->names);
  plan->depends = vlart_arena_take(arena, plan->stage_count, sizeof *plan->depends);
  plan->delay_roots = vlart_arena_take(arena, plan->delay_count, sizeof *plan->delay_roots);
  plan->looks_back = vlart_arena_take(arena, plan->stage_count, sizeof *plan->looks_back);
  plan->observes = vlart_arena_take(arena, plan->stage_count, sizeof *plan->observes);
  plan->continues = vlart_arena_take(arena, plan->stage_count, sizeof *plan->continues);
  plan->places = vlart_arena_take(arena, plan->stage_count, sizeof *plan->places);
  plan->lanes = vlart_arena_take(arena, plan->stage_count, sizeof *plan->lanes);
  plan->loop_ends = vlart_arena_take(arena, plan->stage_count, sizeof *plan->loop_ends);
  plan->conditions = vlart_arena_take(arena, plan->stage_count, sizeof *plan->conditions);
  plan->serves = vlart_arena_take(arena, plan->stage_count, sizeof *plan->serves);
  plan->order = vlart_arena_take(arena, most, sizeof *plan->order);
  plan->binding_seen = vlart_arena_take(arena, bindings, sizeof *plan->binding_seen);
}
