#include "null_backend.h"

#include <string.h>
#include <time.h>

#include "base/diag.h"

null_control_t null_control = {.fail_stage = VLART_NONE};

typedef struct {
  const vlart_bundle_t *bundle;
  uint32_t stage;
  uint32_t inputs;
  uint32_t outputs;
  void **addresses; /* [address sets, inputs + outputs] */
} null_engine_t;

static size_t context_bytes(const vlart_bundle_t *bundle) {
  (void)bundle;
  return 1;
}

static size_t engine_bytes(const vlart_bundle_t *bundle, uint32_t stage) {
  const vlart_stage_record_t *record = vlart_plan_stage(&bundle->plan, stage);
  size_t ports = (size_t)record->input_count + record->output_count;
  return sizeof(null_engine_t) +
         vlart_plan_address_sets(&bundle->plan, stage) * ports * sizeof(void *);
}

static vlart_status_t null_open(void *context, const vlart_session_options_t *options,
                                vlart_diag_t *diag) {
  (void)options;
  (void)diag;
  *(char *)context = 1;
  return VLART_STATUS_OK;
}

static uint64_t sum_bytes(const void *data, uint64_t bytes) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < bytes; i++) {
    sum += ((const uint8_t *)data)[i];
  }
  return sum;
}

static vlart_status_t null_load(void *context, void *memory, const vlart_bundle_t *bundle,
                                uint32_t stage, vlart_diag_t *diag) {
  (void)context;
  (void)diag;
  null_engine_t *engine = memory;
  const vlart_stage_record_t *record = vlart_plan_stage(&bundle->plan, stage);
  *engine = (null_engine_t){bundle, stage, record->input_count, record->output_count,
                            (void **)(engine + 1)};
  for (uint32_t i = 0; i < record->initializer_count; i++) {
    vlart_constant_t constant = vlart_stage_constant(bundle, stage, i);
    null_control.bytes_read += sum_bytes(constant.data, constant.bytes) + strlen(constant.name);
  }
  return VLART_STATUS_OK;
}

static vlart_status_t null_prepare(void *memory, uint32_t iteration, void *const *inputs,
                                   void *const *outputs, vlart_diag_t *diag) {
  (void)diag;
  null_engine_t *engine = memory;
  void **to = engine->addresses + (size_t)iteration * (engine->inputs + engine->outputs);
  for (uint32_t i = 0; i < engine->inputs; i++) {
    to[i] = inputs[i];
  }
  for (uint32_t i = 0; i < engine->outputs; i++) {
    to[engine->inputs + i] = outputs[i];
  }
  return VLART_STATUS_OK;
}

static void fill(void *data, const vlart_port_t *port) {
  if (port->dtype == VLART_DTYPE_F32) {
    for (uint64_t i = 0; i < port->bytes / sizeof(float); i++) {
      memcpy((uint8_t *)data + i * sizeof(float), &null_control.output, sizeof(float));
    }
  } else if (port->dtype == VLART_DTYPE_I32) {
    for (uint64_t i = 0; i < port->bytes / sizeof(int32_t); i++) {
      ((int32_t *)data)[i] = (int32_t)null_control.token;
    }
  } else if (port->dtype == VLART_DTYPE_I64) {
    for (uint64_t i = 0; i < port->bytes / sizeof(int64_t); i++) {
      ((int64_t *)data)[i] = null_control.token;
    }
  } else if (port->bytes > 0) {
    memset(data, 1, port->bytes);
  }
}

static vlart_status_t null_run(void *memory, uint32_t iteration, vlart_diag_t *diag) {
  null_engine_t *engine = memory;
  void **at = engine->addresses + (size_t)iteration * (engine->inputs + engine->outputs);
  if (engine->stage == null_control.fail_stage) {
    vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, "the null engine was told to fail", NULL);
    vlart_where(diag, "iteration %u", iteration);
    return VLART_STATUS_BACKEND_FAILED;
  }
  struct timespec pause = {null_control.sleep_ms / 1000,
                           (long)(null_control.sleep_ms % 1000) * 1000000};
  if (null_control.sleep_ms > 0) {
    nanosleep(&pause, NULL);
  }
  for (uint32_t i = 0; i < engine->inputs; i++) {
    vlart_port_t port = vlart_stage_input(engine->bundle, engine->stage, i);
    null_control.bytes_read += sum_bytes(at[i], port.bytes);
  }
  for (uint32_t i = 0; i < engine->outputs; i++) {
    vlart_port_t port = vlart_stage_output(engine->bundle, engine->stage, i);
    fill(at[engine->inputs + i], &port);
  }
  null_control.runs++;
  return VLART_STATUS_OK;
}

static void null_unload(void *engine) { (void)engine; }

static void null_close(void *context) { (void)context; }

#define NULL_BACKEND(backend_id)      \
  {                                   \
      .id = backend_id,               \
      .name = "null",                 \
      .context_bytes = context_bytes, \
      .engine_bytes = engine_bytes,   \
      .open = null_open,              \
      .load = null_load,              \
      .prepare = null_prepare,        \
      .run = null_run,                \
      .unload = null_unload,          \
      .close = null_close,            \
  }

const vlart_backend_t null_backend = NULL_BACKEND(VLART_BACKEND_ONNXRUNTIME);

/* The same for engines whose libraries no test of the session needs. */
static const vlart_backend_t null_tensorrt = NULL_BACKEND(VLART_BACKEND_TENSORRT);
static const vlart_backend_t null_tvm = NULL_BACKEND(VLART_BACKEND_TVM);
static const vlart_backend_t null_tvm_cuda = NULL_BACKEND(VLART_BACKEND_TVM_CUDA);
static const vlart_backend_t null_openvino = NULL_BACKEND(VLART_BACKEND_OPENVINO);

vlart_session_options_t null_options(void) {
  static const vlart_backend_t *const backends[] = {&null_backend, &null_tensorrt, &null_tvm,
                                                    &null_tvm_cuda, &null_openvino};
  return (vlart_session_options_t){.struct_size = sizeof(vlart_session_options_t),
                                   .backends = backends,
                                   .backend_count = sizeof backends / sizeof *backends};
}
