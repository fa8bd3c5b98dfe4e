/* [open] Checks the stages: that every value is written once and before it is read, that a stage
   depends on everything that its inputs depend on (this is what makes skipping it safe), and that
   loops are wired as the layout says. */
#include <string.h>

#include "base/diag.h"
#include "plan/plan_check.h"

typedef struct {
  vlart_plan_t *plan;
  vlart_diag_t *diag;
  uint32_t index; /* of the stage */
  const vlart_stage_record_t *stage;
} flow_t;

static vlart_status_t check_loop(const flow_t *flow) {
  const vlart_stage_record_t *stage = flow->stage;
  if (stage->iterations == 0) {
    return vlart_corrupt(flow->diag, "plan.bin", "stages", flow->index, "it has no iteration");
  }
  if (stage->iterations > VLART_MAX_ITERATIONS) {
    vlart_fail(flow->diag, VLART_STATUS_UNSUPPORTED, "a loop is too long", NULL);
    vlart_where(flow->diag, "plan.bin, stages[%u]", flow->index);
    vlart_why(flow->diag, "it has %u iterations, this reader takes %u", stage->iterations,
              VLART_MAX_ITERATIONS);
    return VLART_STATUS_UNSUPPORTED;
  }
  return VLART_STATUS_OK;
}

static vlart_status_t check_engine(const flow_t *flow) {
  const vlart_stage_record_t *stage = flow->stage;
  if (stage->backend < VLART_BACKEND_ONNXRUNTIME || stage->backend > VLART_BACKEND_OPENVINO) {
    vlart_fail(flow->diag, VLART_STATUS_UNSUPPORTED, "a stage is for an unknown engine", NULL);
    vlart_where(flow->diag, "plan.bin, stages[%u]", flow->index);
    vlart_why(flow->diag, "backend %u is unknown to this library", stage->backend);
    return VLART_STATUS_UNSUPPORTED;
  }
  /* A stage of one engine can be run by another (stand_in), so every engine relies on this. */
  bool none = stage->artefact == VLART_NONE;
  if (none ? stage->backend != VLART_BACKEND_LIBRARY
           : vlart_plan_file(flow->plan, stage->artefact)->kind != VLART_FILE_KIND_STAGE) {
    return vlart_corrupt(flow->diag, "plan.bin", "stages", flow->index,
                         "artefact %u is not a stage file", stage->artefact);
  }
  return VLART_STATUS_OK;
}

static vlart_status_t check_depends(const flow_t *flow) {
  uint64_t depends = 0;
  for (uint32_t i = 0; i < flow->stage->dep_count; i++) {
    uint32_t source = vlart_plan_index(flow->plan, flow->stage->dep_begin + i);
    if ((depends >> source & 1) != 0) {
      return vlart_corrupt(flow->diag, "plan.bin", "stages", flow->index,
                           "source %u that it depends on comes twice", source);
    }
    depends |= 1ull << source;
  }
  flow->plan->depends[flow->index] = depends;
  return VLART_STATUS_OK;
}

/* What a value depends on, if it can be read before the present stage ran; false if it cannot. */
static bool readable(const flow_t *flow, uint32_t value, uint64_t *out_depends) {
  vlart_writer_t writer = flow->plan->writers[value];
  if (writer.origin == VLART_ORIGIN_DELAY) { /* filled once its chain's first value is there */
    writer = flow->plan->writers[flow->plan->delay_roots[writer.index]];
  }
  switch (writer.origin) {
    case VLART_ORIGIN_WEIGHT:
    case VLART_ORIGIN_CARRIED: *out_depends = 0; return true;
    case VLART_ORIGIN_SOURCE: *out_depends = 1ull << writer.index; return true;
    case VLART_ORIGIN_STAGE: *out_depends = flow->plan->depends[writer.index]; return true;
    default: return false;
  }
}

static vlart_status_t check_binding(const flow_t *flow, uint32_t index) {
  const vlart_plan_t *plan = flow->plan;
  const vlart_binding_record_t *binding = vlart_plan_binding(plan, index);
  const vlart_value_record_t *value = vlart_plan_value(plan, binding->value);
  if (binding->mode == VLART_BINDING_MODE_ROW &&
      (value->rank == 0 || value->dims[0] != flow->stage->iterations)) {
    return vlart_corrupt(flow->diag, "plan.bin", "bindings", index,
                         "value %u does not have %u rows, one per iteration", binding->value,
                         flow->stage->iterations);
  }
  return VLART_STATUS_OK;
}

static vlart_status_t check_inputs(const flow_t *flow) {
  for (uint32_t i = 0; i < flow->stage->input_count; i++) {
    uint32_t index = flow->stage->input_begin + i;
    vlart_status_t status = check_binding(flow, index);
    if (status != VLART_STATUS_OK) {
      return status;
    }
    uint32_t value = vlart_plan_binding(flow->plan, index)->value;
    uint64_t depends;
    if (!readable(flow, value, &depends)) {
      return vlart_corrupt(flow->diag, "plan.bin", "bindings", index,
                           "stage %u reads value %u before anything wrote it", flow->index, value);
    }
    if ((depends & ~flow->plan->depends[flow->index]) != 0) {
      return vlart_corrupt(flow->diag, "plan.bin", "bindings", index,
                           "value %u depends on a source that stage %u does not depend on", value,
                           flow->index);
    }
  }
  return VLART_STATUS_OK;
}

