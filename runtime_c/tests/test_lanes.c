/* Two clocks on an engine of the test's own: what a lane hands over is whole, and nobody waits or allocates.
   Usage: test_lanes SAMPLES/laned. Also run under ThreadSanitizer (make tsan). */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/diag.h"
#include "robot.h"
#include "small_engine.h"
#include "vlart/vlart.h"

/* The engine: "reason" copies the view; "act" demands that latent and view are one byte throughout, and
   gives it as the action. */
static atomic_uint reason_ms; /* how long the slow stage takes */
static atomic_bool reason_fails;
static vlart_lane_t *_Atomic interrupted; /* by somebody while its slow stage runs */

static vlart_status_t run(const small_engine_t *engine, vlart_diag_t *out) {
  size_t bytes = (size_t)vlart_stage_input(engine->bundle, engine->stage, 0).bytes;
  if (engine->stage == 0) {
    struct timespec pause = {0, (long)atomic_load(&reason_ms) * 1000000};
    nanosleep(&pause, NULL);
    if (atomic_load(&reason_fails)) {
      return vlart_bad_argument(out, "echo", "it was told to fail");
    }
    if (atomic_load(&interrupted) != NULL) {
      CHECK_STATUS(vlart_lane_interrupt(atomic_load(&interrupted)), OK);
    }
    memcpy(engine->ports[1], engine->ports[0], bytes);
    return VLART_STATUS_OK;
  }
  const uint8_t *latent = engine->ports[0], *view = engine->ports[1];
  for (size_t i = 0; i < bytes; i++) {
    CHECK(latent[i] == latent[0] && view[i] == latent[0]);
  }
  for (int k = 0; k < 6; k++) {
    ((float *)engine->ports[3])[k] = (float)latent[0] + (float)((uint8_t *)engine->ports[2])[k % 3];
  }
  return VLART_STATUS_OK;
}

/* A session at either clock. */
typedef struct {
  vlart_bundle_t *bundle;
  vlart_session_t *slow, *fast;
  vlart_lane_t *lane;
  void *arenas[4];
} pair_t;

