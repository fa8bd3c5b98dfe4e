/* Observations as whole sets, from any thread; what an action is named by; how far it may be from the last one; what a
   token may be. On the null engine, except where the engine checks what it is given. Usage: test_observations SAMPLES,
   the directory of all samples. Also run under ThreadSanitizer (make tsan). Linked with
   --wrap=malloc,calloc,realloc,free. */
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/diag.h"
#include "null_backend.h"
#include "robot.h"
#include "small_engine.h"
#include "vlart/vlart.h"

/* A whole source of a bundle, of equal numbers; U8 and F32 and I32. */
typedef struct {
  vlart_value_info_t value;
  uint8_t data[4096];
} content_t;

static vlart_tensor_t tensor_of(const vlart_bundle_t *bundle, uint32_t source, content_t *content,
                                int number) {
  content->value = source_value(bundle, source);
  size_t bytes = (size_t)content->value.bytes;
  CHECK(bytes <= sizeof content->data);
  float f = (float)number;
  for (size_t i = 0; i < bytes; i++) {
    const void *from = content->value.dtype == VLART_DTYPE_F32 ? (const void *)&f : &number;
    content->data[i] = content->value.dtype == VLART_DTYPE_U8
                           ? (uint8_t)number
                           : ((const uint8_t *)from)[i % sizeof number];
  }
  return (vlart_tensor_t){.struct_size = sizeof(vlart_tensor_t),
                          .source = source,
                          .dtype = content->value.dtype,
                          .rank = content->value.rank,
                          .bytes = bytes,
                          .data = content->data,
                          .dims = content->value.dims};
}

static vlart_action_info_t popped(const robot_t *r) {
  vlart_action_info_t info = {.struct_size = sizeof info};
  CHECK_STATUS(r->async != NULL ? vlart_async_popped(r->async, &info)
                                : vlart_session_popped(r->session, &info),
               OK);
  return info;
}

