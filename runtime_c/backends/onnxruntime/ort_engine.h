/* What the two files of this backend share. */
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

/* [init] Compares the engine's inputs and outputs with the plan's. */
vlart_status_t ort_check_ports(const ort_engine_t *engine, vlart_diag_t *diag);

#endif
