/* The engines must give the golden frames' outputs, through a session as a robot would run it. */
#include <stdlib.h>

#include "build.h"
#include "run.h"

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a;
  double y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Sorts the samples. The 95th percentile is the smallest that 95 % do not exceed. */
static void summarise(run_samples_t *samples, build_engine_t *engine) {
  size_t count = samples->count;
  engine->runs = count;
  if (count > 0) {
    qsort(samples->ms, count, sizeof *samples->ms, ascending);
    engine->median_ms = (samples->ms[(count - 1) / 2] + samples->ms[count / 2]) / 2;
    engine->p95_ms = samples->ms[(count * 95 + 99) / 100 - 1];
  }
}

static void forget_samples(run_t *run) {
  for (uint32_t i = 0; run->stages != NULL && i < run->info.stage_count; i++) {
    free(run->stages[i].ms);
  }
  free(run->stages);
  free(run->writes.ms);
  free(run->steps.ms);
  free(run->pops.ms);
  free(run->same.ms);
  free(run->other.ms);
  free(run->verdicts);
  free(run->actions);
  free(run->action_counts);
  run->stages = NULL;
  run->verdicts = NULL;
  run->actions = NULL;
  run->action_counts = NULL;
  run->writes = run->steps = run->pops = run->same = run->other = (run_samples_t){0};
  run->verdict_count = 0;
}

static vlart_status_t open_session(const build_t *build, run_t *run, bool whole,
                                   vlart_diag_t *diag) {
  vlart_session_options_t options = {.struct_size = sizeof options,
                                     .ort_library = build->options->ort,
                                     .tvm_ffi_library = build->options->tvm_ffi,
                                     .tvm_library = build->options->tvm,
                                     .tvm_cuda_library = build->options->tvm_cuda,
                                     .tensorrt_library = build->options->runtime,
                                     .tensorrt_trial = 1,
                                     .whole_tick = whole};
  size_t bytes = 0;
  vlart_status_t status = vlart_session_required_bytes(run->bundle, &options, diag, &bytes);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  run->session_arena = tool_allocate(bytes, 1);
  status =
      vlart_session_init(run->bundle, &options, run->session_arena, bytes, diag, &run->session);
  vlart_sensor_options_t recorded = {.struct_size = sizeof recorded,
                                     .accept = VLART_ACCEPT_RECORDED};
  if (status == VLART_STATUS_OK) {
    status = vlart_session_sensors(run->session, &recorded, diag);
  }
  return status == VLART_STATUS_OK ? vlart_session_select(run->session, VLART_BACKBONE_ALL, diag)
                                   : status;
}

/* Engines of two sessions would not fit into a board: one is closed before the next is opened. */
static void close_session(run_t *run) {
  forget_samples(run);
  vlart_session_close(run->session);
  free(run->session_arena);
  run->session = NULL;
  run->session_arena = NULL;
}

/* Where the plan allows it. That it fails is no failure of the engines: a session then refuses it. */
static vlart_status_t prove_whole(build_t *build, run_t *run, bool frames, vlart_diag_t *diag) {
  run_options_t options = {.bundle = build->options->bundle, .repeat = 1, .self_test = true};
  run->options = &options;
  vlart_status_t status = open_session(build, run, true, diag);
  bool unsupported = status == VLART_STATUS_UNSUPPORTED;
  if (status == VLART_STATUS_OK && frames) {
    status = run_replay(run, diag);
  }
  run->options = NULL;
  build->whole_tick = unsupported                 ? VLART_PROOF_UNSUPPORTED
                      : status != VLART_STATUS_OK ? VLART_PROOF_FAILED
                      : frames                    ? VLART_PROOF_PASSED
                                                  : VLART_PROOF_NONE;
  return VLART_STATUS_OK;
}

static vlart_status_t measure(build_t *build, run_t *run, vlart_diag_t *diag) {
  run_options_t timed = *run->options;
  timed.self_test = true; /* no time limit, and what is timed is still right */
  timed.cold = true;
  timed.repeat = build->options->repeat;
  run->options = &timed;
  forget_samples(run);
  vlart_status_t status = run_replay(run, diag);
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < build->count; i++) {
    summarise(&run->stages[build->engines[i].recipe.stage], &build->engines[i]);
  }
  run->options = NULL;
  return status;
}

vlart_status_t build_prove(build_t *build, vlart_diag_t *diag) {
  run_options_t options = {.bundle = build->options->bundle, .repeat = 1, .self_test = true};
  run_t run = {.options = &options, .bundle = build->bundle};
  run.info.struct_size = sizeof run.info;
  vlart_bundle_info(build->bundle, &run.info);
  vlart_status_t status = run_load_frames(&run, diag);
  bool frames = status != VLART_STATUS_NOT_FOUND; /* the bundle brings none: nothing can be asked */
  if (!frames || status == VLART_STATUS_OK) status = open_session(build, &run, false, diag);
  if (!frames) {
    build->golden = status == VLART_STATUS_OK ? VLART_PROOF_NONE : VLART_PROOF_PENDING;
  } else if (status == VLART_STATUS_OK) {
    status = run_replay(&run, diag);
    build->golden = status == VLART_STATUS_OK                 ? VLART_PROOF_PASSED
                    : status == VLART_STATUS_SELF_TEST_FAILED ? VLART_PROOF_FAILED
                                                              : VLART_PROOF_PENDING;
  }
  if (frames && status == VLART_STATUS_OK && build->options->repeat > 0)
    status = measure(build, &run, diag);
  close_session(&run);
  if (status == VLART_STATUS_OK) status = prove_whole(build, &run, frames, diag);
  close_session(&run);
  free(run.frames_data);
  return status;
}
