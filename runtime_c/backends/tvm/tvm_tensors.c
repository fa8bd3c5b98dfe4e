/* Tensors in and out of a compiled stage: inputs are lent once, or copied to the GPU; outputs are
   checked and copied. */
#include <string.h>

#include "base/diag.h"
#include "tvm_engine.h"

/* DLPack's element type; false: it has none that a stage may use. */
static bool element_of(uint32_t dtype, tvm_element_t *out_element) {
  static const struct {
    uint32_t dtype;
    tvm_element_t element;
  } known[] = {{VLART_DTYPE_F32, {2, 32, 1}}, {VLART_DTYPE_F16, {2, 16, 1}},
               {VLART_DTYPE_U8, {1, 8, 1}},   {VLART_DTYPE_I8, {0, 8, 1}},
               {VLART_DTYPE_I32, {0, 32, 1}}, {VLART_DTYPE_I64, {0, 64, 1}},
               {VLART_DTYPE_BOOL, {6, 8, 1}}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (known[i].dtype == dtype) {
      *out_element = known[i].element;
      return true;
    }
  }
  return false;
}

static vlart_status_t mismatch(const tvm_engine_t *engine, const char *side, const char *port,
                               vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, "an engine's ports are not those of the plan",
             "build the bundle again: a stage file and the plan do not belong together");
  vlart_where(diag, "stage \"%s\", %s \"%s\"", tvm_stage_name(engine), side, port);
  return VLART_STATUS_BACKEND_FAILED;
}

/* A tensor over the session's own memory, or over a copy of it where that is not aligned. */
static vlart_status_t lend_one(tvm_engine_t *engine, uint32_t at, uint32_t index,
                               const vlart_port_t *port, tvm_element_t element, void *address,
                               vlart_diag_t *diag) {
  const tvm_api_t *api = &engine->context->api;
  int64_t *dims = engine->dims + (size_t)index * VLART_MAX_RANK;
  for (uint32_t d = 0; d < port->rank; d++) {
    dims[d] = (int64_t)port->dims[d];
  }
  if ((uintptr_t)address % TVM_ALIGNMENT != 0) {
    engine->sources[at] = address;
    address = engine->copies[index];
  }
  engine->lent[at] = (tvm_lent_t){.tensor = {.data = address,
                                             .device = {.type = TVM_CPU},
                                             .rank = (int32_t)port->rank,
                                             .element = element,
                                             .dims = dims}};
  void *object = NULL;
  if (api->from_lent(&engine->lent[at], TVM_ALIGNMENT, 1, &object) != 0) {
    return tvm_raised(api, "TVMFFITensorFromDLPack", tvm_stage_name(engine), diag);
  }
  engine->arguments[at] = (tvm_value_t){.type = TVM_TENSOR, .as.object = object};
  return VLART_STATUS_OK;
}

/* A tensor on the GPU, for all iterations. */
static vlart_status_t place_one(tvm_engine_t *engine, uint32_t index, const vlart_port_t *port,
                                tvm_element_t element, vlart_diag_t *diag) {
  if (engine->arguments[index].as.object != NULL) {
    return VLART_STATUS_OK;
  }
  const tvm_functions_t *functions = &engine->context->functions;
  tvm_value_t dims[VLART_MAX_RANK];
  for (uint32_t d = 0; d < port->rank; d++) {
    dims[d] = (tvm_value_t){.type = TVM_INT, .as.integer = (int64_t)port->dims[d]};
  }
  tvm_value_t arguments[4] = {{.type = TVM_SHAPE},
                              {.type = TVM_ELEMENT, .as.element = element},
                              {.type = TVM_DEVICE, .as.device = {.type = engine->context->device}},
                              {.type = TVM_NONE}};
  vlart_status_t status =
      tvm_call_for(engine, functions->shape, "ffi.Shape", dims, (int32_t)port->rank, TVM_SHAPE,
                   &arguments[0].as.object, diag);
  if (status == VLART_STATUS_OK) {
    status = tvm_call_for(engine, functions->allocate, "runtime.TVMTensorAllocWithScope", arguments,
                          4, TVM_TENSOR, &engine->arguments[index].as.object, diag);
    engine->arguments[index].type = TVM_TENSOR;
  }
  tvm_release(&engine->context->api, &arguments[0].as.object);
  return status;
}

static vlart_status_t take_input(tvm_engine_t *engine, uint32_t iteration, uint32_t index,
                                 void *address, vlart_diag_t *diag) {
  vlart_port_t port = vlart_stage_input(engine->bundle, engine->stage, index);
  uint32_t at = iteration * engine->input_count + index;
  tvm_element_t element;
  if (!element_of(port.dtype, &element)) {
    mismatch(engine, "input", port.name, diag);
    vlart_why(diag, "element type %u is none of TVM's", port.dtype);
    return VLART_STATUS_BACKEND_FAILED;
  }
  if (engine->context->device == TVM_CPU) {
    return lend_one(engine, at, index, &port, element, address, diag);
  }
  engine->sources[at] = address;
  return place_one(engine, index, &port, element, diag);
}

vlart_status_t tvm_lend(tvm_engine_t *engine, uint32_t iteration, void *const *inputs,
                        vlart_diag_t *diag) {
  vlart_status_t status = VLART_STATUS_OK;
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < engine->input_count; i++) {
    status = take_input(engine, iteration, i, inputs[i], diag);
  }
  return status;
}

