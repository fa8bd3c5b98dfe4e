/* What sensors may give: NaN and infinity, numbers outside their range, numbers too small to be normal, content
   that is too old, repeated or out of order; in a session and asynchronously. Usage: test_sensors GUARDED, the
   bundle of sample_actions.samples: raw f32[1,5,2] within (-4,-8)..(4,8) and at most 50 ms old, state f32[1,4]
   within -1..1, counted. Linked with --wrap=malloc,calloc,realloc,free: nothing is allocated. */
#include <float.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "base/float_scan.h"
#include "null_backend.h"
#include "robot.h"
#include "vlart/vlart.h"

enum { RAW = 0, STATE = 1, MS = 1000 };

static const char *dir;

static robot_t open_guarded(const vlart_sensor_options_t *options, bool async) {
  robot_t r = open_robot(dir, NULL);
  if (options != NULL) {
    CHECK_STATUS(vlart_session_sensors(r.session, options, &diag), OK);
  }
  if (async) {
    vlart_async_options_t safe = {.struct_size = sizeof safe, .safe = VLART_SAFE_ZERO};
    make_async(&r, &safe);
  }
  null_control.output = 0.25f;
  return r;
}

/* `numbers` in the first elements of a source, zeros in the rest. */
static vlart_status_t write_numbers(const robot_t *r, uint32_t source, const float *numbers,
                                    size_t count) {
  float data[10] = {0};
  memcpy(data, numbers, count * sizeof *numbers);
  return write_source(r, source, data);
}

static vlart_status_t write_number(const robot_t *r, uint32_t source, float number) {
  return write_numbers(r, source, &number, 1);
}

static vlart_sensor_info_t sensor_of(const robot_t *r, uint32_t source) {
  vlart_sensor_info_t info = {.struct_size = sizeof info};
  CHECK((r->async != NULL ? vlart_async_sensor(r->async, source, &info)
                          : vlart_session_sensor(r->session, source, &info)) == VLART_STATUS_OK);
  return info;
}

static vlart_status_t use(const robot_t *r) {
  return r->async != NULL ? vlart_async_request(r->async) : vlart_session_step(r->session, &diag);
}

static void tell(const robot_t *r, uint64_t now_us) {
  CHECK((r->async != NULL ? vlart_async_time(r->async, now_us)
                          : vlart_session_time(r->session, now_us)) == VLART_STATUS_OK);
}

static vlart_status_t stamp(const robot_t *r, uint32_t sequence, uint64_t time_us) {
  return r->async != NULL ? vlart_async_stamp(r->async, RAW, sequence, time_us, &diag)
                          : vlart_session_stamp(r->session, RAW, sequence, time_us, &diag);
}

/* ---- content -------------------------------------------------------------------------------- */

static void test_content(bool async) {
  robot_t r = open_guarded(NULL, async);
  const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
  float numbers[10] = {1, 2};
  CHECK_STATUS(write_numbers(&r, RAW, numbers, 2), OK);
  for (size_t k = 0; k < 4; k++) {
    numbers[7] = bad[k];
    CHECK_STATUS(write_numbers(&r, RAW, numbers, 10), NOT_FINITE);
    CHECK(strstr(diag.where, "\"raw\"") != NULL && strstr(diag.why, "element 7 of 10") != NULL);
  }
  CHECK(sensor_of(&r, RAW).not_finite == 4 && sensor_of(&r, RAW).writes == 1);
  numbers[7] = 7.5f; /* an odd element: up to 8 */
  CHECK_STATUS(write_numbers(&r, RAW, numbers, 10), OK);
  numbers[6] = 4.5f; /* an even one: up to 4 */
  CHECK_STATUS(write_numbers(&r, RAW, numbers, 10), INPUT_OUT_OF_RANGE);
  CHECK(strstr(diag.where, "\"raw\"") != NULL &&
        strstr(diag.why, "element 6 of 10 is 4.5") != NULL && strstr(diag.why, "-4 to 4") != NULL);
  vlart_sensor_info_t info = sensor_of(&r, RAW);
  CHECK(info.out_of_range == 1 && info.element == 6 && info.number == 4.5f && info.writes == 2);
  CHECK_STATUS(write_number(&r, STATE, -1.5f), OK); /* counted alone */
  info = sensor_of(&r, STATE);
  CHECK(info.out_of_range == 1 && info.number == -1.5f && info.writes == 1 && info.element == 0);
  if (!async) { /* what was refused left the source as it was */
    float held[10];
    CHECK_STATUS(vlart_session_read(r.session, RAW, held, sizeof held, &diag), OK);
    CHECK(held[0] == 1 && held[6] == 0 && held[7] == 7.5f);
  }
  close_robot(&r);
}

