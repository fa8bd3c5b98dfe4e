/* Stages that another session of the bundle runs: an engine that needs no memory, loads nothing and refuses
   to run. Their outputs come with what that session hands over. */

#include "session/remote_stages.h"

#include "base/diag.h"

static size_t no_context(const vlart_bundle_t *bundle) {
  (void)bundle;
  return 0;
}

static size_t no_engine(const vlart_bundle_t *bundle, uint32_t stage) {
  (void)bundle;
  (void)stage;
  return 0;
}

static vlart_status_t remote_open(void *context, const vlart_session_options_t *options,
                                  vlart_diag_t *diag) {
  (void)context;
  (void)options;
  (void)diag;
  return VLART_STATUS_OK;
}

static vlart_status_t remote_load(void *context, void *engine, const vlart_bundle_t *bundle,
                                  uint32_t stage, vlart_diag_t *diag) {
  (void)context;
  (void)engine;
  (void)bundle;
  (void)stage;
  (void)diag;
  return VLART_STATUS_OK;
}

static vlart_status_t remote_prepare(void *engine, uint32_t iteration, void *const *inputs,
                                     void *const *outputs, vlart_diag_t *diag) {
  (void)engine;
  (void)iteration;
  (void)inputs;
  (void)outputs;
  (void)diag;
  return VLART_STATUS_OK;
}

static vlart_status_t remote_run(void *engine, uint32_t iteration, vlart_diag_t *diag) {
  (void)engine;
  (void)iteration;
  return vlart_bad_argument(diag, "vlart_session_step", "the stage is another session's");
}

static void remote_release(void *memory) { (void)memory; }

const vlart_backend_t vlart_backend_remote = {.id = 0,
                                              .name = "remote",
                                              .context_bytes = no_context,
                                              .engine_bytes = no_engine,
                                              .open = remote_open,
                                              .load = remote_load,
                                              .prepare = remote_prepare,
                                              .run = remote_run,
                                              .unload = remote_release,
                                              .close = remote_release};
