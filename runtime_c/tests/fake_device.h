/* What the files of the double's runtime share: its device, its engines and its stream. */
#ifndef VLART_FAKE_DEVICE_H
#define VLART_FAKE_DEVICE_H

#include <stdio.h>

#include "fake_tensorrt.h"
#include "onnxruntime/ort_abi.h"

enum { ALIGNMENT = 256, MOST_PORTS = 64, MOST_BLOCKS = 1024, MOST_STEPS = 4096 };

struct vlart_trt_device {
  fake_conf_t conf;
  FILE *trace;
  void *library;
  ort_api_t api;
  OrtEnv *env;
  OrtMemoryInfo *cpu;
  OrtAllocator *allocator;
  block_t blocks[MOST_BLOCKS];
  vlart_trt_graph_t *recording;
  char message[400];
};

struct vlart_trt_engine {
  vlart_trt_device_t *device;
  OrtSession *session;
  char stage[128];
  vlart_trt_port_t ports[MOST_PORTS];
  size_t port_bytes[MOST_PORTS];
  void *addresses[MOST_PORTS];
  uint32_t count;
  bool ran, wrong;
  void *scratch;
  uint64_t scratch_bytes;
};

typedef struct {
  vlart_trt_engine_t *engine; /* NULL: a copy */
  OrtIoBinding *binding;
  void *to;
  const void *from;
  size_t bytes;
} step_t;

struct vlart_trt_graph {
  vlart_trt_device_t *device;
  size_t count;
  step_t steps[MOST_STEPS];
};

void fake_trace(vlart_trt_device_t *device, const char *what, const char *detail);

/* Whether this call is to go well. */
bool fake_may(vlart_trt_device_t *device, const char *call, vlart_trt_error_t *error);
bool fake_ort_ok(ort_api_t api, OrtStatus *status, vlart_trt_error_t *error);

/* Whether these bytes are device memory. */
bool fake_is_device(const vlart_trt_device_t *d, const void *address, size_t bytes);

/* fake_engines.c: their part of the runtime's table. */
void fake_unload(vlart_trt_engine_t *e);
bool fake_load(vlart_trt_device_t *d, const void *data, size_t bytes,
               vlart_trt_engine_t **out_engine, vlart_trt_error_t *error);
uint32_t fake_port_count(const vlart_trt_engine_t *e);
bool fake_port(const vlart_trt_engine_t *e, uint32_t index, vlart_trt_port_t *out_port,
               vlart_trt_error_t *error);
const char *fake_layers(vlart_trt_engine_t *e);
uint64_t fake_scratch_bytes(const vlart_trt_engine_t *e);
void fake_give_scratch(vlart_trt_engine_t *e, void *memory, uint64_t bytes);
bool fake_bind(vlart_trt_engine_t *e, const char *name, void *address, vlart_trt_error_t *error);

/* fake_stream.c: its part of the runtime's table. */
bool fake_copy(vlart_trt_device_t *d, void *to, const void *from, size_t bytes,
               vlart_trt_error_t *error);
bool fake_enqueue(vlart_trt_engine_t *e, vlart_trt_error_t *error);
bool fake_wait(vlart_trt_device_t *d, vlart_trt_error_t *error);
bool fake_begin(vlart_trt_device_t *d, vlart_trt_error_t *error);
void fake_drop(vlart_trt_graph_t *graph);
bool fake_end(vlart_trt_device_t *d, vlart_trt_graph_t **out_graph, vlart_trt_error_t *error);
bool fake_launch(vlart_trt_device_t *d, vlart_trt_graph_t *graph, vlart_trt_error_t *error);

#endif
