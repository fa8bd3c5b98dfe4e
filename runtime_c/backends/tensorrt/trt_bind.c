/* Where the engine's addresses lie. Values that stages exchange are in memory that host and device
   share, and are used in place; constants get one copy on the device, at [init]; what is off the
   engine's alignment is copied beside, on the device, in the recorded work itself. */
#include "trt_engine.h"

static bool is_shared(const vlart_trt_context_t *context, const void *address) {
  uintptr_t at = (uintptr_t)address, begin = (uintptr_t)context->values;
  return at >= begin && at < begin + context->values_bytes;
}

/* The device's address of what the mapped file holds at `address`: of a constant, or of the row of
   it that an iteration reads. A row is a copy of its own, so that no allocation is larger than the
   weights of one layer, and every one is on the engine's alignment. */
static vlart_status_t constant_address(vlart_trt_state_t *state, uint32_t iteration,
                                       const vlart_binding_record_t *binding, uint64_t bytes,
                                       const void *address, void **out_address,
                                       vlart_diag_t *diag) {
  vlart_trt_context_t *context = state->context;
  uint32_t weight = vlart_plan_value(&state->bundle->plan, binding->value)->weight;
  uint32_t row = binding->mode == VLART_BINDING_MODE_ROW ? iteration : VLART_NONE;
  for (size_t i = 0; i < context->constant_count; i++) {
    const vlart_trt_constant_t *known = &context->constants[i];
    if (known->weight == weight && known->row == row) {
      *out_address = known->address;
      return VLART_STATUS_OK;
    }
  }
  vlart_trt_error_t error = {{0}};
  void *copy = NULL;
  if (!context->api->allocate(context->device, bytes, false, &copy, &error)) {
    return vlart_trt_failed(diag, "allocating a constant", vlart_trt_stage_name(state), &error);
  }
  context->constants[context->constant_count++] = (vlart_trt_constant_t){weight, row, copy};
  if (!context->api->upload(context->device, copy, address, bytes, &error)) {
    return vlart_trt_failed(diag, "copying a constant", vlart_trt_stage_name(state), &error);
  }
  *out_address = copy;
  return VLART_STATUS_OK;
}

static vlart_status_t resolve(vlart_trt_state_t *state, uint32_t iteration, uint32_t port,
                              uint32_t binding, uint64_t bytes, void *given, vlart_diag_t *diag) {
  vlart_trt_context_t *context = state->context;
  vlart_trt_binding_t *to =
      &state->bindings[(size_t)iteration * (state->inputs + state->outputs) + port];
  void *address = given;
  if (!is_shared(context, given)) {
    vlart_status_t status =
        constant_address(state, iteration, vlart_plan_binding(&state->bundle->plan, binding), bytes,
                         given, &address, diag);
    if (status != VLART_STATUS_OK) {
      return status;
    }
  }
  if ((uintptr_t)address % context->api->alignment == 0) {
    *to = (vlart_trt_binding_t){address, NULL};
    return VLART_STATUS_OK;
  }
  vlart_trt_error_t error = {{0}};
  if (state->beside[port] == NULL &&
      !context->api->allocate(context->device, bytes, false, &state->beside[port], &error)) {
    return vlart_trt_failed(diag, "allocating", vlart_trt_stage_name(state), &error);
  }
  *to = (vlart_trt_binding_t){state->beside[port], address};
  return VLART_STATUS_OK;
}

vlart_status_t vlart_trt_resolve(vlart_trt_state_t *state, uint32_t iteration, void *const *inputs,
                                 void *const *outputs, vlart_diag_t *diag) {
  const vlart_stage_record_t *record = vlart_plan_stage(&state->bundle->plan, state->stage);
  vlart_status_t status = VLART_STATUS_OK;
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < state->inputs; i++) {
    uint64_t bytes = vlart_stage_input(state->bundle, state->stage, i).bytes;
    status = resolve(state, iteration, i, record->input_begin + i, bytes, inputs[i], diag);
  }
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < state->outputs; i++) {
    uint64_t bytes = vlart_stage_output(state->bundle, state->stage, i).bytes;
    status = resolve(state, iteration, state->inputs + i, record->output_begin + i, bytes,
                     outputs[i], diag);
  }
  return status;
}

static bool enqueue(const vlart_trt_state_t *state, uint32_t iteration, vlart_trt_error_t *error) {
  const vlart_trt_context_t *context = state->context;
  const vlart_trt_runtime_t *api = context->api;
  uint32_t ports = state->inputs + state->outputs;
  const vlart_trt_binding_t *bindings = &state->bindings[(size_t)iteration * ports];
  for (uint32_t i = 0; i < ports; i++) {
    vlart_port_t port = i < state->inputs
                            ? vlart_stage_input(state->bundle, state->stage, i)
                            : vlart_stage_output(state->bundle, state->stage, i - state->inputs);
    bool copied = i < state->inputs && bindings[i].beside != NULL;
    if (!api->bind(state->engine, port.name, bindings[i].address, error) ||
        (copied &&
         !api->copy(context->device, bindings[i].address, bindings[i].beside, port.bytes, error))) {
      return false;
    }
  }
  if (!api->enqueue(state->engine, error)) {
    return false;
  }
  for (uint32_t i = state->inputs; i < ports; i++) {
    uint64_t bytes = vlart_stage_output(state->bundle, state->stage, i - state->inputs).bytes;
    if (bindings[i].beside != NULL &&
        !api->copy(context->device, bindings[i].beside, bindings[i].address, bytes, error)) {
      return false;
    }
  }
  return true;
}

vlart_status_t vlart_trt_enqueue(vlart_trt_state_t *state, uint32_t iteration, vlart_diag_t *diag) {
  vlart_trt_error_t error = {{0}};
  return enqueue(state, iteration, &error)
             ? VLART_STATUS_OK
             : vlart_trt_failed(diag, "enqueueing", vlart_trt_stage_name(state), &error);
}
