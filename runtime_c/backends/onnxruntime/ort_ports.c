/* [init] The engine's ports must be the plan's: same names, element types and shapes. */
#include <string.h>

#include "base/diag.h"
#include "ort_engine.h"

typedef struct {
  const ort_engine_t *engine;
  bool output;
  uint32_t count; /* ports in the plan */
} side_t;

static vlart_port_t plan_port(const side_t *side, uint32_t index) {
  const ort_engine_t *engine = side->engine;
  return side->output ? vlart_stage_output(engine->bundle, engine->stage, index)
                      : vlart_stage_input(engine->bundle, engine->stage, index);
}

static vlart_status_t mismatch(const side_t *side, const char *port, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, "an engine's ports are not those of the plan",
             "build the bundle again: a stage file and the plan do not belong together");
  vlart_where(diag, "stage \"%s\", %s \"%s\"", ort_stage_name(side->engine),
              side->output ? "output" : "input", port);
  return VLART_STATUS_BACKEND_FAILED;
}

/* A dimension that the artefact leaves open (-1) is bound by the plan. */
static vlart_status_t check_type(const side_t *side, const vlart_port_t *port, int dtype,
                                 size_t rank, const int64_t *dims, vlart_diag_t *diag) {
  if ((uint32_t)dtype != port->dtype || rank != port->rank) {
    mismatch(side, port->name, diag);
    vlart_why(diag, "the engine has element type %u and rank %zu, the plan %u and %u",
              (unsigned)dtype, rank, port->dtype, port->rank);
    return VLART_STATUS_BACKEND_FAILED;
  }
  for (uint32_t d = 0; d < rank; d++) {
    if (dims[d] >= 0 && (uint64_t)dims[d] != port->dims[d]) {
      mismatch(side, port->name, diag);
      vlart_why(diag, "dimension %u is %llu in the engine, %llu in the plan", d,
                (unsigned long long)dims[d], (unsigned long long)port->dims[d]);
      return VLART_STATUS_BACKEND_FAILED;
    }
  }
  return VLART_STATUS_OK;
}

static vlart_status_t check_port(const side_t *side, const char *name, const OrtTypeInfo *type,
                                 vlart_diag_t *diag) {
  ort_api_t api = side->engine->context->api;
  const char *stage = ort_stage_name(side->engine);
  uint32_t index = 0;
  vlart_port_t port = {0};
  while (index < side->count && (port = plan_port(side, index), strcmp(port.name, name) != 0)) {
    index++;
  }
  if (index == side->count) {
    mismatch(side, name, diag);
    vlart_why(diag, "the engine has it, the plan does not");
    return VLART_STATUS_BACKEND_FAILED;
  }
  const OrtTensorInfo *tensor = NULL;
  int dtype = 0;
  size_t rank = 0;
  int64_t dims[VLART_MAX_RANK] = {0};
  vlart_status_t status = ort_check(api, ORT_FN(api, CastTypeInfoToTensorInfo)(type, &tensor),
                                    "CastTypeInfoToTensorInfo", stage, diag);
  if (status == VLART_STATUS_OK && tensor == NULL) {
    mismatch(side, name, diag);
    vlart_why(diag, "it is no tensor in the engine");
    return VLART_STATUS_BACKEND_FAILED;
  }
  if (status == VLART_STATUS_OK) {
    status = ort_check(api, ORT_FN(api, GetTensorElementType)(tensor, &dtype),
                       "GetTensorElementType", stage, diag);
  }
  if (status == VLART_STATUS_OK) {
    status = ort_check(api, ORT_FN(api, GetDimensionsCount)(tensor, &rank), "GetDimensionsCount",
                       stage, diag);
  }
  if (status == VLART_STATUS_OK && rank <= VLART_MAX_RANK) {
    status = ort_check(api, ORT_FN(api, GetDimensions)(tensor, dims, rank), "GetDimensions", stage,
                       diag);
  }
  return status != VLART_STATUS_OK ? status : check_type(side, &port, dtype, rank, dims, diag);
}

static vlart_status_t check_engine_port(const side_t *side, size_t index, vlart_diag_t *diag) {
  const ort_context_t *context = side->engine->context;
  ort_api_t api = context->api;
  const OrtSession *session = side->engine->session;
  const char *stage = ort_stage_name(side->engine);
  char *name = NULL;
  OrtTypeInfo *type = NULL;
  OrtStatus *error =
      side->output ? ORT_FN(api, SessionGetOutputName)(session, index, context->allocator, &name)
                   : ORT_FN(api, SessionGetInputName)(session, index, context->allocator, &name);
  vlart_status_t status = ort_check(api, error, "SessionGet...Name", stage, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  error = side->output ? ORT_FN(api, SessionGetOutputTypeInfo)(session, index, &type)
                       : ORT_FN(api, SessionGetInputTypeInfo)(session, index, &type);
  status = ort_check(api, error, "SessionGet...TypeInfo", stage, diag);
  if (status == VLART_STATUS_OK) {
    status = check_port(side, name, type, diag);
    ORT_FN(api, ReleaseTypeInfo)(type);
  }
  error = ORT_FN(api, AllocatorFree)(context->allocator, name);
  if (status == VLART_STATUS_OK) {
    return ort_check(api, error, "AllocatorFree", stage, diag);
  }
  if (error != NULL) { /* the first error is the one to tell */
    ORT_FN(api, ReleaseStatus)(error);
  }
  return status;
}

static vlart_status_t check_side(const side_t *side, vlart_diag_t *diag) {
  ort_api_t api = side->engine->context->api;
  const OrtSession *session = side->engine->session;
  size_t count = 0;
  OrtStatus *error = side->output ? ORT_FN(api, SessionGetOutputCount)(session, &count)
                                  : ORT_FN(api, SessionGetInputCount)(session, &count);
  vlart_status_t status =
      ort_check(api, error, "SessionGet...Count", ort_stage_name(side->engine), diag);
  for (size_t i = 0; status == VLART_STATUS_OK && i < count; i++) {
    status = check_engine_port(side, i, diag);
  }
  if (status == VLART_STATUS_OK && count != side->count) {
    mismatch(side, "*", diag);
    vlart_why(diag, "the engine has %zu of them, the plan %u", count, side->count);
    return VLART_STATUS_BACKEND_FAILED;
  }
  return status;
}

vlart_status_t ort_check_ports(const ort_engine_t *engine, vlart_diag_t *diag) {
  const vlart_stage_record_t *stage = vlart_plan_stage(&engine->bundle->plan, engine->stage);
  side_t inputs = {engine, false, stage->input_count};
  side_t outputs = {engine, true, stage->output_count};
  vlart_status_t status = check_side(&inputs, diag);
  return status != VLART_STATUS_OK ? status : check_side(&outputs, diag);
}
