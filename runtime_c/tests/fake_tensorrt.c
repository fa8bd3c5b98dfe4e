/* A double of libvlart_tensorrt.so and libvlart_tensorrt_builder.so, for the tests: a machine with a
   GPU that is a lie, and engines that ONNX Runtime runs. All that is on libvlart's side of trt_abi.h
   is then really run, and this side is strict where a board would crash: addresses must be device
   memory of enough bytes and aligned, an engine must have run once before it is recorded, scratch
   memory must be given, and everything must be returned.

   A file fake_tensorrt.conf beside this library says what the machine is and how it misbehaves:
   lines of a key and a value; the keys are in fake_tensorrt.h. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "fake_device.h"

void fake_trace(vlart_trt_device_t *device, const char *what, const char *detail) {
  if (device->trace != NULL) {
    fprintf(device->trace, "%s %s\n", what, detail);
    fflush(device->trace);
  }
}

bool fake_may(vlart_trt_device_t *device, const char *call, vlart_trt_error_t *error) {
  return strcmp(device->conf.fail_call, call) != 0 || fake_no(error, "out of luck in", call);
}

bool fake_ort_ok(ort_api_t api, OrtStatus *status, vlart_trt_error_t *error) {
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
  return fake_ort_ok(d->api, ORT_FN(d->api, CreateEnv)(ORT_LOG_FATAL, "fake", &d->env), error) &&
         fake_ort_ok(d->api, ORT_FN(d->api, CreateCpuMemoryInfo)(0, 0, &d->cpu), error) &&
         fake_ort_ok(d->api, ORT_FN(d->api, GetAllocatorWithDefaultOptions)(&d->allocator), error);
}

static bool open_device(vlart_trt_device_t **out_device, vlart_trt_error_t *error) {
  vlart_trt_device_t *d = calloc(1, sizeof *d);
  if (!fake_read_conf(&d->conf, error) || !fake_may(d, "open", error) || !open_ort(d, error)) {
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
  snprintf(facts->gpu, sizeof facts->gpu, "%.100s, a double", d->conf.gpu);
  snprintf(facts->system_root, sizeof facts->system_root, "%s", d->conf.system_root);
  facts->compute_capability = (uint32_t)strtoul(d->conf.compute_capability, NULL, 10);
}

static bool allocate(vlart_trt_device_t *d, size_t bytes, bool shared, void **out_memory,
                     vlart_trt_error_t *error) {
  size_t i = 0;
  while (i < MOST_BLOCKS && d->blocks[i].raw != NULL) {
    i++;
  }
  if (!fake_may(d, "allocate", error)) {
    return false;
  }
  if (i == MOST_BLOCKS) {
    return fake_no(error, "no memory", "");
  }
  void *raw = calloc(1, bytes + ALIGNMENT);
  uint8_t *at = (uint8_t *)raw + (-(uintptr_t)raw & (ALIGNMENT - 1));
  d->blocks[i] = (block_t){raw, at, bytes};
  *out_memory = at;
  fake_trace(d, "allocate", shared ? "shared" : "device");
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

bool fake_is_device(const vlart_trt_device_t *d, const void *address, size_t bytes) {
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
  if (!fake_may(d, "upload", error)) {
    return false;
  }
  if (!fake_is_device(d, to, bytes)) {
    return fake_no(error, "an upload that is not to device memory", "");
  }
  memcpy(to, from, bytes);
  fake_trace(d, "upload", "");
  return true;
}

static const vlart_trt_runtime_t runtime = {
    VLART_TRT_ABI,   ALIGNMENT,   open_device,  close_device,       device_facts,
    allocate,        release,     upload,       fake_load,          fake_unload,
    fake_port_count, fake_port,   fake_layers,  fake_scratch_bytes, fake_give_scratch,
    fake_bind,       fake_copy,   fake_enqueue, fake_wait,          fake_begin,
    fake_end,        fake_launch, fake_drop,
};

__attribute__((visibility("default"))) const vlart_trt_runtime_t *vlart_tensorrt_runtime(
    uint32_t abi) {
  return abi == VLART_TRT_ABI ? &runtime : NULL;
}
