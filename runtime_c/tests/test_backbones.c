/* Two backbones on an engine of the test's own: the selected one is run, nothing is allocated, and a worker takes
   what was selected when it was asked. Usage: test_backbones SAMPLES/paired. Also run under ThreadSanitizer (make tsan). */
#include <string.h>

#include "robot.h"
#include "small_engine.h"
#include "vlart/vlart.h"

/* The engine: "vision" gives the image as numbers; a fusion adds what else it reads, heavy's a hundred more. */
static vlart_status_t run(const small_engine_t *engine, vlart_diag_t *out) {
  (void)out;
  for (int k = 0; k < 3; k++) {
    if (engine->stage == 0) {
      ((float *)engine->ports[1])[k] = (float)((const uint8_t *)engine->ports[0])[k];
    } else {
      ((float *)engine->ports[2])[k] = ((const float *)engine->ports[0])[k] +
                                       (float)((const uint8_t *)engine->ports[1])[k] +
                                       (engine->stage == 2 ? 100.0f : 0.0f);
    }
  }
  return VLART_STATUS_OK;
}

static robot_t open_paired(const char *dir) {
  vlart_session_options_t options = small_options();
  return open_robot(dir, &options);
}

static void write_bytes(const robot_t *r, uint32_t source, uint8_t byte) {
  const uint8_t data[3] = {byte, byte, byte};
  CHECK_STATUS(write_source(r, source, data), OK);
}

static float act(vlart_session_t *session) {
  float action[3] = {0};
  uint64_t before = own_allocations;
  CHECK_STATUS(vlart_session_step(session, &diag), OK);
  CHECK_STATUS(vlart_session_pop(session, action, 3, &diag), OK);
  CHECK(own_allocations == before);
  return action[0];
}

static void test_descriptions(const robot_t *r) {
  uint32_t index = 9;
  vlart_bundle_info_t info = {.struct_size = sizeof info};
  vlart_stage_info_t stage = {.struct_size = sizeof stage};
  CHECK_STATUS(vlart_bundle_info(r->bundle, &info), OK);
  CHECK(info.backbone_count == 2 && strcmp(vlart_bundle_backbone(r->bundle, 1), "heavy") == 0);
  CHECK(vlart_bundle_backbone(r->bundle, 2) == NULL && vlart_bundle_backbone(NULL, 0) == NULL);
  CHECK_STATUS(vlart_bundle_find_backbone(r->bundle, "heavy", &index), OK);
  CHECK(index == 1);
  CHECK_STATUS(vlart_bundle_find_backbone(r->bundle, "middle", &index), NOT_FOUND);
  CHECK_STATUS(vlart_bundle_find_backbone(r->bundle, NULL, &index), BAD_ARGUMENT);
  const uint64_t serves[3] = {3, 1, 2};
  for (uint32_t i = 0; i < 3; i++) {
    CHECK_STATUS(vlart_bundle_stage(r->bundle, i, &stage), OK);
    CHECK(stage.backbones == serves[i]);
  }
  stage.struct_size = offsetof(vlart_stage_info_t, backbones); /* a caller of ABI 1.3 */
  CHECK_STATUS(vlart_bundle_stage(r->bundle, 0, &stage), OK);
  stage.struct_size -= 1;
  CHECK_STATUS(vlart_bundle_stage(r->bundle, 0, &stage), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_select(NULL, 0, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_select(r->session, 2, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_async_select(NULL, 0, &diag), BAD_ARGUMENT);
}

static void test_one_after_the_other(const char *dir) {
  robot_t r = open_paired(dir);
  test_descriptions(&r);
  write_bytes(&r, 0, 1);
  write_bytes(&r, 1, 10);
  CHECK(act(r.session) == 11.0f && runs_of(r.session, 2) == 0);
  uint64_t before = own_allocations;
  CHECK_STATUS(vlart_session_select(r.session, 1, &diag), OK);
  CHECK(own_allocations == before);
  CHECK_STATUS(vlart_session_step(r.session, &diag),
               SOURCE_UNSET); /* its sensor was never written */
  write_bytes(&r, 2, 2);
  CHECK(act(r.session) == 112.0f && runs_of(r.session, 0) == 1);
  CHECK_STATUS(vlart_session_select(r.session, 0, &diag), OK);
  CHECK(act(r.session) == 11.0f &&
        runs_of(r.session, 1) == 1); /* nothing had to run, and the chunk is its own */
  CHECK_STATUS(vlart_session_select(r.session, VLART_BACKBONE_ALL, &diag), OK);
  write_bytes(&r, 1, 20);
  CHECK(act(r.session) == 21.0f);
  CHECK(runs_of(r.session, 0) == 2 && runs_of(r.session, 1) == 2 && runs_of(r.session, 2) == 2);
  close_robot(&r);
}

static void test_beside_a_worker(const char *dir) {
  robot_t r = open_paired(dir);
  make_async(&r, NULL);
  vlart_async_t *async = r.async;
  CHECK_STATUS(vlart_async_select(async, 7, &diag), BAD_ARGUMENT);
  for (uint32_t i = 0; i < 3; i++) {
    write_bytes(&r, i, (uint8_t)(1 + i));
  }
  CHECK_STATUS(vlart_async_request(async), OK);
  CHECK_STATUS(vlart_async_answer(async), OK); /* there is a chunk before the worker begins */
  start_worker(&r);
  unsigned seen[2] = {0, 0};
  for (unsigned k = 0; k < 200000; k++) {
    float action[3];
    uint64_t before = own_allocations;
    CHECK_STATUS(vlart_async_select(async, k & 1, &diag), OK);
    CHECK_STATUS(vlart_async_request(async), OK);
    vlart_status_t status = vlart_async_pop(async, action, 3, &diag);
    CHECK(status == VLART_STATUS_OK ||
          status == VLART_STATUS_SAFE_ACTION); /* which holds the last one */
    CHECK(own_allocations == before);
    CHECK(action[0] == 3.0f || action[0] == 105.0f);
    seen[action[0] > 100.0f]++;
  }
  CHECK(seen[0] > 0 && seen[1] > 0);
  printf("  %u ticks of the first backbone and %u of the second beside a worker\n", seen[0],
         seen[1]);
  close_robot(&r);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  test_one_after_the_other(argv[1]);
  test_beside_a_worker(argv[1]);
  puts("test_backbones: passed");
  return 0;
}
