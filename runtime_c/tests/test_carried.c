/* Values that a step takes from the one before, on the null engine: a stage's output is the number that the engine was
   told, so that a value says in which step it was made. */

#include "test_carried.h"

#include "null_backend.h"
#include "robot.h"

enum { WORD, X, SUM, SUM_NEXT, COUNT, COUNT_NEXT };
enum { ADD, MEAN };

static void write_x(vlart_session_t *session, float number) {
  const uint64_t dims[] = {1, 1, 3};
  const float data[] = {number, number, number};
  CHECK_STATUS(vlart_session_write(session, X, data, sizeof data, VLART_DTYPE_F32, 3, dims, &diag),
               OK);
}

static float first_number(vlart_session_t *session, uint32_t value) {
  float data[3];
  CHECK_STATUS(vlart_session_read(session, value, data, sizeof data, &diag), OK);
  return data[0];
}

static void check_unset(vlart_session_t *session, uint32_t value) {
  float data[3];
  CHECK_STATUS(vlart_session_read(session, value, data, sizeof data, &diag), VALUE_UNSET);
}

static void step(vlart_session_t *session, float makes, vlart_status_t expected) {
  null_control.output = makes;
  CHECK(vlart_session_step(session, &diag) == expected);
}

/* A stage failed: what the last good step made is there, whether the stage before it had run or not. */
static void check_failure(vlart_session_t *session, uint32_t stage, float kept) {
  null_control.fail_stage = stage;
  step(session, 50, VLART_STATUS_BACKEND_FAILED);
  null_control.fail_stage = VLART_NONE;
  CHECK(first_number(session, SUM) == kept && first_number(session, SUM_NEXT) == kept);
}

void test_carried(vlart_bundle_t *bundle, vlart_session_t *session) {
  uint32_t unused;
  CHECK_STATUS(vlart_bundle_find_source(bundle, "sum", &unused), NOT_FOUND);
  const uint64_t one = 1;
  const int64_t word = 2;
  CHECK_STATUS(
      vlart_session_write(session, WORD, &word, sizeof word, VLART_DTYPE_I64, 1, &one, &diag), OK);
  write_x(session, 1);
  check_unset(session, SUM);
  check_unset(session, SUM_NEXT);
  step(session, 5, VLART_STATUS_OK);
  CHECK(first_number(session, SUM) == 1 && first_number(session, SUM_NEXT) == 5);
  for (float k = 6; k < 10; k++) { /* also where nothing was written */
    step(session, k, VLART_STATUS_OK);
    CHECK(first_number(session, SUM) == k - 1 && first_number(session, SUM_NEXT) == k);
  }
  check_failure(session, ADD, 9);
  check_failure(session, ADD, 9);
  step(session, 10, VLART_STATUS_OK);
  CHECK(first_number(session, SUM) == 9 && first_number(session, SUM_NEXT) == 10);
  check_failure(session, MEAN, 10);
  step(session, 12, VLART_STATUS_OK); /* goes on behind the stage that had run */
  CHECK(first_number(session, SUM) == 10 && first_number(session, SUM_NEXT) == 50);
  CHECK_STATUS(vlart_session_reset(session), OK);
  check_unset(session, SUM);
  check_unset(session, SUM_NEXT);
  write_x(session, 1);
  step(session, 13, VLART_STATUS_OK);
  CHECK(first_number(session, SUM) == 1 && first_number(session, SUM_NEXT) == 13);
  CHECK_STATUS(vlart_session_invalidate(session), OK); /* what is carried stays */
  step(session, 14, VLART_STATUS_OK);
  CHECK(first_number(session, SUM) == 13 && first_number(session, SUM_NEXT) == 14);
}
