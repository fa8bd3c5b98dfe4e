/* Instructions compiled in advance: the rules of their records, and finding one by its text. Their token
   ids, and what the stages make of them that depend on nothing else, lie among the weights. */

#include "plan/plan_instructions.h"

#include <string.h>

#include "base/diag.h"
#include "plan/plan_check.h"

const vlart_stored_record_t *vlart_instruction_value(const vlart_plan_t *plan,
                                                     const vlart_instruction_record_t *row,
                                                     uint32_t i) {
  return vlart_plan_stored(plan, row->stored_begin + i);
}

uint64_t vlart_instruction_sources(const vlart_plan_t *plan,
                                   const vlart_instruction_record_t *row) {
  uint64_t own = 0;
  for (uint32_t i = 0; i < row->stored_count; i++) {
    vlart_writer_t writer = plan->writers[vlart_instruction_value(plan, row, i)->value];
    own |= writer.origin == VLART_ORIGIN_SOURCE ? 1ull << writer.index : 0;
  }
  return own;
}

bool vlart_instruction_covers(const vlart_plan_t *plan, uint32_t stage, uint64_t own) {
  return plan->depends[stage] != 0 && (plan->depends[stage] & ~own) == 0 && !plan->continues[stage];
}

uint32_t vlart_instruction_weight(const vlart_plan_t *plan, uint32_t instruction, uint32_t value) {
  const vlart_instruction_record_t *row = vlart_plan_instruction(plan, instruction);
  for (uint32_t i = 0; i < row->stored_count; i++) {
    if (vlart_instruction_value(plan, row, i)->value == value) {
      return vlart_instruction_value(plan, row, i)->weight;
    }
  }
  return VLART_NONE;
}

static const char *stored_fault(const vlart_plan_t *plan, const vlart_stored_record_t *stored) {
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

/* What the instructions of one source must store, which depends on the sources among it alone. */
typedef struct {
  uint64_t own;     /* the sources; 0: not known yet */
  uint32_t outputs; /* of stages that depend on nothing else */
} stored_set_t;

static const char *find_set(const vlart_plan_t *plan, uint64_t own, stored_set_t *out_set) {
  *out_set = (stored_set_t){.own = own};
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    const vlart_stage_record_t *stage = vlart_plan_stage(plan, i);
    bool covered = vlart_instruction_covers(plan, i, own);
    if (stage->backend == VLART_BACKEND_LIBRARY && !covered) {
      return "a stage without an engine depends on more than what is stored";
    }
    out_set->outputs += covered ? stage->output_count : 0;
  }
  return NULL;
}

/* Marks what an instruction stores with its number, from 1. */
static const char *mark_stored(const vlart_plan_t *plan, uint32_t index, uint64_t own,
                               uint32_t *out_outputs) {
  const vlart_instruction_record_t *row = vlart_plan_instruction(plan, index);
  *out_outputs = 0;
  for (uint32_t i = 0; i < row->stored_count; i++) {
    const vlart_stored_record_t *stored = vlart_instruction_value(plan, row, i);
    vlart_writer_t writer = plan->writers[stored->value];
    const char *fault = stored_fault(plan, stored);
    if (fault != NULL) {
      return fault;
    }
    if (plan->order[stored->value] == index + 1) {
      return "a value is stored twice";
    }
    plan->order[stored->value] = index + 1;
    if (writer.origin == VLART_ORIGIN_STAGE) {
      if (!vlart_instruction_covers(plan, writer.index, own)) {
        return "a stage depends on more than what is stored";
      }
      *out_outputs += 1;
    }
  }
  return NULL;
}

/* `begin`: where the last instruction's values end. Values of two instructions are two, so that all of them are
   checked in the time that reading them takes. */
static const char *instruction_fault(const vlart_plan_t *plan, uint32_t index, uint32_t begin,
                                     stored_set_t *sets) {
  const vlart_instruction_record_t *row = vlart_plan_instruction(plan, index);
  if (row->stored_count > 0 && row->stored_begin < begin) {
    return "its values are another instruction's";
  }
  uint64_t own = vlart_instruction_sources(plan, row);
  if ((own >> row->source & 1) == 0 || (own & plan->histories) != 0) {
    return "its source is not stored, or has a history";
  }
  stored_set_t *set = &sets[row->source];
  if (set->own != 0 && set->own != own) {
    return "it stores other sources than an earlier one for its source";
  }
  const char *fault = set->own == 0 ? find_set(plan, own, set) : NULL;
  uint32_t outputs = 0;
  if (fault == NULL) fault = mark_stored(plan, index, own, &outputs);
  return fault == NULL && outputs != set->outputs ? "an output of a stage is missing" : fault;
}

/* A stage without an engine is looked up whole, by everything that it reads. What the first instruction
   stores is marked. */
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
         plan->order[binding->value] != 1)) {
      return "it has no engine, and what it reads or writes is not stored";
    }
  }
  return NULL;
}

static vlart_status_t check_lookups(const vlart_plan_t *plan, vlart_diag_t *diag) {
  memset(plan->order, 0, plan->value_count * sizeof *plan->order);
  uint32_t none;
  if (vlart_plan_count(plan, VLART_SECTION_INSTRUCTIONS) > 0) {
    mark_stored(plan, 0, UINT64_MAX, &none);
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

vlart_status_t vlart_plan_check_instructions(const vlart_plan_t *plan, vlart_diag_t *diag) {
  stored_set_t sets[VLART_MAX_SOURCES] = {{0}};
  uint32_t begin = 0;
  memset(plan->order, 0, plan->value_count * sizeof *plan->order);
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_INSTRUCTIONS); i++) {
    const vlart_instruction_record_t *row = vlart_plan_instruction(plan, i);
    const char *fault = instruction_fault(plan, i, begin, sets);
    if (fault != NULL) {
      return vlart_corrupt(diag, "plan.bin", "instructions", i, "%s", fault);
    }
    begin = row->stored_begin + row->stored_count;
  }
  return check_lookups(plan, diag);
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

void vlart_instruction_names(const vlart_plan_t *plan, uint32_t source, char *out,
                             size_t capacity) {
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