static pair_t open_pair(const char *dir) {
  pair_t r = {0};
  size_t bytes = 0;
  uint32_t lane = 9;
  vlart_session_options_t options = small_options();
  r.bundle = open_bundle(dir, &r.arenas[0]);
  CHECK_STATUS(vlart_bundle_find_lane(r.bundle, "slow", &lane), OK);
  CHECK(lane == 0);
  CHECK_STATUS(vlart_bundle_find_lane(r.bundle, "fast", &lane), NOT_FOUND);
  options.lane = 1;
  r.slow = open_session(r.bundle, &options, &r.arenas[1]);
  options.lane = VLART_LANE_CONTROL;
  r.fast = open_session(r.bundle, &options, &r.arenas[2]);
  CHECK_STATUS(vlart_lane_interrupt(NULL), BAD_ARGUMENT);
  CHECK_STATUS(vlart_lane_required_bytes(r.fast, 1, &diag, &bytes), BAD_ARGUMENT);
  CHECK_STATUS(vlart_lane_required_bytes(r.slow, 0, &diag, &bytes), BAD_ARGUMENT);
  CHECK_STATUS(vlart_lane_required_bytes(r.slow, 1, &diag, &bytes), OK);
  r.arenas[3] = test_take(bytes);
  CHECK_STATUS(vlart_lane_init(r.slow, 1, r.arenas[3], bytes - 64, &diag, &r.lane), OUT_OF_MEMORY);
  CHECK_STATUS(vlart_lane_init(r.slow, 1, r.arenas[3], bytes, &diag, &r.lane), OK);
  CHECK_STATUS(vlart_session_follow(r.slow, r.lane, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_follow(r.fast, r.lane, &diag), OK);
  CHECK_STATUS(vlart_session_follow(r.fast, r.lane, &diag), BAD_ARGUMENT);
  return r;
}

static void close_pair(pair_t *r) {
  vlart_session_close(r->fast);
  vlart_session_close(r->slow);
  vlart_bundle_close(r->bundle);
  for (int i = 0; i < 4; i++) {
    test_give(r->arenas[i]);
  }
}

static vlart_status_t write_bytes(vlart_session_t *session, uint32_t source, uint8_t byte,
                                  size_t bytes) {
  static _Thread_local uint8_t data[4096];
  uint64_t dims[2] = {1, bytes};
  memset(data, byte, bytes);
  return vlart_session_write(session, source, data, bytes, VLART_DTYPE_U8, 2, dims, &diag);
}

static float act(const pair_t *r, uint8_t state) {
  float action[3] = {0};
  CHECK_STATUS(write_bytes(r->fast, 1, state, 3), OK);
  CHECK_STATUS(vlart_session_step(r->fast, &diag), OK);
  CHECK_STATUS(vlart_session_pop(r->fast, action, 3, &diag), OK);
  return action[0];
}

/* Which step of the lane the last action came from. */
static uint64_t came_from(const pair_t *r) {
  vlart_action_info_t info = {.struct_size = sizeof info};
  CHECK_STATUS(vlart_session_popped(r->fast, &info), OK);
  CHECK(info.lanes[1] == 0);
  return info.lanes[0];
}

static void test_one_after_the_other(const char *dir) {
  pair_t r = open_pair(dir);
  vlart_lane_info_t info = {.struct_size = sizeof info};
  CHECK_STATUS(write_bytes(r.fast, 1, 1, 3), OK);
  CHECK_STATUS(vlart_session_step(r.fast, &diag), SOURCE_UNSET);
  CHECK_STATUS(vlart_session_followed(r.fast, 0, &info), OK);
  CHECK(info.sequence == 0 && info.age_ns == 0);
  CHECK_STATUS(vlart_session_followed(r.fast, 1, &info), BAD_ARGUMENT);
  CHECK_STATUS(write_bytes(r.fast, 0, 1, 4096), BAD_ARGUMENT);
  CHECK_STATUS(write_bytes(r.slow, 1, 1, 3), BAD_ARGUMENT);
  CHECK_STATUS(write_bytes(r.slow, 0, 10, 4096), OK);
  CHECK_STATUS(vlart_lane_step(r.lane, &diag), OK);
  CHECK(act(&r, 1) == 11.0f && act(&r, 2) == 12.0f && came_from(&r) == 1);
  CHECK_STATUS(write_bytes(r.slow, 0, 20, 4096), OK);
  atomic_store(&reason_fails, true);
  CHECK_STATUS(vlart_lane_step(r.lane, &diag), BAD_ARGUMENT);
  CHECK(act(&r, 3) == 13.0f && came_from(&r) == 1); /* what failed hands nothing over */
  atomic_store(&reason_fails, false);
  CHECK_STATUS(vlart_lane_step(r.lane, &diag), OK);
  CHECK(act(&r, 3) == 23.0f && came_from(&r) == 2);
  CHECK_STATUS(vlart_session_followed(r.fast, 0, &info), OK);
  CHECK(info.sequence == 2 && info.age_ns > 0);
  close_pair(&r);
}

static void test_an_interrupted_step(const char *dir) {
  pair_t r = open_pair(dir);
  CHECK_STATUS(write_bytes(r.slow, 0, 10, 4096), OK);
  CHECK_STATUS(vlart_lane_interrupt(r.lane), OK); /* before it begins: that is no interruption */
  CHECK_STATUS(vlart_lane_step(r.lane, &diag), OK);
  CHECK_STATUS(write_bytes(r.slow, 0, 20, 4096), OK);
  atomic_store(&interrupted, r.lane);
  CHECK_STATUS(vlart_lane_step(r.lane, &diag), CANCELLED);
  CHECK(act(&r, 1) == 11.0f && came_from(&r) == 1);
  atomic_store(&interrupted, NULL);
  CHECK_STATUS(write_bytes(r.slow, 0, 30, 4096), OK);
  CHECK_STATUS(vlart_lane_step(r.lane, &diag), OK);
  CHECK(act(&r, 1) == 31.0f && came_from(&r) == 2);
  close_pair(&r);
}

typedef struct {
  pair_t *pair;
  atomic_bool stopped;
  uint64_t steps;
} thinker_t;

static void *think(void *memory) {
  thinker_t *t = memory;
  while (!atomic_load(&t->stopped)) {
    uint64_t before = own_allocations;
    CHECK_STATUS(write_bytes(t->pair->slow, 0, (uint8_t)(t->steps % 100), 4096), OK);
    CHECK_STATUS(vlart_lane_step(t->pair->lane, &diag), OK);
    CHECK(own_allocations == before);
    t->steps++;
  }
  return NULL;
}

/* Both as fast as they can, or the slow one asleep most of the time: the engine checks every set. */
static void test_side_by_side(const char *dir, unsigned ms, uint64_t ticks) {
  pair_t r = open_pair(dir);
  thinker_t t = {.pair = &r};
  vlart_lane_info_t info = {.struct_size = sizeof info};
  pthread_t thread;
  uint64_t last = 0, most_ns = 0;
  atomic_store(&reason_ms, 0);
  CHECK_STATUS(write_bytes(r.slow, 0, 0, 4096), OK);
  CHECK_STATUS(vlart_lane_step(r.lane, &diag), OK);
  atomic_store(&reason_ms, ms);
  CHECK(pthread_create(&thread, NULL, think, &t) == 0);
  for (uint64_t k = 0; k < ticks; k++) {
    uint64_t before = own_allocations, began = vlart_now_ns();
    act(&r, (uint8_t)(k % 100));
    uint64_t took = vlart_now_ns() - began;
    most_ns = took > most_ns ? took : most_ns;
    CHECK(own_allocations == before);
    CHECK_STATUS(vlart_session_followed(r.fast, 0, &info), OK);
    CHECK(info.sequence >= last && came_from(&r) == info.sequence);
    last = info.sequence;
  }
  atomic_store(&t.stopped, true);
  CHECK(pthread_join(thread, NULL) == 0);
  printf("  %llu ticks beside %llu steps of %u ms, longest tick %llu us\n",
         (unsigned long long)ticks, (unsigned long long)t.steps, ms,
         (unsigned long long)(most_ns / 1000));
  close_pair(&r);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  test_one_after_the_other(argv[1]);
  test_an_interrupted_step(argv[1]);
  test_side_by_side(argv[1], 0, 20000);
  test_side_by_side(argv[1], 100, 20000);
  puts("test_lanes: passed");
  return 0;
}
