/* The flight recorder on the null engine: what is recorded is what happened, ticks neither wait nor allocate, every loss
   is counted and told, and a disk that fails stops nothing. Usage: test_recorder SAMPLES DIR, the directory of all samples and one to write into. Also run under ThreadSanitizer
   (make tsan). Linked with --wrap=malloc,calloc,realloc,free,pwrite,fallocate,clock_gettime. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "null_backend.h"
#include "tape.h"

/* ---- a disk that fails ------------------------------------------------------------------------- */

static atomic_int disk_error; /* errno of every write of a block; 0: none */
static atomic_int room_error; /* of reserving the file */

ssize_t __real_pwrite(int fd, const void *data, size_t bytes, off_t at);
ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t at);
int __real_fallocate(int fd, int mode, off_t at, off_t bytes);
int __wrap_fallocate(int fd, int mode, off_t at, off_t bytes);

ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t at) {
  int error = atomic_load(&disk_error);
  if (error != 0 && at > 0) {
    errno = error;
    return -1;
  }
  return __real_pwrite(fd, data, bytes > 5000 ? 5000 : bytes, at); /* a write may be short */
}

int __wrap_fallocate(int fd, int mode, off_t at, off_t bytes) {
  int error = atomic_load(&room_error);
  errno = error;
  return error != 0 ? -1 : __real_fallocate(fd, mode, at, bytes);
}

/* ---- a wall clock that is set ------------------------------------------------------------------ */

#define MS 1000000ll
static atomic_llong clock_ahead; /* nanoseconds */
static atomic_int clock_waits;   /* of the next readings, so many take 30 ms */

int __real_clock_gettime(clockid_t which, struct timespec *out);
int __wrap_clock_gettime(clockid_t which, struct timespec *out);

int __wrap_clock_gettime(clockid_t which, struct timespec *out) {
  int result = __real_clock_gettime(which, out);
  if (which == CLOCK_REALTIME) {
    int64_t ns = out->tv_sec * 1000 * MS + out->tv_nsec + atomic_load(&clock_ahead);
    *out = (struct timespec){ns / (1000 * MS), ns % (1000 * MS)};
    if (atomic_load(&clock_waits) > 0) {
      atomic_fetch_sub(&clock_waits, 1);
      tape_wait(30);
    }
  }
  return result;
}

/* By how much the recording says that the clock was set. */
static int64_t clock_moved(const read_t *log) {
  const vlart_log_info_t *info = &log->info;
  return (int64_t)(info->last_wall_ns - info->last_clock_ns - (info->wall_ns - info->clock_ns));
}

static void test_clock(const char *samples, const char *dir) {
  robot_t r = open_robot(sample_path(samples, "realtime"), NULL);
  static const struct {
    int64_t sets[3]; /* nanoseconds ahead, one after the other; 0 at first */
    unsigned told;
    int64_t moved;
    int waits; /* readings between whose clocks the thread stood still */
  } cases[] = {{{9 * MS, 0, -9 * MS}, 0, 0, 0},
               {{9 * MS, 12 * MS, 16 * MS}, 1, 12 * MS, 0},
               {{3600000 * MS, 3599995 * MS, -50 * MS}, 2, -50 * MS, 0},
               {{0, 0, 0}, 0, 0, 8}};
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    tape_name(dir, "clock");
    atomic_store(&clock_ahead, 0);
    atomic_store(&clock_waits, cases[c].waits);
    tape_t tape =
        tape_make(&r, (vlart_recorder_options_t){.flush_ms = 1, .file_bytes = 1 << 16, .full = 1});
    CHECK_STATUS(vlart_session_record(r.session, tape.recorder, &diag), OK);
    atomic_store(&clock_waits, cases[c].waits);
    for (int k = 0; k < 3; k++) {
      atomic_store(&clock_ahead, cases[c].sets[k]);
      tape_wait(100);
    }
    for (int k = 0; k < 5000 && atomic_load(&clock_waits) > 0; k++) {
      tape_wait(2);
    }
    uint64_t before = allocations;
    for (uint64_t t = 0; tape_info(&tape).laps < 4; t++) { /* what was told is overwritten */
      tape_tick(&r, t);
      CHECK_STATUS(vlart_session_step(r.session, &diag), OK);
      tape_wait(t % 100 == 0);
    }
    CHECK(allocations == before);
    CHECK_STATUS(vlart_session_record(r.session, NULL, &diag), OK);
    tape_end(&tape);
    read_t log = read_file();
    int64_t apart = clock_moved(&log) - cases[c].moved;
    CHECK(log.info.first_block > 0 && log.info.clock_changes == cases[c].told);
    CHECK(apart < 2 * MS && apart > -2 * MS);
    CHECK((read_count(&log, VLART_EVENT_KIND_CLOCK) > 0) == (cases[c].told > 0));
    read_close(&log);
  }
  atomic_store(&clock_ahead, 0);
  atomic_store(&clock_waits, 0);
  close_robot(&r);
}

