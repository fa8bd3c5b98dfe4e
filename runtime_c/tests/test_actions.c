/* From the action value to actions, on the null engine: what is decoded, what is refused, what is
   handed out after a failure; and that none of it allocates. Usage: test_actions SAMPLES, the
   directory of sample_actions.samples. Linked with --wrap=malloc,calloc,realloc,free. */
#include <math.h>
#include <string.h>

#include "null_backend.h"
#include "robot.h"
#include "vlart/vlart.h"

/* Fills a source with numbers that begin with `number` and grow by 1; integers with zeros. */
static void write_numbers(const robot_t *p, uint32_t source, float number) {
  static float data[64];
  vlart_value_info_t value = source_value(p->bundle, source);
  CHECK(value.bytes <= sizeof data);
  for (size_t i = 0; i < value.bytes / sizeof(float); i++) {
    data[i] = value.dtype == VLART_DTYPE_F32 ? number + (float)i : 0;
  }
  CHECK_STATUS(write_source(p, source, data), OK);
}

static bool near(float got, double want) { return fabs((double)got - want) < 1e-6; }

/* The null engine's stage must run again. */
static void change(const robot_t *p) {
  uint8_t data[256] = {0};
  data[0] = (uint8_t)totals_of(p).steps;
  CHECK_STATUS(write_source(p, 0, data), OK);
}

static void test_lookup(const char *samples) {
  robot_t p = open_robot(sample_path(samples, "lookup"), NULL);
  float first[2], second[2];
  change(&p);
  CHECK_STATUS(vlart_session_step(p.session, &diag),
               SOURCE_UNSET); /* only a decode step reads it */
  CHECK(strstr(diag.where, "state") != NULL);
  write_numbers(&p, 1, 0.0f);
  null_control.token = 4;
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  CHECK_STATUS(vlart_session_pop(p.session, first, 2, &diag), OK);
  /* Another state is another chunk of the same tokens: nothing runs, all is decoded anew. */
  write_numbers(&p, 1, 0.5f);
  uint64_t runs = null_control.runs;
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  CHECK(null_control.runs == runs && queue_of(&p).remaining == 3 && queue_of(&p).chunks == 2);
  CHECK_STATUS(vlart_session_pop(p.session, second, 2, &diag), OK);
  CHECK(near(second[0], (double)first[0] + 0.5) && near(second[1], (double)first[1]));
  /* A chunk out of bounds is refused on account of the state alone, and stays refused. */
  for (int attempt = 0; attempt < 2; attempt++) {
    write_numbers(&p, 1, 100.0f);
    CHECK_STATUS(vlart_session_step(p.session, &diag), ACTION_OUT_OF_RANGE);
    CHECK(queue_of(&p).stale == 1);
  }
  CHECK_STATUS(vlart_session_pop(p.session, first, 2, &diag), OK);
  CHECK(first[0] == second[0]); /* the same row of the table in every step */
  write_numbers(&p, 1, 0.5f);
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  CHECK(queue_of(&p).stale == 0);
  close_robot(&p);
}

static void test_pieces(const char *samples) {
  robot_t p = open_robot(sample_path(samples, "pieces"), NULL);
  float action[2];
  change(&p);
  null_control.token = 0; /* four times 72 - 70 */
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  CHECK_STATUS(vlart_session_pop(p.session, action, 2, &diag), OK);
  CHECK(near(action[0], 0.4 * sqrt(0.5)) && near(action[1], 0.4 * sqrt(0.5)));
  CHECK_STATUS(vlart_session_pop(p.session, action, 2, &diag), OK);
  CHECK(near(action[0], 0.0));
  change(&p);
  null_control.token = 3; /* no row */
  CHECK_STATUS(vlart_session_step(p.session, &diag), ACTION_NOT_DECODED);
  CHECK(strstr(diag.where, "token 0") != NULL && strstr(diag.why, "no row for it: 3") != NULL);
  CHECK(queue_of(&p).stale == 1);
  null_control.token = -1;
  CHECK_STATUS(vlart_session_step(p.session, &diag), ACTION_NOT_DECODED);
  CHECK(strstr(diag.why, "no row for it: -1") != NULL);
  null_control.token = 9; /* ends the sequence before it begins: zeros are added */
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  CHECK_STATUS(vlart_session_pop(p.session, action, 2, &diag), OK);
  CHECK(near(action[0], 0.0));
  CHECK(totals_of(&p).chunks_rejected == 2);
  close_robot(&p);
}

