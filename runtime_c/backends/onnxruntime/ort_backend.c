/* ONNX Runtime as an engine: the library is found at run time, one of its sessions per stage.

   The weights are not read by the library: every initializer of the plan is handed over as a
   tensor in the mapped weights file, and what it packs for its kernels is shared by all stages.
   The library (1.32) takes these tensors at their word: a name that the artefact does not have is
   ignored and a shape is not compared. That plan and artefacts belong together is what the
   self-test proves. Its own log is off, since every error comes back as a status.
   The library allocates inside its own Run; see the note on [tick] in vlart.h. */
#include <dlfcn.h>
#include <string.h>

#include "base/diag.h"
#include "builtin.h"
#include "ort_engine.h"

#define ORT_DEFAULT_LIBRARY "libonnxruntime.so.1"
#define ORT_PATH_BYTES 4096u

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

vlart_status_t ort_wrap(const ort_engine_t *engine, const vlart_port_t *port, void *data,
                        vlart_diag_t *diag, OrtValue **out_value) {
  const ort_context_t *context = engine->context;
  int64_t dims[VLART_MAX_RANK];
  for (uint32_t d = 0; d < port->rank; d++) {
    dims[d] = (int64_t)port->dims[d];
  }
  OrtStatus *error = ORT_FN(context->api, CreateTensorWithDataAsOrtValue)(
      context->cpu, data, port->bytes, dims, port->rank, (int)port->dtype, out_value);
  return ort_check(context->api, error, "CreateTensorWithDataAsOrtValue", ort_stage_name(engine),
                   diag);
}

/* force_spinning_stop: the library's workers otherwise burn 36-50 ms of CPU after every run.
   WeightBiasQuantization: the library (1.32) otherwise quantises, by itself, a convolution that
   the plan left in f32 between quantised ones.
   disable_kleidiai: on Arm, the library's other kernels for 4-bit weights round the scales to bf16
   and quantise activations row by row, not in the weights' blocks: another function than the one
   that the compiler proved and chose precisions for. Where there are no such kernels, the key
   changes nothing. */
static const char *const ORT_CONFIG[][2] = {
    {"session.force_spinning_stop", "1"},
    {"optimization.disable_specified_optimizers", "WeightBiasQuantization"},
    {"mlas.disable_kleidiai", "1"},
};

static vlart_status_t set_options(const ort_engine_t *engine, OrtSessionOptions *options,
                                  vlart_diag_t *diag) {
  ort_api_t api = engine->context->api;
  uint32_t threads = engine->context->threads;
  const char *stage = ort_stage_name(engine);
  const vlart_stage_record_t *record = vlart_plan_stage(&engine->bundle->plan, engine->stage);
  /* As a stand-in for TensorRT: the library's (1.32) further rewrites of int8 convolutions want
     unsigned values and refuse the signed ones that are written there. */
  int level = record->backend == VLART_BACKEND_TENSORRT ? ORT_OPTIMIZE_BASIC : ORT_OPTIMIZE_ALL;
  vlart_status_t status =
      ort_check(api, ORT_FN(api, SetSessionGraphOptimizationLevel)(options, level),
                "SetSessionGraphOptimizationLevel", stage, diag);
  if (status == VLART_STATUS_OK && threads > 0) {
    status = ort_check(api, ORT_FN(api, SetIntraOpNumThreads)(options, (int)threads),
                       "SetIntraOpNumThreads", stage, diag);
  }
  if (status == VLART_STATUS_OK) {
    status = ort_check(api, ORT_FN(api, SetInterOpNumThreads)(options, 1), "SetInterOpNumThreads",
                       stage, diag);
  }
  for (size_t i = 0; status == VLART_STATUS_OK && i < sizeof ORT_CONFIG / sizeof *ORT_CONFIG; i++) {
    OrtStatus *error =
        ORT_FN(api, AddSessionConfigEntry)(options, ORT_CONFIG[i][0], ORT_CONFIG[i][1]);
    status = ort_check(api, error, "AddSessionConfigEntry", stage, diag);
  }
  return status;
}

