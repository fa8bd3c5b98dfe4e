/* Replays frames: write, step, compare, collect times and actions. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/diag.h"
#include "run.h"
#include "session/session.h"

static void add_sample(run_samples_t *samples, double ms) {
  if (samples->count == samples->capacity) {
    samples->capacity = samples->capacity == 0 ? 64 : samples->capacity * 2;
    double *grown = realloc(samples->ms, samples->capacity * sizeof *samples->ms);
    if (grown == NULL) {
      fputs("vlart-run: out of memory\n", stderr);
      exit(1);
    }
    samples->ms = grown;
  }
  samples->ms[samples->count++] = ms;
}

/* A sample, unless the warm-up still goes on. */
static void keep(const run_t *run, run_samples_t *samples, double ms) {
  if (run->counting) {
    add_sample(samples, ms);
  }
}

/* The stage reads sources of the task, and no other that changes. */
static bool of_the_task_alone(const run_t *run, uint32_t stage) {
  bool task = false;
  for (uint32_t i = 0; i < run->info.source_count; i++) {
    vlart_source_info_t source = {.struct_size = sizeof source};
    vlart_bundle_source(run->bundle, i, &source);
    if ((run->bundle->plan.depends[stage] >> i & 1) == 0 || source.update == VLART_UPDATE_STATIC) {
      continue;
    }
    if (source.update != VLART_UPDATE_TASK) {
      return false;
    }
    task = true;
  }
  return task;
}

static vlart_status_t read_golden(run_t *run, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &run->bundle->plan;
  for (uint32_t i = 0; i < plan->file_count; i++) {
    if (vlart_plan_file(plan, i)->kind == VLART_FILE_KIND_GOLDEN &&
        vlart_bundle_path(run->bundle, i, run->frames_path, sizeof run->frames_path)) {
      const vlart_map_t *file = &run->bundle->files[i];
      return vlart_frames_read(file->data, file->bytes, run->frames_path, diag, &run->frames);
    }
  }
  vlart_fail(diag, VLART_STATUS_NOT_FOUND, "there are no frames to run",
             "give a frames file with --frames, or build the bundle with golden frames");
  vlart_where(diag, "%s", run->options->bundle);
  vlart_why(diag, "the bundle holds no golden file");
  return VLART_STATUS_NOT_FOUND;
}

vlart_status_t run_load_frames(run_t *run, vlart_diag_t *diag) {
  const char *path = run->options->frames;
  if (path == NULL) {
    return read_golden(run, diag);
  }
  snprintf(run->frames_path, sizeof run->frames_path, "%s", path);
  struct stat kind; /* a pipe may never be written to, and a directory has no size */
  bool other = stat(path, &kind) == 0 && !S_ISREG(kind.st_mode);
  FILE *file = other ? NULL : fopen(path, "rb");
  long size = -1;
  if (file != NULL && fseek(file, 0, SEEK_END) == 0) {
    size = ftell(file);
  }
  bool read = size >= 0 && fseek(file, 0, SEEK_SET) == 0;
  if (read) {
    run->frames_data = tool_allocate((size_t)size + 1, 1);
    read = fread(run->frames_data, 1, (size_t)size, file) == (size_t)size;
  }
  if (file != NULL) {
    fclose(file);
  }
  if (!read) {
    vlart_fail(diag, VLART_STATUS_IO, "the frames file cannot be read", NULL);
    vlart_where(diag, "%s", path);
    vlart_why(diag, "%s", other ? "it is no regular file" : strerror(errno));
    return VLART_STATUS_IO;
  }
  return vlart_frames_read(run->frames_data, (size_t)size, path, diag, &run->frames);
}

static vlart_status_t unknown_name(const run_t *run, const char *what, const char *name,
                                   vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_NOT_FOUND, what,
             "record the frames with this bundle; vlart-dump lists its sources and values");
  vlart_where(diag, "%s, tensor \"%s\"", run->frames_path, name);
  vlart_why(diag, "the bundle \"%s\" has nothing of that name", run->info.name);
  return VLART_STATUS_NOT_FOUND;
}

static vlart_status_t write_tensors(run_t *run, const vlart_frame_record_t *frame,
                                    vlart_diag_t *diag) {
  for (uint32_t i = 0; i < frame->write_count; i++) {
    const vlart_tensor_record_t *tensor = vlart_frames_tensor(&run->frames, frame->write_begin + i);
    const char *name = vlart_string(&run->frames.file, tensor->name);
    uint32_t source;
    if (vlart_bundle_find_source(run->bundle, name, &source) != VLART_STATUS_OK) {
      return unknown_name(run, "a frame writes an unknown source", name, diag);
    }
    vlart_status_t status =
        vlart_session_write(run->session, source, run->frames.blob + tensor->offset, tensor->bytes,
                            tensor->dtype, tensor->rank, tensor->dims, diag);
    if (status != VLART_STATUS_OK) {
      return status;
    }
  }
  return VLART_STATUS_OK;
}

