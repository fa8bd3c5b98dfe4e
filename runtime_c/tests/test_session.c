/* A session on the null engine: arena sweeps, no allocation at all, caches, deadlines, failures.
   Usage: test_session REACTIVE_BUNDLE RECALL_BUNDLE ADDING_BUNDLE, the bundles of sample_bundles.Reactive with
   bounds -1 .. 1, of sample_bundles.Recall and of sample_carried.Adding.
   Linked with --wrap=malloc,calloc,realloc,free: calls from our objects are counted. */
#include <math.h>
#include <string.h>

#include "null_backend.h"
#include "robot.h"
#include "test_carried.h"
#include "test_history.h"
#include "vlart/vlart.h"

static robot_t open_policy(const char *dir) {
  robot_t p = open_robot(dir, NULL);
  null_control.output = 0.5f;
  return p;
}

/* Fills a source with one byte; bool and float sources take 0 and 1 alike. */
static vlart_status_t fill_source(const robot_t *p, uint32_t source, uint8_t byte) {
  static uint8_t data[4096];
  CHECK(source_value(p->bundle, source).bytes <= sizeof data);
  memset(data, byte, sizeof data);
  return write_source(p, source, data);
}

static void fill_all(const robot_t *p, uint8_t byte) {
  for (uint32_t i = 0; i < 3; i++) {
    CHECK_STATUS(fill_source(p, i, byte), OK);
  }
}

/* Every arena that is too small is refused, and only those; the sanitizer watches the edges. */
static void test_arena_sweep(const char *dir) {
  size_t needed = 0;
  vlart_bundle_t *bundle = NULL;
  CHECK_STATUS(vlart_bundle_required_bytes(dir, &diag, &needed), OK);
  for (size_t bytes = 0; bytes + 63 < needed; bytes += bytes + 200 < needed ? 7 : 1) {
    void *arena = test_take(bytes);
    CHECK_STATUS(vlart_bundle_open(dir, NULL, arena, bytes, &diag, &bundle), OUT_OF_MEMORY);
    CHECK(bundle == NULL && diag.why[0] != '\0');
    test_give(arena);
  }
  CHECK_STATUS(vlart_bundle_open(dir, NULL, NULL, needed, &diag, &bundle), OUT_OF_MEMORY);
  void *bundle_arena = test_take(needed);
  CHECK_STATUS(vlart_bundle_open(dir, NULL, bundle_arena, needed, &diag, &bundle), OK);
  vlart_session_options_t options = null_options();
  vlart_session_t *session = NULL;
  CHECK_STATUS(vlart_session_required_bytes(bundle, &options, &diag, &needed), OK);
  for (size_t bytes = 0; bytes + 63 < needed; bytes += bytes + 200 < needed ? 7 : 1) {
    void *arena = test_take(bytes);
    CHECK_STATUS(vlart_session_init(bundle, &options, arena, bytes, &diag, &session),
                 OUT_OF_MEMORY);
    CHECK(session == NULL);
    test_give(arena);
  }
  void *arena = test_take(needed);
  CHECK_STATUS(vlart_session_init(bundle, &options, arena, needed, &diag, &session), OK);
  vlart_session_close(session);
  vlart_bundle_close(bundle);
  test_give(arena);
  test_give(bundle_arena);
}

static void test_caches(const char *dir) {
  robot_t p = open_policy(dir);
  CHECK_STATUS(vlart_session_step(p.session, &diag), SOURCE_UNSET);
  CHECK(strstr(diag.where, "instruction") != NULL);
  fill_all(&p, 0);
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  fill_all(&p, 0);
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  for (uint32_t i = 0; i < 4; i++) {
    CHECK(runs_of(p.session, i) == 1);
  }
  /* stage: language 0, vision 1, fusion 2, head 3; source: instruction 0, image 1, state 2 */
  static const uint64_t reruns[3][4] = {{1, 0, 1, 1}, {0, 1, 1, 1}, {0, 0, 0, 1}};
  uint64_t expected[4] = {1, 1, 1, 1};
  for (uint32_t source = 0; source < 3; source++) {
    CHECK_STATUS(fill_source(&p, source, 1), OK);
    CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
    for (uint32_t i = 0; i < 4; i++) {
      expected[i] += reruns[source][i];
      CHECK(runs_of(p.session, i) == expected[i]);
    }
  }
  close_robot(&p);
}

