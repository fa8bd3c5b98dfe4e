/* TensorRT as an engine, on a Jetson: an engine per stage, built on the board by vlart-build.

   libvlart links nothing of NVIDIA: libvlart_tensorrt.so (trt_runtime.cc) is found at run time and
   spoken to through trt_abi.h. Values live in memory that CPU and GPU share, so nothing is copied
   between stages. Every iteration of a stage is recorded once, at [init], and launched in a tick;
   on request all that a tick runs is one launch. An iteration has ended when `run` returns, so the
   host may read and write between stages, and the session's time limit means what it says. */
#include <dlfcn.h>
#include <string.h>

#include "base/crc32.h"
#include "base/diag.h"
#include "builtin.h"
#include "trt_engine.h"

#define TRT_DEFAULT_LIBRARY "libvlart_tensorrt.so"

/* A whole constant has one copy however many bindings read it, a row one for each iteration. */
static size_t most_constants(const vlart_plan_t *plan) {
  size_t count = plan->value_count;
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    const vlart_stage_record_t *stage = vlart_plan_stage(plan, i);
    for (uint32_t k = 0; k < stage->input_count; k++) {
      if (vlart_plan_binding(plan, stage->input_begin + k)->mode == VLART_BINDING_MODE_ROW) {
        count += stage->iterations;
      }
    }
  }
  return count;
}

static size_t context_bytes(const vlart_bundle_t *bundle) {
  return sizeof(vlart_trt_context_t) + most_constants(&bundle->plan) * sizeof(vlart_trt_constant_t);
}

static size_t engine_bytes(const vlart_bundle_t *bundle, uint32_t stage) {
  const vlart_stage_record_t *record = vlart_plan_stage(&bundle->plan, stage);
  size_t ports = (size_t)record->input_count + record->output_count;
  size_t sets = vlart_plan_address_sets(&bundle->plan, stage);
  return sizeof(vlart_trt_state_t) + sets * sizeof(vlart_trt_graph_t *) +
         sets * ports * sizeof(vlart_trt_binding_t) + ports * sizeof(void *);
}

static vlart_status_t no_library(const char *path, const char *why, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_NO_BACKEND, "the TensorRT backend cannot be loaded",
             "`make -C runtime_c tensorrt` on the board, then give libvlart_tensorrt.so as "
             "tensorrt_library (vlart-run: --tensorrt); elsewhere, try the bundle with --stand-in");
  vlart_where(diag, "%s", path);
  vlart_why(diag, "%s", why != NULL ? why : "the loader gives no reason");
  return VLART_STATUS_NO_BACKEND;
}

static vlart_status_t trt_open(void *memory, const vlart_session_options_t *options,
                               vlart_diag_t *diag) {
  vlart_trt_context_t *context = memory;
  const char *path =
      options->tensorrt_library != NULL ? options->tensorrt_library : TRT_DEFAULT_LIBRARY;
  context->constants = (vlart_trt_constant_t *)(context + 1);
  context->trial = options->tensorrt_trial != 0;
  /* Kept in the process after the last close, as CUDA's own state is. */
  context->library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (context->library == NULL) {
    return no_library(path, dlerror(), diag);
  }
  vlart_trt_runtime_entry_t entry = NULL;
  void *symbol = dlsym(context->library, VLART_TRT_RUNTIME_ENTRY);
  memcpy(&entry, &symbol, sizeof entry);
  if (entry == NULL) {
    return no_library(path, "it does not export " VLART_TRT_RUNTIME_ENTRY, diag);
  }
  context->api = entry(VLART_TRT_ABI);
  if (context->api == NULL) {
    return no_library(path, "it was built from another version of vlart", diag);
  }
  vlart_trt_error_t error = {{0}};
  if (!context->api->open(&context->device, &error)) {
    return vlart_trt_failed(diag, "opening the GPU", "*", &error);
  }
  context->api->facts(context->device, &context->facts);
  vlart_trt_system_read(context->facts.system_root, &context->system);
  return VLART_STATUS_OK;
}

