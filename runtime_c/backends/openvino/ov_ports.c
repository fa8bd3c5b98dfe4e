/* [init] The engine's ports must be the plan's: same order, names, element types and shapes. */
#include <string.h>

#include "base/diag.h"
#include "ov_engine.h"

typedef struct {
  const ov_engine_t *engine;
  bool output;
  uint32_t count; /* ports in the plan */
} side_t;

static const struct {
  uint32_t ours;
  int its;
} TYPES[] = {{VLART_DTYPE_F32, OV_F32}, {VLART_DTYPE_U8, OV_U8},   {VLART_DTYPE_I8, OV_I8},
             {VLART_DTYPE_I32, OV_I32}, {VLART_DTYPE_I64, OV_I64}, {VLART_DTYPE_BOOL, OV_BOOLEAN},
             {VLART_DTYPE_F16, OV_F16}, {VLART_DTYPE_F64, OV_F64}, {VLART_DTYPE_BF16, OV_BF16}};

int ov_element_type(uint32_t dtype) {
  for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
    if (TYPES[i].ours == dtype) {
      return TYPES[i].its;
    }
  }
  return -1;
}

/* 0: the plan has no such type. */
static uint32_t dtype_of(int type) {
  for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
    if (TYPES[i].its == type) {
      return TYPES[i].ours;
    }
  }
  return 0;
}

static vlart_status_t mismatch(const side_t *side, const char *port, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, "an engine's ports are not those of the plan",
             "build the bundle again: a stage file and the plan do not belong together");
  vlart_where(diag, "stage \"%s\", %s \"%s\"", ov_stage_name(side->engine),
              side->output ? "output" : "input", port);
  return VLART_STATUS_BACKEND_FAILED;
}

static vlart_status_t check_type(const side_t *side, const vlart_port_t *port, int type,
                                 const OvShape *shape, vlart_diag_t *diag) {
  if (dtype_of(type) != port->dtype || shape->rank != (int64_t)port->rank) {
    mismatch(side, port->name, diag);
    vlart_why(diag, "the engine has element type %u and rank %zu, the plan %u and %u",
              dtype_of(type), (size_t)shape->rank, port->dtype, port->rank);
    return VLART_STATUS_BACKEND_FAILED;
  }
  for (uint32_t d = 0; d < port->rank; d++) {
    if ((uint64_t)shape->dims[d] != port->dims[d]) {
      mismatch(side, port->name, diag);
      vlart_why(diag, "dimension %u is %llu in the engine, %llu in the plan", d,
                (unsigned long long)shape->dims[d], (unsigned long long)port->dims[d]);
      return VLART_STATUS_BACKEND_FAILED;
    }
  }
  return VLART_STATUS_OK;
}

/* A tensor can have several names; those of different tensors are different, so that two ports with the same
   first name are the same tensor. */
static vlart_status_t check_name(const side_t *side, const vlart_port_t *port, OvPort *found,
                                 vlart_diag_t *diag) {
  const ov_api_t *api = &side->engine->context->api;
  const OvCompiledModel *model = side->engine->model;
  const char *stage = ov_stage_name(side->engine);
  OvPort *named = NULL;
  int error = side->output ? api->compiled_model_output_by_name(model, port->name, &named)
                           : api->compiled_model_input_by_name(model, port->name, &named);
  vlart_status_t status = ov_check(api, error, "compiled_model_..._by_name", stage, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  char *names[2] = {NULL, NULL};
  status =
      ov_check(api, api->port_get_any_name(named, &names[0]), "port_get_any_name", stage, diag);
  if (status == VLART_STATUS_OK) {
    status =
        ov_check(api, api->port_get_any_name(found, &names[1]), "port_get_any_name", stage, diag);
  }
  if (status == VLART_STATUS_OK && strcmp(names[0], names[1]) != 0) {
    status = mismatch(side, port->name, diag);
    vlart_why(diag, "the engine has \"%.100s\" in its place", names[1]);
  }
  for (int i = 0; i < 2; i++) {
    if (names[i] != NULL) {
      api->free(names[i]);
    }
  }
  api->output_const_port_free(named);
  return status;
}

static vlart_status_t check_port(const side_t *side, uint32_t index, vlart_diag_t *diag) {
  const ov_engine_t *engine = side->engine;
  const ov_api_t *api = &engine->context->api;
  const char *stage = ov_stage_name(engine);
  vlart_port_t port = side->output ? vlart_stage_output(engine->bundle, engine->stage, index)
                                   : vlart_stage_input(engine->bundle, engine->stage, index);
  OvPort *found = NULL;
  int error = side->output ? api->compiled_model_output_by_index(engine->model, index, &found)
                           : api->compiled_model_input_by_index(engine->model, index, &found);
  vlart_status_t status = ov_check(api, error, "compiled_model_..._by_index", stage, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  int type = 0;
  OvShape shape = {0};
  status =
      ov_check(api, api->port_get_element_type(found, &type), "port_get_element_type", stage, diag);
  if (status == VLART_STATUS_OK) {
    status = ov_check(api, api->const_port_get_shape(found, &shape), "const_port_get_shape", stage,
                      diag);
  }
  if (status == VLART_STATUS_OK) {
    status = check_type(side, &port, type, &shape, diag);
    api->shape_free(&shape);
  }
  if (status == VLART_STATUS_OK) {
    status = check_name(side, &port, found, diag);
  }
  api->output_const_port_free(found);
  return status;
}

static vlart_status_t check_side(const side_t *side, vlart_diag_t *diag) {
  const ov_engine_t *engine = side->engine;
  const ov_api_t *api = &engine->context->api;
  size_t count = 0;
  int error = side->output ? api->compiled_model_outputs_size(engine->model, &count)
                           : api->compiled_model_inputs_size(engine->model, &count);
  vlart_status_t status =
      ov_check(api, error, "compiled_model_..._size", ov_stage_name(engine), diag);
  if (status == VLART_STATUS_OK && count != side->count) {
    status = mismatch(side, "*", diag);
    vlart_why(diag, "the engine has %zu of them, the plan %u", count, side->count);
  }
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < side->count; i++) {
    status = check_port(side, i, diag);
  }
  return status;
}

vlart_status_t ov_check_ports(const ov_engine_t *engine, vlart_diag_t *diag) {
  const vlart_stage_record_t *stage = vlart_plan_stage(&engine->bundle->plan, engine->stage);
  side_t inputs = {engine, false, stage->input_count};
  side_t outputs = {engine, true, stage->output_count};
  vlart_status_t status = check_side(&inputs, diag);
  return status != VLART_STATUS_OK ? status : check_side(&outputs, diag);
}
