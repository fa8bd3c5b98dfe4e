/* Tensors in and out of a compiled stage: inputs are lent once, outputs are checked and copied. */
#include <string.h>

#include "diag.h"
#include "tvm_engine.h"

/* DLPack's kind and width of an element type; false: it has none that a stage may use. */
static bool element_of(uint32_t dtype, uint8_t *out_kind, uint8_t *out_bits) {
  switch (dtype) {
    case VLART_DTYPE_F32: *out_kind = 2; *out_bits = 32; return true;
    case VLART_DTYPE_F16: *out_kind = 2; *out_bits = 16; return true;
    case VLART_DTYPE_U8: *out_kind = 1; *out_bits = 8; return true;
    case VLART_DTYPE_I8: *out_kind = 0; *out_bits = 8; return true;
    case VLART_DTYPE_I32: *out_kind = 0; *out_bits = 32; return true;
    case VLART_DTYPE_I64: *out_kind = 0; *out_bits = 64; return true;
    case VLART_DTYPE_BOOL: *out_kind = 6; *out_bits = 8; return true;
    default: return false;
  }
}

static vlart_status_t mismatch(const tvm_engine_t *engine, const char *side, const char *port,
                               vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, "an engine's ports are not those of the plan",
             "build the bundle again: a stage file and the plan do not belong together");
  vlart_where(diag, "stage \"%s\", %s \"%s\"", tvm_stage_name(engine), side, port);
  return VLART_STATUS_BACKEND_FAILED;
}

static vlart_status_t lend_one(tvm_engine_t *engine, uint32_t iteration, uint32_t index,
                               void *address, vlart_diag_t *diag) {
  const tvm_api_t *api = &engine->context->api;
  vlart_port_t port = vlart_stage_input(engine->bundle, engine->stage, index);
  uint32_t at = iteration * engine->input_count + index;
  int64_t *dims = engine->dims + (size_t)index * VLART_MAX_RANK;
  uint8_t kind, bits;
  if (!element_of(port.dtype, &kind, &bits)) {
    mismatch(engine, "input", port.name, diag);
    vlart_why(diag, "element type %u is none of TVM's", port.dtype);
    return VLART_STATUS_BACKEND_FAILED;
  }
  for (uint32_t d = 0; d < port.rank; d++) {
    dims[d] = (int64_t)port.dims[d];
  }
  if ((uintptr_t)address % TVM_ALIGNMENT != 0) {
    engine->sources[at] = address;
    address = engine->copies[index];
  }
  engine->lent[at] = (tvm_lent_t){.tensor = {.data = address,
                                             .device_type = TVM_CPU,
                                             .rank = (int32_t)port.rank,
                                             .kind = kind,
                                             .bits = bits,
                                             .lanes = 1,
                                             .dims = dims}};
  void *object = NULL;
  if (api->from_lent(&engine->lent[at], TVM_ALIGNMENT, 1, &object) != 0) {
    return tvm_raised(api, "TVMFFITensorFromDLPack", tvm_stage_name(engine), diag);
  }
  engine->arguments[at] = (tvm_value_t){.type = TVM_TENSOR, .as.object = object};
  return VLART_STATUS_OK;
}

vlart_status_t tvm_lend(tvm_engine_t *engine, uint32_t iteration, void *const *inputs,
                        vlart_diag_t *diag) {
  vlart_status_t status = VLART_STATUS_OK;
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < engine->input_count; i++) {
    status = lend_one(engine, iteration, i, inputs[i], diag);
  }
  return status;
}

/* Compares one result with the plan and copies it where the session wants it. */
static vlart_status_t take_output(const tvm_engine_t *engine, uint32_t iteration, uint32_t index,
                                  const tvm_value_t *value, bool keep, vlart_diag_t *diag) {
  vlart_port_t port = vlart_stage_output(engine->bundle, engine->stage, index);
  uint8_t kind = 0, bits = 0;
  if (value->type != TVM_TENSOR || !element_of(port.dtype, &kind, &bits)) {
    mismatch(engine, "output", port.name, diag);
    vlart_why(diag, "the engine gives a value of type %u", (unsigned)value->type);
    return VLART_STATUS_BACKEND_FAILED;
  }
  const tvm_tensor_t *tensor = &((const tvm_tensor_object_t *)value->as.object)->tensor;
  bool same = tensor->device_type == TVM_CPU && tensor->kind == kind && tensor->bits == bits &&
              tensor->lanes == 1 && tensor->rank == (int32_t)port.rank;
  for (uint32_t d = 0; same && d < port.rank; d++) {
    same = tensor->dims[d] == (int64_t)port.dims[d];
  }
  /* Freshly made by the compiled stage, so dense. */
  if (!same) {
    mismatch(engine, "output", port.name, diag);
    vlart_why(diag, "the engine gives rank %u of kind %u with %u bits, or other dimensions",
              (unsigned)tensor->rank, tensor->kind, tensor->bits);
    return VLART_STATUS_BACKEND_FAILED;
  }
  if (keep) {
    memcpy(engine->outputs[iteration * engine->output_count + index],
           (const uint8_t *)tensor->data + tensor->offset, port.bytes);
  }
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
    if (context->api.call(context->get_item, arguments, 2, &item) != 0) {
      return tvm_raised(&context->api, "ffi.ArrayGetItem", tvm_stage_name(engine), diag);
    }
    status = take_output(engine, iteration, i, &item, keep, diag);
    if (item.type >= TVM_OBJECTS) {
      context->api.release(item.as.object);
    }
  }
  return status;
}

vlart_status_t tvm_invoke(tvm_engine_t *engine, uint32_t iteration, bool keep,
                          vlart_diag_t *diag) {
  const tvm_api_t *api = &engine->context->api;
  uint32_t first = iteration * engine->input_count;
  for (uint32_t i = 0; i < engine->input_count; i++) {
    if (engine->sources[first + i] != NULL) {
      vlart_port_t port = vlart_stage_input(engine->bundle, engine->stage, i);
      memcpy(engine->copies[i], engine->sources[first + i], port.bytes);
    }
  }
  tvm_value_t result = {0};
  if (api->call(engine->main, engine->arguments + first, (int32_t)engine->input_count, &result) !=
      0) {
    return tvm_raised(api, "main", tvm_stage_name(engine), diag);
  }
  vlart_status_t status = take_outputs(engine, iteration, &result, keep, diag);
  if (result.type >= TVM_OBJECTS) {
    api->release(result.as.object);
  }
  return status;
}
