/* Histories on the null engine: an encoder's output is the number that the engine was told, so that
   every delayed value says of which observation it is. */

#include <string.h>

#include "null_backend.h"
#include "robot.h"
#include "test_history.h"

enum { GAIN, IMAGE, STATE, FEATURE = 3, FEATURE_1, FEATURE_2, STATE_1 };

static void write_number(vlart_session_t *session, uint32_t source, float number) {
  static const uint64_t sizes[] = {1, 6, 3};
  const uint64_t dims[] = {1, sizes[source]};
  const float data[] = {number, number, number, number, number, number};
  CHECK_STATUS(vlart_session_write(session, source, data, sizes[source] * sizeof(float),
                                   VLART_DTYPE_F32, 2, dims, &diag),
               OK);
}

static float first_number(vlart_session_t *session, uint32_t value) {
  float data[3];
  CHECK_STATUS(vlart_session_read(session, value, data, sizeof data, &diag), OK);
  return data[0];
}

static void write_observation(vlart_session_t *session, float number) {
  write_number(session, IMAGE, number);
  write_number(session, STATE, number);
  null_control.output = number;
}

static void check_features(vlart_session_t *session, float newest, float before, float oldest) {
  CHECK(first_number(session, FEATURE) == newest);
  CHECK(first_number(session, FEATURE_1) == before);
  CHECK(first_number(session, FEATURE_2) == oldest);
}

/* An observation that no engine encoded is replaced by the next one; what was kept stays. */
static void check_failure(vlart_session_t *session) {
  write_observation(session, 4);
  null_control.fail_stage = 0;
  CHECK_STATUS(vlart_session_observe(session, &diag), BACKEND_FAILED);
  CHECK_STATUS(vlart_session_step(session, &diag), BACKEND_FAILED);
  null_control.fail_stage = VLART_NONE;
  write_observation(session, 5);
  CHECK_STATUS(vlart_session_step(session, &diag), OK);
  check_features(session, 5, 3, 2);
  CHECK(first_number(session, STATE_1) == 3);
  /* One that was encoded before a later stage failed stays in the history. */
  write_observation(session, 6);
  null_control.fail_stage = 1;
  CHECK_STATUS(vlart_session_step(session, &diag), BACKEND_FAILED);
  null_control.fail_stage = VLART_NONE;
  write_observation(session, 7);
  CHECK_STATUS(vlart_session_step(session, &diag), OK);
  check_features(session, 7, 6, 5);
  CHECK(first_number(session, STATE_1) == 6);
}

void test_history(vlart_bundle_t *bundle, vlart_session_t *session) {
  float data[3];
  vlart_source_info_t info = {.struct_size = sizeof info};
  CHECK_STATUS(vlart_bundle_source(bundle, IMAGE, &info), OK);
  CHECK(info.frames == 3);
  CHECK_STATUS(vlart_session_observe(NULL, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_reset(NULL), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_observe(session, &diag), SOURCE_UNSET);
  CHECK(strstr(diag.where, "image") != NULL);
  write_number(session, GAIN, 1);
  write_observation(session, 1);
  CHECK_STATUS(vlart_session_read(session, FEATURE_1, data, sizeof data, &diag), VALUE_UNSET);
  CHECK_STATUS(vlart_session_step(session, &diag), OK);
  check_features(session, 1, 1, 1);
  write_observation(session, 2);
  CHECK_STATUS(vlart_session_observe(session, &diag), OK);
  check_features(session, 2, 1, 1);
  CHECK(first_number(session, STATE_1) == 1 && runs_of(session, 0) == 2 &&
        runs_of(session, 1) == 1);
  CHECK_STATUS(vlart_session_observe(session, &diag), OK);
  CHECK(runs_of(session, 0) == 2);
  write_observation(session, 3);
  CHECK_STATUS(vlart_session_step(session, &diag), OK);
  check_features(session, 3, 2, 1);
  CHECK(runs_of(session, 0) == 3 && runs_of(session, 1) == 2);
  check_failure(session);
  CHECK_STATUS(vlart_session_reset(session), OK);
  CHECK_STATUS(vlart_session_read(session, STATE_1, data, sizeof data, &diag), VALUE_UNSET);
  write_observation(session, 8);
  CHECK_STATUS(vlart_session_step(session, &diag), OK);
  check_features(session, 8, 8, 8);
  null_control.output = 0.5f;
}
