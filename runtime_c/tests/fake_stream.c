/* The stream of the double: what is enqueued is done at once, or recorded and done at every launch. */
#include <stdlib.h>
#include <string.h>

#include "fake_device.h"

static bool do_step(const step_t *step, vlart_trt_error_t *error) {
  if (step->engine == NULL) {
    memmove(step->to, step->from, step->bytes);
    return true;
  }
  const vlart_trt_engine_t *e = step->engine;
  ort_api_t api = e->device->api;
  if (e->scratch_bytes > 0) {
    memset(e->scratch, 0xA5, e->scratch_bytes); /* nothing survives there */
  }
  bool good = fake_ort_ok(api, ORT_FN(api, RunWithBinding)(e->session, NULL, step->binding), error);
  if (good && e->wrong) { /* bytes of the first output, as bound when it was recorded */
    ((uint8_t *)step->to)[3] ^= 0x11;
  }
  return good;
}

static void drop_step(const step_t *step) {
  if (step->binding != NULL) {
    ORT_FN(step->engine->device->api, ReleaseIoBinding)(step->binding);
  }
}

/* Records a step, or does it at once. */
static bool take_step(vlart_trt_device_t *d, const step_t *step, vlart_trt_error_t *error) {
  if (d->recording == NULL) {
    bool good = do_step(step, error);
    drop_step(step);
    return good;
  }
  if (d->recording->count == MOST_STEPS) {
    return fake_no(error, "too many steps", "");
  }
  d->recording->steps[d->recording->count++] = *step;
  return true;
}

bool fake_copy(vlart_trt_device_t *d, void *to, const void *from, size_t bytes,
               vlart_trt_error_t *error) {
  if (!fake_is_device(d, to, bytes) || !fake_is_device(d, from, bytes)) {
    return fake_no(error, "a copy that leaves device memory", "");
  }
  fake_trace(d, "copy", d->recording != NULL ? "recorded" : "now");
  return fake_may(d, "copy", error) &&
         take_step(d, &(step_t){.to = to, .from = from, .bytes = bytes}, error);
}

static bool bind_all(vlart_trt_engine_t *e, OrtIoBinding *binding, vlart_trt_error_t *error) {
  ort_api_t api = e->device->api;
  for (uint32_t i = 0; i < e->count; i++) {
    OrtValue *value = NULL;
    const vlart_trt_port_t *p = &e->ports[i];
    if (e->addresses[i] == NULL) {
      return fake_no(error, "nothing is bound to port", p->name);
    }
    if (!fake_ort_ok(api,
                     ORT_FN(api, CreateTensorWithDataAsOrtValue)(e->device->cpu, e->addresses[i],
                                                                 e->port_bytes[i], p->dims, p->rank,
                                                                 (int)p->dtype, &value),
                     error)) {
      return false;
    }
    bool good = fake_ort_ok(api,
                            p->output ? ORT_FN(api, BindOutput)(binding, p->name, value)
                                      : ORT_FN(api, BindInput)(binding, p->name, value),
                            error);
    ORT_FN(api, ReleaseValue)(value);
    if (!good) {
      return false;
    }
  }
  return true;
}

bool fake_enqueue(vlart_trt_engine_t *e, vlart_trt_error_t *error) {
  vlart_trt_device_t *d = e->device;
  if (d->recording != NULL && !e->ran) {
    return fake_no(error, "recorded before its first run:", e->stage);
  }
  if (fake_scratch_bytes(e) > 0 && (fake_scratch_bytes(e) > e->scratch_bytes ||
                                    !fake_is_device(d, e->scratch, e->scratch_bytes))) {
    return fake_no(error, "no scratch memory was given to", e->stage);
  }
  step_t step = {.engine = e};
  for (uint32_t i = e->count; i > 0; i--) {
    step.to = e->ports[i - 1].output ? e->addresses[i - 1] : step.to;
  }
  if (!fake_may(d, "enqueue", error) ||
      !fake_ort_ok(d->api, ORT_FN(d->api, CreateIoBinding)(e->session, &step.binding), error)) {
    return false;
  }
  if (!bind_all(e, step.binding, error)) {
    drop_step(&step);
    return false;
  }
  e->ran = true;
  fake_trace(d, d->recording != NULL ? "record" : "run", e->stage);
  return take_step(d, &step, error);
}

bool fake_wait(vlart_trt_device_t *d, vlart_trt_error_t *error) {
  return fake_may(d, "wait", error);
}

bool fake_begin(vlart_trt_device_t *d, vlart_trt_error_t *error) {
  if (!fake_may(d, "begin", error)) {
    return false;
  }
  d->recording = calloc(1, sizeof *d->recording);
  d->recording->device = d;
  return true;
}

void fake_drop(vlart_trt_graph_t *graph) {
  for (size_t i = 0; i < graph->count; i++) {
    drop_step(&graph->steps[i]);
  }
  free(graph);
}

bool fake_end(vlart_trt_device_t *d, vlart_trt_graph_t **out_graph, vlart_trt_error_t *error) {
  vlart_trt_graph_t *graph = d->recording;
  d->recording = NULL;
  if (!fake_may(d, "end", error)) {
    fake_drop(graph);
    return false;
  }
  *out_graph = graph;
  return true;
}

bool fake_launch(vlart_trt_device_t *d, vlart_trt_graph_t *graph, vlart_trt_error_t *error) {
  char steps[32];
  bool good = fake_may(d, "launch", error);
  for (size_t i = 0; good && i < graph->count; i++) {
    good = do_step(&graph->steps[i], error);
  }
  snprintf(steps, sizeof steps, "%zu", graph->count);
  fake_trace(d, "launch", steps);
  return good;
}
