/* An engine that a test writes in a few lines: it knows its stage and the addresses of its ports, inputs first.
   Include it once and give `run`. */
#ifndef VLART_TESTS_SMALL_ENGINE_H
#define VLART_TESTS_SMALL_ENGINE_H

#include <string.h>

#include "bundle/backend.h"

typedef struct {
  const vlart_bundle_t *bundle;
  uint32_t stage;
  void *ports[4];
} small_engine_t;

static vlart_status_t run(const small_engine_t *engine, vlart_diag_t *out);

static size_t small_context_bytes(const vlart_bundle_t *bundle) {
  (void)bundle;
  return 1;
}

static size_t small_engine_bytes(const vlart_bundle_t *bundle, uint32_t stage) {
  (void)bundle;
  (void)stage;
  return sizeof(small_engine_t);
}

static vlart_status_t small_open(void *context, const vlart_session_options_t *options,
                                 vlart_diag_t *out) {
  (void)context;
  (void)options;
  (void)out;
  return VLART_STATUS_OK;
}

static vlart_status_t small_load(void *context, void *engine, const vlart_bundle_t *bundle,
                                 uint32_t stage, vlart_diag_t *out) {
  (void)context;
  (void)out;
  *(small_engine_t *)engine = (small_engine_t){.bundle = bundle, .stage = stage};
  return VLART_STATUS_OK;
}

static vlart_status_t small_prepare(void *memory, uint32_t iteration, void *const *inputs,
                                    void *const *outputs, vlart_diag_t *out) {
  (void)iteration;
  (void)out;
  small_engine_t *engine = memory;
  uint32_t count = vlart_plan_stage(&engine->bundle->plan, engine->stage)->input_count;
  memcpy(engine->ports, inputs, count * sizeof *inputs);
  engine->ports[count] = outputs[0];
  return VLART_STATUS_OK;
}

static vlart_status_t small_run(void *engine, uint32_t iteration, vlart_diag_t *out) {
  (void)iteration;
  return run(engine, out);
}

static void small_end(void *memory) { (void)memory; }

static const vlart_backend_t small_engine = {.id = VLART_BACKEND_ONNXRUNTIME,
                                             .name = "small",
                                             .context_bytes = small_context_bytes,
                                             .engine_bytes = small_engine_bytes,
                                             .open = small_open,
                                             .load = small_load,
                                             .prepare = small_prepare,
                                             .run = small_run,
                                             .unload = small_end,
                                             .close = small_end,
                                             .concurrent = true};

static vlart_session_options_t small_options(void) {
  static const vlart_backend_t *const backends[] = {&small_engine};
  return (vlart_session_options_t){
      .struct_size = sizeof(vlart_session_options_t), .backends = backends, .backend_count = 1};
}

#endif