static void test_accepted(void) {
  vlart_sensor_options_t options = {
      .struct_size = sizeof options,
      .accept = VLART_ACCEPT_NOT_FINITE | VLART_ACCEPT_OUT_OF_RANGE | VLART_ACCEPT_DENORMAL};
  robot_t r = open_guarded(&options, false);
  float held[10];
  CHECK_STATUS(write_number(&r, RAW, NAN), OK);
  CHECK_STATUS(write_number(&r, RAW, 99.0f), OK);
  CHECK_STATUS(write_number(&r, RAW, FLT_MIN / 4), OK);
  CHECK_STATUS(vlart_session_read(r.session, RAW, held, sizeof held, &diag), OK);
  CHECK(held[0] == FLT_MIN / 4 && sensor_of(&r, RAW).out_of_range == 0);
  CHECK_STATUS(vlart_session_sensors(r.session, &options, &diag),
               BAD_ARGUMENT); /* it was written */
  close_robot(&r);
  r = open_guarded(NULL, false);
  options.accept = 16;
  CHECK_STATUS(vlart_session_sensors(r.session, &options, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_sensors(NULL, NULL, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_sensors(r.session, NULL, &diag), OK);
  CHECK_STATUS(vlart_session_stamp(r.session, 9, 1, 1, &diag), BAD_ARGUMENT);
  vlart_sensor_info_t info = {.struct_size = 8};
  CHECK_STATUS(vlart_session_sensor(r.session, RAW, &info), BAD_ARGUMENT);
  close_robot(&r);
}

static void test_denormals(void) {
  robot_t r = open_guarded(NULL, false);
  const float numbers[] = {FLT_MIN / 2, -FLT_MIN / 2, FLT_MIN, -FLT_MIN, 0.0f, -0.0f, 1e-45f};
  float held[10];
  CHECK_STATUS(write_numbers(&r, RAW, numbers, 7), OK);
  CHECK_STATUS(vlart_session_read(r.session, RAW, held, sizeof held, &diag), OK);
  CHECK(held[0] == 0 && !signbit(held[0]) && held[1] == 0 && signbit(held[1]));
  CHECK(held[2] == FLT_MIN && held[3] == -FLT_MIN && signbit(held[5]) && held[6] == 0);
  CHECK(sensor_of(&r, RAW).denormal == 1);
  close_robot(&r);
  /* Every length around the size of a block, and the numbers in every place of it. */
  static float block[600];
  static double wide[600];
  for (size_t count = 250; count < 520; count++) {
    for (size_t at = 0; at < count; at += 1 + count % 7) {
      for (size_t i = 0; i < count; i++) {
        block[i] = (float)i + 1;
        wide[i] = (double)i + 1;
      }
      CHECK(!vlart_flush_denormals(block, count, VLART_DTYPE_F32));
      block[at] = -FLT_MIN / 8;
      wide[at] = DBL_MIN / 8;
      CHECK(vlart_flush_denormals(block, count, VLART_DTYPE_F32) && block[at] == 0 &&
            signbit(block[at]));
      CHECK(vlart_flush_denormals(wide, count, VLART_DTYPE_F64) && wide[at] == 0);
      CHECK(!vlart_flush_denormals(wide, count, VLART_DTYPE_F64));
      CHECK(block[count - 1 - (at == count - 1)] == (float)(count - (at == count - 1)));
      CHECK(vlart_first_not_finite(block, count, VLART_DTYPE_F32) == count);
      const float low = -1.0f, high = 1000.0f;
      CHECK(vlart_first_outside(block, count, &low, &high, 1) == count);
      block[at] = count % 2 == 0 ? -1.5f : 1000.5f;
      CHECK(vlart_first_outside(block, count, &low, &high, 1) == at);
      block[at] = NAN;
      CHECK(vlart_first_outside(block, count, &low, &high, 1) == count);
      wide[at] = -(double)INFINITY;
      CHECK(vlart_first_not_finite(block, count, VLART_DTYPE_F32) == at);
      CHECK(vlart_first_not_finite(wide, count, VLART_DTYPE_F64) == at);
      CHECK(vlart_first_not_finite((uint8_t *)block + 4, count - 1, VLART_DTYPE_F32) ==
            (at == 0 ? count - 1 : at - 1));
    }
  }
}

/* ---- age ------------------------------------------------------------------------------------ */

static void test_ages(bool async) {
  for (int wrap = 0; wrap < 2; wrap++) { /* from zero, and over the end of the clock */
    uint64_t t0 = wrap ? UINT64_MAX - 60 * MS : 0;
    robot_t r = open_guarded(NULL, async);
    CHECK_STATUS(write_number(&r, RAW, 1.0f), OK);
    CHECK_STATUS(write_number(&r, STATE, 0.5f), OK);
    tell(&r, t0); /* what was written before has no age */
    CHECK_STATUS(use(&r), STALE_INPUT);
    CHECK_STATUS(write_number(&r, RAW, 1.0f), OK); /* equal bytes are new, too */
    tell(&r, t0 + 50 * MS);
    CHECK_STATUS(use(&r), OK);
    CHECK(sensor_of(&r, RAW).age_us == 50 * MS && sensor_of(&r, RAW).max_age_us == 50 * MS);
    tell(&r, t0 + 50 * MS + 1);
    CHECK_STATUS(use(&r), STALE_INPUT);
    CHECK(sensor_of(&r, RAW).stale == 2 && sensor_of(&r, STATE).stale == 0);
    CHECK_STATUS(write_number(&r, RAW, 2.0f), OK);
    CHECK_STATUS(use(&r), OK);
    tell(&r, t0 + 70 * MS); /* over the end */
    CHECK_STATUS(use(&r), OK);
    CHECK(sensor_of(&r, RAW).age_us == 20 * MS - 1);
    tell(&r, t0 + 110 * MS);
    CHECK_STATUS(use(&r), STALE_INPUT);
    close_robot(&r);
  }
}

/* Camera frames with numbers and times of capture. */
static void test_stamps(bool async) {
  robot_t r = open_guarded(NULL, async);
  tell(&r, 1000 * MS);
  CHECK_STATUS(write_number(&r, STATE, 0.0f), OK);
  uint32_t first = UINT32_MAX - 1;
  CHECK_STATUS(stamp(&r, first, 970 * MS), OK);
  CHECK_STATUS(write_number(&r, RAW, 1.0f), OK);
  CHECK_STATUS(use(&r), OK);
  CHECK(sensor_of(&r, RAW).age_us == 30 * MS);
  CHECK_STATUS(stamp(&r, first, 990 * MS), STALE_INPUT); /* the same frame again */
  CHECK_STATUS(stamp(&r, first - 1, 990 * MS), STALE_INPUT);
  CHECK(sensor_of(&r, RAW).reordered == 2);
  CHECK_STATUS(stamp(&r, first + 1, 990 * MS), OK);
  CHECK_STATUS(stamp(&r, first + 5, 995 * MS), OK); /* over 0, and three were lost */
  CHECK(sensor_of(&r, RAW).lost == 3);
  CHECK_STATUS(write_number(&r, RAW, 2.0f), OK);
  CHECK_STATUS(use(&r), OK);
  CHECK(sensor_of(&r, RAW).age_us == 5 * MS);
  /* Clocks that run apart: a little ahead is new, far ahead is no time at all. */
  CHECK_STATUS(stamp(&r, first + 6, 1003 * MS), OK);
  CHECK_STATUS(write_number(&r, RAW, 3.0f), OK);
  CHECK_STATUS(use(&r), OK);
  CHECK(sensor_of(&r, RAW).age_us == 0);
  CHECK_STATUS(stamp(&r, first + 7, 2000 * MS), OK);
  CHECK_STATUS(write_number(&r, RAW, 4.0f), OK);
  CHECK_STATUS(use(&r), STALE_INPUT);
  CHECK(async || strstr(diag.why, "1000000 us in the future") != NULL);
  /* A stamp is for one write. */
  CHECK_STATUS(write_number(&r, RAW, 3.5f), OK);
  CHECK_STATUS(use(&r), OK);
  close_robot(&r);
}

/* By the system's clock, without a word of the caller's. */
static void test_monotonic_clock(void) {
  robot_t r = open_guarded(NULL, false);
  CHECK_STATUS(write_number(&r, RAW, 1.0f), OK);
  CHECK_STATUS(write_number(&r, STATE, 0.0f), OK);
  struct timespec pause = {0, 60 * MS * MS};
  nanosleep(&pause, NULL);
  CHECK_STATUS(vlart_session_step(r.session, &diag), STALE_INPUT);
  CHECK(strstr(diag.where, "\"raw\"") != NULL && strstr(diag.why, "at most 50000 us") != NULL);
  vlart_session_totals_t totals = {.struct_size = sizeof totals};
  CHECK_STATUS(vlart_session_totals(r.session, &totals), OK);
  CHECK(totals.steps == 0 && totals.stages_run == 0); /* nothing was computed of it */
  close_robot(&r);
  vlart_sensor_options_t options = {.struct_size = sizeof options, .accept = VLART_ACCEPT_STALE};
  r = open_guarded(&options, false);
  CHECK_STATUS(write_number(&r, RAW, 1.0f), OK);
  CHECK_STATUS(write_number(&r, STATE, 0.0f), OK);
  nanosleep(&pause, NULL);
  CHECK_STATUS(vlart_session_step(r.session, &diag), OK);
  close_robot(&r);
  options = (vlart_sensor_options_t){.struct_size = sizeof options, .max_age_us = 20 * MS};
  r = open_guarded(&options, false); /* the state, of which the plan says no age */
  tell(&r, 0);
  CHECK_STATUS(write_number(&r, STATE, 0.0f), OK);
  tell(&r, 30 * MS);
  CHECK_STATUS(write_number(&r, RAW, 1.0f), OK);
  CHECK_STATUS(vlart_session_step(r.session, &diag), STALE_INPUT);
  CHECK(strstr(diag.where, "\"state\"") != NULL && sensor_of(&r, STATE).max_age_us == 20 * MS);
  CHECK(sensor_of(&r, RAW).max_age_us == 50 * MS);
  close_robot(&r);
}

/* The last chunk stays and is marked; with new content it is the answer again. */
static void test_the_queue(void) {
  robot_t r = open_guarded(NULL, false);
  vlart_queue_info_t queue = {.struct_size = sizeof queue};
  float action[2];
  tell(&r, 0);
  CHECK_STATUS(write_number(&r, RAW, 1.0f), OK);
  CHECK_STATUS(write_number(&r, STATE, 0.0f), OK);
  CHECK_STATUS(vlart_session_step(r.session, &diag), OK);
  CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
  tell(&r, 51 * MS);
  CHECK_STATUS(vlart_session_step(r.session, &diag), STALE_INPUT);
  CHECK_STATUS(vlart_session_queue(r.session, &queue), OK);
  CHECK(queue.stale == 1 && queue.remaining == 1);
  CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
  CHECK_STATUS(vlart_session_step(r.session, &diag), STALE_INPUT); /* and no other comes of it */
  CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), QUEUE_EMPTY);
  CHECK_STATUS(write_number(&r, RAW, 1.0f), OK);
  CHECK_STATUS(vlart_session_step(r.session, &diag), OK);
  CHECK_STATUS(vlart_session_queue(r.session, &queue), OK);
  CHECK(queue.stale == 0 && queue.remaining == 2);
  close_robot(&r);
}