static void test_queue(const char *dir) {
  robot_t p = open_policy(dir);
  float action[3];
  CHECK_STATUS(vlart_session_pop(p.session, action, 3, &diag), QUEUE_EMPTY);
  fill_all(&p, 0);
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  CHECK(queue_of(&p).remaining == 3 && queue_of(&p).stale == 0);
  CHECK_STATUS(vlart_session_pop(p.session, action, 2, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_pop(p.session, action, 3, &diag), OK);
  CHECK(action[2] == 0.5f && queue_of(&p).remaining == 2 && queue_of(&p).position == 1);
  /* Nothing changed and the queue is not used up: a step leaves it where it is. */
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  CHECK(queue_of(&p).remaining == 2);
  CHECK_STATUS(vlart_session_pop(p.session, action, 3, &diag), OK);
  CHECK_STATUS(vlart_session_pop(p.session, action, 3, &diag), OK);
  CHECK_STATUS(vlart_session_pop(p.session, action, 3, &diag), QUEUE_EMPTY);
  /* Used up and nothing changed: the same chunk is still the answer. */
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  CHECK(queue_of(&p).remaining == 3 && runs_of(p.session, 3) == 1);
  CHECK_STATUS(vlart_session_invalidate(p.session), OK);
  CHECK(queue_of(&p).remaining == 0);
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  CHECK(runs_of(p.session, 0) == 2 && queue_of(&p).remaining == 3);
  close_robot(&p);
}

static void check_rejected(robot_t *p, float output, vlart_status_t expected) {
  float action[3];
  static uint8_t byte = 2;
  CHECK_STATUS(fill_source(p, 1, byte++), OK);
  null_control.output = output;
  for (int attempt = 0; attempt < 2; attempt++) { /* a bad chunk is computed and refused again */
    uint64_t before = runs_of(p->session, 3);
    CHECK(vlart_session_step(p->session, &diag) == expected);
    CHECK(runs_of(p->session, 3) == before + 1);
    CHECK(queue_of(p).stale == 1);
  }
  CHECK(strstr(diag.where, "action 0 of the chunk, dimension 0") != NULL);
  CHECK_STATUS(vlart_session_pop(p->session, action, 3, &diag), OK);
  CHECK(action[0] == 0.5f); /* of the last safe chunk */
  null_control.output = 0.5f;
  CHECK_STATUS(vlart_session_step(p->session, &diag), OK);
  CHECK(queue_of(p).stale == 0 && queue_of(p).remaining == 3);
}

static void test_unsafe_actions(const char *dir) {
  robot_t p = open_policy(dir);
  fill_all(&p, 0);
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  check_rejected(&p, NAN, VLART_STATUS_ACTION_NOT_FINITE);
  check_rejected(&p, -INFINITY, VLART_STATUS_ACTION_NOT_FINITE);
  check_rejected(&p, 1.001f, VLART_STATUS_ACTION_OUT_OF_RANGE);
  check_rejected(&p, -1.001f, VLART_STATUS_ACTION_OUT_OF_RANGE);
  null_control.output = 1.000001f; /* within 1e-6 of the range */
  CHECK_STATUS(fill_source(&p, 1, 9), OK);
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  close_robot(&p);
}

static void test_deadline(const char *dir) {
  robot_t p = open_policy(dir);
  fill_all(&p, 0);
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  fill_all(&p, 1);
  null_control.sleep_ms = 200;
  CHECK_STATUS(vlart_session_step_deadline(p.session, 100000, &diag), DEADLINE_MISSED);
  CHECK(strstr(diag.where, "\"vision\"") != NULL);
  CHECK(runs_of(p.session, 0) == 2 && runs_of(p.session, 1) == 1);
  CHECK(queue_of(&p).stale == 1 && queue_of(&p).remaining == 3);
  null_control.sleep_ms = 0;
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  CHECK(runs_of(p.session, 0) == 2 && runs_of(p.session, 1) == 2 && runs_of(p.session, 3) == 2);
  CHECK(queue_of(&p).stale == 0);
  /* The last stage begins in time and ends late: its chunk is new, and the overrun is counted. */
  CHECK_STATUS(fill_source(&p, 2, 0), OK);
  null_control.sleep_ms = 200;
  CHECK_STATUS(vlart_session_step_deadline(p.session, 100000, &diag), OK);
  vlart_session_totals_t totals = totals_of(&p);
  CHECK(totals.deadline_misses == 1 && totals.deadline_overruns == 1 && totals.steps == 4);
  close_robot(&p);
}

static void test_engine_failure(const char *dir) {
  robot_t p = open_policy(dir);
  fill_all(&p, 0);
  null_control.fail_stage = 2;
  CHECK_STATUS(vlart_session_step(p.session, &diag), BACKEND_FAILED);
  float context[8];
  uint32_t value;
  CHECK_STATUS(vlart_bundle_find_value(p.bundle, "context", &value), OK);
  CHECK_STATUS(vlart_session_read(p.session, value, context, sizeof context, &diag), VALUE_UNSET);
  CHECK_STATUS(vlart_session_read(p.session, value, context, 4, &diag), WRONG_SHAPE);
  null_control.fail_stage = VLART_NONE;
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  CHECK(runs_of(p.session, 0) == 1 && runs_of(p.session, 2) == 1);
  CHECK_STATUS(vlart_session_read(p.session, value, context, sizeof context, &diag), OK);
  /* A run that failed may have written half of its outputs: they are not handed out. */
  CHECK_STATUS(fill_source(&p, 1, 1), OK);
  null_control.fail_stage = 2;
  CHECK_STATUS(vlart_session_step(p.session, &diag), BACKEND_FAILED);
  CHECK_STATUS(vlart_session_read(p.session, value, context, sizeof context, &diag), VALUE_UNSET);
  CHECK(queue_of(&p).stale == 1 && queue_of(&p).remaining == 3);
  close_robot(&p);
}

static void test_bad_arguments(const char *dir) {
  robot_t p = open_policy(dir);
  uint64_t dims[2] = {1, 3};
  float state[3] = {0, 0, 0};
  vlart_source_info_t source = {.struct_size = sizeof source};
  CHECK_STATUS(vlart_bundle_source(p.bundle, 3, &source), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_write(p.session, 3, state, 12, VLART_DTYPE_F32, 2, dims, &diag),
               BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_write(p.session, 2, NULL, 12, VLART_DTYPE_F32, 2, dims, &diag),
               BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_write(NULL, 2, state, 12, VLART_DTYPE_F32, 2, dims, NULL),
               BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_step(NULL, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_pop(p.session, NULL, 3, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_bundle_find_source(p.bundle, "action", &source.value), NOT_FOUND);
  vlart_session_close(NULL);
  vlart_bundle_close(NULL);
  close_robot(&p);
}

int main(int argc, char **argv) {
  CHECK(argc == 4);
  test_arena_sweep(argv[1]);
  test_caches(argv[1]);
  test_queue(argv[1]);
  test_unsafe_actions(argv[1]);
  test_deadline(argv[1]);
  test_engine_failure(argv[1]);
  test_bad_arguments(argv[1]);
  robot_t recall = open_policy(argv[2]);
  test_history(recall.bundle, recall.session);
  close_robot(&recall);
  robot_t adding = open_policy(argv[3]);
  test_carried(adding.bundle, adding.session);
  close_robot(&adding);
  CHECK(allocations == 0); /* open, init, tick and close never allocate or free */
  puts("test_session: passed");
  return 0;
}
