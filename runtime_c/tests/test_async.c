/* Asynchronous control on the null engine: who answers a tick, what is late, what is cancelled, and that the
   control thread neither waits nor allocates. Usage: test_async SAMPLES, the directory of
   sample_actions.samples. Also run under ThreadSanitizer (make tsan). Linked with --wrap=malloc,calloc,realloc,free. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "null_backend.h"
#include "robot.h"
#include "vlart/vlart.h"

static robot_t open_async(const char *samples, const char *name,
                          const vlart_async_options_t *options) {
  robot_t r = open_robot(sample_path(samples, name), NULL);
  make_async(&r, options);
  null_control.output = 0.25f;
  return r;
}

static void write_number(const robot_t *r, uint32_t source, float number) {
  float data[64] = {0};
  vlart_value_info_t value = source_value(r->bundle, source);
  CHECK(value.bytes <= sizeof data);
  for (size_t i = 0; value.dtype == VLART_DTYPE_F32 && i < value.bytes / sizeof(float); i++) {
    data[i] = number;
  }
  if (value.dtype != VLART_DTYPE_F32) {
    *(uint8_t *)data = (uint8_t)number;
  }
  CHECK_STATUS(write_source(r, source, data), OK);
}

static vlart_async_info_t info_of(const robot_t *r) {
  vlart_async_info_t info = {.struct_size = sizeof info};
  CHECK_STATUS(vlart_async_info(r->async, &info), OK);
  return info;
}

static vlart_async_info_t answered(const robot_t *r) {
  while (info_of(r).busy) {
    sched_yield();
  }
  return info_of(r);
}

/* The first chunk begins at its row 0, however late it comes; a later one where its observation's tick says. */
static void test_nobody_waits(const char *samples) {
  robot_t r = open_async(samples, "realtime", NULL);
  vlart_bundle_info_t bundle = {.struct_size = sizeof bundle};
  CHECK_STATUS(vlart_bundle_info(r.bundle, &bundle), OK);
  float action[2] = {9, 9};
  CHECK(info_of(&r).due == 1);
  CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), QUEUE_EMPTY);
  CHECK(action[0] == 9 && info_of(&r).tick == 1 && info_of(&r).idle_ticks == 1);
  write_number(&r, 0, 1.0f);
  CHECK_STATUS(vlart_async_request(r.async), OK); /* of tick 1; there is no worker yet */
  CHECK(info_of(&r).busy == 1 && info_of(&r).due == 0);
  CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), QUEUE_EMPTY);
  CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), QUEUE_EMPTY);
  start_worker(&r);
  vlart_async_info_t info = answered(&r);
  CHECK(info.chunks == 1 && info.late_ticks == 0 && info.remaining == bundle.chunk_steps);
  CHECK(info.idle_ticks == 3);
  for (uint32_t i = 0; i < bundle.chunk_steps; i++) {
    CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), OK);
    CHECK(action[0] == 1.5f); /* 0.25 * 2 + 1 */
  }
  action[0] = 9;
  CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), SAFE_ACTION); /* the last one is held */
  CHECK(action[0] == 1.5f && info_of(&r).safe_actions == 1 && info_of(&r).due == 1);
  close_robot(&r);
}

static void test_safe_actions_and_deadlines(const char *samples) {
  const float stop[2] = {0.5f, -0.5f};
  vlart_async_options_t options = {.struct_size = sizeof options,
                                   .safe = VLART_SAFE_GIVEN,
                                   .safe_action = stop,
                                   .stale_ticks = 1,
                                   .deadline_ticks = 1};
  robot_t r = open_async(samples, "realtime", &options);
  vlart_bundle_info_t bundle = {.struct_size = sizeof bundle};
  CHECK_STATUS(vlart_bundle_info(r.bundle, &bundle), OK);
  float action[2];
  CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), SAFE_ACTION);
  CHECK(action[0] == 0.5f && action[1] == -0.5f);
  start_worker(&r);
  write_number(&r, 0, 1.0f);
  CHECK_STATUS(vlart_async_request(r.async), OK);
  CHECK(answered(&r).remaining == bundle.execute_steps + 1);
  null_control.sleep_ms = 300;
  CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), OK);
  write_number(&r, 0, 2.0f);
  CHECK_STATUS(vlart_async_request(r.async), OK); /* and the worker is slow */
  CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), OK);
  for (uint32_t i = 2; i < bundle.execute_steps + 1; i++) {
    vlart_status_t got = vlart_async_pop(r.async, action, 2, &diag);
    CHECK(got == (i == 2 ? VLART_STATUS_OK : VLART_STATUS_DEADLINE_MISSED) && action[0] == 1.5f);
  }
  CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), SAFE_ACTION);
  CHECK(action[0] == 0.5f);
  answered(&r);
  close_robot(&r);
  /* What an option may not be. */
  size_t bytes;
  robot_t q = open_async(samples, "realtime", NULL);
  options.safe = VLART_SAFE_ZERO;
  CHECK_STATUS(vlart_async_required_bytes(q.session, &options, &diag, &bytes), BAD_ARGUMENT);
  options = (vlart_async_options_t){.struct_size = 8};
  CHECK_STATUS(vlart_async_required_bytes(q.session, &options, &diag, &bytes), BAD_ARGUMENT);
  close_robot(&q);
}

