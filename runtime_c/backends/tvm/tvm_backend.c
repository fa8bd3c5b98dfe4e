/* TVM as an engine, on the CPU or on an NVIDIA GPU: a stage is a shared object, compiled ahead of
   time for the machine it runs on, with its weights inside; two small libraries, found at run time,
   load it, and a third where it is for a GPU.

   A stage file is code: it is run by loading it. The bundle's checksums say that it is the file
   that was built, not that its author is to be trusted.
   The library allocates inside its own call (about one small block per kernel, from its pool for
   tensors); this backend allocates nothing. The first call, at [init], on whatever the session's
   memory holds, fills the pool and shows the types of what comes out.

   On a GPU every input and output is copied, to tensors that are made at [init] and from those that
   a run gives: the session's memory may be anybody's. */
#include <string.h>

#include "base/diag.h"
#include "builtin.h"
#include "tvm_engine.h"

#define TVM_PATH_BYTES 4096u

static size_t context_bytes(const vlart_bundle_t *bundle) {
  (void)bundle;
  return sizeof(tvm_context_t);
}

static size_t aligned(size_t bytes) {
  return (bytes + TVM_ALIGNMENT - 1) / TVM_ALIGNMENT * TVM_ALIGNMENT;
}

/* Takes `count` items from the memory behind an engine; with a NULL base it only counts. */
static void *carve(uint8_t *base, size_t *at, size_t count, size_t bytes) {
  void *here = base == NULL ? NULL : base + *at;
  *at += aligned(count * bytes);
  return here;
}

/* The layout of an engine's memory; returns its size. engine: NULL to only count. */
static size_t lay_out(tvm_engine_t *engine, const vlart_bundle_t *bundle, uint32_t stage) {
  const vlart_stage_record_t *record = vlart_plan_stage(&bundle->plan, stage);
  size_t sets = vlart_plan_address_sets(&bundle->plan, stage);
  size_t inputs = sets * record->input_count;
  size_t outputs = sets * record->output_count;
  tvm_engine_t counted = {0};
  uint8_t *base = (uint8_t *)engine;
  tvm_engine_t *to = engine != NULL ? engine : &counted;
  size_t at = aligned(sizeof *engine);
  to->arguments = carve(base, &at, inputs, sizeof *to->arguments);
  to->lent = carve(base, &at, inputs, sizeof *to->lent);
  to->dims = carve(base, &at, record->input_count, VLART_MAX_RANK * sizeof *to->dims);
  to->outputs = carve(base, &at, outputs, sizeof *to->outputs);
  to->sources = carve(base, &at, inputs, sizeof *to->sources);
  to->copies = carve(base, &at, record->input_count, sizeof *to->copies);
  for (uint32_t i = 0; i < record->input_count; i++) {
    const vlart_binding_record_t *binding =
        vlart_plan_binding(&bundle->plan, record->input_begin + i);
    /* Only rows of a value can lie off its alignment. */
    size_t bytes = binding->mode == VLART_BINDING_MODE_ROW
                       ? (size_t)vlart_stage_input(bundle, stage, i).bytes
                       : 0;
    void *copy = carve(base, &at, 1, bytes);
    if (engine != NULL) {
      to->copies[i] = copy;
    }
  }
  return at;
}

static size_t engine_bytes(const vlart_bundle_t *bundle, uint32_t stage) {
  return lay_out(NULL, bundle, stage);
}

static vlart_status_t tvm_open(void *memory, const vlart_session_options_t *options,
                               vlart_diag_t *diag) {
  return tvm_open_on(TVM_CPU, memory, options, diag);
}

static vlart_status_t tvm_open_cuda(void *memory, const vlart_session_options_t *options,
                                    vlart_diag_t *diag) {
  return tvm_open_on(TVM_CUDA, memory, options, diag);
}

static vlart_status_t function_of(const tvm_engine_t *engine, void *module, const char *name,
                                  void **out_function, vlart_diag_t *diag) {
  tvm_value_t arguments[3] = {{.type = TVM_MODULE, .as.object = module},
                              {.type = TVM_STRING, .as.string = name},
                              {.type = TVM_BOOL, .as.integer = 1}};
  return tvm_call_for(engine, engine->context->functions.get_function, name, arguments, 3,
                      TVM_FUNCTION, out_function, diag);
}

