/* OpenVINO as an engine: the library is found at run time, one of its models per stage, one of its requests per
   iteration, whose tensors are the session's memory.

   A stage is the same ONNX file as ONNX Runtime's. The library reads it, and the weights that it names, from their
   paths, mapped; before and after it is looked whether the paths lead to the files that were checked.
   The library allocates inside its own infer; see the note on [tick] in vlart.h. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "base/diag.h"
#include "builtin.h"
#include "ov_engine.h"

#define OV_DEFAULT_LIBRARY "libopenvino_c.so"
#define OV_DEFAULT_DEVICE "CPU"

static size_t context_bytes(const vlart_bundle_t *bundle) {
  (void)bundle;
  return sizeof(ov_context_t);
}

static size_t engine_bytes(const vlart_bundle_t *bundle, uint32_t stage) {
  return sizeof(ov_engine_t) + vlart_plan_address_sets(&bundle->plan, stage) * sizeof(OvRequest *);
}

static vlart_status_t ov_open(void *memory, const vlart_session_options_t *options,
                              vlart_diag_t *diag) {
  ov_context_t *context = memory;
  const char *path =
      options->openvino_library != NULL ? options->openvino_library : OV_DEFAULT_LIBRARY;
  context->threads = options->threads;
  context->device = options->openvino_device != NULL ? options->openvino_device : OV_DEFAULT_DEVICE;
  vlart_status_t status = ov_load_library(context, path, diag);
  if (status == VLART_STATUS_OK) {
    status =
        ov_check(&context->api, context->api.core_create(&context->core), "core_create", "*", diag);
  }
  return status;
}

static void ov_close(void *memory) {
  ov_context_t *context = memory;
  if (context->core != NULL) {
    context->api.core_free(context->core);
  }
  if (context->library != NULL) {
    dlclose(context->library);
  }
  *context = (ov_context_t){0};
}

static vlart_status_t moved(const ov_engine_t *engine, const char *why, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "OpenVINO cannot read a stage from its file",
             "leave the bundle as it is while it is open, in a directory with a short path");
  vlart_where(diag, "stage \"%s\"", ov_stage_name(engine));
  vlart_why(diag, "%s", why);
  return VLART_STATUS_UNSUPPORTED;
}

/* The library takes a path only: it must lead to the files that were checked. out_path: of the stage's own. */
static vlart_status_t check_paths(const ov_engine_t *engine, char out_path[OV_PATH_BYTES],
                                  vlart_diag_t *diag) {
  const vlart_plan_t *plan = &engine->bundle->plan;
  uint32_t artefact = vlart_plan_stage(plan, engine->stage)->artefact;
  for (uint32_t i = 0; i <= plan->file_count; i++) { /* the stage's own last: its path stays */
    uint32_t file = i < plan->file_count ? i : artefact;
    if (file != artefact && vlart_plan_file(plan, file)->kind != VLART_FILE_KIND_WEIGHTS) {
      continue;
    }
    if (!vlart_bundle_path(engine->bundle, file, out_path, OV_PATH_BYTES)) {
      return moved(engine, "its path is too long", diag);
    }
    if (!vlart_bundle_is_at(engine->bundle, file, out_path)) {
      return moved(engine, "another file took its place since the bundle was opened", diag);
    }
  }
  return VLART_STATUS_OK;
}

/* INFERENCE_PRECISION_HINT: the library otherwise computes in bf16 where the processor can.
   DYNAMIC_QUANTIZATION_GROUP_SIZE: it otherwise rounds activations to 8 bits before weights of 4 and 8.
   ENABLE_CPU_PINNING: it otherwise chooses cores for its threads, against what the caller said of them. */
static vlart_status_t compile(ov_engine_t *engine, const OvModel *model, vlart_diag_t *diag) {
  const ov_context_t *context = engine->context;
  char threads[16];
  snprintf(threads, sizeof threads, "%u", context->threads);
  bool on_cpu = strcmp(context->device, OV_DEFAULT_DEVICE) == 0;
  size_t words = !on_cpu ? 2 : context->threads > 0 ? 10 : 8; /* keys and values */
  int error = context->api.core_compile_model(
      context->core, model, context->device, words, &engine->model, "INFERENCE_PRECISION_HINT",
      "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE", "0", "ENABLE_CPU_PINNING", "NO", "NUM_STREAMS", "1",
      "INFERENCE_NUM_THREADS", threads);
  return ov_check(&context->api, error, "core_compile_model", ov_stage_name(engine), diag);
}

