/* A double of libvlart_tensorrt.so and libvlart_tensorrt_builder.so, for the tests: a machine with a
   GPU that is a lie, and engines that ONNX Runtime runs. All that is on libvlart's side of trt_abi.h
   is then really run, and this side is strict where a board would crash: addresses must be device
   memory of enough bytes and aligned, an engine must have run once before it is recorded, scratch
   memory must be given, and everything must be returned.

   A file fake_tensorrt.conf beside this library says what the machine is and how it misbehaves:
   lines of a key and a value; the keys are in fake_tensorrt.h. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_tensorrt.h"
#include "onnxruntime/ort_abi.h"

ORT(7, OrtStatus *, CreateSession, const OrtEnv *, const char *, const OrtSessionOptions *,
    OrtSession **);

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

static void trace(vlart_trt_device_t *device, const char *what, const char *detail) {
  if (device->trace != NULL) {
    fprintf(device->trace, "%s %s\n", what, detail);
    fflush(device->trace);
  }
}

/* Whether this call is to go well. */
static bool may(vlart_trt_device_t *device, const char *call, vlart_trt_error_t *error) {
  return strcmp(device->conf.fail_call, call) != 0 || fake_no(error, "out of luck in", call);
}

static bool ort_ok(ort_api_t api, OrtStatus *status, vlart_trt_error_t *error) {
  if (status == NULL) {
    return true;
  }
  fake_no(error, "ONNX Runtime:", ORT_FN(api, GetErrorMessage)(status));
  ORT_FN(api, ReleaseStatus)(status);
  return false;
}

/* ---- device and memory ----------------------------------------------------------------------- */

