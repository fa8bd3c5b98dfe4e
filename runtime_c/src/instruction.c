/* Instructions compiled in advance: their token ids, and what the stages make of them that depend on
   nothing else, lie among the weights and are looked up by text. */
#include "instruction.h"

#include <string.h>

#include "diag.h"

static const vlart_stored_record_t *stored_of(const vlart_plan_t *plan,
                                              const vlart_instruction_record_t *row, uint32_t i) {
  return vlart_plan_stored(plan, row->stored_begin + i);
}

/* Sources that are stored with an instruction. */
static uint64_t own_sources(const vlart_plan_t *plan, const vlart_instruction_record_t *row) {
  uint64_t own = 0;
  for (uint32_t i = 0; i < row->stored_count; i++) {
    vlart_writer_t writer = plan->writers[stored_of(plan, row, i)->value];
    own |= writer.origin == VLART_ORIGIN_SOURCE ? 1ull << writer.index : 0;
  }
  return own;
}

static bool is_covered(const vlart_plan_t *plan, uint32_t stage, uint64_t own) {
  return plan->depends[stage] != 0 && (plan->depends[stage] & ~own) == 0;
}

uint32_t vlart_instruction_stored(const vlart_plan_t *plan, uint32_t instruction, uint32_t value) {
  const vlart_instruction_record_t *row = vlart_plan_instruction(plan, instruction);
  for (uint32_t i = 0; i < row->stored_count; i++) {
    if (stored_of(plan, row, i)->value == value) {
      return stored_of(plan, row, i)->weight;
    }
  }
  return VLART_NONE;
}

static const char *stored_fault(const vlart_plan_t *plan, const vlart_stored_record_t *stored) {
  if (stored->value >= plan->value_count || stored->weight >= plan->weight_count) {
    return "a value or weight does not exist";
  }
  uint32_t origin = plan->writers[stored->value].origin;
  const vlart_value_record_t *value = vlart_plan_value(plan, stored->value);
  const vlart_weight_record_t *weight = vlart_plan_weight(plan, stored->weight);
  if (origin != VLART_ORIGIN_SOURCE && origin != VLART_ORIGIN_STAGE) {
    return "a value is of no source and no stage";
  }
  return weight->dtype == value->dtype && weight->rank == value->rank &&
                 memcmp(weight->dims, value->dims, sizeof value->dims) == 0
             ? NULL
             : "a value has another shape than its weight";
}

static const char *instruction_fault(const vlart_plan_t *plan, uint32_t index) {
  const vlart_instruction_record_t *row = vlart_plan_instruction(plan, index);
  uint32_t available = vlart_plan_count(plan, VLART_SECTION_STORED);
  const char *fault = vlart_string_fault(&plan->file, row->text);
  if (fault != NULL) {
    return fault;
  }
  if (row->stored_begin > available || row->stored_count > available - row->stored_begin) {
    return "its values do not exist";
  }
  for (uint32_t i = 0; fault == NULL && i < row->stored_count; i++) {
    fault = stored_fault(plan, stored_of(plan, row, i));
  }
  if (fault != NULL) {
    return fault;
  }
  uint64_t own = own_sources(plan, row);
  if (row->source >= plan->source_count || (own >> row->source & 1) == 0 || (own & plan->histories) != 0) {
    return "its source is not stored, or has a history";
  }
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    const vlart_stage_record_t *stage = vlart_plan_stage(plan, i);
    for (uint32_t k = 0; k < stage->output_count; k++) {
      uint32_t value = vlart_plan_binding(plan, stage->output_begin + k)->value;
      bool has = vlart_instruction_stored(plan, index, value) != VLART_NONE;
      if (has != is_covered(plan, i, own)) {
        return has ? "a stage depends on more than what is stored" : "an output of a stage is missing";
      }
    }
    if (stage->backend == VLART_BACKEND_LIBRARY && !is_covered(plan, i, own)) {
      return "a stage without an engine depends on more than what is stored";
    }
  }
  return NULL;
}

