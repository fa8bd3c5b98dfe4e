/* What is to be built: one engine for each stage that the plan gives to TensorRT. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32.h"
#include "base/diag.h"
#include "build.h"
#include "run.h"

static vlart_status_t refuse(const build_t *build, const char *what, const char *why,
                             const char *fix, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_UNSUPPORTED, what, fix);
  vlart_where(diag, "%s", build->options->bundle);
  vlart_why(diag, "%s", why);
  return VLART_STATUS_UNSUPPORTED;
}

static uint32_t crc_of(const void *data, size_t bytes) {
  vlart_crc32_table_t table;
  vlart_crc32_init(&table);
  return vlart_crc32(&table, 0, data, bytes);
}

/* "stages/NAME.onnx" gives "engines/NAME.plan"; false if it does not fit. */
static bool name_file(const char *artefact, char *out, size_t capacity) {
  const char *slash = strrchr(artefact, '/');
  const char *base = slash == NULL ? artefact : slash + 1;
  const char *dot = strrchr(base, '.');
  size_t length = dot == NULL ? strlen(base) : (size_t)(dot - base);
  int used = snprintf(out, capacity, "engines/%.*s.plan", (int)length, base);
  return used > 0 && (size_t)used + 16 < capacity; /* with the suffixes of its neighbours */
}

/* One number for the content of all weights files: external data may lie in any of them. */
static uint32_t weights_crc32(const vlart_plan_t *plan) {
  uint32_t sum = 0;
  for (uint32_t i = 0; i < plan->file_count; i++) {
    const vlart_file_record_t *file = vlart_plan_file(plan, i);
    if (file->kind == VLART_FILE_KIND_WEIGHTS) {
      uint32_t pair[2] = {sum, file->crc32};
      sum = crc_of(pair, sizeof pair);
    }
  }
  return sum;
}

/* The CRC is over all that the engine depends on; what it must come out as is compared anyway. */
static bool read_recipe(const vlart_plan_t *plan, uint32_t stage, build_recipe_t *recipe) {
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_BUILDS); i++) {
    const vlart_build_record_t *build = vlart_plan_build(plan, i);
    if (build->stage == stage) {
      const uint64_t inputs[] = {build->flags, build->level, build->aux_streams,
                                 build->workspace_bytes};
      *recipe = (build_recipe_t){.stage = stage,
                                 .bytes_min = build->engine_bytes_min,
                                 .bytes_max = build->engine_bytes_max,
                                 .scratch_max = build->activation_bytes,
                                 .crc32 = crc_of(inputs, sizeof inputs)};
      recipe->recipe = (vlart_trt_recipe_t){.flags = build->flags,
                                            .level = build->level,
                                            .aux_streams = build->aux_streams,
                                            .workspace_bytes = build->workspace_bytes};
      return true;
    }
  }
  return false;
}

static vlart_status_t read_stage(build_t *build, uint32_t stage, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &build->bundle->plan;
  const vlart_stage_record_t *record = vlart_plan_stage(plan, stage);
  build_engine_t *engine = &build->engines[build->count];
  if (!read_recipe(plan, stage, &engine->recipe)) {
    return refuse(build, "a stage has no build recipe", vlart_plan_stage_name(plan, stage),
                  "build the bundle again, with this version of vlacompile", diag);
  }
  if (!vlart_bundle_path(build->bundle, record->artefact, engine->onnx, sizeof engine->onnx) ||
      !name_file(vlart_plan_string(plan, vlart_plan_file(plan, record->artefact)->path),
                 engine->file, sizeof engine->file)) {
    return refuse(build, "the path of a stage file is too long", vlart_plan_stage_name(plan, stage),
                  "move the bundle to a directory with a shorter path", diag);
  }
  snprintf(engine->name, sizeof engine->name, "%s", vlart_plan_stage_name(plan, stage));
  engine->stage_crc32 = vlart_plan_file(plan, record->artefact)->crc32;
  engine->weights_crc32 = weights_crc32(plan);
  build->count++;
  return VLART_STATUS_OK;
}

/* The directory, and the right to be the only one who writes there. */
static vlart_status_t take_directory(build_t *build, vlart_diag_t *diag) {
  char path[VLART_TRT_PATH_BYTES];
  snprintf(path, sizeof path, "%s/engines", build->options->bundle);
  bool good = mkdir(path, 0755) == 0 || errno == EEXIST;
  snprintf(path, sizeof path, "%s/engines/.building", build->options->bundle);
  build->exclusive = good ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644) : -1;
  if (build->exclusive >= 0 && flock(build->exclusive, LOCK_EX | LOCK_NB) == 0) {
    return VLART_STATUS_OK;
  }
  bool busy = build->exclusive >= 0 && errno == EWOULDBLOCK;
  vlart_fail(diag, VLART_STATUS_IO, "engines cannot be written into this bundle",
             busy ? "wait for the other vlart-build" : "check the rights and the free space");
  vlart_where(diag, "%s", path);
  vlart_why(diag, "%s", busy ? "another vlart-build is at work on it" : strerror(errno));
  return VLART_STATUS_IO;
}

vlart_status_t build_read_plan(build_t *build, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &build->bundle->plan;
  build->engines = tool_allocate(plan->stage_count + 1u, sizeof *build->engines);
  if (vlart_plan_count(plan, VLART_SECTION_BOARD) > 0) {
    snprintf(build->timing_cache, sizeof build->timing_cache, "engines/%.200s",
             vlart_plan_string(plan, vlart_plan_board(plan, 0)->timing_cache));
  }
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    if (vlart_plan_stage(plan, i)->backend == VLART_BACKEND_TENSORRT) {
      vlart_status_t status = read_stage(build, i, diag);
      if (status != VLART_STATUS_OK) {
        return status;
      }
    }
  }
  if (build->count == 0) {
    return refuse(build, "there is nothing to build", "no stage of this bundle is for TensorRT",
                  "build the bundle with the target of a Jetson", diag);
  }
  return take_directory(build, diag);
}
