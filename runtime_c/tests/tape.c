#include "tape.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

char tape_path[1024];

void tape_name(const char *dir, const char *name) {
  CHECK((size_t)snprintf(tape_path, sizeof tape_path, "%s/%s.vlog", dir, name) < sizeof tape_path);
  unlink(tape_path);
}

tape_t tape_make(const robot_t *r, vlart_recorder_options_t options) {
  tape_t tape = {0};
  size_t bytes = 0;
  options.struct_size = sizeof options;
  options.path = tape_path;
  CHECK_STATUS(vlart_bundle_plan(r->bundle, &tape.plan, &tape.plan_bytes), OK);
  CHECK_STATUS(vlart_recorder_required_bytes(tape.plan, tape.plan_bytes, &options, &diag, &bytes),
               OK);
  tape.arena = test_take(bytes);
  CHECK_STATUS(vlart_recorder_init(tape.plan, tape.plan_bytes, &options, tape.arena, bytes - 64,
                                   &diag, &tape.recorder),
               OUT_OF_MEMORY);
  CHECK_STATUS(vlart_recorder_init(tape.plan, tape.plan_bytes, &options, tape.arena, bytes, &diag,
                                   &tape.recorder),
               OK);
  return tape;
}

vlart_recorder_info_t tape_info(const tape_t *tape) {
  vlart_recorder_info_t info = {.struct_size = sizeof info};
  CHECK_STATUS(vlart_recorder_info(tape->recorder, &info), OK);
  return info;
}

vlart_recorder_info_t tape_end(tape_t *tape) {
  vlart_recorder_close(tape->recorder);
  vlart_recorder_info_t info = tape_info(tape);
  test_give(tape->arena);
  return info;
}

read_t read_data(uint8_t *data, size_t bytes) {
  read_t found = {.data = data, .bytes = bytes, .info.struct_size = sizeof found.info};
  size_t needed = 0;
  CHECK_STATUS(vlart_log_required_bytes(data, bytes, "log", &diag, &needed), OK);
  found.arena = test_take(needed);
  CHECK_STATUS(vlart_log_open(data, bytes, "log", found.arena, needed, &diag, &found.log), OK);
  CHECK_STATUS(vlart_log_info(found.log, &found.info), OK);
  return found;
}

read_t read_file(void) {
  int fd = open(tape_path, O_RDONLY | O_CLOEXEC);
  struct stat about;
  CHECK(fd >= 0 && fstat(fd, &about) == 0);
  uint8_t *data = test_take((size_t)about.st_size);
  CHECK(read(fd, data, (size_t)about.st_size) == about.st_size && close(fd) == 0);
  return read_data(data, (size_t)about.st_size);
}

void read_close(read_t *r) {
  test_give(r->data);
  test_give(r->arena);
}

bool read_next(const read_t *r, vlart_log_event_t *event) {
  event->struct_size = sizeof *event;
  return vlart_log_next(r->log, event) == VLART_STATUS_OK;
}

/* How many events of a kind there are, and the last of them. */
unsigned read_count(const read_t *r, uint32_t kind) {
  vlart_log_event_t event;
  unsigned count = 0;
  while (read_next(r, &event)) {
    count += event.kind == kind;
  }
  return count;
}

losses_t read_losses(const read_t *r) {
  uint64_t last[VLART_MAX_TRACKS + 1] = {0};
  losses_t found = {0};
  vlart_log_event_t event;
  while (read_next(r, &event)) {
    if (event.kind == VLART_EVENT_KIND_LOSS) {
      const vlart_loss_event_record_t *loss = event.record;
      found.told += loss->events;
      found.blocks = loss->blocks > found.blocks ? loss->blocks : found.blocks;
      if (event.sequence == 0) { /* told at the end */
        found.missing += loss->events;
      }
    }
    if (event.sequence > 0 && event.role != VLART_EVENT_ROLE_WRITER) {
      found.missing += event.sequence - last[event.track] - 1;
      last[event.track] = event.sequence;
    }
  }
  return found;
}

void tape_tick(const robot_t *r, uint64_t tick) {
  uint8_t data[256] = {0};
  vlart_value_info_t value = source_value(r->bundle, 0);
  CHECK(value.bytes <= sizeof data);
  float number = (float)(tick % 1024);
  if (value.dtype == VLART_DTYPE_F32) {
    memcpy(data, &number, sizeof number);
  } else {
    data[0] = (uint8_t)tick;
  }
  CHECK_STATUS(write_source(r, 0, data), OK);
}

void tape_wait(long ms) {
  struct timespec pause = {0, ms * 1000000L};
  nanosleep(&pause, NULL);
}
