/* One policy for two lengths of its text, on an engine of the test's own: the text decides which is run, whoever writes
   it, and nothing is allocated. Usage: test_buckets SAMPLES/bucketed. Also run under ThreadSanitizer (make tsan). */
#include <string.h>

#include "robot.h"
#include "small_engine.h"
#include "vlart/vlart.h"

/* The engine: the sum of the tokens that it reads, of 2 or of 4, and the image. */
static vlart_status_t run(const small_engine_t *engine, vlart_diag_t *out) {
  (void)out;
  const int64_t *tokens = engine->ports[0];
  const uint8_t *mask = engine->ports[1];
  const uint8_t *image = engine->ports[2];
  float sum = 0;
  for (int i = 0; i < (engine->stage == 0 ? 2 : 4); i++) {
    sum += mask[i] != 0 ? (float)tokens[i] : 0;
  }
  for (int k = 0; k < 3; k++) {
    ((float *)engine->ports[3])[k] = sum + (float)image[k];
  }
  return VLART_STATUS_OK;
}

static const int64_t tokens[4] = {1, 10, 100, 1000};

static robot_t open_bucketed(const char *dir) {
  vlart_session_options_t options = small_options();
  return open_robot(dir, &options);
}

static void write_text(const robot_t *r, uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
  const uint8_t mask[4] = {a, b, c, d};
  CHECK_STATUS(write_source(r, 0, tokens), OK);
  CHECK_STATUS(write_source(r, 1, mask), OK);
}

static void write_image(const robot_t *r, uint8_t byte) {
  const uint8_t image[3] = {byte, byte, byte};
  CHECK_STATUS(write_source(r, 2, image), OK);
}

static float act(vlart_session_t *session, uint32_t expected) {
  float action[3] = {0};
  uint32_t ran = 9;
  uint64_t before = own_allocations;
  CHECK_STATUS(vlart_session_step(session, &diag), OK);
  CHECK_STATUS(vlart_session_pop(session, action, 3, &diag), OK);
  CHECK(own_allocations == before);
  CHECK_STATUS(vlart_session_backbone(session, &ran), OK);
  CHECK(ran == expected);
  return action[0];
}

static void test_descriptions(const robot_t *r) {
  uint32_t ran = 0;
  CHECK(vlart_bundle_text_length(r->bundle, 0) == 2 && vlart_bundle_text_length(r->bundle, 1) == 4);
  CHECK(vlart_bundle_text_length(r->bundle, 2) == 0 && vlart_bundle_text_length(NULL, 0) == 0);
  CHECK_STATUS(vlart_session_backbone(NULL, &ran), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_backbone(r->session, NULL), BAD_ARGUMENT);
}

static void test_the_text_decides(const char *dir) {
  robot_t r = open_bucketed(dir);
  test_descriptions(&r);
  write_image(&r, 5);
  CHECK_STATUS(vlart_session_step(r.session, &diag), SOURCE_UNSET); /* there is no text */
  write_text(&r, 1, 1, 0, 0);
  CHECK(act(r.session, 0) == 16.0f && runs_of(r.session, 1) == 0);
  write_text(&r, 1, 1, 1, 0);
  CHECK(act(r.session, 1) == 116.0f && runs_of(r.session, 0) == 1);
  write_image(&r, 6); /* of the same text */
  CHECK(act(r.session, 1) == 117.0f && runs_of(r.session, 0) == 1);
  write_text(&r, 1, 0, 1, 0); /* what lies between counts */
  CHECK(act(r.session, 1) == 107.0f);
  write_text(&r, 0, 0, 0, 0); /* no token: as the policy was made */
  CHECK(act(r.session, 1) == 6.0f);
  close_robot(&r);
}

static void test_none_below_the_selected_one(const char *dir) {
  robot_t r = open_bucketed(dir);
  write_image(&r, 5);
  write_text(&r, 1, 1, 0, 0);
  CHECK_STATUS(vlart_session_select(r.session, 1, &diag), OK);
  CHECK(act(r.session, 1) == 16.0f && runs_of(r.session, 0) == 0); /* the same answer */
  CHECK_STATUS(vlart_session_select(r.session, 0, &diag), OK);
  CHECK(act(r.session, 0) == 16.0f);
  write_text(&r, 1, 1, 1, 1);
  CHECK(act(r.session, 1) == 1116.0f); /* a short one is never given a long text */
  CHECK_STATUS(vlart_session_select(r.session, VLART_BACKBONE_ALL, &diag), OK);
  write_image(&r, 7);
  CHECK(act(r.session, VLART_BACKBONE_ALL) == 18.0f); /* the first one's, for comparisons alone */
  CHECK_STATUS(vlart_session_select(r.session, 0, &diag), OK);
  CHECK(act(r.session, 1) == 1118.0f);
  close_robot(&r);
}

static void test_whole_sets(const char *dir) {
  robot_t r = open_bucketed(dir);
  for (uint8_t count = 1; count <= 4; count++) {
    const uint8_t mask[4] = {1, count > 1, count > 2, count > 3};
    const uint8_t image[3] = {count, count, count};
    const uint64_t dims[3][2] = {{1, 4}, {1, 4}, {1, 3}};
    const void *data[3] = {tokens, mask, image};
    const uint64_t bytes[3] = {sizeof tokens, sizeof mask, sizeof image};
    vlart_tensor_t set[3];
    for (uint32_t i = 0; i < 3; i++) {
      set[i] = (vlart_tensor_t){.struct_size = sizeof set[i],
                                .source = i,
                                .dtype = source_value(r.bundle, i).dtype,
                                .rank = 2,
                                .bytes = bytes[i],
                                .data = data[i],
                                .dims = dims[i]};
    }
    CHECK_STATUS(vlart_session_write_all(r.session, set, 3, count, 0, &diag), OK);
    float sum = (float)count;
    for (uint8_t i = 0; i < count; i++) {
      sum += (float)tokens[i];
    }
    CHECK(act(r.session, count > 2) == sum);
  }
  close_robot(&r);
}

static void test_beside_a_worker(const char *dir) {
  robot_t r = open_bucketed(dir);
  make_async(&r, NULL);
  write_image(&r, 0);
  write_text(&r, 1, 1, 0, 0);
  CHECK_STATUS(vlart_async_request(r.async), OK);
  CHECK_STATUS(vlart_async_answer(r.async), OK); /* there is a chunk before the worker begins */
  start_worker(&r);
  unsigned seen[2] = {0, 0};
  for (unsigned k = 0; k < 100000; k++) {
    float action[3];
    uint64_t before = own_allocations;
    write_text(&r, 1, 1, k & 1, 0);
    CHECK_STATUS(vlart_async_request(r.async), OK);
    vlart_status_t status = vlart_async_pop(r.async, action, 3, &diag);
    CHECK(status == VLART_STATUS_OK || status == VLART_STATUS_SAFE_ACTION);
    CHECK(own_allocations == before);
    CHECK(action[0] == 11.0f || action[0] == 111.0f);
    seen[action[0] > 100.0f]++;
  }
  CHECK(seen[0] > 0 && seen[1] > 0);
  printf("  %u ticks of the short text and %u of the long one beside a worker\n", seen[0], seen[1]);
  close_robot(&r);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  test_the_text_decides(argv[1]);
  test_none_below_the_selected_one(argv[1]);
  test_whole_sets(argv[1]);
  test_beside_a_worker(argv[1]);
  puts("test_buckets: passed");
  return 0;
}
