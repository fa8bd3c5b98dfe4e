/* What the files of vlart-run share. The tool may allocate and print; the library does neither. */
#ifndef VLART_RUN_H
#define VLART_RUN_H

#include <stdbool.h>
#include <stdio.h>

#include "bundle/bundle.h"
#include "command_line.h"
#include "container/golden_frames.h"

typedef struct {
  const char *bundle;
  const char *ort;
  const char *tvm;
  const char *tvm_ffi;
  const char *tvm_cuda;
  const char *openvino;
  const char *device; /* of OpenVINO */
  uint32_t parallel;
  const char *tensorrt;
  const char *signers; /* a list of signers: take only a bundle that one of them signed; or NULL */
  const char *weight_cache; /* a folder, or NULL */
  const char *frames;
  const char *profile; /* a file to write, or NULL */
  const char *record;  /* a file to record into, or NULL */
  uint32_t record_mib; /* of that; 0: the default */
  const char *sensors; /* what is above /sys and /proc, "" for the root */
  uint32_t threads;
  uint32_t repeat;
  uint32_t warm_up;    /* passes before, whose times are not kept */
  uint32_t seconds;    /* without progress, after which the run is ended; 0: any */
  uint32_t memory_mib; /* that the run may take; 0: any; RUN_UNSAID: what fits the bundle */
  bool whole_tick;
  const char *backbone; /* NULL: the first, or in a self-test all */
  bool self_test;
  bool stand_in;
  bool native_code;
  bool keep_engines; /* of a signed bundle: they were built here */
  bool cold;
  bool fresh; /* every frame is a new observation, whatever is in it */
  bool json;
} run_options_t;

/* Durations of one stage, or of whole steps. */
typedef struct {
  double *ms;
  size_t count;
  size_t capacity;
} run_samples_t;

/* The worst that a value showed over all frames, with the tolerance that applied there. */
typedef struct {
  const char *name;
  double max_abs, max_abs_allowed;
  double rel_l2, rel_l2_allowed;
  double cosine, cosine_allowed;
  uint32_t frames;
  uint32_t failed; /* frames in which one of the three did not hold */
} run_verdict_t;

enum { RUN_SENSOR_BYTES = 4096, RUN_READINGS = 64, RUN_UNSAID = 1 << 30 };

typedef struct run_t run_t;
typedef struct run_progress run_progress_t; /* watched_child.h */

struct run_t {
  const run_options_t *options;
  void (*advanced)(run_t *); /* called when a frame was replayed, or NULL */
  run_progress_t *progress;
  vlart_bundle_t *bundle;
  vlart_session_t *session;
  void *bundle_arena;
  void *session_arena;
  void *recorder_arena;
  vlart_recorder_t *recorder;
  vlart_weight_cache_t weight_cache; /* what became of it */
  vlart_bundle_info_t info;
  uint8_t *frames_data; /* of a file beside the bundle */
  vlart_frames_t frames;
  char frames_path[4096];
  run_samples_t *stages; /* [info.stage_count] */
  run_samples_t writes;  /* one per frame: all of its inputs */
  run_samples_t steps;
  run_samples_t pops;        /* one per chunk: the mean over its actions */
  run_samples_t same, other; /* of the steps: without, with a stage that the task alone decides */
  bool counting;             /* the warm-up is over */
  void (*between)(run_t *, double now_ms);                /* called between replans, or NULL */
  char before[RUN_SENSOR_BYTES], after[RUN_SENSOR_BYTES]; /* sensors, as JSON */
  char (*during)[RUN_SENSOR_BYTES]; /* [RUN_READINGS], each taken after a replan */
  uint32_t during_count;
  double reading_every_ms, next_reading_ms;
  run_verdict_t *verdicts; /* [verdict_count], by value */
  uint32_t verdict_count;
  float *actions;          /* [frames, execute_steps, action_dim] of the last pass */
  uint32_t *action_counts; /* [frames] */
};

typedef struct {
  double max_abs; /* of the column that comes closest to its limit */
  double max_abs_allowed;
  double rel_l2; /* ||got - want|| / ||want|| */
  double cosine;
} run_metrics_t;

/* Whether a difference uses a larger share of what is allowed than another one. */
bool run_is_worse(double difference, double allowed, double than, double than_allowed);

/* allowed: largest absolute difference per index of the last dimension, of which there are `columns`;
   one for all elements: columns 1. */
run_metrics_t run_compare(const void *got, const void *want, size_t count, uint32_t dtype,
                          const float *allowed, uint32_t columns);

/* Writes, steps and compares; the library's status, or SELF_TEST_FAILED. */
vlart_status_t run_replay(run_t *run, vlart_diag_t *diag);

/* Reads the frames file that the options name, or the bundle's golden frames. */
vlart_status_t run_load_frames(run_t *run, vlart_diag_t *diag);

void run_print_text(const run_t *run);
void run_print_json(const run_t *run, vlart_status_t status, const vlart_diag_t *diag);

/* JSON text, in quotes. */
void run_json_string(FILE *file, const char *string);

/* What clocks, temperatures, power, throttling and memory are now: a JSON object, empty where nothing is known. */
void run_read_sensors(const char *root, char *out, size_t bytes);

/* The same into `during`, where the last time is long enough ago. */
void run_read_during(run_t *run, double now_ms);

/* Records the session from here on, where the options say so; and ends that. IO: something is missing in it. */
vlart_status_t run_begin_recording(run_t *run, vlart_diag_t *diag);
vlart_status_t run_end_recording(run_t *run, vlart_diag_t *diag);

/* The first line of a file without its line end. False: not there. */
bool run_read_line(const char *path, char *out, size_t bytes);

/* Writes the times to the file that the options name. */
vlart_status_t run_write_profile(const run_t *run, vlart_diag_t *diag);

#endif
