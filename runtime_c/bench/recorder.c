/* What a flight recorder does to a control loop: two asynchronous sessions of one bundle, one of them recorded, take
   turns in blocks of ticks, in pairs whose order is random. Prints lateness per tick and per block, and what was lost.
   usage: bench_recorder BUNDLE LIBONNXRUNTIME FILE PAIRS BLOCK_TICKS PERIOD_US PRIORITY
   PERIOD_US 0: as fast as possible. PRIORITY: of the control thread, SCHED_FIFO; 0, or where it is refused: as it is. Linked with --wrap=malloc,calloc,realloc,free, which counts the ticks' calls. */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "count_allocations.h"
#include "vlart/vlart.h"

static vlart_diag_t diag = {.struct_size = sizeof diag};

static void must(vlart_status_t status) {
  if (status != VLART_STATUS_OK) {
    fprintf(stderr, "%s: %s (%s: %s)\n", vlart_status_name(status), diag.what, diag.where,
            diag.why);
    exit(1);
  }
}

/* One arm of the comparison. */
typedef struct {
  vlart_session_t *session;
  vlart_async_t *async;
  pthread_t worker;
  uint32_t *ns;     /* of each tick: from when it was due to when its action was there */
  uint32_t *block;  /* [ticks of a block] room to sort */
  uint32_t *median; /* [pairs] */
  uint32_t *high;   /* [pairs] 99 of 100 */
  size_t count;
  uint64_t without; /* ticks that no chunk answered */
} arm_t;

static void *serve(void *async) {
  must(vlart_async_serve(async));
  return NULL;
}

static arm_t make_arm(const vlart_bundle_t *bundle, const char *ort, size_t pairs, size_t block) {
  arm_t arm = {0};
  size_t bytes = 0;
  vlart_session_options_t options = {
      .struct_size = sizeof options, .ort_library = ort, .threads = 1};
  must(vlart_session_required_bytes(bundle, &options, &diag, &bytes));
  must(vlart_session_init(bundle, &options, malloc(bytes), bytes, &diag, &arm.session));
  must(vlart_async_required_bytes(arm.session, NULL, &diag, &bytes));
  must(vlart_async_init(arm.session, NULL, malloc(bytes), bytes, &diag, &arm.async));
  arm.ns = calloc(pairs * block, sizeof *arm.ns);
  arm.block = calloc(block, sizeof *arm.block);
  arm.median = calloc(pairs, sizeof *arm.median);
  arm.high = calloc(pairs, sizeof *arm.high);
  return arm;
}

static vlart_recorder_t *make_recorder(const vlart_bundle_t *bundle, const char *path) {
  const void *plan;
  size_t plan_bytes, bytes = 0;
  vlart_recorder_t *recorder = NULL;
  vlart_recorder_options_t options = {.struct_size = sizeof options, .path = path, .full = 1};
  must(vlart_bundle_plan(bundle, &plan, &plan_bytes));
  must(vlart_recorder_required_bytes(plan, plan_bytes, &options, &diag, &bytes));
  must(vlart_recorder_init(plan, plan_bytes, &options, malloc(bytes), bytes, &diag, &recorder));
  return recorder;
}

/* The rooms' content, other bytes for each observation. */
typedef struct {
  const vlart_bundle_t *bundle;
  uint32_t sources;
  uint8_t **rooms;
  vlart_value_info_t *values;
} camera_t;

static camera_t make_camera(const vlart_bundle_t *bundle, uint32_t sources) {
  camera_t c = {bundle, sources, calloc(sources, sizeof *c.rooms),
                calloc(sources, sizeof *c.values)};
  for (uint32_t i = 0; i < sources; i++) {
    vlart_source_info_t source = {.struct_size = sizeof source};
    c.values[i].struct_size = sizeof c.values[i];
    must(vlart_bundle_source(bundle, i, &source));
    must(vlart_bundle_value(bundle, source.value, &c.values[i]));
    c.rooms[i] = calloc(1, c.values[i].bytes + 1);
  }
  return c;
}

static void observe(const camera_t *c, vlart_async_t *async, uint64_t tick) {
  for (uint32_t i = 0; i < c->sources; i++) {
    const vlart_value_info_t *v = &c->values[i];
    float number = (float)(tick % 1000) * 1e-3f;
    if (v->dtype == VLART_DTYPE_U8) {
      c->rooms[i][tick % v->bytes] ^= (uint8_t)tick;
    } else if (v->dtype == VLART_DTYPE_F32) {
      memcpy(c->rooms[i], &number, sizeof number);
    }
    must(vlart_async_write(async, i, c->rooms[i], v->bytes, v->dtype, v->rank, v->dims, &diag));
  }
}

static void tick(arm_t *arm, const camera_t *camera, float *action, uint32_t dim, uint64_t number) {
  vlart_async_info_t now = {.struct_size = sizeof now};
  must(vlart_async_info(arm->async, &now));
  if (now.due) {
    observe(camera, arm->async, number);
    must(vlart_async_request(arm->async));
  }
  vlart_status_t status = vlart_async_pop(arm->async, action, dim, NULL);
  arm->without += status != VLART_STATUS_OK;
}