static vlart_status_t trt_values(void *memory, const vlart_bundle_t *bundle, size_t bytes,
                                 void **out_memory, vlart_diag_t *diag) {
  vlart_trt_context_t *context = memory;
  vlart_status_t status = vlart_trt_check_board(bundle, &context->facts, &context->system, diag);
  if (status == VLART_STATUS_OK) status = vlart_trt_lock_open(bundle->dir, &context->lock, diag);
  if (status == VLART_STATUS_OK) {
    status = vlart_trt_check_lock(bundle, &context->lock, &context->facts, &context->system,
                                  context->trial, diag);
  }
  vlart_trt_error_t error = {{0}};
  void *values = NULL;
  if (status == VLART_STATUS_OK &&
      !context->api->allocate(context->device, bytes, true, &values, &error)) {
    status = vlart_trt_failed(diag, "allocating the values", "*", &error);
  }
  if (status == VLART_STATUS_OK) {
    context->values = values;
    context->values_bytes = bytes;
    *out_memory = values;
  }
  return status;
}

static void trt_close(void *memory) {
  vlart_trt_context_t *context = memory;
  const vlart_trt_runtime_t *api = context->api;
  if (context->device != NULL) {
    for (size_t i = 0; i < context->constant_count; i++) {
      if (context->constants[i].address != NULL) {
        api->release(context->device, context->constants[i].address);
      }
    }
    if (context->scratch != NULL) {
      api->release(context->device, context->scratch);
    }
    if (context->values != NULL) {
      api->release(context->device, context->values);
    }
    api->close(context->device);
  }
  vlart_trt_lock_close(&context->lock);
  if (context->library != NULL) {
    dlclose(context->library);
  }
  *context = (vlart_trt_context_t){0};
}

static vlart_status_t not_locked(const vlart_trt_state_t *state, const char *why,
                                 vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "a stage has no engine that belongs to it",
             "run vlart-build on this bundle again; what did not change is kept");
  vlart_where(diag, "%s/%s, stage \"%s\"", state->bundle->dir, VLART_TRT_LOCK_FILE,
              vlart_trt_stage_name(state));
  vlart_why(diag, "%s", why);
  return VLART_STATUS_UNSUPPORTED;
}

static vlart_status_t check_file(const vlart_trt_state_t *state, const char *file,
                                 const vlart_engine_record_t *built, const vlart_map_t *map,
                                 vlart_diag_t *diag) {
  vlart_crc32_table_t table;
  vlart_crc32_init(&table);
  uint32_t crc = vlart_crc32(&table, 0, map->data, map->bytes);
  if (map->bytes == built->bytes && crc == built->crc32) {
    return VLART_STATUS_OK;
  }
  vlart_fail(diag, VLART_STATUS_CORRUPT, "an engine was altered after it was built",
             "run vlart-build on this bundle again; what is whole is kept");
  vlart_where(diag, "%s/%s, stage \"%s\"", state->bundle->dir, file, vlart_trt_stage_name(state));
  vlart_why(diag, "it has %zu bytes and CRC-32 %08x, %s says %llu and %08x", map->bytes, crc,
            VLART_TRT_LOCK_FILE, (unsigned long long)built->bytes, built->crc32);
  return VLART_STATUS_CORRUPT;
}

static vlart_status_t load_engine(vlart_trt_state_t *state, vlart_diag_t *diag) {
  vlart_trt_context_t *context = state->context;
  const vlart_stage_record_t *record = vlart_plan_stage(&state->bundle->plan, state->stage);
  const vlart_engine_lock_t *lock = &context->lock.content;
  const vlart_engine_record_t *built = vlart_engine_lock_find(lock, vlart_trt_stage_name(state));
  if (built == NULL) {
    return not_locked(state, "it is not in the record of the built engines", diag);
  }
  if (built->stage_crc32 != vlart_plan_file(&state->bundle->plan, record->artefact)->crc32) {
    return not_locked(state, "its engine was built from another ONNX file", diag);
  }
  const char *file = vlart_engine_lock_string(lock, built->file);
  vlart_map_t map;
  vlart_status_t status = vlart_trt_map(state->bundle->dir, file, &map, diag);
  if (status == VLART_STATUS_OK) status = check_file(state, file, built, &map, diag);
  vlart_trt_error_t error = {{0}};
  if (status == VLART_STATUS_OK &&
      !context->api->load(context->device, map.data, map.bytes, &state->engine, &error)) {
    status = vlart_trt_failed(diag, "loading the engine", vlart_trt_stage_name(state), &error);
  }
  vlart_file_unmap(&map);
  return status;
}

