/* The engines must give the golden frames' outputs, through a session as a robot would run it, in a child: what they
   make of the frames may have no end. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/diag.h"
#include "build.h"
#include "watched_child.h"

/* What the child found out, in memory that both share. */
typedef struct {
  size_t runs;
  double median_ms, p95_ms;
} timed_t;

typedef struct {
  build_t *build;
  vlart_status_t status;
  vlart_diag_t diag;
  uint32_t golden, whole_tick;
  timed_t engines[]; /* [build.count] */
} proof_t;

static void advance(run_t *run) {
  atomic_fetch_add_explicit(&run->progress->parts, 1, memory_order_relaxed);
}

static run_options_t options_of(const build_t *build) {
  return (run_options_t){.bundle = build->options->bundle,
                         .repeat = 1,
                         .self_test = true,
                         .memory_mib = build->options->memory_mib};
}

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
  vlart_session_options_t options = {
      .struct_size = sizeof options,
      .ort_library = build->options->ort,
      .tvm_ffi_library = build->options->tvm_ffi,
      .tvm_library = build->options->tvm,
      .tvm_cuda_library = build->options->tvm_cuda,
      .tensorrt_library = build->options->runtime,
      .tensorrt_trial = 1,
      .whole_tick = whole,
      .native_code = build->options->native_code || build->options->signers != NULL};
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
  if (status == VLART_STATUS_OK) {
    status = vlart_session_select(run->session, VLART_BACKBONE_ALL, diag);
  }
  advance(run);
  return status;
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
  run_options_t options = options_of(build);
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

static vlart_status_t prove(build_t *build, run_progress_t *progress, vlart_diag_t *diag) {
  run_options_t options = options_of(build);
  run_t run = {
      .options = &options, .bundle = build->bundle, .progress = progress, .advanced = advance};
  run.info.struct_size = sizeof run.info;
  vlart_bundle_info(build->bundle, &run.info);
  watched_limit_memory(&run);
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

static int prove_in_child(void *user, run_progress_t *progress) {
  proof_t *proof = user;
  build_t *build = proof->build;
  proof->status = prove(build, progress, &proof->diag);
  proof->golden = build->golden;
  proof->whole_tick = build->whole_tick;
  for (uint32_t i = 0; i < build->count; i++) {
    const build_engine_t *engine = &build->engines[i];
    proof->engines[i] = (timed_t){engine->runs, engine->median_ms, engine->p95_ms};
  }
  return 0;
}

/* A child that did not come to an end proves nothing. */
static vlart_status_t take_proof(build_t *build, const proof_t *proof, vlart_diag_t *diag) {
  build->golden = proof->golden;
  build->whole_tick = proof->whole_tick;
  for (uint32_t i = 0; i < build->count; i++) {
    build->engines[i].runs = proof->engines[i].runs;
    build->engines[i].median_ms = proof->engines[i].median_ms;
    build->engines[i].p95_ms = proof->engines[i].p95_ms;
  }
  *diag = proof->diag;
  return proof->status;
}

vlart_status_t build_prove(build_t *build, vlart_diag_t *diag) {
  size_t bytes = sizeof(proof_t) + build->count * sizeof(timed_t);
  proof_t *proof = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (proof == MAP_FAILED) {
    unsigned error = (unsigned)errno;
    vlart_fail(diag, VLART_STATUS_OUT_OF_MEMORY, "there is no memory for the proof",
               "end other programs");
    vlart_where(diag, "%s", build->options->bundle);
    vlart_why(diag, "errno %u", error);
    return VLART_STATUS_OUT_OF_MEMORY;
  }
  proof->build = build;
  proof->golden = build->golden;
  proof->whole_tick = build->whole_tick;
  proof->diag.struct_size = sizeof proof->diag;
  proof->status =
      vlart_fail(&proof->diag, VLART_STATUS_BACKEND_FAILED, /* unless the child says it */
                 "the proof of the engines ended early", "free memory, or do not use this bundle");
  vlart_where(&proof->diag, "%s", build->options->bundle);
  vlart_why(&proof->diag, "an engine, or the lack of memory, ended its process");
  watched_end_t end = watched_run(prove_in_child, proof, build->options->seconds);
  vlart_status_t status = VLART_STATUS_BACKEND_FAILED;
  if (watched_ended(&end, "the proof of the engines", build->options->bundle,
                    build->options->seconds, diag)) {
    status = take_proof(build, proof, diag);
  }
  munmap(proof, bytes);
  return status;
}