static void judge(run_t *run, const char *name, const vlart_tensor_record_t *tensor,
                  const run_metrics_t *metrics) {
  run_verdict_t *verdict = run->verdicts;
  while (verdict < run->verdicts + run->verdict_count && strcmp(verdict->name, name) != 0) {
    verdict++;
  }
  if (verdict == run->verdicts + run->verdict_count) {
    run->verdict_count++;
    *verdict = (run_verdict_t){.name = name, .max_abs = -1, .rel_l2 = -1, .cosine = 2};
  }
  verdict->frames++;
  verdict->failed +=
      !(metrics->max_abs <= metrics->max_abs_allowed && metrics->rel_l2 <= (double)tensor->rel_l2 &&
        metrics->cosine >= (double)tensor->cosine);
  if (verdict->max_abs < 0 || run_is_worse(metrics->max_abs, metrics->max_abs_allowed,
                                           verdict->max_abs, verdict->max_abs_allowed)) {
    verdict->max_abs = metrics->max_abs;
    verdict->max_abs_allowed = metrics->max_abs_allowed;
  }
  if (metrics->rel_l2 > verdict->rel_l2) {
    verdict->rel_l2 = metrics->rel_l2;
    verdict->rel_l2_allowed = (double)tensor->rel_l2;
  }
  if (metrics->cosine < verdict->cosine) {
    verdict->cosine = metrics->cosine;
    verdict->cosine_allowed = (double)tensor->cosine;
  }
}

static vlart_status_t compare_tensors(run_t *run, const vlart_frame_record_t *frame,
                                      vlart_diag_t *diag) {
  for (uint32_t i = 0; i < frame->expect_count; i++) {
    const vlart_tensor_record_t *tensor =
        vlart_frames_tensor(&run->frames, frame->expect_begin + i);
    const char *name = vlart_string(&run->frames.file, tensor->name);
    uint32_t value;
    vlart_value_info_t info = {.struct_size = sizeof info};
    if (vlart_bundle_find_value(run->bundle, name, &value) != VLART_STATUS_OK) {
      return unknown_name(run, "a frame expects an unknown value", name, diag);
    }
    vlart_bundle_value(run->bundle, value, &info);
    if (info.dtype != tensor->dtype || info.rank != tensor->rank ||
        memcmp(info.dims, tensor->dims, sizeof info.dims) != 0) {
      vlart_fail(diag, VLART_STATUS_WRONG_SHAPE, "a frame expects another shape",
                 "record the frames with this bundle");
      vlart_where(diag, "%s, tensor \"%s\"", run->frames_path, name);
      vlart_why(diag, "element type or dimensions are not those of the bundle's value");
      return VLART_STATUS_WRONG_SHAPE;
    }
    void *got = tool_allocate(info.bytes + 1, 1);
    vlart_status_t status = vlart_session_read(run->session, value, got, info.bytes, diag);
    if (status == VLART_STATUS_OK) {
      uint32_t columns;
      const float *allowed = vlart_frames_columns(&run->frames, frame->expect_begin + i, &columns);
      run_metrics_t metrics = run_compare(
          got, run->frames.blob + tensor->offset, info.bytes / vlart_dtype_bytes(info.dtype),
          info.dtype, allowed == NULL ? &tensor->max_abs : allowed, columns == 0 ? 1 : columns);
      judge(run, name, tensor, &metrics);
    }
    free(got);
    if (status != VLART_STATUS_OK) {
      return status;
    }
  }
  return VLART_STATUS_OK;
}

/* What changes with an observation, or faster, has changed, equal bytes or not. */
static void count_as_new(run_t *run) {
  for (uint32_t i = 0; i < run->info.source_count; i++) {
    bool written = (run->session->sources.written >> i & 1) != 0;
    run->session->sources.versions[i] += written && (run->session->written.live >> i & 1) != 0;
  }
}

static double now_ms(void) { return (double)vlart_now_ns() * 1e-6; }

/* Times the pops of a chunk together: one is near the clock's resolution. */
static void take_actions(run_t *run, uint32_t frame) {
  size_t dim = run->info.action_dim;
  float *to = run->actions + (size_t)frame * run->info.execute_steps * dim;
  uint32_t count = 0;
  double begin = now_ms();
  while (count < run->info.execute_steps &&
         vlart_session_pop(run->session, to + count * dim, dim, NULL) == VLART_STATUS_OK) {
    count++;
  }
  if (count > 0) {
    keep(run, &run->pops, (now_ms() - begin) / count);
  }
  run->action_counts[frame] = count;
}