static vlart_status_t add_constants(const ort_engine_t *engine, OrtSessionOptions *options,
                                    vlart_diag_t *diag) {
  ort_api_t api = engine->context->api;
  for (uint32_t i = 0; i < engine->constant_count; i++) {
    vlart_constant_t constant = vlart_stage_constant(engine->bundle, engine->stage, i);
    vlart_port_t port = {constant.name, constant.dtype, constant.rank, constant.dims,
                         constant.bytes};
    /* The library reads initializers only; the mapping is read-only and would say otherwise. */
    vlart_status_t status =
        ort_wrap(engine, &port, (void *)(uintptr_t)constant.data, diag, &engine->constants[i]);
    if (status == VLART_STATUS_OK) {
      status =
          ort_check(api, ORT_FN(api, AddInitializer)(options, constant.name, engine->constants[i]),
                    "AddInitializer", ort_stage_name(engine), diag);
    }
    if (status != VLART_STATUS_OK) {
      return status;
    }
  }
  return VLART_STATUS_OK;
}

/* The library looks whether the files that a stage names for its weights exist, although it is given all
   of them; from bytes, it would look in the working directory. */
static vlart_status_t name_folder(const ort_engine_t *engine, OrtSessionOptions *options,
                                  vlart_diag_t *diag) {
  char path[ORT_PATH_BYTES];
  uint32_t artefact = vlart_plan_stage(&engine->bundle->plan, engine->stage)->artefact;
  if (!vlart_bundle_path(engine->bundle, artefact, path, sizeof path)) {
    vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "the path of a stage file is too long",
               "move the bundle to a directory with a shorter path");
    vlart_where(diag, "stage \"%s\"", ort_stage_name(engine));
    vlart_why(diag, "it has more than %u bytes", ORT_PATH_BYTES - 1);
    return VLART_STATUS_UNSUPPORTED;
  }
  *strrchr(path, '/') = '\0';
  OrtStatus *error = ORT_FN(engine->context->api, AddSessionConfigEntry)(
      options, "session.model_external_initializers_file_folder_path", path);
  return ort_check(engine->context->api, error, "AddSessionConfigEntry", ort_stage_name(engine),
                   diag);
}

/* From the bytes whose checksum was compared, not from the path: what lies there may be another file by now. */
static vlart_status_t create_session(ort_engine_t *engine, const OrtSessionOptions *options,
                                     vlart_diag_t *diag) {
  const ort_context_t *context = engine->context;
  uint32_t artefact = vlart_plan_stage(&engine->bundle->plan, engine->stage)->artefact;
  const vlart_map_t *model = &engine->bundle->files[artefact];
  OrtStatus *error = ORT_FN(context->api, CreateSessionFromArrayWithPrepackedWeightsContainer)(
      context->env, model->data, model->bytes, options, context->prepacked, &engine->session);
  return ort_check(context->api, error, "CreateSession", ort_stage_name(engine), diag);
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
  ort_api_t api = context->api;
  OrtSessionOptions *options = NULL;
  vlart_status_t status = ort_check(api, ORT_FN(api, CreateSessionOptions)(&options),
                                    "CreateSessionOptions", ort_stage_name(engine), diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  status = set_options(engine, options, diag);
  if (status == VLART_STATUS_OK) status = add_constants(engine, options, diag);
  if (status == VLART_STATUS_OK) status = name_folder(engine, options, diag);
  if (status == VLART_STATUS_OK) status = create_session(engine, options, diag);
  if (status == VLART_STATUS_OK) status = ort_check_ports(engine, diag);
  ORT_FN(api, ReleaseSessionOptions)(options);
  return status;
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
  if (engine->session != NULL) {
    ORT_FN(api, ReleaseSession)(engine->session);
  }
  for (uint32_t i = 0; i < engine->constant_count; i++) {
    if (engine->constants[i] != NULL) {
      ORT_FN(api, ReleaseValue)(engine->constants[i]);
    }
  }
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