/* Chunks of one number each: tick t of the test predicts t for every tick to come. */
static void test_ensemble(const char *samples) {
  robot_t p = open_robot(sample_path(samples, "ensemble"), NULL);
  float action[2];
  double history[100];
  CHECK_STATUS(vlart_session_pop(p.session, action, 2, &diag), QUEUE_EMPTY);
  for (int t = 0; t < 100; t++) {
    change(&p);
    null_control.output = (float)t;
    history[t] = t;
    CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
    CHECK(queue_of(&p).remaining == 1);
    CHECK_STATUS(vlart_session_pop(p.session, action, 2, &diag), OK);
    double sum = 0, total = 0;
    for (int i = 0, from = t < 3 ? 0 : t - 3; from + i <= t; i++) {
      sum += exp(-(double)0.01f * i) * history[from + i];
      total += exp(-(double)0.01f * i);
    }
    CHECK(fabs((double)action[0] - sum / total) < 1e-5);
    CHECK(queue_of(&p).due == 1);
    CHECK_STATUS(vlart_session_pop(p.session, action, 2, &diag), QUEUE_EMPTY);
  }
  /* The engine fails: three more ticks were predicted, each answered once per failing step. */
  null_control.fail_stage = 0;
  change(&p);
  for (int t = 0; t < 3; t++) {
    CHECK_STATUS(vlart_session_step(p.session, &diag), BACKEND_FAILED);
    CHECK(queue_of(&p).remaining == 1 && queue_of(&p).stale == 1);
    CHECK_STATUS(vlart_session_pop(p.session, action, 2, &diag), OK);
  }
  CHECK(near(action[0], 99.0));
  CHECK_STATUS(vlart_session_step(p.session, &diag), BACKEND_FAILED);
  CHECK(queue_of(&p).remaining == 0);
  close_robot(&p);
}

static void test_realtime(const char *samples) {
  robot_t p = open_robot(sample_path(samples, "realtime"), NULL);
  float action[2], seen[10], weights[5];
  uint32_t previous_value, weights_value;
  CHECK_STATUS(vlart_bundle_find_value(p.bundle, "previous", &previous_value), OK);
  CHECK_STATUS(vlart_bundle_find_value(p.bundle, "weights", &weights_value), OK);
  null_control.output = 0.5f;
  write_numbers(&p, 0, 0.0f);
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK); /* nobody writes the filled sources */
  CHECK_STATUS(vlart_session_read(p.session, previous_value, seen, sizeof seen, &diag), OK);
  CHECK_STATUS(vlart_session_read(p.session, weights_value, weights, sizeof weights, &diag), OK);
  CHECK(seen[0] == 0.0f && weights[0] == 0.0f); /* there is no last chunk */
  CHECK(queue_of(&p).remaining == 5 && queue_of(&p).due == 0);
  CHECK_STATUS(vlart_session_pop(p.session, action, 2, &diag), OK);
  CHECK(near(action[0], 2.0)); /* 0.5 * 2 + 1 */
  CHECK_STATUS(vlart_session_pop(p.session, action, 2, &diag), OK);
  CHECK(queue_of(&p).due == 1 && queue_of(&p).remaining == 3);
  write_numbers(&p, 0, 1.0f);
  CHECK_STATUS(vlart_session_pop(p.session, action, 2, &diag), OK); /* committed */
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  CHECK_STATUS(vlart_session_read(p.session, previous_value, seen, sizeof seen, &diag), OK);
  CHECK_STATUS(vlart_session_read(p.session, weights_value, weights, sizeof weights, &diag), OK);
  for (int i = 0; i < 10;
       i++) { /* three steps were left at the observation, as the graph had them */
    CHECK(seen[i] == (i < 6 ? 0.5f : 0.0f));
  }
  CHECK(weights[0] == 1.0f && near(weights[1], 2.0 / 3) && near(weights[2], 1.0 / 3));
  CHECK(weights[3] == 0.0f);
  CHECK(queue_of(&p).position == 1 && queue_of(&p).remaining == 4 && queue_of(&p).due == 0);
  /* A source that the caller gives stays as it is. */
  write_numbers(&p, 0, 2.0f);
  write_numbers(&p, 2, 7.0f);
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  CHECK_STATUS(vlart_session_read(p.session, previous_value, seen, sizeof seen, &diag), OK);
  CHECK(seen[0] == 7.0f && seen[9] == 16.0f);
  for (int i = 0; i < 5; i++) {
    CHECK_STATUS(vlart_session_pop(p.session, action, 2, &diag), OK);
  }
  CHECK_STATUS(vlart_session_step(p.session, &diag), CHUNK_TOO_LATE);
  write_numbers(&p, 0, 2.0f); /* the same picture, seen anew */
  CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
  CHECK(queue_of(&p).remaining == 5);
  close_robot(&p);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  test_lookup(argv[1]);
  test_pieces(argv[1]);
  test_ensemble(argv[1]);
  test_realtime(argv[1]);
  CHECK(allocations == 0);
  puts("test_actions: passed");
  return 0;
}