static vlart_status_t replay_frame(run_t *run, uint32_t index, vlart_diag_t *diag) {
  const vlart_frame_record_t *frame = vlart_frames_frame(&run->frames, index);
  uint32_t stages = run->info.stage_count;
  uint64_t *runs_before = tool_allocate(stages + 1u, sizeof *runs_before);
  vlart_stage_stats_t stats = {.struct_size = sizeof stats};
  for (uint32_t i = 0; i < stages; i++) {
    vlart_session_stats(run->session, i, &stats);
    runs_before[i] = stats.runs;
  }
  if (run->options->cold) {
    vlart_session_invalidate(run->session);
  }
  bool refused = false, renewed = false;
  if (frame->begins) {
    vlart_session_reset(run->session);
  }
  double began = now_ms();
  vlart_status_t status = write_tensors(run, frame, diag);
  if (status == VLART_STATUS_OK) {
    keep(run, &run->writes, now_ms() - began);
    if (run->options->fresh) {
      count_as_new(run);
    }
    /* A self-test asks whether the outputs are right; how fast they come is the table's matter. */
    bool patient = run->options->self_test || run->options->fresh;
    status = patient ? vlart_session_step_deadline(run->session, 0, diag)
                     : vlart_session_step(run->session, diag);
    /* Tokens of disturbed golden inputs may be no actions; the tokens themselves are compared. */
    refused = patient && status == VLART_STATUS_ACTION_NOT_DECODED;
    status = refused ? VLART_STATUS_OK : status;
  }
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < stages; i++) {
    vlart_session_stats(run->session, i, &stats);
    if (stats.runs > runs_before[i] && stats.last_ns > 0) { /* 0: part of a whole tick */
      keep(run, &run->stages[i], (double)stats.last_ns * 1e-6);
    }
    renewed = renewed || (stats.runs > runs_before[i] && of_the_task_alone(run, i));
  }
  free(runs_before);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  vlart_session_totals_t totals = {.struct_size = sizeof totals};
  vlart_session_totals(run->session, &totals);
  keep(run, &run->steps, (double)totals.last_step_ns * 1e-6);
  keep(run, renewed ? &run->other : &run->same, (double)totals.last_step_ns * 1e-6);
  run->action_counts[index] = 0;
  if (run->info.action_value != VLART_NONE && !refused) {
    take_actions(run, index);
  }
  return run->options->self_test ? compare_tensors(run, frame, diag) : VLART_STATUS_OK;
}

static vlart_status_t final_verdict(const run_t *run, vlart_diag_t *diag) {
  if (run->verdict_count == 0) {
    vlart_fail(diag, VLART_STATUS_SELF_TEST_FAILED, "the self-test compares nothing",
               "build the bundle with golden outputs, or record frames that expect values");
    vlart_where(diag, "%s", run->frames_path);
    vlart_why(diag, "no frame expects a value");
    return VLART_STATUS_SELF_TEST_FAILED;
  }
  for (uint32_t i = 0; i < run->verdict_count; i++) {
    const run_verdict_t *verdict = &run->verdicts[i];
    if (verdict->failed > 0) {
      vlart_fail(diag, VLART_STATUS_SELF_TEST_FAILED, "the self-test failed",
                 "do not run this bundle here; build it again for this machine and engine");
      vlart_where(diag, "value \"%s\", %u of %u frames", verdict->name, verdict->failed,
                  verdict->frames);
      vlart_why(diag, "max_abs %g (%g), rel_l2 %g (%g), cosine %g (%g allowed)", verdict->max_abs,
                verdict->max_abs_allowed, verdict->rel_l2, verdict->rel_l2_allowed, verdict->cosine,
                verdict->cosine_allowed);
      return VLART_STATUS_SELF_TEST_FAILED;
    }
  }
  return VLART_STATUS_OK;
}

/* Says in the second line which frame it was. */
static void name_frame(const run_t *run, uint32_t index, vlart_diag_t *diag) {
  size_t used = strlen(diag->where);
  snprintf(diag->where + used, sizeof diag->where - used, ", frame %u \"%s\"", index,
           vlart_string(&run->frames.file, vlart_frames_frame(&run->frames, index)->label));
}

vlart_status_t run_replay(run_t *run, vlart_diag_t *diag) {
  uint32_t frames = run->frames.frame_count;
  size_t numbers = (size_t)run->info.execute_steps * run->info.action_dim;
  uint32_t tensors = run->frames.file.tables[VLART_SECTION_TENSORS].count;
  run->stages = tool_allocate(run->info.stage_count + 1u, sizeof *run->stages);
  run->verdicts = tool_allocate(tensors + 1u, sizeof *run->verdicts);
  run->actions = tool_allocate(frames * numbers + 1, sizeof *run->actions);
  run->action_counts = tool_allocate(frames + 1u, sizeof *run->action_counts);
  for (uint32_t pass = 0; pass < run->options->warm_up + run->options->repeat; pass++) {
    run->counting = pass >= run->options->warm_up;
    vlart_session_reset(run->session); /* recorded frames are an episode */
    for (uint32_t i = 0; i < frames; i++) {
      vlart_status_t status = replay_frame(run, i, diag);
      if (status != VLART_STATUS_OK) {
        name_frame(run, i, diag);
        return status;
      }
      if (run->advanced != NULL) {
        run->advanced(run);
      }
      if (run->between != NULL && run->counting) {
        run->between(run, now_ms());
      }
    }
  }
  return run->options->self_test ? final_verdict(run, diag) : VLART_STATUS_OK;
}