static bool open_ort(vlart_trt_device_t *d, vlart_trt_error_t *error) {
  d->library = dlopen(d->conf.ort, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  void *symbol = d->library == NULL ? NULL : dlsym(d->library, "OrtGetApiBase");
  const ort_api_base_t *(*base)(void) = NULL;
  memcpy(&base, &symbol, sizeof base);
  if (base == NULL) {
    return fake_no(error, "no ONNX Runtime:", d->conf.ort);
  }
  d->api = base()->get_api(ORT_API_VERSION);
  return ort_ok(d->api, ORT_FN(d->api, CreateEnv)(ORT_LOG_FATAL, "fake", &d->env), error) &&
         ort_ok(d->api, ORT_FN(d->api, CreateCpuMemoryInfo)(0, 0, &d->cpu), error) &&
         ort_ok(d->api, ORT_FN(d->api, GetAllocatorWithDefaultOptions)(&d->allocator), error);
}

static bool open_device(vlart_trt_device_t **out_device, vlart_trt_error_t *error) {
  vlart_trt_device_t *d = calloc(1, sizeof *d);
  if (!fake_read_conf(&d->conf, error) || !may(d, "open", error) || !open_ort(d, error)) {
    free(d);
    return false;
  }
  d->trace = d->conf.trace[0] != '\0' ? fopen(d->conf.trace, "a") : NULL;
  *out_device = d;
  return true;
}

static void close_device(vlart_trt_device_t *d) {
  for (size_t i = 0; i < MOST_BLOCKS; i++) {
    if (d->blocks[i].raw != NULL) {
      fprintf(stderr, "fake_tensorrt: %zu bytes were never released\n", d->blocks[i].bytes);
      abort();
    }
  }
  ORT_FN(d->api, ReleaseMemoryInfo)(d->cpu);
  ORT_FN(d->api, ReleaseEnv)(d->env);
  if (d->trace != NULL) {
    fclose(d->trace);
  }
  free(d);
}

static void device_facts(const vlart_trt_device_t *d, vlart_trt_facts_t *facts) {
  *facts = (vlart_trt_facts_t){.multiprocessors = 8, .memory_bytes = (uint64_t)8 << 30};
  snprintf(facts->tensorrt, sizeof facts->tensorrt, "%s", d->conf.tensorrt);
  snprintf(facts->cuda, sizeof facts->cuda, "%s", d->conf.cuda);
  snprintf(facts->gpu, sizeof facts->gpu, "%s", d->conf.gpu);
  snprintf(facts->system_root, sizeof facts->system_root, "%s", d->conf.system_root);
  facts->compute_capability = (uint32_t)strtoul(d->conf.compute_capability, NULL, 10);
}

static bool allocate(vlart_trt_device_t *d, size_t bytes, bool shared, void **out_memory,
                     vlart_trt_error_t *error) {
  size_t i = 0;
  while (i < MOST_BLOCKS && d->blocks[i].raw != NULL) {
    i++;
  }
  if (!may(d, "allocate", error)) {
    return false;
  }
  if (i == MOST_BLOCKS) {
    return fake_no(error, "no memory", "");
  }
  void *raw = calloc(1, bytes + ALIGNMENT);
  uint8_t *at = (uint8_t *)raw + (-(uintptr_t)raw & (ALIGNMENT - 1));
  d->blocks[i] = (block_t){raw, at, bytes};
  *out_memory = at;
  trace(d, "allocate", shared ? "shared" : "device");
  return true;
}

static void release(vlart_trt_device_t *d, void *memory) {
  for (size_t i = 0; i < MOST_BLOCKS; i++) {
    if (d->blocks[i].at == memory && d->blocks[i].raw != NULL) {
      free(d->blocks[i].raw);
      d->blocks[i] = (block_t){0};
      return;
    }
  }
  fputs("fake_tensorrt: released what was never allocated\n", stderr);
  abort();
}

static bool is_device(const vlart_trt_device_t *d, const void *address, size_t bytes) {
  for (size_t i = 0; i < MOST_BLOCKS; i++) {
    const block_t *b = &d->blocks[i];
    uintptr_t at = (uintptr_t)address, begin = (uintptr_t)b->at;
    if (b->raw != NULL && at >= begin && at + bytes <= begin + b->bytes) {
      return true;
    }
  }
  return false;
}

static bool upload(vlart_trt_device_t *d, void *to, const void *from, size_t bytes,
                   vlart_trt_error_t *error) {
  if (!may(d, "upload", error)) {
    return false;
  }
  if (!is_device(d, to, bytes)) {
    return fake_no(error, "an upload that is not to device memory", "");
  }
  memcpy(to, from, bytes);
  trace(d, "upload", "");
  return true;
}

/* ---- engines --------------------------------------------------------------------------------- */

static bool read_port(vlart_trt_engine_t *e, bool output, size_t index, vlart_trt_error_t *error) {
  const vlart_trt_device_t *d = e->device;
  vlart_trt_port_t *port = &e->ports[e->count];
  char *name = NULL;
  OrtTypeInfo *type = NULL;
  const OrtTensorInfo *tensor = NULL;
  int dtype = 0;
  size_t rank = 0, count = 1;
  bool good =
      ort_ok(d->api, output ? ORT_FN(d->api, SessionGetOutputName)(e->session, index, d->allocator, &name)
                            : ORT_FN(d->api, SessionGetInputName)(e->session, index, d->allocator, &name), error) &&
      ort_ok(d->api, output ? ORT_FN(d->api, SessionGetOutputTypeInfo)(e->session, index, &type)
                            : ORT_FN(d->api, SessionGetInputTypeInfo)(e->session, index, &type), error) &&
      ort_ok(d->api, ORT_FN(d->api, CastTypeInfoToTensorInfo)(type, &tensor), error) &&
      ort_ok(d->api, ORT_FN(d->api, GetTensorElementType)(tensor, &dtype), error) &&
      ort_ok(d->api, ORT_FN(d->api, GetDimensionsCount)(tensor, &rank), error) &&
      ort_ok(d->api, ORT_FN(d->api, GetDimensions)(tensor, port->dims, rank), error);
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
    ort_ok(d->api, ORT_FN(d->api, AllocatorFree)(d->allocator, name), error);
  }
  ORT_FN(d->api, ReleaseTypeInfo)(type);
  return good;
}