static void test_names(const char *samples) {
  robot_t r = open_robot(sample_path(samples, "guarded"), NULL);
  content_t raw, state;
  float action[2];
  vlart_action_info_t info = {.struct_size = sizeof info};
  CHECK_STATUS(vlart_session_popped(r.session, &info), QUEUE_EMPTY);
  vlart_tensor_t set[2] = {tensor_of(r.bundle, 0, &raw, 1), tensor_of(r.bundle, 1, &state, 0)};
  CHECK_STATUS(vlart_session_write_all(r.session, set, 2, 77, 0, &diag), OK);
  CHECK_STATUS(vlart_session_step(r.session, &diag), OK);
  for (uint32_t row = 0; row < 2; row++) {
    CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
    info = popped(&r);
    CHECK(info.observation == 77 && info.chunk == 1 && info.row == row && info.clipped == 0);
  }
  /* A set that is refused changes nothing, whichever source of it is: neither content nor the name. */
  set[0] = tensor_of(r.bundle, 0, &raw, 2);
  set[1] = tensor_of(r.bundle, 1, &state, 0);
  ((float *)(void *)state.data)[2] = NAN;
  CHECK_STATUS(vlart_session_write_all(r.session, set, 2, 78, 0, &diag), NOT_FINITE);
  set[1].dtype = VLART_DTYPE_U8;
  CHECK_STATUS(vlart_session_write_all(r.session, set, 2, 78, 0, &diag), WRONG_DTYPE);
  set[1] = set[0];
  CHECK_STATUS(vlart_session_write_all(r.session, set, 2, 78, 0, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_write_all(r.session, set, 0, 78, 0, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_write_all(r.session, NULL, 1, 78, 0, &diag), BAD_ARGUMENT);
  set[0].struct_size = 0;
  CHECK_STATUS(vlart_session_write_all(r.session, set, 1, 78, 0, &diag), BAD_ARGUMENT);
  set[0] = tensor_of(r.bundle, 0, &raw, 100); /* out of its range */
  CHECK_STATUS(vlart_session_write_all(r.session, set, 1, 78, 0, &diag), INPUT_OUT_OF_RANGE);
  uint64_t runs = null_control.runs;
  CHECK_STATUS(vlart_session_step(r.session, &diag), OK);
  CHECK(null_control.runs == runs);
  CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
  CHECK(popped(&r).observation == 77 && popped(&r).chunk == 1);
  /* Source by source the name is the time; a set afterwards has its own, and is newer than what was written. */
  CHECK_STATUS(vlart_session_time(r.session, 5000000), OK);
  set[0] = tensor_of(r.bundle, 0, &raw, 3);
  CHECK_STATUS(write_source(&r, 0, raw.data), OK);
  CHECK_STATUS(vlart_session_step(r.session, &diag), OK);
  CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
  CHECK(popped(&r).observation == 5000000 && popped(&r).chunk == 2);
  set[0] = tensor_of(r.bundle, 0, &raw, 4);
  CHECK_STATUS(vlart_session_write_all(r.session, set, 1, 0, 4990000, &diag), OK);
  CHECK_STATUS(vlart_session_step(r.session, &diag), OK);
  CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
  CHECK(popped(&r).observation == 4990000);
  vlart_sensor_info_t sensor = {.struct_size = sizeof sensor};
  CHECK_STATUS(vlart_session_sensor(r.session, 0, &sensor), OK);
  CHECK(sensor.age_us == 10000 && sensor.writes == 3);
  CHECK_STATUS(vlart_session_reset(r.session), OK);
  CHECK_STATUS(vlart_session_popped(r.session, &info), QUEUE_EMPTY);
  close_robot(&r);
}

static void test_tokens(const char *samples) {
  robot_t r = open_robot(sample_path(samples, "limited_clip"), NULL);
  int32_t tokens[6] = {0, 1, 2, 3, 0, 0};
  CHECK_STATUS(write_source(&r, 0, tokens), OK);
  tokens[4] = -1;
  CHECK_STATUS(write_source(&r, 0, tokens), INPUT_OUT_OF_RANGE);
  CHECK(strstr(diag.why, "element 4 of 6 is -1, and a token id is 0 to 3") != NULL);
  tokens[4] = 4;
  CHECK_STATUS(write_source(&r, 0, tokens), INPUT_OUT_OF_RANGE);
  close_robot(&r);
}

/* The rows of the table: 0, 1, 4, 9 and 0, 1, 2, 3; the first dimension may move by 2 per tick. */
static void step_to(const robot_t *r, int32_t token) {
  static int32_t count;
  int32_t raw[6] = {count++ % 4};
  null_control.token = token;
  CHECK_STATUS(write_source(r, 0, raw), OK);
  CHECK_STATUS(vlart_session_step(r->session, &diag), OK);
}

static void test_clipped(const char *samples) {
  robot_t r = open_robot(sample_path(samples, "limited_clip"), NULL);
  float action[2];
  step_to(&r, 3);
  CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
  CHECK(action[0] == 9.0f && action[1] == 3.0f && popped(&r).clipped == 0); /* the first is free */
  step_to(&r, 0);
  for (int t = 0; t < 3; t++) {
    CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
    CHECK(action[0] == (float)(7 - 2 * t) && action[1] == 0.0f && popped(&r).clipped == 1);
  }
  CHECK_STATUS(vlart_session_reset(r.session), OK);
  step_to(&r, 0);
  CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
  CHECK(action[0] == 0.0f && popped(&r).clipped == 0); /* of another episode */
  close_robot(&r);
}

static void test_refused(const char *samples) {
  robot_t r = open_robot(sample_path(samples, "limited_refuse"), NULL);
  float action[2] = {-1, -1};
  step_to(&r, 2);
  CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
  CHECK(action[0] == 4.0f);
  step_to(&r, 3);
  CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), ACTION_TOO_FAR);
  CHECK(action[0] == 4.0f && strstr(diag.why, "it is 9, the last one was 4") != NULL);
  CHECK(queue_of(&r).remaining == 0 && queue_of(&r).due == 1);
  CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), QUEUE_EMPTY);
  step_to(&r, 2);
  CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
  CHECK(action[0] == 4.0f);
  /* Several at once: all or none. */
  float rows[8] = {0};
  uint32_t left = queue_of(&r).remaining;
  CHECK(left > 1 && left <= 4);
  CHECK_STATUS(vlart_session_pop_rows(r.session, rows, left + 1, 2, &diag), QUEUE_EMPTY);
  CHECK_STATUS(vlart_session_pop_rows(r.session, rows, 0, 2, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_pop_rows(r.session, rows, left, 2, &diag), OK);
  CHECK(rows[0] == 4.0f && rows[2 * left - 2] == 4.0f && queue_of(&r).remaining == 0);
  vlart_action_info_t last = popped(&r);
  step_to(&r, 3);
  CHECK_STATUS(vlart_session_pop_rows(r.session, rows, 2, 2, &diag), ACTION_TOO_FAR);
  CHECK(popped(&r).chunk == last.chunk && popped(&r).row == last.row);
  close_robot(&r);
}