static int by_size(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static void run_block(arm_t *arm, const camera_t *camera, float *action, uint32_t dim, size_t pair,
                      size_t block, uint64_t period) {
  uint64_t due = vlart_now_ns() + period;
  for (size_t t = 0; t < block; t++) {
    struct timespec until = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
    if (period > 0) {
      clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    } else {
      due = vlart_now_ns();
    }
    tick(arm, camera, action, dim, arm->count);
    uint64_t late = vlart_now_ns() - due;
    arm->block[t] = arm->ns[arm->count++] = late < UINT32_MAX ? (uint32_t)late : UINT32_MAX;
    due += period;
  }
  qsort(arm->block, block, sizeof *arm->block, by_size);
  arm->median[pair] = arm->block[block / 2];
  arm->high[pair] = arm->block[block - 1 - block / 100];
}

static void print_blocks(const char *name, const uint32_t *of, size_t count, const char *after) {
  printf("\"%s\": [", name);
  for (size_t i = 0; i < count; i++) {
    printf("%s%u", i > 0 ? "," : "", of[i]);
  }
  printf("]%s", after);
}

static void print_arm(const char *name, arm_t *arm, size_t pairs) {
  qsort(arm->ns, arm->count, sizeof *arm->ns, by_size);
  printf("\"%s\": {\"ticks\": %zu, \"without_chunk\": %llu, \"ns\": {", name, arm->count,
         (unsigned long long)arm->without);
  const double shares[] = {0.5, 0.9, 0.99, 0.999, 0.9999, 1.0};
  for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
    size_t at = (size_t)(shares[i] * (double)(arm->count - 1));
    printf("%s\"%g\": %u", i > 0 ? ", " : "", shares[i], arm->ns[at]);
  }
  printf("}, ");
  print_blocks("median_ns", arm->median, pairs, ", ");
  print_blocks("p99_ns", arm->high, pairs, "}, ");
}

int main(int argc, char **argv) {
  if (argc != 8) {
    fputs("usage: bench_recorder BUNDLE LIBONNXRUNTIME FILE PAIRS BLOCK_TICKS PERIOD_US PRIORITY\n",
          stderr);
    return 2;
  }
  size_t bytes = 0, pairs = strtoul(argv[4], NULL, 10), block = strtoul(argv[5], NULL, 10);
  uint64_t period = strtoul(argv[6], NULL, 10) * 1000u;
  vlart_bundle_t *bundle = NULL;
  must(vlart_bundle_required_bytes(argv[1], &diag, &bytes));
  must(vlart_bundle_open(argv[1], NULL, malloc(bytes), bytes, &diag, &bundle));
  vlart_bundle_info_t info = {.struct_size = sizeof info};
  must(vlart_bundle_info(bundle, &info));
  arm_t arms[2] = {make_arm(bundle, argv[2], pairs, block),
                   make_arm(bundle, argv[2], pairs, block)};
  vlart_recorder_t *recorder = make_recorder(bundle, argv[3]);
  must(vlart_async_record(arms[1].async, recorder, &diag));
  camera_t camera = make_camera(bundle, info.source_count);
  float *action = calloc(info.action_dim, sizeof *action);
  vlart_thread_options_t runs = {.struct_size = sizeof runs,
                                 .priority = (uint32_t)strtoul(argv[7], NULL, 10)};
  for (int i = 0; i < 2; i++) {
    pthread_create(&arms[i].worker, NULL, serve, arms[i].async);
  }
  bool first = vlart_thread_apply(&runs, NULL) == VLART_STATUS_OK && runs.priority > 0;
  for (int i = 0; i < 2; i++) {
    run_block(&arms[i], &camera, action, info.action_dim, 0, block, period); /* warm */
    arms[i].count = arms[i].without = 0;
  }
  uint64_t random = 88172645463325252ull, allocated = own_allocations;
  for (size_t pair = 0; pair < pairs; pair++) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    for (uint64_t i = 0; i < 2; i++) {
      run_block(&arms[(random + i) % 2], &camera, action, info.action_dim, pair, block, period);
    }
  }
  allocated = own_allocations - allocated;
  for (int i = 0; i < 2; i++) {
    vlart_async_stop(arms[i].async);
    pthread_join(arms[i].worker, NULL);
    vlart_async_close(arms[i].async);
    vlart_session_close(arms[i].session);
  }
  vlart_recorder_close(recorder);
  vlart_recorder_info_t kept = {.struct_size = sizeof kept};
  must(vlart_recorder_info(recorder, &kept));
  uint64_t observation = 0;
  for (uint32_t i = 0; i < info.source_count; i++) {
    observation += camera.values[i].bytes;
  }
  printf(
      "{\"priority\": %u, \"pairs\": %zu, \"block_ticks\": %zu, \"period_us\": %llu, "
      "\"observation_bytes\": %llu, ",
      first ? runs.priority : 0, pairs, block, (unsigned long long)(period / 1000),
      (unsigned long long)observation);
  print_arm("without", &arms[0], pairs);
  print_arm("with", &arms[1], pairs);
  printf(
      "\"allocations\": %llu, \"events\": %llu, \"bytes\": %llu, \"lost_events\": %llu, "
      "\"lost_bytes\": %llu, \"blocks\": %llu, \"lost_blocks\": %llu, \"syncs\": %llu, "
      "\"laps\": %llu, \"error\": %u}\n",
      (unsigned long long)allocated, (unsigned long long)kept.events,
      (unsigned long long)kept.bytes, (unsigned long long)kept.lost_events,
      (unsigned long long)kept.lost_bytes, (unsigned long long)kept.blocks,
      (unsigned long long)kept.lost_blocks, (unsigned long long)kept.syncs,
      (unsigned long long)kept.laps, kept.error);
  vlart_bundle_close(bundle);
  return 0;
}
