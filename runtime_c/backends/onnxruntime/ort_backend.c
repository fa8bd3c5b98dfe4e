/* ONNX Runtime as an engine: the library is found at run time, one of its sessions per stage.

   How its sessions are made, and where they have their weights from: ort_session.c. Its own log is
   off, since every error comes back as a status.
   The library allocates inside its own Run; see the note on [tick] in vlart.h. */
#include <dlfcn.h>
#include <string.h>

#include "base/diag.h"
#include "builtin.h"
#include "ort_engine.h"

#define ORT_DEFAULT_LIBRARY "libonnxruntime.so.1"

static size_t context_bytes(const vlart_bundle_t *bundle) {
  (void)bundle;
  return sizeof(ort_context_t);
}

static size_t engine_bytes(const vlart_bundle_t *bundle, uint32_t stage) {
  const vlart_stage_record_t *record = vlart_plan_stage(&bundle->plan, stage);
  uint32_t sets = vlart_plan_address_sets(&bundle->plan, stage);
  return sizeof(ort_engine_t) + sets * sizeof(OrtIoBinding *) +
         record->initializer_count * sizeof(OrtValue *);
}

static vlart_status_t no_library(const char *path, const char *why, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_NO_BACKEND, "ONNX Runtime cannot be loaded",
             "`pip install onnxruntime`, then give the path of its capi/libonnxruntime.so.* as "
             "ort_library (vlart-run: --ort)");
  vlart_where(diag, "%s", path);
  vlart_why(diag, "%s", why != NULL ? why : "the loader gives no reason");
  return VLART_STATUS_NO_BACKEND;
}

static vlart_status_t load_library(ort_context_t *context, const char *path, vlart_diag_t *diag) {
  /* The library is kept in the process after the last close: it leaves thread-local destructors
     behind, which must not point into unmapped code. */
  context->library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (context->library == NULL) {
    return no_library(path, dlerror(), diag);
  }
  const ort_api_base_t *(*get_base)(void) = NULL;
  void *symbol = dlsym(context->library, "OrtGetApiBase");
  memcpy(&get_base, &symbol, sizeof get_base);
  if (get_base == NULL) {
    return no_library(path, "it does not export OrtGetApiBase", diag);
  }
  context->version = get_base()->get_version_string();
  context->api = get_base()->get_api(ORT_API_VERSION);
  if (context->api == NULL) {
    return no_library(path, "it is older than version 1.18", diag);
  }
  return VLART_STATUS_OK;
}