/* Asynchronously a refused action is answered by the safe one, which is clipped itself. */
static void test_limits_of_ticks(const char *samples) {
  static const char *const names[] = {"limited_refuse", "limited_clip"};
  for (int k = 0; k < 2; k++) {
    vlart_async_options_t options = {.struct_size = sizeof options, .safe = VLART_SAFE_ZERO};
    robot_t r = open_robot(sample_path(samples, names[k]), NULL);
    make_async(&r, &options);
    float action[2];
    int32_t raw[6] = {0};
    null_control.token = 2;
    CHECK_STATUS(write_source(&r, 0, raw), OK);
    CHECK_STATUS(vlart_async_request(r.async), OK);
    CHECK_STATUS(vlart_async_answer(r.async), OK);
    CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), OK);
    CHECK(action[0] == 4.0f && popped(&r).row == 0 && popped(&r).observation > 0);
    null_control.token = 3;
    raw[0] = 1;
    CHECK_STATUS(write_source(&r, 0, raw), OK);
    CHECK_STATUS(vlart_async_request(r.async), OK);
    CHECK_STATUS(vlart_async_answer(r.async), OK);
    vlart_status_t status = vlart_async_pop(r.async, action, 2, &diag);
    if (k == 0) {
      CHECK(status == VLART_STATUS_SAFE_ACTION &&
            strstr(diag.why, "too far from the last") != NULL);
      CHECK(action[0] == 2.0f && popped(&r).observation == 0 && popped(&r).clipped == 1);
      vlart_diag_t why = {.struct_size = sizeof why};
      CHECK_STATUS(vlart_async_trouble(r.async, &why), ACTION_TOO_FAR);
      CHECK(strstr(why.where, "dimension 0") != NULL && strstr(why.why, "it is 9") != NULL);
      CHECK_STATUS(vlart_async_trouble(r.async, NULL), ACTION_TOO_FAR);
      CHECK_STATUS(vlart_async_cancel(r.async, VLART_CANCEL_DROP), OK);
      CHECK_STATUS(vlart_async_trouble(r.async, &why), OK);
    } else {
      CHECK(status == VLART_STATUS_OK && action[0] == 6.0f && popped(&r).clipped == 1);
    }
    close_robot(&r);
  }
}

/* ---- threads. The engine of "paired": vision gives the image, fusion its sum with the words; both must be of one set. */

static vlart_status_t run(const small_engine_t *engine, vlart_diag_t *out) {
  (void)out;
  if (engine->stage == 0) {
    for (int k = 0; k < 3; k++) {
      ((float *)engine->ports[1])[k] = ((const uint8_t *)engine->ports[0])[k];
    }
    return VLART_STATUS_OK;
  }
  const float *seen = engine->ports[0];
  const uint8_t *other = engine->ports[1];
  for (int k = 0; k < 3; k++) {
    CHECK(seen[k] == (float)other[k] && other[k] == other[0]); /* of one set */
    ((float *)engine->ports[2])[k] = seen[k];
  }
  return VLART_STATUS_OK;
}

typedef struct {
  robot_t *robot;
  int begin;
  atomic_bool *stopped;
  uint64_t sets;
} camera_t;

