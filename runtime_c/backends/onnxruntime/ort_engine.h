/* What the files of this backend share. */
#ifndef VLART_ORT_ENGINE_H
#define VLART_ORT_ENGINE_H

#include "bundle/backend.h"
#include "ort_abi.h"

/* One per vlart session. */
typedef struct {
  void *library;
  ort_api_t api;
  OrtEnv *env;
  OrtMemoryInfo *cpu;
  OrtAllocator *allocator;        /* the library's own; not ours to release */
  OrtPrepackedWeights *prepacked; /* stages that share a weight share its packed copy */
  uint32_t threads;
  const char *version;         /* the library's own */
  vlart_weight_cache_t *cache; /* NULL: none; while the session is made */
} ort_context_t;

/* One per stage. */
typedef struct {
  const ort_context_t *context;
  const vlart_bundle_t *bundle;
  uint32_t stage;
  uint32_t address_sets; /* as vlart_plan_address_sets */
  uint32_t constant_count;
  OrtSession *session;
  OrtIoBinding **bindings; /* [address_sets] */
  OrtValue **constants;    /* [constant_count]; must outlive the session */
} ort_engine_t;

/* Turns a status of the library into ours and releases it; NULL is OK. */
vlart_status_t ort_check(ort_api_t api, OrtStatus *error, const char *call, const char *where,
                         vlart_diag_t *diag);

const char *ort_stage_name(const ort_engine_t *engine);

/* A tensor over memory that is not the library's. */
vlart_status_t ort_wrap(const ort_engine_t *engine, const vlart_port_t *port, void *data,
                        vlart_diag_t *diag, OrtValue **out_value);

/* [init] How far the library rewrites the stage's graph. */
int ort_level(const ort_engine_t *engine);

/* [init] Of the library's settings that every session has. */
uint32_t ort_config_crc32(const vlart_crc32_table_t *table);

/* [init] Whether the artefact says where each weight lies, and that is where it lies by the plan. */
bool ort_weights_are_named(const ort_engine_t *engine);

/* [init] Whether hardly any of its weights are another stage's too. */
bool ort_has_own_weights(const ort_engine_t *engine);

/* The name of the file that ort_make_session writes beside `saved`. */
#define ORT_CACHED_DATA "weights.bin"

/* [init] Makes the session from the bundle. saved: also writes what was optimised and packed to this path, unless the
   weights were not, or are no longer, at their paths: then no such file is there; NULL: does not. The engine
   has neither a session nor constants before. */
vlart_status_t ort_make_session(ort_engine_t *engine, const char *saved, vlart_diag_t *diag);

/* [init] Makes the session from what ort_make_session saved: `model`, and the file that it names in `folder`. */
vlart_status_t ort_map_session(ort_engine_t *engine, const vlart_map_t *model, const char *folder,
                               vlart_diag_t *diag);

void ort_release_session(ort_engine_t *engine);

/* [init] One of the two, as the cache of packed weights has it; without a cache, from the bundle. */
vlart_status_t ort_cached_session(ort_engine_t *engine, vlart_diag_t *diag);

/* [init] Compares the engine's inputs and outputs with the plan's. */
vlart_status_t ort_check_ports(const ort_engine_t *engine, vlart_diag_t *diag);

#endif