static void unload(vlart_trt_engine_t *e) {
  for (uint32_t i = 0; i < e->count; i++) {
    free((void *)(uintptr_t)e->ports[i].name);
  }
  if (e->session != NULL) {
    ORT_FN(e->device->api, ReleaseSession)(e->session);
  }
  trace(e->device, "unload", e->stage);
  free(e);
}

static bool create(vlart_trt_engine_t *e, const fake_head_t *head, vlart_trt_error_t *error) {
  const vlart_trt_device_t *d = e->device;
  OrtSessionOptions *options = NULL;
  size_t inputs = 0, outputs = 0;
  bool good =
      ort_ok(d->api, ORT_FN(d->api, CreateSessionOptions)(&options), error) &&
      ort_ok(d->api, ORT_FN(d->api, SetIntraOpNumThreads)(options, 1), error) &&
      ort_ok(d->api, ORT_FN(d->api, SetSessionGraphOptimizationLevel)(options, ORT_OPTIMIZE_BASIC),
             error) &&
      ort_ok(d->api, ORT_FN(d->api, CreateSession)(d->env, head->onnx, options, &e->session), error) &&
      ort_ok(d->api, ORT_FN(d->api, SessionGetInputCount)(e->session, &inputs), error) &&
      ort_ok(d->api, ORT_FN(d->api, SessionGetOutputCount)(e->session, &outputs), error) &&
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

static bool load(vlart_trt_device_t *d, const void *data, size_t bytes,
                 vlart_trt_engine_t **out_engine, vlart_trt_error_t *error) {
  fake_head_t head;
  if (bytes < sizeof head || memcmp(data, "FAKETRT1", 8) != 0) {
    return fake_no(error, "this is no engine", "");
  }
  memcpy(&head, data, sizeof head);
  if (strcmp(head.tensorrt, d->conf.tensorrt) != 0) {
    return fake_no(error, "the engine is of TensorRT", head.tensorrt);
  }
  if (!may(d, "load", error)) {
    return false;
  }
  vlart_trt_engine_t *e = calloc(1, sizeof *e);
  e->device = d;
  e->wrong = head.wrong != 0;
  snprintf(e->stage, sizeof e->stage, "%s", head.stage);
  if (!create(e, &head, error)) {
    unload(e);
    return false;
  }
  trace(d, "load", e->stage);
  *out_engine = e;
  return true;
}

static uint32_t port_count(const vlart_trt_engine_t *e) { return e->count; }

static bool port(const vlart_trt_engine_t *e, uint32_t index, vlart_trt_port_t *out_port,
                 vlart_trt_error_t *error) {
  *out_port = e->ports[index];
  return may(e->device, "port", error);
}

static const char *layers(vlart_trt_engine_t *e) {
  (void)e;
  return "{\"Layers\": [\"fake\"]}";
}

static uint64_t scratch_bytes(const vlart_trt_engine_t *e) {
  return strtoull(e->device->conf.scratch_bytes, NULL, 10);
}

static void give_scratch(vlart_trt_engine_t *e, void *memory, uint64_t bytes) {
  e->scratch = memory;
  e->scratch_bytes = bytes;
}

static bool bind(vlart_trt_engine_t *e, const char *name, void *address, vlart_trt_error_t *error) {
  for (uint32_t i = 0; i < e->count; i++) {
    if (strcmp(e->ports[i].name, name) == 0) {
      if (!is_device(e->device, address, e->port_bytes[i])) {
        return fake_no(error, "an address that is not device memory, for port", name);
      }
      if ((uintptr_t)address % ALIGNMENT != 0) {
        return fake_no(error, "an address off its alignment, for port", name);
      }
      e->addresses[i] = address;
      return may(e->device, "bind", error);
    }
  }
  return fake_no(error, "no port is called", name);
}

/* ---- the stream ------------------------------------------------------------------------------ */

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
  bool good =
      ort_ok(api, ORT_FN(api, RunWithBinding)(e->session, NULL, step->binding), error);
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

static bool copy(vlart_trt_device_t *d, void *to, const void *from, size_t bytes,
                 vlart_trt_error_t *error) {
  if (!is_device(d, to, bytes) || !is_device(d, from, bytes)) {
    return fake_no(error, "a copy that leaves device memory", "");
  }
  trace(d, "copy", d->recording != NULL ? "recorded" : "now");
  return may(d, "copy", error) &&
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
    if (!ort_ok(api, ORT_FN(api, CreateTensorWithDataAsOrtValue)(
                         e->device->cpu, e->addresses[i], e->port_bytes[i], p->dims, p->rank,
                         (int)p->dtype, &value), error)) {
      return false;
    }
    bool good = ort_ok(api, p->output ? ORT_FN(api, BindOutput)(binding, p->name, value)
                                      : ORT_FN(api, BindInput)(binding, p->name, value), error);
    ORT_FN(api, ReleaseValue)(value);
    if (!good) {
      return false;
    }
  }
  return true;
}

