/* [init] Makes the library's session of a stage.

   Weights that the artefact names as the plan does are mapped by the library itself, which gives their pages back one by
   one as it packs them: it takes paths only, so it is looked before and after whether these lead to the files that were
   checked. Where they do not, and for large weights that stages share, initializers are handed over as tensors in the
   mapped file, and what the library packs of them is shared by all stages. The library (1.32) takes such tensors at their
   word: a name that the artefact does not have is ignored and a shape is not compared. That plan and artefacts belong
   together is what the self-test proves. */
#include <string.h>
#include <unistd.h>

#include "base/diag.h"
#include "ort_engine.h"

enum {
  SHARED_LEAST_BYTES = 64 << 10, /* smaller weights are packed by each stage for itself */
  SHARED_FEW = 8                 /* and so is what is less than this part of a stage's */
};

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

uint32_t ort_config_crc32(const vlart_crc32_table_t *table) {
  uint32_t crc = 0;
  for (size_t i = 0; i < sizeof ORT_CONFIG / sizeof *ORT_CONFIG; i++) {
    crc = vlart_crc32(table, crc, ORT_CONFIG[i][0], strlen(ORT_CONFIG[i][0]) + 1);
    crc = vlart_crc32(table, crc, ORT_CONFIG[i][1], strlen(ORT_CONFIG[i][1]) + 1);
  }
  return crc;
}