static void test_what_happened(const char *samples, const char *dir) {
  robot_t r = open_robot(sample_path(samples, "realtime"), NULL);
  tape_name(dir, "happened");
  tape_t tape = tape_make(&r, (vlart_recorder_options_t){.full = 1, .tracks = 1});
  CHECK_STATUS(vlart_session_record(r.session, tape.recorder, &diag), OK);
  CHECK_STATUS(vlart_session_record(r.session, tape.recorder, &diag), BAD_ARGUMENT);
  float action[2];
  null_control.output = 0.25f;
  uint64_t before = allocations;
  for (uint64_t t = 0; t < 20; t++) {
    tape_tick(&r, t);
    CHECK_STATUS(vlart_session_step(r.session, &diag), OK);
    CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
    if (t == 9) {
      CHECK_STATUS(vlart_session_reset(r.session), OK);
    }
  }
  uint8_t bad[256];
  memset(bad, 0xFF, sizeof bad);
  CHECK_STATUS(write_source(&r, 0, bad), NOT_FINITE);
  tape_wait(30);
  CHECK(allocations == before); /* nor does the recorder's thread */
  vlart_recorder_info_t info = tape_end(&tape);
  CHECK(info.lost_events == 0 && info.lost_blocks == 0 && info.error == 0 && info.tracks == 1);
  read_t log = read_file();
  CHECK(log.info.events == info.events && log.info.torn_events == 0 && log.info.full == 1);
  CHECK(read_count(&log, VLART_EVENT_KIND_STEP) == 20 &&
        read_count(&log, VLART_EVENT_KIND_POP) == 20);
  CHECK(read_count(&log, VLART_EVENT_KIND_RESET) == 1 &&
        read_count(&log, VLART_EVENT_KIND_KEYFRAME) == 2);
  CHECK(read_count(&log, VLART_EVENT_KIND_REFUSED) == 1);
  vlart_log_event_t event;
  uint64_t tick = 0, sequence = 0;
  while (read_next(&log, &event)) {
    CHECK(event.sequence == ++sequence && event.role == VLART_EVENT_ROLE_SESSION);
    if (event.kind == VLART_EVENT_KIND_SOURCE) {
      const vlart_source_event_record_t *source = event.record;
      float number;
      memcpy(&number, source + 1, sizeof number);
      CHECK(source->source == 0 && number == (float)(tick % 1024 - ((source->flags & 4) != 0)));
    } else if (event.kind == VLART_EVENT_KIND_POP) {
      const vlart_pop_event_record_t *pop = event.record;
      const float *numbers = (const float *)(const void *)(pop + 1);
      CHECK(pop->rows == 1 && pop->dim == 2 && pop->tick == tick && pop->chunk == tick + 1);
      CHECK(numbers[0] == 1.5f);
      tick++;
    }
  }
  CHECK(tick == 20);
  read_close(&log);
  close_robot(&r);
}

