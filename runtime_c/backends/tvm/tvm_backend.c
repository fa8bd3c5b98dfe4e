/* TVM as an engine, on the CPU: a stage is a shared object, compiled ahead of time for the machine
   it runs on, with its weights inside; two small libraries, found at run time, load it.

   A stage file is code: it is run by loading it. The bundle's checksums say that it is the file
   that was built, not that its author is to be trusted.
   The library allocates inside its own call (about one small block per kernel, from its pool for
   tensors); this backend allocates nothing. The first call, at [init], on whatever the session's
   memory holds, fills the pool and shows the types of what comes out. */
#include <dlfcn.h>
#include <string.h>

#include "diag.h"
#include "tvm_engine.h"

#define TVM_DEFAULT_FFI "libtvm_ffi.so"
#define TVM_DEFAULT_RUNTIME "libtvm_runtime.so"
#define TVM_PATH_BYTES 4096u

extern const vlart_backend_t vlart_backend_tvm;

const char *tvm_stage_name(const tvm_engine_t *engine) {
  return vlart_plan_stage_name(&engine->bundle->plan, engine->stage);
}

/* The library's texts are counted, not ended. */
static void copy_text(char *out, size_t capacity, const tvm_text_t *text) {
  size_t bytes = text->bytes < capacity - 1 ? text->bytes : capacity - 1;
  memcpy(out, text->data, bytes);
  out[bytes] = '\0';
}

vlart_status_t tvm_raised(const tvm_api_t *api, const char *call, const char *where,
                          vlart_diag_t *diag) {
  void *object = NULL;
  api->take_error(&object);
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, "TVM reports an error", NULL);
  vlart_where(diag, "%s in stage \"%s\"", call, where);
  if (object == NULL) {
    vlart_why(diag, "it gives no reason");
    return VLART_STATUS_BACKEND_FAILED;
  }
  const tvm_error_t *error = object;
  char kind[64], message[400];
  copy_text(kind, sizeof kind, &error->kind);
  copy_text(message, sizeof message, &error->message);
  vlart_why(diag, "%s: %s", kind, message);
  api->release(object);
  return VLART_STATUS_BACKEND_FAILED;
}

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
  size_t inputs = (size_t)record->iterations * record->input_count;
  size_t outputs = (size_t)record->iterations * record->output_count;
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

static vlart_status_t no_library(const char *path, const char *why, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_NO_BACKEND, "TVM's runtime cannot be loaded",
             "`pip install apache-tvm`, then give the paths of tvm_ffi/lib/libtvm_ffi.so and "
             "tvm/lib/libtvm_runtime.so (vlart-run: --tvm-ffi, --tvm)");
  vlart_where(diag, "%s", path);
  vlart_why(diag, "%s", why != NULL ? why : "the loader gives no reason");
  return VLART_STATUS_NO_BACKEND;
}

/* A compiled stage looks for the library's functions among the global symbols, so both are loaded
   to be seen; they stay in the process, as their threads and tables do. */
static vlart_status_t load_libraries(tvm_api_t *api, const char *ffi_path,
                                     const char *runtime_path, vlart_diag_t *diag) {
  void *ffi = dlopen(ffi_path, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
  if (ffi == NULL) {
    return no_library(ffi_path, dlerror(), diag);
  }
  if (dlopen(runtime_path, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE) == NULL) {
    return no_library(runtime_path, dlerror(), diag);
  }
  const struct {
    const char *name;
    void *to;
  } wanted[] = {{"TVMFFIFunctionGetGlobal", &api->get_global},
                {"TVMFFIFunctionCall", &api->call},
                {"TVMFFITensorFromDLPack", &api->from_lent},
                {"TVMFFIObjectDecRef", &api->release},
                {"TVMFFIErrorMoveFromRaised", &api->take_error}};
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
    void *symbol = dlsym(ffi, wanted[i].name);
    if (symbol == NULL) {
      return no_library(ffi_path, "it does not export tvm-ffi's functions", diag);
    }
    memcpy(wanted[i].to, &symbol, sizeof symbol);
  }
  return VLART_STATUS_OK;
}

static vlart_status_t find_global(const tvm_api_t *api, const char *name, void **out_function,
                                  vlart_diag_t *diag) {
  tvm_text_t text = {name, strlen(name)};
  if (api->get_global(&text, out_function) != 0) {
    return tvm_raised(api, name, "*", diag);
  }
  return *out_function != NULL ? VLART_STATUS_OK
                               : no_library(name, "the library has no such function", diag);
}

static vlart_status_t tvm_open(void *memory, const vlart_session_options_t *options,
                               vlart_diag_t *diag) {
  tvm_context_t *context = memory;
  const char *ffi = options->tvm_ffi_library != NULL ? options->tvm_ffi_library : TVM_DEFAULT_FFI;
  const char *runtime = options->tvm_library != NULL ? options->tvm_library : TVM_DEFAULT_RUNTIME;
  vlart_status_t status = load_libraries(&context->api, ffi, runtime, diag);
  const tvm_api_t *api = &context->api;
  if (status == VLART_STATUS_OK) {
    status = find_global(api, "ffi.ModuleLoadFromFile", &context->load_module, diag);
  }
  if (status == VLART_STATUS_OK) {
    status = find_global(api, "ffi.ModuleGetFunction", &context->get_function, diag);
  }
  if (status == VLART_STATUS_OK) {
    status = find_global(api, "ffi.ArrayGetItem", &context->get_item, diag);
  }
  return status;
}