static void test_failures_keep_the_last_chunk(const char *samples) {
  robot_t r = open_async(samples, "realtime", NULL);
  float action[2];
  start_worker(&r);
  write_number(&r, 0, 1.0f);
  CHECK_STATUS(vlart_async_request(r.async), OK);
  CHECK(answered(&r).chunks == 1);
  null_control.fail_stage = 0;
  write_number(&r, 0, 2.0f);
  CHECK_STATUS(vlart_async_request(r.async), OK);
  vlart_async_info_t info = answered(&r);
  CHECK(info.failures == 1 && info.status == VLART_STATUS_BACKEND_FAILED && info.chunks == 1);
  CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), OK);
  CHECK(action[0] == 1.5f);
  while (vlart_async_pop(r.async, action, 2, &diag) == VLART_STATUS_OK) {
  }
  CHECK(diag.status == VLART_STATUS_SAFE_ACTION && strstr(diag.why, "gave no chunk") != NULL);
  null_control.fail_stage = VLART_NONE;
  write_number(&r, 0, 3.0f);
  CHECK_STATUS(vlart_async_request(r.async), OK);
  CHECK(answered(&r).chunks == 2);
  CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), OK);
  uint8_t nan[256];
  memset(nan, 0xFF, sizeof nan);
  CHECK(source_value(r.bundle, 0).dtype == VLART_DTYPE_F32);
  CHECK_STATUS(write_source(&r, 0, nan), NOT_FINITE);
  CHECK_STATUS(vlart_async_write(r.async, 99, nan, 4, 1, 0, NULL, &diag), BAD_ARGUMENT);
  close_robot(&r);
}

static void test_another_instruction(const char *samples) {
  robot_t r = open_async(samples, "realtime", NULL);
  float action[2];
  start_worker(&r);
  write_number(&r, 0, 1.0f);
  CHECK_STATUS(vlart_async_request(r.async), OK);
  CHECK(answered(&r).chunks == 1);
  CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), OK);
  null_control.sleep_ms = 30;
  write_number(&r, 0, 2.0f);
  CHECK_STATUS(vlart_async_request(r.async), OK);
  CHECK_STATUS(vlart_async_cancel(r.async, VLART_CANCEL_KEEP), OK);
  CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), OK); /* the old chunk goes on */
  vlart_async_info_t info = answered(&r);
  CHECK(info.chunks == 1 && info.discarded == 1 && info.failures == 0);
  null_control.sleep_ms = 0;
  CHECK_STATUS(vlart_async_cancel(r.async, VLART_CANCEL_DROP), OK);
  CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), SAFE_ACTION);
  write_number(&r, 0, 3.0f);
  CHECK_STATUS(vlart_async_request(r.async), OK);
  CHECK(answered(&r).chunks == 2);
  CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), OK);
  CHECK(vlart_async_cancel(r.async, 3) == VLART_STATUS_BAD_ARGUMENT);
  close_robot(&r);
}

/* Means per tick, also where chunks come late. */
static void test_ensemble(const char *samples) {
  robot_t r = open_async(samples, "ensemble", NULL);
  float action[2];
  start_worker(&r);
  for (int t = 0; t < 40; t++) {
    null_control.output = (float)t;
    write_number(&r, 0, (float)(t % 200));
    CHECK_STATUS(vlart_async_request(r.async), OK);
    CHECK(answered(&r).chunks == (uint64_t)t + 1);
    CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), OK);
    double sum = 0, total = 0;
    for (int i = 0, from = t < 3 ? 0 : t - 3; from + i <= t; i++) {
      double weight = 1.0 - 0.01 * i + 0.5 * 1e-4 * i * i - 1e-6 * i * i * i / 6.0;
      sum += weight * (from + i);
      total += weight;
    }
    CHECK((double)action[0] - sum / total < 1e-4 && sum / total - (double)action[0] < 1e-4);
  }
  close_robot(&r);
}

/* Both threads as fast as they can: what a tick is answered with was written by one observation alone. */
static void test_stress(const char *samples, int ticks) {
  vlart_async_options_t options = {.struct_size = sizeof options, .lead_ticks = 2};
  robot_t r = open_async(samples, "realtime", &options);
  float action[2];
  uint64_t good = 0;
  bool begun = false;
  start_worker(&r);
  for (int t = 0; t < ticks; t++) {
    write_number(&r, 0, (float)(t % 100));
    if (info_of(&r).due || t % 3 == 0) { /* also while it is busy: the older one is replaced */
      CHECK_STATUS(vlart_async_request(r.async), OK);
    }
    if (t % 97 == 0) {
      CHECK_STATUS(vlart_async_cancel(r.async, (uint32_t)(t / 97 % 3)), OK);
      begun =
          begun && t / 97 % 3 != VLART_CANCEL_EPISODE; /* nothing is held over an episode's end */
    }
    vlart_status_t status = vlart_async_pop(r.async, action, 2, &diag);
    CHECK(status == VLART_STATUS_OK || status == VLART_STATUS_SAFE_ACTION ||
          (status == VLART_STATUS_QUEUE_EMPTY && !begun));
    begun = begun || status == VLART_STATUS_OK;
    good += status == VLART_STATUS_OK;
    if (status == VLART_STATUS_OK) {
      CHECK(action[0] == 1.5f);
    }
    if (t % 64 == 0) {
      sched_yield();
    }
  }
  vlart_async_info_t info = answered(&r);
  CHECK(info.tick == (uint64_t)ticks && info.chunks > 0 && good > 0);
  printf("  %d ticks: %llu answered by chunks, %llu chunks, %llu discarded\n", ticks,
         (unsigned long long)good, (unsigned long long)info.chunks,
         (unsigned long long)info.discarded);
  close_robot(&r);
}

int main(int argc, char **argv) {
  CHECK(argc >= 2);
  test_nobody_waits(argv[1]);
  test_safe_actions_and_deadlines(argv[1]);
  test_failures_keep_the_last_chunk(argv[1]);
  test_another_instruction(argv[1]);
  test_ensemble(argv[1]);
  test_stress(argv[1], 200000);
  CHECK(allocations == 0);
  puts("test_async: passed");
  return 0;
}