/* More than a track holds, before the recorder's thread can look. */
static void test_every_loss(const char *samples, const char *dir) {
  robot_t r = open_robot(sample_path(samples, "realtime"), NULL);
  float action[2];
  for (int end = 0; end < 2; end++) {
    tape_name(dir, "losses");
    tape_t tape = tape_make(&r, (vlart_recorder_options_t){.track_bytes = 4096, .full = 1});
    CHECK_STATUS(vlart_session_record(r.session, tape.recorder, &diag), OK);
    for (int burst = 0; burst < 6 + end; burst++) {
      for (uint64_t t = 0; t < 200; t++) {
        tape_tick(&r, t + 1);
        CHECK_STATUS(vlart_session_step(r.session, &diag), OK);
        CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
      }
      if (end == 0) {
        tape_wait(15); /* and there is room again */
        CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
      }
    }
    CHECK_STATUS(vlart_session_record(r.session, NULL, &diag), OK);
    vlart_recorder_info_t info = tape_end(&tape);
    read_t log = read_file();
    losses_t lost = read_losses(&log);
    CHECK(info.lost_events > 100 && info.lost_bytes > info.lost_events * 40);
    CHECK(lost.told == info.lost_events && lost.missing == info.lost_events);
    read_close(&log);
  }
  close_robot(&r);
}

static void test_disks(const char *samples, const char *dir) {
  robot_t r = open_robot(sample_path(samples, "realtime"), NULL);
  float action[2];
  tape_name(dir, "disk");
  tape_t tape = tape_make(&r, (vlart_recorder_options_t){
                                  .flush_ms = 1, .sync_ms = 1, .full = 1, .file_bytes = 1 << 20});
  CHECK_STATUS(vlart_session_record(r.session, tape.recorder, &diag), OK);
  vlart_recorder_info_t info = {0};
  for (int phase = 0; phase < 3; phase++) { /* full in the second */
    atomic_store(&disk_error, phase == 1 ? ENOSPC : 0);
    for (uint64_t t = 0; t < 30; t++) {
      tape_tick(&r, t + 30 * (uint64_t)phase);
      CHECK_STATUS(vlart_session_step(r.session, &diag), OK);
      CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
    }
    for (int k = 0; k < 5000 && (phase == 1 ? info.lost_blocks : info.blocks) == 0; k++) {
      tape_wait(2);
      info = tape_info(&tape);
    }
  }
  CHECK(info.lost_blocks > 0 && info.error == ENOSPC && info.blocks > 0 && info.lost_events == 0);
  info = tape_end(&tape);
  CHECK(info.syncs > 0);
  read_t log = read_file();
  CHECK(log.info.missing_blocks > 0 && read_losses(&log).blocks == info.lost_blocks);
  read_close(&log);
  /* What is refused at the beginning. */
  vlart_recorder_options_t options = {.struct_size = sizeof options, .path = tape_path};
  size_t bytes;
  vlart_recorder_t *none;
  CHECK_STATUS(vlart_recorder_required_bytes(tape.plan, tape.plan_bytes, &options, &diag, &bytes),
               OK);
  void *arena = test_take(bytes);
  CHECK_STATUS(
      vlart_recorder_init(tape.plan, tape.plan_bytes, &options, arena, bytes, &diag, &none), IO);
  CHECK(none == NULL && strstr(diag.fix, "never written over") != NULL);
  tape_name(dir, "room");
  atomic_store(&room_error, ENOSPC);
  CHECK_STATUS(
      vlart_recorder_init(tape.plan, tape.plan_bytes, &options, arena, bytes, &diag, &none), IO);
  CHECK(strstr(diag.why, "No space left") != NULL && access(tape_path, F_OK) != 0);
  atomic_store(&room_error, EOPNOTSUPP); /* a file system that cannot reserve */
  CHECK_STATUS(
      vlart_recorder_init(tape.plan, tape.plan_bytes, &options, arena, bytes, &diag, &none), OK);
  atomic_store(&room_error, 0);
  vlart_recorder_close(none);
  options.path = "/nowhere/at/all";
  CHECK_STATUS(
      vlart_recorder_init(tape.plan, tape.plan_bytes, &options, arena, bytes, &diag, &none), IO);
  test_give(arena);
  close_robot(&r);
}

/* A file that may not grow is a write that fails, and signals are for the program's own threads: both have their default
   action here, which ends the process. */