/* A camera that falls silent: the chunk goes on to its end, then the safe action; and back. */
static void test_silence(void) {
  robot_t r = open_guarded(NULL, true);
  vlart_async_info_t info = {.struct_size = sizeof info};
  float action[2];
  uint64_t safe = 0, stale = 0, good = 0;
  for (uint64_t t = 0; t < 60; t++) {
    tell(&r, t * 20 * MS);
    CHECK_STATUS(vlart_async_info(r.async, &info), OK);
    bool silent = t >= 20 && t < 40;
    if (!silent) {
      CHECK_STATUS(write_number(&r, RAW, (float)(t % 4)), OK);
    }
    CHECK_STATUS(write_number(&r, STATE, 0.0f), OK);
    if (info.due) {
      stale += vlart_async_request(r.async) == VLART_STATUS_STALE_INPUT;
      CHECK_STATUS(vlart_async_answer(r.async), OK);
    }
    vlart_status_t status = vlart_async_pop(r.async, action, 2, &diag);
    good += status == VLART_STATUS_OK;
    if (status == VLART_STATUS_SAFE_ACTION) {
      safe++;
      CHECK(silent && action[0] == 0.0f && strstr(diag.why, "too old") != NULL);
    }
  }
  CHECK_STATUS(vlart_async_info(r.async, &info), OK);
  CHECK(stale > 5 && safe > 5 && safe < 20 && good == 60 - safe && info.failures == stale);
  CHECK(info.status == VLART_STATUS_OK);
  close_robot(&r);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  dir = argv[1];
  for (int async = 0; async < 2; async++) {
    test_content(async == 1);
    test_ages(async == 1);
    test_stamps(async == 1);
  }
  test_accepted();
  test_denormals();
  test_monotonic_clock();
  test_the_queue();
  test_silence();
  CHECK(allocations == 0);
  puts("test_sensors: passed");
  return 0;
}
