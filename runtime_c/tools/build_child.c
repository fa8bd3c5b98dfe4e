/* NVIDIA's libraries are loaded only in child processes, one per engine: what they allocate is
   returned, a crash of the compiler is an error like others, and the next engine begins afresh. */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/diag.h"
#include "build.h"

/* What a child tells its parent, in one piece. */
typedef struct {
  bool good;
  bool no_library;
  vlart_trt_error_t error;
  vlart_trt_facts_t facts;
  uint64_t scratch_bytes;
} answer_t;

typedef struct {
  const build_t *build;
  const build_engine_t *engine;
  FILE *log;
} task_t;

/* ---- in the child ---------------------------------------------------------------------------- */

static void *entry_of(const char *path, const char *name, answer_t *answer) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  void *entry = library == NULL ? NULL : dlsym(library, name);
  if (entry == NULL) {
    const char *why = dlerror();
    snprintf(answer->error.text, sizeof answer->error.text, "%.500s",
             why != NULL ? why : "it has no entry point");
    answer->no_library = true;
  }
  return entry;
}

static const vlart_trt_runtime_t *runtime_of(const task_t *task, answer_t *answer) {
  void *symbol = entry_of(task->build->options->runtime, VLART_TRT_RUNTIME_ENTRY, answer);
  vlart_trt_runtime_entry_t entry = NULL;
  memcpy(&entry, &symbol, sizeof entry);
  const vlart_trt_runtime_t *api = entry == NULL ? NULL : entry(VLART_TRT_ABI);
  if (entry != NULL && api == NULL) {
    snprintf(answer->error.text, sizeof answer->error.text, "it is of another version of vlart");
    answer->no_library = true;
  }
  return api;
}

static void probe(const task_t *task, answer_t *answer) {
  const vlart_trt_runtime_t *api = runtime_of(task, answer);
  vlart_trt_device_t *device = NULL;
  if (api != NULL && api->open(&device, &answer->error)) {
    api->facts(device, &answer->facts);
    api->close(device);
    answer->good = true;
  }
}

static bool keep_engine(void *user, const void *data, size_t bytes) {
  const task_t *task = user;
  char path[300];
  snprintf(path, sizeof path, "%s.tmp", task->engine->file);
  return build_write(task->build->bundle->dir, path, data, bytes);
}

static bool keep_cache(void *user, const void *data, size_t bytes) {
  const task_t *task = user;
  return task->build->timing_cache[0] == '\0' ||
         build_write(task->build->bundle->dir, task->build->timing_cache, data, bytes);
}

static void show_phase(void *user, const char *name, int32_t done, int32_t steps) {
  const task_t *task = user;
  char shown[256]; /* names of the ONNX file are in it */
  vlart_show(shown, sizeof shown, name);
  if (task->log != NULL) {
    fprintf(task->log, "%s: %d of %d\n", shown, (int)done, (int)steps);
  }
  if (isatty(STDOUT_FILENO)) {
    printf("\r%-30.30s %-30.30s %5d of %5d ", task->engine->name, shown, (int)done, (int)steps);
    fflush(stdout);
  }
}

static void note_warning(void *user, const char *line) {
  const task_t *task = user;
  if (task->log != NULL) {
    char shown[1024];
    vlart_show(shown, sizeof shown, line);
    fprintf(task->log, "warning: %s\n", shown);
  }
}

static void compile(const task_t *task, answer_t *answer) {
  void *symbol = entry_of(task->build->options->builder, VLART_TRT_BUILDER_ENTRY, answer);
  vlart_trt_builder_entry_t entry = NULL;
  memcpy(&entry, &symbol, sizeof entry);
  const vlart_trt_builder_t *api = entry == NULL ? NULL : entry(VLART_TRT_ABI);
  if (api == NULL) {
    return;
  }
  vlart_map_t cache = {0};
  vlart_trt_recipe_t recipe = task->engine->recipe.recipe;
  recipe.onnx = task->engine->onnx;
  recipe.name = task->engine->name;
  if (task->build->timing_cache[0] != '\0' &&
      vlart_trt_map(task->build->bundle->dir, task->build->timing_cache, &cache, NULL) ==
          VLART_STATUS_OK) {
    recipe.timing_cache = cache.data;
    recipe.timing_cache_bytes = cache.bytes;
  }
  task_t own = *task;
  char log[VLART_TRT_PATH_BYTES + 300];
  snprintf(log, sizeof log, "%s/%s.log", task->build->bundle->dir, task->engine->file);
  own.log = fopen(log, "w");
  const vlart_trt_sink_t sink = {&own, keep_engine, keep_cache, show_phase, note_warning};
  answer->good = api->build(&recipe, &sink, &answer->error);
  if (own.log != NULL) {
    fclose(own.log);
  }
}