static void test_signals(const char *samples, const char *dir) {
  robot_t r = open_robot(sample_path(samples, "realtime"), NULL);
  struct rlimit before, small = {.rlim_cur = 4096};
  sigset_t user, waiting, mask;
  tape_name(dir, "signals");
  tape_t tape =
      tape_make(&r, (vlart_recorder_options_t){.flush_ms = 1, .full = 1, .file_bytes = 1 << 16});
  CHECK_STATUS(vlart_session_record(r.session, tape.recorder, &diag), OK);
  sigemptyset(&user);
  sigaddset(&user, SIGUSR1);
  CHECK(pthread_sigmask(SIG_BLOCK, &user, &mask) == 0 && sigismember(&mask, SIGTERM) == 0);
  CHECK(kill(getpid(), SIGUSR1) == 0);
  tape_wait(15);
  CHECK(sigpending(&waiting) == 0 && sigismember(&waiting, SIGUSR1) == 1);
  int taken;
  CHECK(sigwait(&user, &taken) == 0 && taken == SIGUSR1);
  CHECK(pthread_sigmask(SIG_SETMASK, &mask, NULL) == 0);
  CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
  small.rlim_max = before.rlim_max;
  CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
  vlart_recorder_info_t info = {0};
  for (uint64_t t = 0; t < 2000 && info.lost_blocks == 0; t++) {
    tape_tick(&r, t);
    CHECK_STATUS(vlart_session_step(r.session, &diag), OK);
    tape_wait(1);
    info = tape_info(&tape);
  }
  vlart_recorder_options_t options = {.struct_size = sizeof options, .path = tape_path};
  size_t bytes;
  vlart_recorder_t *none;
  CHECK_STATUS(vlart_recorder_required_bytes(tape.plan, tape.plan_bytes, &options, &diag, &bytes),
               OK);
  void *arena = test_take(bytes);
  tape_end(&tape);
  tape_name(dir, "limited");
  CHECK_STATUS(
      vlart_recorder_init(tape.plan, tape.plan_bytes, &options, arena, bytes, &diag, &none), IO);
  CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
  CHECK(info.lost_blocks > 0 && info.error == EFBIG);
  CHECK(strstr(diag.why, "ulimit -f") != NULL && access(tape_path, F_OK) != 0);
  test_give(arena);
  close_robot(&r);
}