static vlart_status_t set_options(const ort_engine_t *engine, int level, OrtSessionOptions *options,
                                  vlart_diag_t *diag) {
  ort_api_t api = engine->context->api;
  uint32_t threads = engine->context->threads;
  const char *stage = ort_stage_name(engine);
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

/* Whether another stage reads the weight of this initializer too. */
static bool is_shared(const ort_engine_t *engine, uint32_t index) {
  const vlart_plan_t *plan = &engine->bundle->plan;
  uint32_t begin = vlart_plan_stage(plan, engine->stage)->initializer_begin;
  uint32_t weight = vlart_plan_initializer(plan, begin + index)->weight;
  if (vlart_plan_weight(plan, weight)->bytes < SHARED_LEAST_BYTES) {
    return false;
  }
  for (uint32_t s = 0; s < plan->stage_count; s++) {
    const vlart_stage_record_t *other = vlart_plan_stage(plan, s);
    for (uint32_t i = 0; s != engine->stage && i < other->initializer_count; i++) {
      if (vlart_plan_initializer(plan, other->initializer_begin + i)->weight == weight) {
        return true;
      }
    }
  }
  return false;
}

bool ort_has_own_weights(const ort_engine_t *engine) {
  uint64_t shared = 0, all = 0;
  for (uint32_t i = 0; i < engine->constant_count; i++) {
    uint64_t bytes = vlart_stage_constant(engine->bundle, engine->stage, i).bytes;
    all += bytes;
    shared += is_shared(engine, i) ? bytes : 0;
  }
  return shared <= all / SHARED_FEW;
}

/* named: only those that stages share, and only where that is more than a little of the stage's. */
static vlart_status_t add_constants(const ort_engine_t *engine, bool named,
                                    OrtSessionOptions *options, vlart_diag_t *diag) {
  ort_api_t api = engine->context->api;
  bool none = named && ort_has_own_weights(engine);
  for (uint32_t i = 0; !none && i < engine->constant_count; i++) {
    if (named && !is_shared(engine, i)) {
      continue;
    }
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

/* A key of the library's configuration. */
static vlart_status_t say(const ort_engine_t *engine, OrtSessionOptions *options, const char *key,
                          const char *value, vlart_diag_t *diag) {
  ort_api_t api = engine->context->api;
  return ort_check(api, ORT_FN(api, AddSessionConfigEntry)(options, key, value),
                   "AddSessionConfigEntry", ort_stage_name(engine), diag);
}

static vlart_status_t say_folder(const ort_engine_t *engine, OrtSessionOptions *options,
                                 const char *folder, vlart_diag_t *diag) {
  return say(engine, options, "session.model_external_initializers_file_folder_path", folder, diag);
}

/* Where the files are that a stage names for its weights. The library looks whether they exist even where it is given
   all weights; from bytes, it would look in the working directory. */
static vlart_status_t name_folder(const ort_engine_t *engine, OrtSessionOptions *options,
                                  vlart_diag_t *diag) {
  char path[VLART_BUNDLE_PATH_BYTES];
  uint32_t artefact = vlart_plan_stage(&engine->bundle->plan, engine->stage)->artefact;
  if (!vlart_bundle_path(engine->bundle, artefact, path, sizeof path)) {
    vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "the path of a stage file is too long",
               "move the bundle to a directory with a shorter path");
    vlart_where(diag, "stage \"%s\"", ort_stage_name(engine));
    vlart_why(diag, "it has more than %u bytes", VLART_BUNDLE_PATH_BYTES - 1);
    return VLART_STATUS_UNSUPPORTED;
  }
  *strrchr(path, '/') = '\0';
  return say_folder(engine, options, path, diag);
}

/* What the library optimised and packed goes to this file and to ORT_CACHED_DATA beside it. */
static vlart_status_t save_to(const ort_engine_t *engine, OrtSessionOptions *options,
                              const char *path, vlart_diag_t *diag) {
  ort_api_t api = engine->context->api;
  vlart_status_t status = ort_check(api, ORT_FN(api, SetOptimizedModelFilePath)(options, path),
                                    "SetOptimizedModelFilePath", ort_stage_name(engine), diag);
  static const char *const keys[][2] = {
      {"session.optimized_model_external_initializers_file_name", ORT_CACHED_DATA},
      {"session.optimized_model_external_initializers_min_size_in_bytes", "1024"},
      {"session.save_external_prepacked_constant_initializers", "1"},
  };
  for (size_t i = 0; status == VLART_STATUS_OK && i < sizeof keys / sizeof *keys; i++) {
    status = say(engine, options, keys[i][0], keys[i][1], diag);
  }
  return status;
}

/* From bytes whose checksum was compared, not from a path: what lies there may be another file by now. */
static vlart_status_t create_session(ort_engine_t *engine, const vlart_map_t *model,
                                     const OrtSessionOptions *options, vlart_diag_t *diag) {
  const ort_context_t *context = engine->context;
  OrtStatus *error = ORT_FN(context->api, CreateSessionFromArrayWithPrepackedWeightsContainer)(
      context->env, model->data, model->bytes, options, context->prepacked, &engine->session);
  return ort_check(context->api, error, "CreateSession", ort_stage_name(engine), diag);
}

static vlart_status_t make(ort_engine_t *engine, bool named, const char *saved,
                           vlart_diag_t *diag) {
  ort_api_t api = engine->context->api;
  const vlart_stage_record_t *stage = vlart_plan_stage(&engine->bundle->plan, engine->stage);
  OrtSessionOptions *options = NULL;
  vlart_status_t status = ort_check(api, ORT_FN(api, CreateSessionOptions)(&options),
                                    "CreateSessionOptions", ort_stage_name(engine), diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  status = set_options(engine, ort_level(engine), options, diag);
  if (status == VLART_STATUS_OK) status = add_constants(engine, named, options, diag);
  if (status == VLART_STATUS_OK) status = name_folder(engine, options, diag);
  if (status == VLART_STATUS_OK && saved != NULL) status = save_to(engine, options, saved, diag);
  if (status == VLART_STATUS_OK) {
    status = create_session(engine, &engine->bundle->files[stage->artefact], options, diag);
  }
  ORT_FN(api, ReleaseSessionOptions)(options);
  return status;
}

int ort_level(const ort_engine_t *engine) {
  /* As a stand-in for TensorRT: the library's (1.32) further rewrites of int8 convolutions want
     unsigned values and refuse the signed ones that are written there. */
  const vlart_stage_record_t *stage = vlart_plan_stage(&engine->bundle->plan, engine->stage);
  return stage->backend == VLART_BACKEND_TENSORRT ? ORT_OPTIMIZE_BASIC : ORT_OPTIMIZE_ALL;
}

vlart_status_t ort_make_session(ort_engine_t *engine, const char *saved, vlart_diag_t *diag) {
  bool named = vlart_bundle_weights_are_at(engine->bundle) && ort_weights_are_named(engine);
  vlart_status_t status = make(engine, named, named ? saved : NULL, diag);
  if (named && !vlart_bundle_weights_are_at(engine->bundle)) {
    ort_release_session(engine);
    if (saved != NULL) {
      (void)unlink(saved); /* it is of files that nobody checked, and no entry without it */
    }
    status = make(engine, false, NULL, diag);
  }
  return status;
}

vlart_status_t ort_map_session(ort_engine_t *engine, const vlart_map_t *model, const char *folder,
                               vlart_diag_t *diag) {
  ort_api_t api = engine->context->api;
  OrtSessionOptions *options = NULL;
  vlart_status_t status = ort_check(api, ORT_FN(api, CreateSessionOptions)(&options),
                                    "CreateSessionOptions", ort_stage_name(engine), diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  status = set_options(engine, ORT_OPTIMIZE_NOTHING, options, diag);
  if (status == VLART_STATUS_OK) status = say_folder(engine, options, folder, diag);
  if (status == VLART_STATUS_OK) status = create_session(engine, model, options, diag);
  ORT_FN(api, ReleaseSessionOptions)(options);
  return status;
}

void ort_release_session(ort_engine_t *engine) {
  ort_api_t api = engine->context->api;
  if (engine->session != NULL) {
    ORT_FN(api, ReleaseSession)(engine->session);
    engine->session = NULL;
  }
  for (uint32_t i = 0; i < engine->constant_count; i++) {
    if (engine->constants[i] != NULL) {
      ORT_FN(api, ReleaseValue)(engine->constants[i]);
      engine->constants[i] = NULL;
    }
  }
}