/* Copies between the host's memory and a tensor on the GPU, to its end. */
static vlart_status_t copy_across(const tvm_engine_t *engine, void *function, const char *name,
                                  const tvm_value_t *tensor, const void *address, uint64_t bytes,
                                  vlart_diag_t *diag) {
  tvm_value_t arguments[3] = {*tensor,
                              {.type = TVM_POINTER, .as.pointer = address},
                              {.type = TVM_INT, .as.integer = (int64_t)bytes}};
  tvm_value_t nothing = {0};
  return engine->context->api.call(function, arguments, 3, &nothing) == 0
             ? VLART_STATUS_OK
             : tvm_raised(&engine->context->api, name, tvm_stage_name(engine), diag);
}

/* Compares one result with the plan and copies it where the session wants it. */
static vlart_status_t take_output(const tvm_engine_t *engine, uint32_t iteration, uint32_t index,
                                  const tvm_value_t *value, bool keep, vlart_diag_t *diag) {
  vlart_port_t port = vlart_stage_output(engine->bundle, engine->stage, index);
  tvm_element_t element = {0};
  if (value->type != TVM_TENSOR || !element_of(port.dtype, &element)) {
    mismatch(engine, "output", port.name, diag);
    vlart_why(diag, "the engine gives a value of type %u", (unsigned)value->type);
    return VLART_STATUS_BACKEND_FAILED;
  }
  const tvm_tensor_t *tensor = &((const tvm_tensor_object_t *)value->as.object)->tensor;
  bool same = tensor->device.type == engine->context->device &&
              memcmp(&tensor->element, &element, sizeof element) == 0 &&
              tensor->rank == (int32_t)port.rank;
  for (uint32_t d = 0; same && d < port.rank; d++) {
    same = tensor->dims[d] == (int64_t)port.dims[d];
  }
  /* Freshly made by the compiled stage, so dense. */
  if (!same) {
    mismatch(engine, "output", port.name, diag);
    vlart_why(diag, "the engine gives rank %u of kind %u with %u bits, or other dimensions",
              (unsigned)tensor->rank, tensor->element.kind, tensor->element.bits);
    return VLART_STATUS_BACKEND_FAILED;
  }
  if (!keep) {
    return VLART_STATUS_OK;
  }
  void *to = engine->outputs[iteration * engine->output_count + index];
  if (engine->context->device != TVM_CPU) {
    return copy_across(engine, engine->context->functions.download, "runtime.TVMTensorCopyToBytes",
                       value, to, port.bytes, diag);
  }
  memcpy(to, (const uint8_t *)tensor->data + tensor->offset, port.bytes);
  return VLART_STATUS_OK;
}

static vlart_status_t take_outputs(const tvm_engine_t *engine, uint32_t iteration,
                                   tvm_value_t *result, bool keep, vlart_diag_t *diag) {
  const tvm_context_t *context = engine->context;
  if (result->type != TVM_ARRAY) {
    return engine->output_count == 1 ? take_output(engine, iteration, 0, result, keep, diag)
                                     : mismatch(engine, "output", "*", diag);
  }
  vlart_status_t status = VLART_STATUS_OK;
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < engine->output_count; i++) {
    tvm_value_t arguments[2] = {*result, {.type = TVM_INT, .as.integer = i}};
    tvm_value_t item = {0};
    if (context->api.call(context->functions.get_item, arguments, 2, &item) != 0) {
      return tvm_raised(&context->api, "ffi.ArrayGetItem", tvm_stage_name(engine), diag);
    }
    status = take_output(engine, iteration, i, &item, keep, diag);
    if (item.type >= TVM_OBJECTS) {
      context->api.release(item.as.object);
    }
  }
  return status;
}

/* What the stage does not read in place. */
static vlart_status_t copy_inputs(tvm_engine_t *engine, uint32_t first, vlart_diag_t *diag) {
  vlart_status_t status = VLART_STATUS_OK;
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < engine->input_count; i++) {
    const void *from = engine->sources[first + i];
    uint64_t bytes = vlart_stage_input(engine->bundle, engine->stage, i).bytes;
    if (from != NULL && engine->context->device != TVM_CPU) {
      status =
          copy_across(engine, engine->context->functions.upload, "runtime.TVMTensorCopyFromBytes",
                      &engine->arguments[i], from, bytes, diag);
    } else if (from != NULL) {
      memcpy(engine->copies[i], from, bytes);
    }
  }
  return status;
}

vlart_status_t tvm_invoke(tvm_engine_t *engine, uint32_t iteration, bool keep, vlart_diag_t *diag) {
  const tvm_api_t *api = &engine->context->api;
  uint32_t first = iteration * engine->input_count;
  vlart_status_t status = copy_inputs(engine, first, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  tvm_value_t *arguments = engine->arguments + (engine->context->device == TVM_CPU ? first : 0);
  tvm_value_t result = {0};
  if (api->call(engine->main, arguments, (int32_t)engine->input_count, &result) != 0) {
    return tvm_raised(api, "main", tvm_stage_name(engine), diag);
  }
  status = take_outputs(engine, iteration, &result, keep, diag);
  if (result.type >= TVM_OBJECTS) {
    api->release(result.as.object);
  }
  return status;
}
