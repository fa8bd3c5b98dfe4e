/* The builder of the double (fake_tensorrt.c), and the file that says what its machine is. */
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_tensorrt.h"

bool fake_no(vlart_trt_error_t *error, const char *why, const char *detail) {
  snprintf(error->text, sizeof error->text, "%s %.300s", why, detail);
  return false;
}

bool fake_read_conf(fake_conf_t *conf, vlart_trt_error_t *error) {
  Dl_info self;
  char path[PATH + 32], key[64], value[PATH];
  void *here = NULL;
  const vlart_trt_runtime_t *(*function)(uint32_t) = vlart_tensorrt_runtime;
  memcpy(&here, &function, sizeof here);
  const struct {
    const char *key;
    char *to;
    size_t capacity;
  } known[] = {{"tensorrt", conf->tensorrt, sizeof conf->tensorrt},
               {"cuda", conf->cuda, sizeof conf->cuda},
               {"gpu", conf->gpu, sizeof conf->gpu},
               {"compute_capability", conf->compute_capability, sizeof conf->compute_capability},
               {"system_root", conf->system_root, sizeof conf->system_root},
               {"ort", conf->ort, sizeof conf->ort},
               {"trace", conf->trace, sizeof conf->trace},
               {"fail_stage", conf->fail_stage, sizeof conf->fail_stage},
               {"crash_stage", conf->crash_stage, sizeof conf->crash_stage},
               {"fat_stage", conf->fat_stage, sizeof conf->fat_stage},
               {"wrong_stage", conf->wrong_stage, sizeof conf->wrong_stage},
               {"sizes", conf->sizes, sizeof conf->sizes},
               {"scratch_bytes", conf->scratch_bytes, sizeof conf->scratch_bytes},
               {"fail_call", conf->fail_call, sizeof conf->fail_call}};
  memset(conf, 0, sizeof *conf);
  if (dladdr(here, &self) == 0) {
    return fake_no(error, "dladdr failed", "");
  }
  const char *slash = strrchr(self.dli_fname, '/');
  snprintf(path, sizeof path, "%.*s/fake_tensorrt.conf",
           slash == NULL ? 1 : (int)(slash - self.dli_fname), slash == NULL ? "." : self.dli_fname);
  FILE *file = fopen(path, "r");
  if (file == NULL) {
    return fake_no(error, "there is no", path);
  }
  while (fscanf(file, "%63s %1023[^\n]", key, value) == 2) {
    bool found = false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
      if (strcmp(known[i].key, key) == 0) {
        snprintf(known[i].to, known[i].capacity, "%.*s", (int)known[i].capacity - 1, value);
        found = true;
      }
    }
    if (!found) {
      fclose(file);
      return fake_no(error, "an unknown key:", key);
    }
  }
  fclose(file);
  return true;
}

static size_t wanted_bytes(const fake_conf_t *conf, const char *stage) {
  size_t length = strlen(stage);
  for (const char *p = conf->sizes; p != NULL && *p != '\0'; p = strchr(p, ' ')) {
    p += *p == ' ';
    if (strncmp(p, stage, length) == 0 && p[length] == ':') {
      return strtoull(p + length + 1, NULL, 10);
    }
  }
  return 0;
}

/* An engine is its head and the ONNX file; a fat one has room for wider weights. */
static bool emit(const vlart_trt_recipe_t *recipe, const fake_conf_t *conf,
                 const vlart_trt_sink_t *sink, vlart_trt_error_t *error) {
  FILE *file = fopen(recipe->onnx, "rb");
  if (file == NULL) {
    return fake_no(error, "the parser finds no", recipe->onnx);
  }
  fseek(file, 0, SEEK_END);
  size_t size = (size_t)ftell(file), bytes = sizeof(fake_head_t) + size;
  bytes = bytes < wanted_bytes(conf, recipe->name) ? wanted_bytes(conf, recipe->name) : bytes;
  if (strcmp(conf->fat_stage, recipe->name) == 0) {
    bytes *= 4;
  }
  uint8_t *engine = calloc(1, bytes);
  fake_head_t head = {.magic = {'F', 'A', 'K', 'E', 'T', 'R', 'T', '1'}};
  head.wrong = strcmp(conf->wrong_stage, recipe->name) == 0;
  snprintf(head.tensorrt, sizeof head.tensorrt, "%s", conf->tensorrt);
  snprintf(head.stage, sizeof head.stage, "%s", recipe->name);
  snprintf(head.onnx, sizeof head.onnx, "%s", recipe->onnx);
  memcpy(engine, &head, sizeof head);
  rewind(file);
  bool good =
      fread(engine + sizeof head, 1, size, file) == size && sink->engine(sink->user, engine, bytes);
  fclose(file);
  free(engine);
  return good || fake_no(error, "the engine cannot be written", "");
}

static bool build(const vlart_trt_recipe_t *recipe, const vlart_trt_sink_t *sink,
                  vlart_trt_error_t *error) {
  fake_conf_t conf;
  char cache[4096];
  if (!fake_read_conf(&conf, error)) {
    return false;
  }
  if (conf.trace[0] != '\0') {
    FILE *file = fopen(conf.trace, "a");
    fprintf(file, "build %s flags %u level %u workspace %llu\n", recipe->name, recipe->flags,
            recipe->level, (unsigned long long)recipe->workspace_bytes);
    fclose(file);
  }
  if (strcmp(conf.crash_stage, recipe->name) == 0) {
    signal(SIGSEGV, SIG_DFL); /* a sanitizer would report it as ours */
    raise(SIGSEGV);
  }
  if (strcmp(conf.fail_stage, recipe->name) == 0) {
    return fake_no(error, "node 3 \"mixer\" (FakeOp): no importer for", recipe->name);
  }
  for (int32_t i = 0; i <= 3; i++) {
    sink->phase(sink->user, "tactics", i, 3);
  }
  sink->warning(sink->user, "made of nothing");
  int used = snprintf(cache, sizeof cache, "%.*s%s\n", (int)recipe->timing_cache_bytes,
                      recipe->timing_cache == NULL ? "" : (const char *)recipe->timing_cache,
                      recipe->name);
  return (sink->timing_cache(sink->user, cache, (size_t)used) ||
          fake_no(error, "the timing cache cannot be written", "")) &&
         emit(recipe, &conf, sink, error);
}

bool fake_tensorrt_rejects(const char *stage) {
  fake_conf_t conf;
  vlart_trt_error_t error;
  return fake_read_conf(&conf, &error) && strcmp(conf.fail_stage, stage) == 0;
}

static const vlart_trt_builder_t builder = {VLART_TRT_ABI, build};

__attribute__((visibility("default"))) const vlart_trt_builder_t *vlart_tensorrt_builder(
    uint32_t abi) {
  return abi == VLART_TRT_ABI ? &builder : NULL;
}