static void test_arguments(const char *samples, const char *dir) {
  robot_t r = open_robot(sample_path(samples, "realtime"), NULL);
  robot_t other = open_robot(sample_path(samples, "ensemble"), NULL);
  tape_name(dir, "arguments");
  tape_t tape = tape_make(&r, (vlart_recorder_options_t){.tracks = 1});
  size_t bytes;
  vlart_recorder_options_t options = {.struct_size = sizeof options};
  CHECK_STATUS(vlart_recorder_required_bytes(tape.plan, tape.plan_bytes, NULL, &diag, &bytes),
               BAD_ARGUMENT);
  CHECK_STATUS(vlart_recorder_required_bytes(tape.plan, tape.plan_bytes, &options, &diag, &bytes),
               BAD_ARGUMENT);
  options.path = tape_path;
  options.tracks = VLART_MAX_TRACKS + 1;
  CHECK_STATUS(vlart_recorder_required_bytes(tape.plan, tape.plan_bytes, &options, &diag, &bytes),
               BAD_ARGUMENT);
  options.tracks = 0;
  options.full = 2;
  CHECK_STATUS(vlart_recorder_required_bytes(tape.plan, tape.plan_bytes, &options, &diag, &bytes),
               BAD_ARGUMENT);
  options.full = 0;
  options.file_bytes = 4096;
  CHECK_STATUS(vlart_recorder_required_bytes(tape.plan, tape.plan_bytes, &options, &diag, &bytes),
               BAD_ARGUMENT);
  options.file_bytes = 0;
  CHECK_STATUS(vlart_recorder_required_bytes(tape_path, 8, &options, &diag, &bytes), NOT_A_BUNDLE);
  CHECK_STATUS(vlart_session_record(other.session, tape.recorder, &diag), BAD_ARGUMENT);
  CHECK(strstr(diag.why, "another bundle") != NULL);
  CHECK_STATUS(vlart_session_record(r.session, tape.recorder, &diag), OK);
  CHECK_STATUS(vlart_session_record(r.session, NULL, &diag), OK);
  CHECK_STATUS(vlart_session_record(r.session, tape.recorder, &diag), UNSUPPORTED); /* one track */
  CHECK_STATUS(vlart_session_record(NULL, tape.recorder, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_async_record(NULL, tape.recorder, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_router_record(NULL, tape.recorder, &diag), BAD_ARGUMENT);
  float chunk[64];
  CHECK_STATUS(vlart_session_chunk(r.session, chunk, 3, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_stop_before(r.session, 99, VLART_STATUS_CANCELLED), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_stop_before(r.session, 0, VLART_STATUS_OK), BAD_ARGUMENT);
  tape_tick(&r, 1);
  CHECK_STATUS(vlart_session_stop_before(r.session, 0, VLART_STATUS_DEADLINE_MISSED), OK);
  CHECK_STATUS(vlart_session_step(r.session, &diag), DEADLINE_MISSED);
  CHECK_STATUS(vlart_session_step(r.session, &diag), OK); /* once */
  vlart_recorder_close(NULL);
  tape_end(&tape);
  close_robot(&other);
  close_robot(&r);
}

/* Two threads record while a third writes. */
static void test_async(const char *samples, const char *dir) {
  robot_t r = open_robot(sample_path(samples, "realtime"), NULL);
  tape_name(dir, "async");
  tape_t tape = tape_make(&r, (vlart_recorder_options_t){.full = 1});
  make_async(&r, NULL);
  null_control.output = 0.25f;
  CHECK_STATUS(vlart_async_record(r.async, tape.recorder, &diag), OK);
  CHECK_STATUS(vlart_async_record(r.async, tape.recorder, &diag), BAD_ARGUMENT);
  start_worker(&r);
  float action[2];
  uint64_t requests = 0, results = 0, before = own_allocations;
  for (uint64_t t = 0; t < 3000; t++) {
    vlart_async_info_t info = {.struct_size = sizeof info};
    CHECK_STATUS(vlart_async_info(r.async, &info), OK);
    if (info.due) {
      tape_tick(&r, t);
      CHECK_STATUS(vlart_async_request(r.async), OK);
      requests++;
    }
    vlart_async_pop(r.async, action, 2, &diag);
    if (t % 500 == 499) {
      CHECK_STATUS(vlart_async_cancel(r.async, VLART_CANCEL_EPISODE), OK);
    }
    sched_yield();
  }
  CHECK(own_allocations == before);
  close_robot(&r); /* the recorder outlives what it records */
  vlart_recorder_info_t kept = tape_end(&tape);
  CHECK(kept.lost_events == 0);
  read_t log = read_file();
  CHECK(read_count(&log, VLART_EVENT_KIND_REQUEST) == requests);
  CHECK(read_count(&log, VLART_EVENT_KIND_POP) == 3000);
  CHECK(read_count(&log, VLART_EVENT_KIND_CANCEL) == 6 &&
        read_count(&log, VLART_EVENT_KIND_CONTROL) == 7);
  CHECK(read_count(&log, VLART_EVENT_KIND_TAKE) == read_count(&log, VLART_EVENT_KIND_STEP));
  results = read_count(&log, VLART_EVENT_KIND_RESULT);
  CHECK(results > 0 && results <= read_count(&log, VLART_EVENT_KIND_TAKE));
  CHECK(read_losses(&log).missing == 0);
  read_close(&log);
}

/* Computed now, seen later. */
static void test_delivery(const char *samples) {
  robot_t r = open_robot(sample_path(samples, "realtime"), NULL);
  make_async(&r, NULL);
  null_control.output = 0.25f;
  float action[2];
  tape_tick(&r, 1);
  CHECK_STATUS(vlart_async_request(r.async), OK);
  CHECK_STATUS(vlart_async_compute(r.async), OK);
  CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), QUEUE_EMPTY);
  CHECK_STATUS(vlart_async_deliver(r.async), OK);
  CHECK_STATUS(vlart_async_pop(r.async, action, 2, &diag), OK);
  CHECK_STATUS(vlart_async_compute(NULL), BAD_ARGUMENT);
  CHECK_STATUS(vlart_async_deliver(NULL), BAD_ARGUMENT);
  close_robot(&r);
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  test_what_happened(argv[1], argv[2]);
  test_every_loss(argv[1], argv[2]);
  test_disks(argv[1], argv[2]);
  test_signals(argv[1], argv[2]);
  test_clock(argv[1], argv[2]);
  test_arguments(argv[1], argv[2]);
  test_async(argv[1], argv[2]);
  test_delivery(argv[1]);
  puts("test_recorder: passed");
  return 0;
}
