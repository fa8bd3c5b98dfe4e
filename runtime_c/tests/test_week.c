/* A week of ticks at 20 Hz in accelerated time, on the null engine: counters do not drift, a real-time queue and an
   ensemble answer the last tick of an episode as they answered its first, and nothing of the one before; times, frame numbers and the instructions' epochs
   wrap around; a sensor's clock that runs apart is told from one that is set; and nothing is taken on the way, neither memory
   nor files. Usage: test_week SAMPLES [TICKS]. Linked with --wrap=malloc,calloc,realloc,free. */
#include <dirent.h>
#include <string.h>
#include <unistd.h>

#include "multirate/async.h"
#include "null_backend.h"
#include "robot.h"

enum { WEEK = 7 * 24 * 3600 * 20 };

static robot_t open_policy(const char *samples, const char *name) {
  robot_t p = open_robot(sample_path(samples, name), NULL);
  null_control.output = 0.25f;
  return p;
}

/* A number of the tick in the first element. */
static void write_tick(const robot_t *p, uint64_t tick) {
  uint8_t data[256] = {0};
  vlart_value_info_t value = source_value(p->bundle, 0);
  CHECK(value.bytes <= sizeof data);
  float number = (float)(tick % 1024);
  if (value.dtype == VLART_DTYPE_F32) {
    memcpy(data, &number, sizeof number);
  } else {
    data[0] = (uint8_t)(tick % 2);
  }
  CHECK_STATUS(write_source(p, 0, data), OK);
}

typedef struct {
  uint64_t resident; /* pages of its own: those of files come and go as the system likes */
  uint64_t files;
} held_t;

/* What the process holds; read without the C library's buffers, which it would count. */
static held_t held(void) {
  held_t now = {0};
  char text[128] = {0};
  unsigned long long size = 0, resident = 0, shared = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  CHECK(file != NULL && fgets(text, sizeof text, file) != NULL);
  CHECK(sscanf(text, "%llu %llu %llu", &size, &resident, &shared) == 3);
  fclose(file);
  DIR *dir = opendir("/proc/self/fd");
  CHECK(dir != NULL);
  while (readdir(dir) != NULL) {
    now.files++;
  }
  closedir(dir);
  now.resident = resident - shared;
  return now;
}

/* A page or two may be touched late; a leak of a byte per tick would be three thousand. */
static void check_held(held_t before) {
  held_t after = held();
  CHECK(after.files == before.files && after.resident <= before.resident + 64);
}

enum { EPISODE = 4000 }; /* ticks */

/* Every tick an observation, of a policy that is constant within an episode and another one in the next: whatever is
   averaged or continued, the action is the same, and none of the last episode's is in it. */
static void week(const char *samples, const char *name, uint64_t ticks) {
  robot_t p = open_policy(samples, name);
  uint64_t before = allocations, popped = 0;
  held_t held_before = held();
  float first[2] = {0}, action[2];
  for (uint64_t t = 0; t < ticks; t++) {
    if (t % EPISODE == 0) {
      CHECK_STATUS(vlart_session_reset(p.session), OK);
      null_control.output = 0.25f + (float)(t / EPISODE % 64);
    }
    write_tick(&p, t);
    CHECK_STATUS(vlart_session_step(p.session, &diag), OK);
    CHECK_STATUS(vlart_session_pop(p.session, action, 2, &diag), OK);
    popped++;
    if (t % EPISODE == 0) {
      CHECK(t == 0 || first[0] != action[0]);
      memcpy(first, action, sizeof first);
    }
    CHECK(memcmp(first, action, sizeof first) == 0);
  }
  vlart_session_totals_t totals = totals_of(&p);
  CHECK(totals.steps == ticks && queue_of(&p).chunks == ticks && popped == ticks);
  CHECK(totals.backend_failures == 0 && totals.chunks_rejected == 0 && allocations == before);
  check_held(held_before);
  close_robot(&p);
}

enum { TICK_US = 50000, LIMIT_US = 50000, DRIFT_PPM = 20 };

/* A sensor whose clock loses 20 us per second, set every half hour or never. Frame numbers and the robot's clock begin
   shortly before they wrap around. Returns the steps that were refused. */