static vlart_status_t trt_load(void *context_memory, void *engine_memory,
                               const vlart_bundle_t *bundle, uint32_t stage, vlart_diag_t *diag) {
  vlart_trt_context_t *context = context_memory;
  vlart_trt_state_t *state = engine_memory;
  const vlart_stage_record_t *record = vlart_plan_stage(&bundle->plan, stage);
  *state = (vlart_trt_state_t){.context = context,
                               .bundle = bundle,
                               .stage = stage,
                               .address_sets = vlart_plan_address_sets(&bundle->plan, stage),
                               .inputs = record->input_count,
                               .outputs = record->output_count};
  size_t ports = (size_t)record->input_count + record->output_count;
  state->graphs = (vlart_trt_graph_t **)(state + 1);
  state->beside = (void **)(state->graphs + state->address_sets);
  state->bindings = (vlart_trt_binding_t *)(state->beside + ports);
  vlart_status_t status = load_engine(state, diag);
  if (status == VLART_STATUS_OK) status = vlart_trt_check_ports(state, diag);
  if (status == VLART_STATUS_OK) {
    uint64_t needed = context->api->scratch_bytes(state->engine);
    context->scratch_needed = needed > context->scratch_needed ? needed : context->scratch_needed;
  }
  return status;
}

/* The session loads every engine before it prepares the first. */
static vlart_status_t give_scratch(vlart_trt_state_t *state, vlart_diag_t *diag) {
  vlart_trt_context_t *context = state->context;
  vlart_trt_error_t error = {{0}};
  if (context->scratch == NULL && context->scratch_needed > 0) {
    if (!context->api->allocate(context->device, context->scratch_needed, false, &context->scratch,
                                &error)) {
      return vlart_trt_failed(diag, "allocating activations", vlart_trt_stage_name(state), &error);
    }
    context->scratch_bytes = context->scratch_needed;
  }
  context->api->give_scratch(state->engine, context->scratch, context->scratch_bytes);
  return VLART_STATUS_OK;
}

/* Makes a graph of some engines, one after the other: of one iteration, or (VLART_NONE) of all. */
static vlart_status_t record(vlart_trt_context_t *context, vlart_trt_state_t *const *states,
                             uint32_t count, uint32_t only, vlart_trt_graph_t **out_graph,
                             vlart_diag_t *diag) {
  const vlart_trt_runtime_t *api = context->api;
  vlart_trt_error_t error = {{0}};
  const char *name = vlart_trt_stage_name(states[0]);
  if (!api->begin(context->device, &error)) {
    return vlart_trt_failed(diag, "beginning to record", name, &error);
  }
  vlart_status_t status = VLART_STATUS_OK;
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < count; i++) {
    uint32_t k = only == VLART_NONE ? 0 : only;
    uint32_t end = only == VLART_NONE
                       ? vlart_plan_stage(&states[i]->bundle->plan, states[i]->stage)->iterations
                       : only + 1;
    for (; status == VLART_STATUS_OK && k < end; k++) {
      status = vlart_trt_enqueue(states[i], k, diag);
    }
  }
  bool ended = api->end(context->device, out_graph, &error);
  if (status == VLART_STATUS_OK && !ended) {
    status = vlart_trt_failed(diag, "recording", name, &error);
  }
  if (status != VLART_STATUS_OK && ended) { /* of a part */
    api->drop(*out_graph);
    *out_graph = NULL;
  }
  return status;
}