static vlart_status_t ort_open(void *memory, const vlart_session_options_t *options,
                               vlart_diag_t *diag) {
  ort_context_t *context = memory;
  const char *path = options->ort_library != NULL ? options->ort_library : ORT_DEFAULT_LIBRARY;
  vlart_status_t status = load_library(context, path, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  ort_api_t api = context->api;
  context->threads = options->threads;
  context->cache = options->weight_cache;
  status = ort_check(api, ORT_FN(api, CreateEnv)(ORT_LOG_FATAL, "vlart", &context->env),
                     "CreateEnv", "*", diag);
  if (status == VLART_STATUS_OK) {
    status = ort_check(
        api,
        ORT_FN(api, CreateCpuMemoryInfo)(ORT_DEVICE_ALLOCATOR, ORT_MEMORY_DEFAULT, &context->cpu),
        "CreateCpuMemoryInfo", "*", diag);
  }
  if (status == VLART_STATUS_OK) {
    status = ort_check(api, ORT_FN(api, GetAllocatorWithDefaultOptions)(&context->allocator),
                       "GetAllocatorWithDefaultOptions", "*", diag);
  }
  if (status == VLART_STATUS_OK) {
    status = ort_check(api, ORT_FN(api, CreatePrepackedWeightsContainer)(&context->prepacked),
                       "CreatePrepackedWeightsContainer", "*", diag);
  }
  return status;
}

static void ort_close(void *memory) {
  ort_context_t *context = memory;
  if (context->api != NULL) {
    ort_api_t api = context->api;
    if (context->prepacked != NULL) {
      ORT_FN(api, ReleasePrepackedWeightsContainer)(context->prepacked);
    }
    if (context->cpu != NULL) {
      ORT_FN(api, ReleaseMemoryInfo)(context->cpu);
    }
    if (context->env != NULL) {
      ORT_FN(api, ReleaseEnv)(context->env);
    }
  }
  if (context->library != NULL) {
    dlclose(context->library);
  }
  *context = (ort_context_t){0};
}

static vlart_status_t ort_load(void *context_memory, void *engine_memory,
                               const vlart_bundle_t *bundle, uint32_t stage, vlart_diag_t *diag) {
  ort_context_t *context = context_memory;
  ort_engine_t *engine = engine_memory;
  const vlart_stage_record_t *record = vlart_plan_stage(&bundle->plan, stage);
  *engine = (ort_engine_t){.context = context,
                           .bundle = bundle,
                           .stage = stage,
                           .address_sets = vlart_plan_address_sets(&bundle->plan, stage),
                           .constant_count = record->initializer_count};
  engine->bindings = (OrtIoBinding **)(engine + 1);
  engine->constants = (OrtValue **)(engine->bindings + engine->address_sets);
  vlart_status_t status = ort_cached_session(engine, diag);
  return status == VLART_STATUS_OK ? ort_check_ports(engine, diag) : status;
}

/* The binding keeps its own reference to a tensor, so ours can go at once. */
static vlart_status_t bind_port(const ort_engine_t *engine, uint32_t iteration,
                                const vlart_port_t *port, bool output, void *data,
                                vlart_diag_t *diag) {
  ort_api_t api = engine->context->api;
  OrtIoBinding *binding = engine->bindings[iteration];
  OrtValue *value = NULL;
  vlart_status_t status = ort_wrap(engine, port, data, diag, &value);
  if (status == VLART_STATUS_OK) {
    OrtStatus *error = output ? ORT_FN(api, BindOutput)(binding, port->name, value)
                              : ORT_FN(api, BindInput)(binding, port->name, value);
    status =
        ort_check(api, error, output ? "BindOutput" : "BindInput", ort_stage_name(engine), diag);
    ORT_FN(api, ReleaseValue)(value);
  }
  return status;
}

static vlart_status_t ort_prepare(void *memory, uint32_t iteration, void *const *inputs,
                                  void *const *outputs, vlart_diag_t *diag) {
  ort_engine_t *engine = memory;
  ort_api_t api = engine->context->api;
  const vlart_stage_record_t *record = vlart_plan_stage(&engine->bundle->plan, engine->stage);
  vlart_status_t status =
      ort_check(api, ORT_FN(api, CreateIoBinding)(engine->session, &engine->bindings[iteration]),
                "CreateIoBinding", ort_stage_name(engine), diag);
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < record->input_count; i++) {
    vlart_port_t port = vlart_stage_input(engine->bundle, engine->stage, i);
    status = bind_port(engine, iteration, &port, false, inputs[i], diag);
  }
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < record->output_count; i++) {
    vlart_port_t port = vlart_stage_output(engine->bundle, engine->stage, i);
    status = bind_port(engine, iteration, &port, true, outputs[i], diag);
  }
  return status;
}

static vlart_status_t ort_run(void *memory, uint32_t iteration, vlart_diag_t *diag) {
  const ort_engine_t *engine = memory;
  ort_api_t api = engine->context->api;
  OrtStatus *error =
      ORT_FN(api, RunWithBinding)(engine->session, NULL, engine->bindings[iteration]);
  return ort_check(api, error, "RunWithBinding", ort_stage_name(engine), diag);
}

static void ort_unload(void *memory) {
  ort_engine_t *engine = memory;
  if (engine->context == NULL) {
    return;
  }
  ort_api_t api = engine->context->api;
  for (uint32_t k = 0; k < engine->address_sets; k++) {
    if (engine->bindings[k] != NULL) {
      ORT_FN(api, ReleaseIoBinding)(engine->bindings[k]);
    }
  }
  ort_release_session(engine);
  engine->context = NULL;
}

const vlart_backend_t vlart_backend_onnxruntime = {
    .id = VLART_BACKEND_ONNXRUNTIME,
    .name = "onnxruntime",
    .context_bytes = context_bytes,
    .engine_bytes = engine_bytes,
    .open = ort_open,
    .load = ort_load,
    .prepare = ort_prepare,
    .run = ort_run,
    .unload = ort_unload,
    .close = ort_close,
    .concurrent = true,
};
