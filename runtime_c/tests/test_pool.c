/* Stages at the same time on an engine of the test's own: whatever the schedule, a step gives what its stages give one
   after the other, to the byte, and what it refuses is refused in the same words. Nothing is allocated in a step.
   Usage: test_pool SAMPLES/branches. Also run under ThreadSanitizer (make tsan). */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/diag.h"
#include "robot.h"
#include "small_engine.h"

enum { STAGES = 7, SOURCES = 3, NUMBERS = 8, STEPS = 400, LEFT = 0, RIGHT = 2, ACT = 6 };

static atomic_uint pauses;   /* each run waits for another time */
static atomic_uint fails;    /* bit i: stage i */
static atomic_uint active;   /* runs that began and did not end */
static atomic_uint together; /* the most of them at a time */
static atomic_uint order[STAGES];
static atomic_uint begun;
static atomic_uint sleep_us; /* of every run; 0: by the dice */

static void pause_a_while(void) {
  uint32_t dice = atomic_fetch_add(&pauses, 1) * 2654435761u >> 16;
  uint32_t fixed = atomic_load(&sleep_us);
  struct timespec time = {0, (long)(fixed > 0 ? fixed : dice % 4 == 0 ? dice % 300 : 0) * 1000};
  nanosleep(&time, NULL);
}

static vlart_status_t run(const small_engine_t *engine, vlart_diag_t *out) {
  uint32_t inputs = vlart_plan_stage(&engine->bundle->plan, engine->stage)->input_count;
  uint32_t now = atomic_fetch_add(&active, 1) + 1;
  uint32_t most = atomic_load(&together);
  while (now > most && !atomic_compare_exchange_weak(&together, &most, now)) {
  }
  atomic_store(&order[engine->stage], atomic_fetch_add(&begun, 1));
  pause_a_while();
  float *to = engine->ports[inputs];
  for (int k = 0; k < NUMBERS; k++) {
    float sum = (float)engine->stage;
    for (uint32_t i = 0; i < inputs; i++) {
      sum = sum * 0.5f + ((const float *)engine->ports[i])[k];
    }
    to[k] = sum;
  }
  atomic_fetch_sub(&active, 1);
  if ((atomic_load(&fails) >> engine->stage & 1) != 0) {
    return vlart_bad_argument(out, vlart_plan_stage_name(&engine->bundle->plan, engine->stage),
                              "it was told to fail");
  }
  return VLART_STATUS_OK;
}

static robot_t open_with(const char *dir, uint32_t parallel) {
  vlart_session_options_t options = small_options();
  options.parallel = parallel;
  return open_robot(dir, &options);
}

static void write_random(robot_t *one, robot_t *other, uint32_t which) {
  for (uint32_t s = 0; s < SOURCES; s++) {
    float numbers[NUMBERS];
    for (int k = 0; k < NUMBERS; k++) {
      numbers[k] = (float)(rand() % 1000) / 1000.0f;
    }
    if ((which >> s & 1) != 0) {
      CHECK_STATUS(write_source(one, s, numbers), OK);
      CHECK_STATUS(write_source(other, s, numbers), OK);
    }
  }
}

static void check_values(robot_t *one, robot_t *other) {
  for (uint32_t v = 0; v < SOURCES + STAGES; v++) {
    float a[NUMBERS] = {0}, b[NUMBERS] = {0};
    vlart_status_t status = vlart_session_read(one->session, v, a, sizeof a, NULL);
    vlart_status_t same = vlart_session_read(other->session, v, b, sizeof b, NULL);
    CHECK(status != VLART_STATUS_OK || same == VLART_STATUS_OK);
    CHECK(status != VLART_STATUS_OK || memcmp(a, b, sizeof a) == 0);
  }
}