/* A camera's callback: the two sources are one number throughout, which is also the observation's name. */
static void *see(void *memory) {
  camera_t *c = memory;
  content_t words, image;
  vlart_diag_t own = {.struct_size = sizeof own};
  for (int k = c->begin; !atomic_load(c->stopped); k = 1 + (k + 1) % 200) {
    vlart_tensor_t set[2] = {tensor_of(c->robot->bundle, 0, &words, k),
                             tensor_of(c->robot->bundle, 1, &image, k)};
    uint64_t before = own_allocations;
    CHECK_STATUS(c->robot->async != NULL
                     ? vlart_async_write_all(c->robot->async, set, 2, (uint64_t)k, 0, &own)
                     : vlart_session_write_all(c->robot->session, set, 2, (uint64_t)k, 0, &own),
                 OK);
    CHECK(own_allocations == before);
    c->sets++;
    sched_yield();
  }
  return NULL;
}

static void test_cameras(const char *samples, bool asynchronous, int ticks) {
  vlart_session_options_t options = small_options();
  robot_t r = open_robot(sample_path(samples, "paired"), &options);
  atomic_bool stopped = false;
  camera_t cameras[2] = {{&r, 1, &stopped, 0}, {&r, 101, &stopped, 0}};
  pthread_t threads[2];
  uint64_t good = 0;
  if (asynchronous) {
    make_async(&r, NULL);
    start_worker(&r);
  }
  for (int i = 0; i < 2; i++) {
    CHECK(pthread_create(&threads[i], NULL, see, &cameras[i]) == 0);
  }
  for (int t = 0; t < ticks; t++) {
    float action[3] = {0};
    vlart_status_t status;
    if (asynchronous) {
      CHECK_STATUS(vlart_async_request(r.async), OK);
      status = vlart_async_pop(r.async, action, 3, &diag);
    } else {
      status = vlart_session_step(r.session, &diag);
      CHECK(status == VLART_STATUS_OK || (status == VLART_STATUS_SOURCE_UNSET && good == 0));
      status = status == VLART_STATUS_OK ? vlart_session_pop(r.session, action, 3, &diag) : status;
    }
    if (status == VLART_STATUS_OK) {
      CHECK((float)popped(&r).observation == action[0] && action[0] > 0);
      good++;
    }
    sched_yield();
  }
  atomic_store(&stopped, true);
  for (int i = 0; i < 2; i++) {
    CHECK(pthread_join(threads[i], NULL) == 0);
  }
  printf("  %llu of %d ticks beside %llu and %llu sets%s\n", (unsigned long long)good, ticks,
         (unsigned long long)cameras[0].sets, (unsigned long long)cameras[1].sets,
         asynchronous ? ", asynchronously" : "");
  CHECK(good > 0 && cameras[0].sets > 0 && cameras[1].sets > 0);
  close_robot(&r);
}

static void *write_touch(void *memory) {
  const robot_t *r = memory;
  uint8_t data[3] = {1, 1, 1};
  CHECK_STATUS(write_source(r, 2, data), BAD_ARGUMENT);
  CHECK(strstr(diag.why, "another thread") != NULL && strstr(diag.fix, "write_all") != NULL);
  uint8_t words[3] = {4, 4, 4};
  CHECK_STATUS(write_source(r, 0, words), OK); /* an instruction is of no observation */
  return NULL;
}

/* Source by source one thread writes an observation; the next may be another's. */
static void test_one_writer(const char *samples, bool asynchronous) {
  vlart_session_options_t options = small_options();
  robot_t r = open_robot(sample_path(samples, "paired"), &options);
  pthread_t thread;
  uint8_t data[3] = {4, 4, 4};
  if (asynchronous) {
    make_async(&r, NULL);
  }
  CHECK_STATUS(write_source(&r, 1, data), OK);
  CHECK(pthread_create(&thread, NULL, write_touch, &r) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK_STATUS(asynchronous ? vlart_async_request(r.async) : vlart_session_step(r.session, &diag),
               OK);
  CHECK_STATUS(write_source(&r, 2, data), OK);
  close_robot(&r);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  test_names(argv[1]);
  test_tokens(argv[1]);
  test_clipped(argv[1]);
  test_refused(argv[1]);
  test_limits_of_ticks(argv[1]);
  test_one_writer(argv[1], false);
  test_one_writer(argv[1], true);
  test_cameras(argv[1], false, 20000);
  test_cameras(argv[1], true, 20000);
  CHECK(allocations == 0);
  puts("test_observations: passed");
  return 0;
}