/* An engine prepares itself in its first run, which therefore must not be recorded. */
static vlart_status_t warm_up(vlart_trt_state_t *state, vlart_diag_t *diag) {
  vlart_trt_error_t error = {{0}};
  vlart_status_t status = vlart_trt_enqueue(state, 0, diag);
  if (status == VLART_STATUS_OK && !state->context->api->wait(state->context->device, &error)) {
    status = vlart_trt_failed(diag, "the first run", vlart_trt_stage_name(state), &error);
  }
  return status;
}

static vlart_status_t trt_prepare(void *memory, uint32_t iteration, void *const *inputs,
                                  void *const *outputs, vlart_diag_t *diag) {
  vlart_trt_state_t *state = memory;
  vlart_status_t status = VLART_STATUS_OK;
  if (iteration == 0) status = give_scratch(state, diag);
  if (status == VLART_STATUS_OK)
    status = vlart_trt_resolve(state, iteration, inputs, outputs, diag);
  if (status == VLART_STATUS_OK && iteration == 0) status = warm_up(state, diag);
  if (status == VLART_STATUS_OK) {
    status = record(state->context, &state, 1, iteration, &state->graphs[iteration], diag);
  }
  return status;
}

static vlart_status_t launch(vlart_trt_context_t *context, vlart_trt_graph_t *graph,
                             const char *where, vlart_diag_t *diag) {
  vlart_trt_error_t error = {{0}};
  return context->api->launch(context->device, graph, &error)
             ? VLART_STATUS_OK
             : vlart_trt_failed(diag, "running", where, &error);
}

static vlart_status_t trt_run(void *memory, uint32_t iteration, vlart_diag_t *diag) {
  const vlart_trt_state_t *state = memory;
  return launch(state->context, state->graphs[iteration], vlart_trt_stage_name(state), diag);
}

static vlart_status_t trt_record(void *memory, void *const *engines, uint32_t count,
                                 vlart_diag_t *diag) {
  vlart_trt_context_t *context = memory;
  const vlart_bundle_t *bundle = ((const vlart_trt_state_t *)engines[0])->bundle;
  vlart_status_t status = vlart_trt_check_whole_tick(bundle, &context->lock, context->trial, diag);
  return status != VLART_STATUS_OK ? status
                                   : record(context, (vlart_trt_state_t *const *)engines, count,
                                            VLART_NONE, &context->tick_graph, diag);
}

static vlart_status_t trt_replay(void *memory, vlart_diag_t *diag) {
  vlart_trt_context_t *context = memory;
  return launch(context, context->tick_graph, "*", diag);
}

static void trt_unload(void *memory) {
  vlart_trt_state_t *state = memory;
  if (state->context == NULL) {
    return;
  }
  vlart_trt_context_t *context = state->context;
  if (context->tick_graph != NULL) { /* recorded work goes before the engines in it */
    context->api->drop(context->tick_graph);
    context->tick_graph = NULL;
  }
  for (uint32_t k = 0; k < state->address_sets; k++) {
    if (state->graphs[k] != NULL) {
      context->api->drop(state->graphs[k]);
    }
  }
  for (uint32_t i = 0; i < state->inputs + state->outputs; i++) {
    if (state->beside[i] != NULL) {
      context->api->release(context->device, state->beside[i]);
    }
  }
  if (state->engine != NULL) {
    context->api->unload(state->engine);
  }
  state->context = NULL;
}

const vlart_backend_t vlart_backend_tensorrt = {
    .id = VLART_BACKEND_TENSORRT,
    .name = "tensorrt",
    .context_bytes = context_bytes,
    .engine_bytes = engine_bytes,
    .open = trt_open,
    .load = trt_load,
    .prepare = trt_prepare,
    .run = trt_run,
    .unload = trt_unload,
    .close = trt_close,
    .values = trt_values,
    .record = trt_record,
    .replay = trt_replay,
};