/* A stage without an engine is looked up whole, by everything that it reads. */
static const char *lookup_fault(const vlart_plan_t *plan, const vlart_stage_record_t *stage) {
  if (vlart_plan_count(plan, VLART_SECTION_INSTRUCTIONS) == 0) {
    return "it has no engine, and there are no instructions";
  }
  if (stage->iterations != 1 || stage->carry_count > 0 || stage->initializer_count > 0) {
    return "it has no engine, and is a loop or has weights";
  }
  for (uint32_t k = 0; k < stage->input_count + stage->output_count; k++) {
    uint32_t index = k < stage->input_count ? stage->input_begin + k
                                            : stage->output_begin + (k - stage->input_count);
    const vlart_binding_record_t *binding = vlart_plan_binding(plan, index);
    if (binding->mode != VLART_BINDING_MODE_WHOLE ||
        (plan->writers[binding->value].origin != VLART_ORIGIN_WEIGHT &&
         vlart_instruction_stored(plan, 0, binding->value) == VLART_NONE)) {
      return "it has no engine, and what it reads or writes is not stored";
    }
  }
  return NULL;
}

vlart_status_t vlart_plan_check_instructions(const vlart_plan_t *plan, vlart_diag_t *diag) {
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_INSTRUCTIONS); i++) {
    const char *fault = instruction_fault(plan, i);
    if (fault != NULL) {
      return vlart_corrupt(diag, "plan.bin", "instructions", i, "%s", fault);
    }
  }
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    const vlart_stage_record_t *stage = vlart_plan_stage(plan, i);
    const char *fault = stage->backend == VLART_BACKEND_LIBRARY ? lookup_fault(plan, stage) : NULL;
    if (fault != NULL) {
      return vlart_corrupt(diag, "plan.bin", "stages", i, "%s", fault);
    }
  }
  return VLART_STATUS_OK;
}

uint32_t vlart_instruction_find(const vlart_plan_t *plan, uint32_t source, const char *text,
                                size_t bytes) {
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_INSTRUCTIONS); i++) {
    const vlart_instruction_record_t *row = vlart_plan_instruction(plan, i);
    const char *known = vlart_plan_string(plan, row->text);
    if (row->source == source && strlen(known) == bytes &&
        (bytes == 0 || memcmp(known, text, bytes) == 0)) {
      return i;
    }
  }
  return VLART_NONE;
}

void vlart_instruction_names(const vlart_plan_t *plan, uint32_t source, char *out, size_t capacity) {
  size_t used = 0;
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_INSTRUCTIONS); i++) {
    const vlart_instruction_record_t *row = vlart_plan_instruction(plan, i);
    const char *known = vlart_plan_string(plan, row->text);
    size_t length = strlen(known);
    if (row->source == source && length + 5 < capacity - used) {
      out[used++] = '"';
      memcpy(out + used, known, length);
      used += length;
      memcpy(out + used, "\" ", 2);
      used += 2;
    }
  }
  out[used > 0 ? used - 1 : 0] = '\0';
}

vlart_status_t vlart_instruction_apply(vlart_session_t *session, uint32_t instruction,
                                       vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  const vlart_instruction_record_t *row = vlart_plan_instruction(plan, instruction);
  for (uint32_t i = 0; i < row->stored_count; i++) {
    const vlart_stored_record_t *stored = stored_of(plan, row, i);
    vlart_writer_t writer = plan->writers[stored->value];
    const vlart_value_record_t *value = vlart_plan_value(plan, stored->value);
    if (writer.origin == VLART_ORIGIN_SOURCE) {
      vlart_status_t status = vlart_session_write(
          session, writer.index, vlart_bundle_weight(session->bundle, stored->weight), value->bytes,
          value->dtype, value->rank, value->dims, diag);
      if (status != VLART_STATUS_OK) {
        return status;
      }
    }
  }
  uint64_t own = own_sources(plan, row);
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    if (!is_covered(plan, i, own) || i == session->action_stage || vlart_stage_is_current(session, i)) {
      continue;
    }
    for (uint32_t k = 0; k < row->stored_count; k++) {
      const vlart_stored_record_t *stored = stored_of(plan, row, k);
      vlart_writer_t writer = plan->writers[stored->value];
      size_t bytes = vlart_plan_value(plan, stored->value)->bytes;
      if (writer.origin == VLART_ORIGIN_STAGE && writer.index == i && bytes > 0) {
        memcpy(session->data[stored->value], vlart_bundle_weight(session->bundle, stored->weight), bytes);
      }
    }
    vlart_stage_made_current(session, i);
  }
  return VLART_STATUS_OK;
}