/* Any subset of sources, any subset of failing stages, any schedule. */
static void test_any_schedule(const char *dir, uint32_t parallel) {
  robot_t one = open_with(dir, 1), many = open_with(dir, parallel);
  srand(parallel);
  write_random(&one, &many, 7);
  for (int n = 0; n < STEPS; n++) {
    atomic_store(&fails, n % 3 == 0 ? (unsigned)rand() % 128u & (unsigned)rand() % 128u : 0u);
    uint64_t before = allocations;
    vlart_diag_t its = {.struct_size = sizeof its};
    diag = (vlart_diag_t){.struct_size = sizeof diag};
    vlart_status_t status = vlart_session_step(one.session, &diag);
    vlart_status_t same = vlart_session_step(many.session, &its);
    CHECK(allocations == before);
    CHECK(status == same && strcmp(diag.what, its.what) == 0);
    CHECK(strcmp(diag.where, its.where) == 0 && strcmp(diag.why, its.why) == 0);
    CHECK(queue_of(&one).remaining == queue_of(&many).remaining &&
          queue_of(&one).stale == queue_of(&many).stale);
    CHECK(totals_of(&one).backend_failures == totals_of(&many).backend_failures);
    if (status != VLART_STATUS_OK) { /* stages behind the one that failed may have run, or not */
      atomic_store(&fails, 0);
      CHECK_STATUS(vlart_session_step(one.session, &diag), OK);
      CHECK_STATUS(vlart_session_step(many.session, &diag), OK);
    }
    check_values(&one, &many);
    write_random(&one, &many, (unsigned)rand() % 8u);
  }
  close_robot(&one);
  close_robot(&many);
}

/* With time enough, stages that wait for nothing are there together, and what no action waits for comes last. */
static void test_together(const char *dir) {
  robot_t one = open_with(dir, 1), many = open_with(dir, 2);
  atomic_store(&sleep_us, 20000);
  write_random(&one, &many, 7);
  atomic_store(&together, 0);
  CHECK_STATUS(vlart_session_step(one.session, &diag), OK);
  CHECK(atomic_load(&together) == 1);
  atomic_store(&begun, 0);
  CHECK_STATUS(vlart_session_step(many.session, &diag), OK);
  CHECK(atomic_load(&together) == 2);
  uint32_t aside = atomic_load(&order[5]);
  for (uint32_t i = 0; i < STAGES; i++) {
    CHECK(i == 5 || i == ACT || atomic_load(&order[i]) < aside);
  }
  CHECK(totals_of(&many).stages_run == STAGES);
  atomic_store(&sleep_us, 0);
  close_robot(&one);
  close_robot(&many);
}

/* What is late is told of the first stage that did not run, and the next step makes up for it. */
static void test_deadline(const char *dir) {
  robot_t one = open_with(dir, 1), many = open_with(dir, 3);
  write_random(&one, &many, 7);
  atomic_store(&sleep_us, 3000);
  CHECK_STATUS(vlart_session_step_deadline(many.session, 1000, &diag), DEADLINE_MISSED);
  CHECK(strstr(diag.where, "before stage \"") != NULL && totals_of(&many).deadline_misses == 1);
  atomic_store(&sleep_us, 0);
  CHECK_STATUS(vlart_session_step(many.session, &diag), OK);
  CHECK_STATUS(vlart_session_step(one.session, &diag), OK);
  for (uint32_t i = 0; i < STAGES; i++) {
    CHECK(runs_of(many.session, i) == 1);
  }
  check_values(&one, &many);
  close_robot(&one);
  close_robot(&many);
}

static void test_refused(const char *dir) {
  void *arena = NULL;
  vlart_bundle_t *bundle = open_bundle(dir, &arena);
  vlart_session_options_t options = small_options();
  size_t bytes = 0;
  options.parallel = 65;
  CHECK_STATUS(vlart_session_required_bytes(bundle, &options, &diag, &bytes), BAD_ARGUMENT);
  vlart_bundle_close(bundle);
  test_give(arena);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  test_refused(argv[1]);
  test_together(argv[1]);
  test_deadline(argv[1]);
  for (uint32_t parallel = 2; parallel <= 4; parallel++) {
    test_any_schedule(argv[1], parallel);
  }
  printf("test_pool: passed\n");
  return 0;
}
