/* What the files of this backend share. */
#ifndef VLART_TRT_ENGINE_H
#define VLART_TRT_ENGINE_H

#include "bundle/backend.h"
#include "trt_abi.h"
#include "trt_lock.h"
#include "trt_system.h"

/* The device's copy of a constant: of a whole weight, or of one row of it. */
typedef struct {
  uint32_t weight;
  uint32_t row; /* VLART_NONE: all of it */
  void *address;
} vlart_trt_constant_t;

/* One per session. Behind it lie the device's copies of the constants that stages are bound to. */
typedef struct {
  void *library;
  const vlart_trt_runtime_t *api;
  vlart_trt_device_t *device;
  vlart_trt_facts_t facts;
  vlart_trt_system_t system;
  vlart_trt_lock_t lock;
  bool trial;      /* engines that no golden frame proved are accepted */
  uint8_t *values; /* [values_bytes] what stages exchange */
  size_t values_bytes;
  void *scratch; /* of the engine that runs */
  uint64_t scratch_bytes;
  uint64_t scratch_needed;         /* by the largest engine that is loaded */
  vlart_trt_graph_t *tick_graph;   /* a whole tick as one launch; NULL: none */
  vlart_trt_constant_t *constants; /* [constant_count] */
  size_t constant_count;
} vlart_trt_context_t;

/* An address of one iteration, as the engine gets it. */
typedef struct {
  void *address;
  void *beside; /* NULL, or the value itself, off the engine's alignment: copied before or after */
} vlart_trt_binding_t;

/* One per stage. Behind it lie its arrays. */
typedef struct {
  vlart_trt_context_t *context; /* NULL: not loaded */
  const vlart_bundle_t *bundle;
  uint32_t stage;
  uint32_t address_sets; /* as vlart_plan_address_sets */
  uint32_t inputs;
  uint32_t outputs;
  vlart_trt_engine_t *engine;
  vlart_trt_graph_t **graphs;    /* [address_sets] */
  vlart_trt_binding_t *bindings; /* [address_sets][inputs + outputs] */
  void **beside;                 /* [inputs + outputs] aligned room for one iteration's copy */
} vlart_trt_state_t;

const char *vlart_trt_stage_name(const vlart_trt_state_t *state);

/* BACKEND_FAILED with the library's own words. */
vlart_status_t vlart_trt_failed(vlart_diag_t *diag, const char *call, const char *where,
                                const vlart_trt_error_t *error);

/* [init] The bundle must be for this device, its software and its JetPack, and so must be the
   engines that were built. UNSUPPORTED with both versions named. */
vlart_status_t vlart_trt_check_board(const vlart_bundle_t *bundle, const vlart_trt_facts_t *facts,
                                     const vlart_trt_system_t *system, vlart_diag_t *diag);
vlart_status_t vlart_trt_check_lock(const vlart_bundle_t *bundle, const vlart_trt_lock_t *lock,
                                    const vlart_trt_facts_t *facts,
                                    const vlart_trt_system_t *system, bool trial,
                                    vlart_diag_t *diag);

/* [init] Recorded as a whole, the engines must have passed the golden frames too. */
vlart_status_t vlart_trt_check_whole_tick(const vlart_bundle_t *bundle,
                                          const vlart_trt_lock_t *lock, bool trial,
                                          vlart_diag_t *diag);

/* [init] The engine's ports must be the plan's in name, type and shape. */
vlart_status_t vlart_trt_check_ports(const vlart_trt_state_t *state, vlart_diag_t *diag);

/* [init] Resolves the addresses of one iteration. */
vlart_status_t vlart_trt_resolve(vlart_trt_state_t *state, uint32_t iteration, void *const *inputs,
                                 void *const *outputs, vlart_diag_t *diag);

/* [init] One iteration on the stream: copies in, the engine, copies out. */
vlart_status_t vlart_trt_enqueue(vlart_trt_state_t *state, uint32_t iteration, vlart_diag_t *diag);

#endif