static vlart_status_t ov_load(void *context_memory, void *engine_memory,
                              const vlart_bundle_t *bundle, uint32_t stage, vlart_diag_t *diag) {
  const ov_context_t *context = context_memory;
  ov_engine_t *engine = engine_memory;
  *engine = (ov_engine_t){.context = context,
                          .bundle = bundle,
                          .stage = stage,
                          .address_sets = vlart_plan_address_sets(&bundle->plan, stage)};
  engine->requests = (OvRequest **)(engine + 1);
  char path[OV_PATH_BYTES];
  vlart_status_t status = check_paths(engine, path, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  OvModel *model = NULL;
  status = ov_check(&context->api, context->api.core_read_model(context->core, path, NULL, &model),
                    "core_read_model", ov_stage_name(engine), diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  status = compile(engine, model, diag);
  context->api.model_free(model);
  if (status == VLART_STATUS_OK) status = check_paths(engine, path, diag);
  return status == VLART_STATUS_OK ? ov_check_ports(engine, diag) : status;
}

/* The request keeps its own reference to a tensor, so ours can go at once. */
static vlart_status_t bind_port(const ov_engine_t *engine, uint32_t iteration, uint32_t index,
                                bool output, void *data, vlart_diag_t *diag) {
  const ov_api_t *api = &engine->context->api;
  const char *stage = ov_stage_name(engine);
  vlart_port_t port = output ? vlart_stage_output(engine->bundle, engine->stage, index)
                             : vlart_stage_input(engine->bundle, engine->stage, index);
  int64_t dims[VLART_MAX_RANK];
  for (uint32_t d = 0; d < port.rank; d++) {
    dims[d] = (int64_t)port.dims[d];
  }
  OvTensor *tensor = NULL;
  vlart_status_t status =
      ov_check(api,
               api->tensor_create_from_host_ptr(ov_element_type(port.dtype),
                                                (OvShape){port.rank, dims}, data, &tensor),
               "tensor_create_from_host_ptr", stage, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  size_t bytes = 0;
  status =
      ov_check(api, api->tensor_get_byte_size(tensor, &bytes), "tensor_get_byte_size", stage, diag);
  if (status == VLART_STATUS_OK && bytes != port.bytes) {
    vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "OpenVINO's tensors are not those of the plan",
               "use the version that the package's extra `openvino` names");
    vlart_where(diag, "stage \"%s\", \"%s\"", stage, port.name);
    vlart_why(diag, "it has %zu bytes there, the plan %zu", bytes, (size_t)port.bytes);
    status = VLART_STATUS_UNSUPPORTED;
  }
  if (status == VLART_STATUS_OK) {
    OvRequest *request = engine->requests[iteration];
    int error = output ? api->infer_request_set_output_tensor_by_index(request, index, tensor)
                       : api->infer_request_set_input_tensor_by_index(request, index, tensor);
    status = ov_check(api, error, "infer_request_set_..._tensor_by_index", stage, diag);
  }
  api->tensor_free(tensor);
  return status;
}

static vlart_status_t ov_prepare(void *memory, uint32_t iteration, void *const *inputs,
                                 void *const *outputs, vlart_diag_t *diag) {
  ov_engine_t *engine = memory;
  const ov_api_t *api = &engine->context->api;
  const vlart_stage_record_t *record = vlart_plan_stage(&engine->bundle->plan, engine->stage);
  vlart_status_t status = ov_check(
      api, api->compiled_model_create_infer_request(engine->model, &engine->requests[iteration]),
      "compiled_model_create_infer_request", ov_stage_name(engine), diag);
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < record->input_count; i++) {
    status = bind_port(engine, iteration, i, false, inputs[i], diag);
  }
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < record->output_count; i++) {
    status = bind_port(engine, iteration, i, true, outputs[i], diag);
  }
  return status;
}

static vlart_status_t ov_run(void *memory, uint32_t iteration, vlart_diag_t *diag) {
  const ov_engine_t *engine = memory;
  const ov_api_t *api = &engine->context->api;
  return ov_check(api, api->infer_request_infer(engine->requests[iteration]), "infer_request_infer",
                  ov_stage_name(engine), diag);
}

static void ov_unload(void *memory) {
  ov_engine_t *engine = memory;
  if (engine->context == NULL) {
    return;
  }
  const ov_api_t *api = &engine->context->api;
  for (uint32_t k = 0; k < engine->address_sets; k++) {
    if (engine->requests[k] != NULL) {
      api->infer_request_free(engine->requests[k]);
    }
  }
  if (engine->model != NULL) {
    api->compiled_model_free(engine->model);
  }
  engine->context = NULL;
}

const vlart_backend_t vlart_backend_openvino = {
    .id = VLART_BACKEND_OPENVINO,
    .name = "openvino",
    .context_bytes = context_bytes,
    .engine_bytes = engine_bytes,
    .open = ov_open,
    .load = ov_load,
    .prepare = ov_prepare,
    .run = ov_run,
    .unload = ov_unload,
    .close = ov_close,
    .concurrent = true,
};