static uint64_t week_of_drift(const char *samples, uint64_t ticks, uint64_t set_every) {
  robot_t p = open_policy(samples, "guarded");
  uint64_t before = allocations, refused = 0, since = 0;
  held_t held_before = held();
  float action[2];
  for (uint64_t t = 0; t < ticks; t++) {
    uint64_t now = (uint64_t)0 - 1000000u + t * TICK_US; /* over the end after a second */
    since = set_every > 0 && t % set_every == 0 ? 0 : since + TICK_US;
    CHECK_STATUS(vlart_session_time(p.session, now), OK);
    CHECK_STATUS(vlart_session_stamp(p.session, 0, (uint32_t)(UINT32_MAX - 10 + t),
                                     now - since * DRIFT_PPM / 1000000, &diag),
                 OK);
    float raw[10] = {(float)(t % 4)}, state[4] = {0};
    CHECK_STATUS(write_source(&p, 0, raw), OK);
    CHECK_STATUS(write_source(&p, 1, state), OK);
    vlart_status_t status = vlart_session_step(p.session, &diag);
    CHECK(status ==
          (since * DRIFT_PPM / 1000000 > LIMIT_US ? VLART_STATUS_STALE_INPUT : VLART_STATUS_OK));
    refused += status == VLART_STATUS_STALE_INPUT;
    while (vlart_session_pop(p.session, action, 2, NULL) == VLART_STATUS_OK) {
    }
  }
  vlart_sensor_info_t info = {.struct_size = sizeof info};
  CHECK_STATUS(vlart_session_sensor(p.session, 0, &info), OK);
  CHECK(info.writes == ticks && info.reordered == 0 && info.lost == 0 && info.stale == refused);
  CHECK(allocations == before);
  check_held(held_before);
  close_robot(&p);
  return refused;
}

/* Asynchronously, computed for in the control thread every few ticks late; an instruction is cancelled now and then,
   over the end of the epochs, and tick counters begin where 32 bits end. */
static void week_of_chunks(const char *samples, uint64_t ticks) {
  robot_t p = open_policy(samples, "realtime");
  vlart_async_options_t options = {
      .struct_size = sizeof options, .lead_ticks = 1, .safe = VLART_SAFE_ZERO};
  make_async(&p, &options);
  vlart_async_t *async = p.async;
  atomic_store(&async->epoch, (unsigned)-50);
  uint64_t began = (uint64_t)UINT32_MAX - ticks / 2;
  async->clock.pops = async->clock.now = began;
  uint64_t before = allocations, asked = 0, good = 0;
  held_t held_before = held();
  vlart_async_info_t info = {.struct_size = sizeof info};
  for (uint64_t t = 0; t < ticks; t++) {
    float raw[10] = {(float)(t % 1024)}, action[2];
    CHECK_STATUS(vlart_async_info(async, &info), OK);
    if (info.due) {
      CHECK_STATUS(write_source(&p, 0, raw), OK);
      CHECK_STATUS(vlart_async_request(async), OK);
      asked = t;
    }
    if (info.busy && t - asked >= 1) {
      CHECK_STATUS(vlart_async_answer(async), OK);
    }
    if (t % EPISODE == EPISODE - 1) {
      uint32_t how = (uint32_t)(t / EPISODE % 3);
      CHECK_STATUS(vlart_async_cancel(async, how), OK);
      null_control.output += how == VLART_CANCEL_KEEP ? 0.0f : 1.0f; /* what was dropped is gone */
    }
    vlart_status_t status = vlart_async_pop(async, action, 2, &diag);
    CHECK(status == VLART_STATUS_OK || status == VLART_STATUS_SAFE_ACTION);
    good += status == VLART_STATUS_OK;
    CHECK(action[0] == (status == VLART_STATUS_OK ? 2 * null_control.output + 1 : 0.0f));
  }
  CHECK_STATUS(vlart_async_info(async, &info), OK);
  CHECK(info.tick == began + ticks && info.failures == 0 && info.safe_actions == ticks - good);
  CHECK(good > ticks - ticks / 1000 && info.chunks > ticks / 5 &&
        info.discarded <= ticks / EPISODE + 1);
  CHECK(allocations == before);
  check_held(held_before);
  close_robot(&p);
}

int main(int argc, char **argv) {
  CHECK(argc >= 2);
  uint64_t ticks = argc > 2 ? strtoull(argv[2], NULL, 10) : WEEK;
  week(argv[1], "realtime", ticks);
  week(argv[1], "ensemble", ticks);
  uint64_t limit_ticks = (uint64_t)LIMIT_US * 1000000 / DRIFT_PPM / TICK_US;
  CHECK(week_of_drift(argv[1], ticks, 1800u * 1000000u / TICK_US) == 0); /* set every half hour */
  uint64_t refused = week_of_drift(argv[1], ticks, 0);
  CHECK(refused == (ticks > limit_ticks ? ticks - limit_ticks : 0));
  week_of_chunks(argv[1], ticks);
  printf("test_week: %llu ticks, passed\n", (unsigned long long)ticks);
  return 0;
}
