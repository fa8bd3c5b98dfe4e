/* The file of a recording: it goes round, and whatever part of itself it lost, what is read of it is what was recorded.
   Usage: test_power SAMPLES DIR [CUTS], the directory of all samples and one to write into. */
#include <string.h>
#include <unistd.h>

#include "null_backend.h"
#include "tape.h"

/* The oldest is overwritten; what is left begins with a whole event and has a keyframe to go on from. */
static void test_laps(const char *samples, const char *dir) {
  robot_t r = open_robot(sample_path(samples, "realtime"), NULL);
  float action[2];
  tape_name(dir, "laps");
  tape_t tape = tape_make(&r, (vlart_recorder_options_t){.file_bytes = 1 << 16, .full = 1});
  CHECK_STATUS(vlart_session_record(r.session, tape.recorder, &diag), OK);
  for (uint64_t t = 0; t < 1500; t++) {
    tape_tick(&r, t);
    CHECK_STATUS(vlart_session_step(r.session, &diag), OK);
    CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
    if (t % 200 == 0) {
      tape_wait(10);
    }
  }
  vlart_recorder_info_t info = tape_end(&tape);
  CHECK(info.laps > 2 && info.lost_events == 0);
  read_t log = read_file();
  CHECK(log.info.first_block > 0 && log.info.missing_blocks == 0 && log.info.torn_events == 0);
  CHECK(log.info.blocks == (1 << 16) / VLART_RECORDING_BLOCK && log.info.events < info.events);
  CHECK(read_count(&log, VLART_EVENT_KIND_KEYFRAME) > 0 && read_losses(&log).told == 0);
  read_close(&log);
  close_robot(&r);
}

static uint64_t random_number(uint64_t *state) { /* xorshift64* */
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 2685821657736338717ull;
}

/* A sum of an event that another one hardly has. */
static uint64_t mark(const vlart_log_event_t *event) {
  uint64_t sum = event->kind * 0x9E3779B97F4A7C15ull ^ event->time_ns;
  for (uint64_t i = 0; i < event->bytes; i++) {
    sum = (sum ^ ((const uint8_t *)event->record)[i]) * 1099511628211ull;
  }
  return sum;
}

/* Whatever part of the newest blocks the disk did not keep, and wherever the file ends: what is read is what was there,
   and what is missing is known. */
static void test_power(const char *samples, const char *dir, unsigned cuts) {
  robot_t r = open_robot(sample_path(samples, "realtime"), NULL);
  float action[2];
  tape_name(dir, "power");
  tape_t tape = tape_make(&r, (vlart_recorder_options_t){.file_bytes = 1 << 16, .full = 1});
  CHECK_STATUS(vlart_session_record(r.session, tape.recorder, &diag), OK);
  for (uint64_t t = 0; t < 300; t++) {
    tape_tick(&r, t);
    CHECK_STATUS(vlart_session_step(r.session, &diag), OK);
    CHECK_STATUS(vlart_session_pop(r.session, action, 2, &diag), OK);
  }
  tape_end(&tape);
  read_t whole = read_file();
  static uint64_t marks[100000];
  vlart_log_event_t event;
  while (read_next(&whole, &event)) {
    CHECK(event.sequence < sizeof marks / sizeof *marks);
    marks[event.sequence] = mark(&event);
  }
  uint64_t state = 7, read = 0;
  size_t head = whole.bytes - (1 << 16);
  uint8_t *copy = test_take(whole.bytes);
  for (unsigned i = 0; i < cuts; i++) {
    memcpy(copy, whole.data, whole.bytes);
    size_t bytes = whole.bytes;
    if (i % 2 == 0) {
      bytes = head + random_number(&state) % (whole.bytes - head);
    }
    for (uint64_t k = random_number(&state) % 5; k > 0; k--) {
      size_t block = head + random_number(&state) % 16 * VLART_RECORDING_BLOCK;
      size_t at = random_number(&state) % VLART_RECORDING_BLOCK;
      for (size_t b = at; b < VLART_RECORDING_BLOCK; b++) { /* the rest is of something older */
        copy[block + b] = i % 3 == 0 ? 0 : (uint8_t)random_number(&state);
      }
    }
    uint8_t *file = test_take(bytes); /* of exactly its size */
    memcpy(file, copy, bytes);
    read_t cut = read_data(file, bytes);
    uint64_t last = 0;
    while (read_next(&cut, &event)) {
      CHECK(event.sequence > last && marks[event.sequence] == mark(&event));
      last = event.sequence;
      read++;
    }
    CHECK(cut.info.events <= whole.info.events);
    read_close(&cut);
  }
  printf("  %u cuts, %llu events read, all as they were\n", cuts, (unsigned long long)read);
  CHECK(read > cuts);
  test_give(copy);
  read_close(&whole);
  close_robot(&r);
}

/* A head that lies is refused, never followed. */
static void test_heads(const char *dir) {
  tape_name(dir, "none");
  char kept[1024];
  CHECK((size_t)snprintf(kept, sizeof kept, "%s/power.vlog", dir) < sizeof kept);
  memcpy(tape_path, kept, sizeof tape_path);
  read_t whole = read_file();
  size_t needed;
  vlart_log_t *log;
  for (size_t byte = 0; byte < sizeof(vlart_log_record_t) + 64; byte++) {
    whole.data[byte] ^= 0x10;
    CHECK(vlart_log_required_bytes(whole.data, whole.bytes, "log", &diag, &needed) !=
          VLART_STATUS_OK);
    whole.data[byte] ^= 0x10;
  }
  for (size_t bytes = 0; bytes < 400; bytes++) {
    CHECK(vlart_log_required_bytes(whole.data, bytes, "log", &diag, &needed) != VLART_STATUS_OK);
  }
  CHECK_STATUS(vlart_log_required_bytes(NULL, 0, "log", &diag, &needed), BAD_ARGUMENT);
  CHECK_STATUS(vlart_log_open(whole.data, whole.bytes, "log", whole.arena, 64, &diag, &log),
               OUT_OF_MEMORY);
  CHECK_STATUS(vlart_log_next(NULL, NULL), BAD_ARGUMENT);
  CHECK_STATUS(vlart_log_info(NULL, NULL), BAD_ARGUMENT);
  read_close(&whole);
}

int main(int argc, char **argv) {
  CHECK(argc == 3 || argc == 4);
  unsigned cuts = argc == 4 ? (unsigned)strtoul(argv[3], NULL, 10) : 1000;
  test_laps(argv[1], argv[2]);
  test_power(argv[1], argv[2], cuts);
  test_heads(argv[2]);
  puts("test_power: passed");
  return 0;
}