static vlart_status_t check_outputs(const flow_t *flow) {
  for (uint32_t i = 0; i < flow->stage->output_count; i++) {
    uint32_t index = flow->stage->output_begin + i;
    vlart_status_t status = check_binding(flow, index);
    if (status != VLART_STATUS_OK) {
      return status;
    }
    uint32_t value = vlart_plan_binding(flow->plan, index)->value;
    if (flow->plan->writers[value].origin != VLART_ORIGIN_NOBODY) {
      return vlart_corrupt(flow->diag, "plan.bin", "bindings", index,
                           "stage %u writes value %u, which has another writer", flow->index,
                           value);
    }
    flow->plan->writers[value] = (vlart_writer_t){VLART_ORIGIN_STAGE, flow->index};
  }
  return VLART_STATUS_OK;
}

static bool same_shape(const vlart_value_record_t *a, const vlart_value_record_t *b) {
  return a->dtype == b->dtype && a->rank == b->rank &&
         memcmp(a->dims, b->dims, sizeof a->dims) == 0;
}

/* Whether binding `index` is one of `count` from `begin`, carries `value`, and is used first now. */
static bool take_carry_binding(const flow_t *flow, uint32_t index, uint32_t begin, uint32_t count,
                               uint32_t value) {
  if (index < begin || index - begin >= count || flow->plan->binding_seen[index]) {
    return false;
  }
  const vlart_binding_record_t *binding = vlart_plan_binding(flow->plan, index);
  flow->plan->binding_seen[index] = 1;
  return binding->mode == VLART_BINDING_MODE_CARRY && binding->value == value;
}

static vlart_status_t check_carry(const flow_t *flow, uint32_t index) {
  vlart_plan_t *plan = flow->plan;
  const vlart_stage_record_t *stage = flow->stage;
  const vlart_carry_record_t *carry = vlart_plan_carry(plan, index);
  const vlart_value_record_t *initial = vlart_plan_value(plan, carry->initial);
  if (!same_shape(initial, vlart_plan_value(plan, carry->result)) ||
      !same_shape(initial, vlart_plan_value(plan, carry->scratch))) {
    return vlart_corrupt(flow->diag, "plan.bin", "carries", index,
                         "initial, result and scratch differ in shape or element type");
  }
  if (!take_carry_binding(flow, carry->input, stage->input_begin, stage->input_count,
                          carry->initial) ||
      !take_carry_binding(flow, carry->output, stage->output_begin, stage->output_count,
                          carry->result)) {
    return vlart_corrupt(flow->diag, "plan.bin", "carries", index,
                         "bindings %u and %u are not the carry's input and output", carry->input,
                         carry->output);
  }
  /* Loops run one after the other, so that two stages may share a scratch value. */
  vlart_writer_t *writer = &plan->writers[carry->scratch];
  bool free = writer->origin == VLART_ORIGIN_NOBODY ||
              (writer->origin == VLART_ORIGIN_SCRATCH && writer->index != flow->index);
  if (!free) {
    return vlart_corrupt(flow->diag, "plan.bin", "carries", index,
                         "scratch value %u has another use", carry->scratch);
  }
  *writer = (vlart_writer_t){VLART_ORIGIN_SCRATCH, flow->index};
  return VLART_STATUS_OK;
}

static vlart_status_t check_carries(const flow_t *flow) {
  const vlart_stage_record_t *stage = flow->stage;
  for (uint32_t i = 0; i < stage->carry_count; i++) {
    vlart_status_t status = check_carry(flow, stage->carry_begin + i);
    if (status != VLART_STATUS_OK) {
      return status;
    }
  }
  /* Every carry took one input and one output; no binding of that mode may be left over. */
  uint32_t inputs = 0;
  uint32_t outputs = 0;
  for (uint32_t i = 0; i < stage->input_count; i++) {
    inputs +=
        vlart_plan_binding(flow->plan, stage->input_begin + i)->mode == VLART_BINDING_MODE_CARRY;
  }
  for (uint32_t i = 0; i < stage->output_count; i++) {
    outputs +=
        vlart_plan_binding(flow->plan, stage->output_begin + i)->mode == VLART_BINDING_MODE_CARRY;
  }
  if (inputs != stage->carry_count || outputs != stage->carry_count) {
    return vlart_corrupt(flow->diag, "plan.bin", "stages", flow->index,
                         "%u inputs and %u outputs are carried by %u carries", inputs, outputs,
                         stage->carry_count);
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_plan_check_flow(vlart_plan_t *plan, vlart_diag_t *diag) {
  flow_t flow = {.plan = plan, .diag = diag};
  vlart_status_t status = VLART_STATUS_OK;
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < plan->stage_count; i++) {
    flow.index = i;
    flow.stage = vlart_plan_stage(plan, i);
    status = check_loop(&flow);
    if (status == VLART_STATUS_OK) status = check_engine(&flow);
    if (status == VLART_STATUS_OK) status = check_depends(&flow);
    if (status == VLART_STATUS_OK) status = check_inputs(&flow);
    if (status == VLART_STATUS_OK) status = check_outputs(&flow);
    if (status == VLART_STATUS_OK) status = check_carries(&flow);
  }
  return status;
}