static bool enqueue(vlart_trt_engine_t *e, vlart_trt_error_t *error) {
  vlart_trt_device_t *d = e->device;
  if (d->recording != NULL && !e->ran) {
    return fake_no(error, "recorded before its first run:", e->stage);
  }
  if (scratch_bytes(e) > 0 &&
      (scratch_bytes(e) > e->scratch_bytes || !is_device(d, e->scratch, e->scratch_bytes))) {
    return fake_no(error, "no scratch memory was given to", e->stage);
  }
  step_t step = {.engine = e};
  for (uint32_t i = e->count; i > 0; i--) {
    step.to = e->ports[i - 1].output ? e->addresses[i - 1] : step.to;
  }
  if (!may(d, "enqueue", error) ||
      !ort_ok(d->api, ORT_FN(d->api, CreateIoBinding)(e->session, &step.binding), error)) {
    return false;
  }
  if (!bind_all(e, step.binding, error)) {
    drop_step(&step);
    return false;
  }
  e->ran = true;
  trace(d, d->recording != NULL ? "record" : "run", e->stage);
  return take_step(d, &step, error);
}

static bool wait(vlart_trt_device_t *d, vlart_trt_error_t *error) { return may(d, "wait", error); }

static bool begin(vlart_trt_device_t *d, vlart_trt_error_t *error) {
  if (!may(d, "begin", error)) {
    return false;
  }
  d->recording = calloc(1, sizeof *d->recording);
  d->recording->device = d;
  return true;
}

static void drop(vlart_trt_graph_t *graph) {
  for (size_t i = 0; i < graph->count; i++) {
    drop_step(&graph->steps[i]);
  }
  free(graph);
}

static bool end(vlart_trt_device_t *d, vlart_trt_graph_t **out_graph, vlart_trt_error_t *error) {
  vlart_trt_graph_t *graph = d->recording;
  d->recording = NULL;
  if (!may(d, "end", error)) {
    drop(graph);
    return false;
  }
  *out_graph = graph;
  return true;
}

static bool launch(vlart_trt_device_t *d, vlart_trt_graph_t *graph, vlart_trt_error_t *error) {
  char steps[32];
  bool good = may(d, "launch", error);
  for (size_t i = 0; good && i < graph->count; i++) {
    good = do_step(&graph->steps[i], error);
  }
  snprintf(steps, sizeof steps, "%zu", graph->count);
  trace(d, "launch", steps);
  return good;
}

static const vlart_trt_runtime_t runtime = {
    VLART_TRT_ABI, ALIGNMENT, open_device, close_device, device_facts, allocate,
    release, upload, load, unload, port_count, port,
    layers, scratch_bytes, give_scratch, bind, copy, enqueue,
    wait, begin, end, launch, drop,
};

__attribute__((visibility("default"))) const vlart_trt_runtime_t *vlart_tensorrt_runtime(
    uint32_t abi) {
  return abi == VLART_TRT_ABI ? &runtime : NULL;
}
