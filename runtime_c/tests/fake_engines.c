/* Engines of the double: ONNX Runtime's sessions. */
#include <stdlib.h>
#include <string.h>

#include "fake_device.h"

ORT(7, OrtStatus *, CreateSession, const OrtEnv *, const char *, const OrtSessionOptions *,
    OrtSession **);

static bool read_port(vlart_trt_engine_t *e, bool output, size_t index, vlart_trt_error_t *error) {
  const vlart_trt_device_t *d = e->device;
  vlart_trt_port_t *port = &e->ports[e->count];
  char *name = NULL;
  OrtTypeInfo *type = NULL;
  const OrtTensorInfo *tensor = NULL;
  int dtype = 0;
  size_t rank = 0, count = 1;
  bool good =
      fake_ort_ok(d->api,
                  output
                      ? ORT_FN(d->api, SessionGetOutputName)(e->session, index, d->allocator, &name)
                      : ORT_FN(d->api, SessionGetInputName)(e->session, index, d->allocator, &name),
                  error) &&
      fake_ort_ok(d->api,
                  output ? ORT_FN(d->api, SessionGetOutputTypeInfo)(e->session, index, &type)
                         : ORT_FN(d->api, SessionGetInputTypeInfo)(e->session, index, &type),
                  error) &&
      fake_ort_ok(d->api, ORT_FN(d->api, CastTypeInfoToTensorInfo)(type, &tensor), error) &&
      fake_ort_ok(d->api, ORT_FN(d->api, GetTensorElementType)(tensor, &dtype), error) &&
      fake_ort_ok(d->api, ORT_FN(d->api, GetDimensionsCount)(tensor, &rank), error) &&
      fake_ort_ok(d->api, ORT_FN(d->api, GetDimensions)(tensor, port->dims, rank), error);
  if (good) {
    port->name = strdup(name);
    port->dtype = (uint32_t)dtype;
    port->rank = (uint32_t)rank;
    port->output = output;
    for (size_t k = 0; k < rank; k++) {
      count *= (size_t)port->dims[k];
    }
    static const uint8_t sizes[17] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8, 0, 0, 2};
    e->port_bytes[e->count++] = count * sizes[dtype];
  }
  if (name != NULL) {
    fake_ort_ok(d->api, ORT_FN(d->api, AllocatorFree)(d->allocator, name), error);
  }
  ORT_FN(d->api, ReleaseTypeInfo)(type);
  return good;
}

void fake_unload(vlart_trt_engine_t *e) {
  for (uint32_t i = 0; i < e->count; i++) {
    free((void *)(uintptr_t)e->ports[i].name);
  }
  if (e->session != NULL) {
    ORT_FN(e->device->api, ReleaseSession)(e->session);
  }
  fake_trace(e->device, "unload", e->stage);
  free(e);
}

static bool create(vlart_trt_engine_t *e, const fake_head_t *head, vlart_trt_error_t *error) {
  const vlart_trt_device_t *d = e->device;
  OrtSessionOptions *options = NULL;
  size_t inputs = 0, outputs = 0;
  bool good =
      fake_ort_ok(d->api, ORT_FN(d->api, CreateSessionOptions)(&options), error) &&
      fake_ort_ok(d->api, ORT_FN(d->api, SetIntraOpNumThreads)(options, 1), error) &&
      fake_ort_ok(d->api,
                  ORT_FN(d->api, SetSessionGraphOptimizationLevel)(options, ORT_OPTIMIZE_BASIC),
                  error) &&
      fake_ort_ok(d->api, ORT_FN(d->api, CreateSession)(d->env, head->onnx, options, &e->session),
                  error) &&
      fake_ort_ok(d->api, ORT_FN(d->api, SessionGetInputCount)(e->session, &inputs), error) &&
      fake_ort_ok(d->api, ORT_FN(d->api, SessionGetOutputCount)(e->session, &outputs), error) &&
      inputs + outputs <= MOST_PORTS;
  if (options != NULL) {
    ORT_FN(d->api, ReleaseSessionOptions)(options);
  }
  for (size_t i = 0; good && i < inputs; i++) {
    good = read_port(e, false, i, error);
  }
  for (size_t i = 0; good && i < outputs; i++) {
    good = read_port(e, true, i, error);
  }
  return good;
}

bool fake_load(vlart_trt_device_t *d, const void *data, size_t bytes,
               vlart_trt_engine_t **out_engine, vlart_trt_error_t *error) {
  fake_head_t head;
  if (bytes < sizeof head || memcmp(data, "FAKETRT1", 8) != 0) {
    return fake_no(error, "this is no engine", "");
  }
  memcpy(&head, data, sizeof head);
  if (strcmp(head.tensorrt, d->conf.tensorrt) != 0) {
    return fake_no(error, "the engine is of TensorRT", head.tensorrt);
  }
  if (!fake_may(d, "load", error)) {
    return false;
  }
  vlart_trt_engine_t *e = calloc(1, sizeof *e);
  e->device = d;
  e->wrong = head.wrong != 0;
  snprintf(e->stage, sizeof e->stage, "%s", head.stage);
  if (!create(e, &head, error)) {
    fake_unload(e);
    return false;
  }
  fake_trace(d, "load", e->stage);
  *out_engine = e;
  return true;
}

uint32_t fake_port_count(const vlart_trt_engine_t *e) { return e->count; }

bool fake_port(const vlart_trt_engine_t *e, uint32_t index, vlart_trt_port_t *out_port,
               vlart_trt_error_t *error) {
  *out_port = e->ports[index];
  return fake_may(e->device, "port", error);
}

const char *fake_layers(vlart_trt_engine_t *e) {
  (void)e;
  return "{\"Layers\": [\"fake\"]}";
}

uint64_t fake_scratch_bytes(const vlart_trt_engine_t *e) {
  return strtoull(e->device->conf.scratch_bytes, NULL, 10);
}

void fake_give_scratch(vlart_trt_engine_t *e, void *memory, uint64_t bytes) {
  e->scratch = memory;
  e->scratch_bytes = bytes;
}

bool fake_bind(vlart_trt_engine_t *e, const char *name, void *address, vlart_trt_error_t *error) {
  for (uint32_t i = 0; i < e->count; i++) {
    if (strcmp(e->ports[i].name, name) == 0) {
      if (!fake_is_device(e->device, address, e->port_bytes[i])) {
        return fake_no(error, "an address that is not device memory, for port", name);
      }
      if ((uintptr_t)address % ALIGNMENT != 0) {
        return fake_no(error, "an address off its alignment, for port", name);
      }
      e->addresses[i] = address;
      return fake_may(e->device, "bind", error);
    }
  }
  return fake_no(error, "no port is called", name);
}