static vlart_status_t start(tvm_engine_t *engine, const char *path, vlart_diag_t *diag) {
  const tvm_api_t *api = &engine->context->api;
  tvm_value_t file = {.type = TVM_STRING, .as.string = path};
  void *make = NULL, *initialise = NULL;
  vlart_status_t status =
      tvm_call_for(engine, engine->context->functions.load_module, "ffi.ModuleLoadFromFile", &file,
                   1, TVM_MODULE, &engine->library, diag);
  if (status == VLART_STATUS_OK) {
    status = function_of(engine, engine->library, "vm_load_executable", &make, diag);
  }
  if (status == VLART_STATUS_OK) {
    status = tvm_call_for(engine, make, "vm_load_executable", NULL, 0, TVM_MODULE, &engine->machine,
                          diag);
  }
  if (status == VLART_STATUS_OK) {
    status = function_of(engine, engine->machine, "vm_initialization", &initialise, diag);
  }
  if (status == VLART_STATUS_OK) {
    tvm_value_t devices[6] = {{.type = TVM_INT, .as.integer = engine->context->device},
                              {.type = TVM_INT, .as.integer = 0},
                              {.type = TVM_INT, .as.integer = TVM_POOLED},
                              {.type = TVM_INT, .as.integer = TVM_CPU}, /* shapes are on the host */
                              {.type = TVM_INT, .as.integer = 0},
                              {.type = TVM_INT, .as.integer = TVM_POOLED}};
    tvm_value_t nothing = {0};
    int32_t numbers = engine->context->device == TVM_CPU ? 3 : 6;
    if (api->call(initialise, devices, numbers, &nothing) != 0) {
      status = tvm_raised(api, "vm_initialization", tvm_stage_name(engine), diag);
    }
  }
  if (status == VLART_STATUS_OK) {
    status = function_of(engine, engine->machine, "main", &engine->main, diag);
  }
  tvm_release(api, &initialise);
  tvm_release(api, &make);
  return status;
}

static vlart_status_t tvm_load(void *context_memory, void *engine_memory,
                               const vlart_bundle_t *bundle, uint32_t stage, vlart_diag_t *diag) {
  tvm_engine_t *engine = engine_memory;
  const vlart_stage_record_t *record = vlart_plan_stage(&bundle->plan, stage);
  *engine = (tvm_engine_t){.context = context_memory,
                           .bundle = bundle,
                           .stage = stage,
                           .address_sets = vlart_plan_address_sets(&bundle->plan, stage),
                           .input_count = record->input_count,
                           .output_count = record->output_count};
  lay_out(engine, bundle, stage);
  if (record->initializer_count != 0) {
    vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "a stage for TVM is not complete",
               "build the bundle again");
    vlart_where(diag, "stage \"%s\"", tvm_stage_name(engine));
    vlart_why(diag, "its weights are not in its file");
    return VLART_STATUS_UNSUPPORTED;
  }
  char path[TVM_PATH_BYTES];
  if (!vlart_bundle_path(bundle, record->artefact, path, sizeof path)) {
    vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "the path of a stage file is too long",
               "move the bundle to a directory with a shorter path");
    vlart_where(diag, "stage \"%s\"", tvm_stage_name(engine));
    vlart_why(diag, "it has more than %u bytes", TVM_PATH_BYTES - 1);
    return VLART_STATUS_UNSUPPORTED;
  }
  vlart_status_t status = tvm_check_file(engine, path, diag);
  if (status == VLART_STATUS_OK) status = start(engine, path, diag);
  return status == VLART_STATUS_OK ? tvm_check_file(engine, path, diag) : status;
}

static vlart_status_t tvm_prepare(void *memory, uint32_t iteration, void *const *inputs,
                                  void *const *outputs, vlart_diag_t *diag) {
  tvm_engine_t *engine = memory;
  vlart_status_t status = tvm_lend(engine, iteration, inputs, diag);
  for (uint32_t i = 0; i < engine->output_count; i++) {
    engine->outputs[iteration * engine->output_count + i] = outputs[i];
  }
  return status == VLART_STATUS_OK && iteration == 0 ? tvm_invoke(engine, 0, false, diag) : status;
}

static vlart_status_t tvm_run(void *memory, uint32_t iteration, vlart_diag_t *diag) {
  return tvm_invoke(memory, iteration, true, diag);
}

static void tvm_unload(void *memory) {
  tvm_engine_t *engine = memory;
  if (engine->context == NULL) {
    return;
  }
  const tvm_api_t *api = &engine->context->api;
  for (uint32_t i = 0; i < engine->address_sets * engine->input_count; i++) {
    tvm_release(api, &engine->arguments[i].as.object);
  }
  tvm_release(api, &engine->main);
  tvm_release(api, &engine->machine);
  tvm_release(api, &engine->library);
  engine->context = NULL;
}

const vlart_backend_t vlart_backend_tvm = {
    .id = VLART_BACKEND_TVM,
    .name = "tvm",
    .context_bytes = context_bytes,
    .engine_bytes = engine_bytes,
    .open = tvm_open,
    .load = tvm_load,
    .prepare = tvm_prepare,
    .run = tvm_run,
    .unload = tvm_unload,
    .close = tvm_close,
    .native_code = true,
};

const vlart_backend_t vlart_backend_tvm_cuda = {
    .id = VLART_BACKEND_TVM_CUDA,
    .name = "tvm_cuda",
    .context_bytes = context_bytes,
    .engine_bytes = engine_bytes,
    .open = tvm_open_cuda,
    .load = tvm_load,
    .prepare = tvm_prepare,
    .run = tvm_run,
    .unload = tvm_unload,
    .close = tvm_close,
    .native_code = true,
};