static void inspect(const task_t *task, answer_t *answer) {
  const vlart_trt_runtime_t *api = runtime_of(task, answer);
  vlart_trt_device_t *device = NULL;
  vlart_trt_engine_t *engine = NULL;
  vlart_map_t map;
  char path[300];
  snprintf(path, sizeof path, "%s.tmp", task->engine->file);
  if (api == NULL || !api->open(&device, &answer->error)) {
    return;
  }
  if (vlart_trt_map(task->build->bundle->dir, path, &map, NULL) != VLART_STATUS_OK) {
    snprintf(answer->error.text, sizeof answer->error.text, "%s cannot be read", path);
    return;
  }
  if (api->load(device, map.data, map.bytes, &engine, &answer->error)) {
    answer->scratch_bytes = api->scratch_bytes(engine);
    answer->good = true;
    const char *layers = api->layers(engine);
    snprintf(path, sizeof path, "%s.layers.json", task->engine->file);
    if (layers != NULL) {
      (void)build_write(task->build->bundle->dir, path, layers, strlen(layers)); /* for people */
    }
    api->unload(engine);
  }
  vlart_file_unmap(&map);
  api->close(device);
}

/* ---- in the parent --------------------------------------------------------------------------- */

/* Runs `work` in a child. `out_peak_bytes` may be NULL. False: the child did not answer. */
static bool in_child(void (*work)(const task_t *, answer_t *), const task_t *task,
                     answer_t *out_answer, uint64_t *out_peak_bytes) {
  int ends[2];
  *out_answer = (answer_t){0};
  if (pipe(ends) != 0) {
    snprintf(out_answer->error.text, sizeof out_answer->error.text, "pipe: %s", strerror(errno));
    return false;
  }
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    work(task, out_answer);
    fflush(stdout);
    bool told = write(ends[1], out_answer, sizeof *out_answer) == (ssize_t)sizeof *out_answer;
    _exit(told ? 0 : 1);
  }
  close(ends[1]);
  size_t got = 0;
  while (child > 0 && got < sizeof *out_answer) {
    ssize_t more = read(ends[0], (char *)out_answer + got, sizeof *out_answer - got);
    if (more <= 0 && errno != EINTR) {
      break;
    }
    got += more > 0 ? (size_t)more : 0;
  }
  close(ends[0]);
  int state = 0;
  struct rusage usage = {0};
  while (child > 0 && wait4(child, &state, 0, &usage) < 0 && errno == EINTR) {
  }
  if (out_peak_bytes != NULL) {
    *out_peak_bytes = (uint64_t)usage.ru_maxrss * 1024;
  }
  if (child > 0 && got == sizeof *out_answer) {
    return true;
  }
  *out_answer = (answer_t){0};
  snprintf(out_answer->error.text, sizeof out_answer->error.text,
           child < 0            ? "no process could be started"
           : WIFSIGNALED(state) ? "its process was ended by signal %d; %s"
                                : "its process ended with status %d; %s",
           WIFSIGNALED(state) ? WTERMSIG(state) : WEXITSTATUS(state),
           WIFSIGNALED(state) && WTERMSIG(state) == SIGKILL ? "the system may be out of memory"
                                                            : "the library crashed");
  return false;
}

static vlart_status_t no_library(const char *path, const char *why, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_NO_BACKEND, "a TensorRT library cannot be loaded",
             "`make -C runtime_c tensorrt` on the board, then give the paths with --tensorrt and "
             "--tensorrt-builder");
  vlart_where(diag, "%s", path);
  vlart_why(diag, "%s", why);
  return VLART_STATUS_NO_BACKEND;
}

static vlart_status_t failed(const char *what, const char *stage, const char *fix,
                             const answer_t *answer, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, what, fix);
  vlart_where(diag, "stage \"%s\"", stage);
  vlart_why(diag, "%s", answer->error.text[0] != '\0' ? answer->error.text : "no reason is given");
  return VLART_STATUS_BACKEND_FAILED;
}

vlart_status_t build_probe(build_t *build, vlart_diag_t *diag) {
  answer_t answer;
  task_t task = {.build = build};
  if (!in_child(probe, &task, &answer, NULL) || !answer.good) {
    return answer.no_library ? no_library(build->options->runtime, answer.error.text, diag)
                             : failed("the GPU cannot be used", "*",
                                      "run vlart-build on the board itself", &answer, diag);
  }
  build->facts = answer.facts;
  vlart_trt_system_read(build->facts.system_root, &build->system);
  return VLART_STATUS_OK;
}

static double now_s(void) { return (double)vlart_now_ns() * 1e-9; }

vlart_status_t build_one(build_t *build, build_engine_t *engine, vlart_diag_t *diag) {
  answer_t answer;
  task_t task = {.build = build, .engine = engine};
  double began_s = now_s();
  bool good = in_child(compile, &task, &answer, &engine->peak_bytes) && answer.good;
  engine->build_s = now_s() - began_s;
  if (good) {
    return VLART_STATUS_OK;
  }
  return answer.no_library
             ? no_library(build->options->builder, answer.error.text, diag)
             : failed("TensorRT does not build a stage", engine->name,
                      "`vlacompile check --tensorrt` names the node and its source; engines that "
                      "were built are kept",
                      &answer, diag);
}

vlart_status_t build_inspect(build_t *build, build_engine_t *engine, vlart_diag_t *diag) {
  answer_t answer;
  task_t task = {.build = build, .engine = engine};
  if (!in_child(inspect, &task, &answer, NULL) || !answer.good) {
    return failed("an engine that was just built does not load", engine->name,
                  "run vlart-build again; if it stays, the builder and the runtime differ", &answer,
                  diag);
  }
  engine->scratch_bytes = answer.scratch_bytes;
  return VLART_STATUS_OK;
}