static void release(const tvm_api_t *api, void **object) {
  if (*object != NULL) {
    api->release(*object);
    *object = NULL;
  }
}

static void tvm_close(void *memory) {
  tvm_context_t *context = memory;
  release(&context->api, &context->get_item);
  release(&context->api, &context->get_function);
  release(&context->api, &context->load_module);
  *context = (tvm_context_t){0};
}

/* Calls a function that gives an object of one type. */
static vlart_status_t call_for(const tvm_engine_t *engine, void *function, const char *name,
                               tvm_value_t *arguments, int32_t count, int32_t type,
                               void **out_object, vlart_diag_t *diag) {
  const tvm_api_t *api = &engine->context->api;
  tvm_value_t result = {0};
  if (api->call(function, arguments, count, &result) != 0) {
    return tvm_raised(api, name, tvm_stage_name(engine), diag);
  }
  if (result.type == type) {
    *out_object = result.as.object;
    return VLART_STATUS_OK;
  }
  if (result.type >= TVM_OBJECTS) {
    api->release(result.as.object);
  }
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, "a stage file is not what TVM compiles",
             "build the bundle again");
  vlart_where(diag, "%s in stage \"%s\"", name, tvm_stage_name(engine));
  vlart_why(diag, "a value of type %u was expected, it gives %u", (unsigned)type,
            (unsigned)result.type);
  return VLART_STATUS_BACKEND_FAILED;
}

static vlart_status_t function_of(const tvm_engine_t *engine, void *module, const char *name,
                                  void **out_function, vlart_diag_t *diag) {
  tvm_value_t arguments[3] = {{.type = TVM_MODULE, .as.object = module},
                              {.type = TVM_STRING, .as.string = name},
                              {.type = TVM_BOOL, .as.integer = 1}};
  return call_for(engine, engine->context->get_function, name, arguments, 3, TVM_FUNCTION,
                  out_function, diag);
}

static vlart_status_t start(tvm_engine_t *engine, const char *path, vlart_diag_t *diag) {
  const tvm_api_t *api = &engine->context->api;
  tvm_value_t file = {.type = TVM_STRING, .as.string = path};
  void *make = NULL, *initialise = NULL;
  vlart_status_t status = call_for(engine, engine->context->load_module, "ffi.ModuleLoadFromFile",
                                   &file, 1, TVM_MODULE, &engine->library, diag);
  if (status == VLART_STATUS_OK) {
    status = function_of(engine, engine->library, "vm_load_executable", &make, diag);
  }
  if (status == VLART_STATUS_OK) {
    status = call_for(engine, make, "vm_load_executable", NULL, 0, TVM_MODULE, &engine->machine,
                      diag);
  }
  if (status == VLART_STATUS_OK) {
    status = function_of(engine, engine->machine, "vm_initialization", &initialise, diag);
  }
  if (status == VLART_STATUS_OK) {
    tvm_value_t device[3] = {{.type = TVM_INT, .as.integer = TVM_CPU},
                             {.type = TVM_INT, .as.integer = 0},
                             {.type = TVM_INT, .as.integer = TVM_POOLED}};
    tvm_value_t nothing = {0};
    if (api->call(initialise, device, 3, &nothing) != 0) {
      status = tvm_raised(api, "vm_initialization", tvm_stage_name(engine), diag);
    }
  }
  if (status == VLART_STATUS_OK) {
    status = function_of(engine, engine->machine, "main", &engine->main, diag);
  }
  release(api, &initialise);
  release(api, &make);
  return status;
}

static vlart_status_t tvm_load(void *context_memory, void *engine_memory,
                               const vlart_bundle_t *bundle, uint32_t stage, vlart_diag_t *diag) {
  tvm_engine_t *engine = engine_memory;
  const vlart_stage_record_t *record = vlart_plan_stage(&bundle->plan, stage);
  *engine = (tvm_engine_t){.context = context_memory,
                           .bundle = bundle,
                           .stage = stage,
                           .iterations = record->iterations,
                           .input_count = record->input_count,
                           .output_count = record->output_count};
  lay_out(engine, bundle, stage);
  if (record->artefact == VLART_NONE || record->initializer_count != 0) {
    vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "a stage for TVM is not complete",
               "build the bundle again");
    vlart_where(diag, "stage \"%s\"", tvm_stage_name(engine));
    vlart_why(diag, record->artefact == VLART_NONE ? "it has no stage file"
                                                   : "its weights are not in its file");
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
  uint64_t bytes = vlart_plan_file(&bundle->plan, record->artefact)->bytes;
  vlart_status_t status = tvm_check_file(engine, path, bytes, diag);
  return status == VLART_STATUS_OK ? start(engine, path, diag) : status;
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
  for (uint32_t i = 0; i < engine->iterations * engine->input_count; i++) {
    release(api, &engine->arguments[i].as.object);
  }
  release(api, &engine->main);
  release(api, &engine->machine);
  release(api, &engine->library);
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
};
