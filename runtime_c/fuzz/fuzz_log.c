#include "fuzz_log.h"

#include <stdlib.h>
#include <string.h>

#include "base/crc32.h"
#include "vlart/vlart.h"

enum { LARGEST_LOG = 1 << 24 };

static uint64_t use_event(const vlart_log_event_t *event) {
  uint64_t sum = event->kind + event->role + event->track + event->sequence;
  for (uint64_t i = 0; i < event->bytes; i++) {
    sum += ((const uint8_t *)event->record)[i];
  }
  return sum;
}

/* As a reader takes it: what its counts say is there. */
static uint64_t use_arrays(const vlart_log_event_t *event) {
  uint64_t sum = 0;
  if (event->kind == VLART_EVENT_KIND_STEP) {
    const vlart_step_event_record_t *step = event->record;
    const vlart_stage_time_record_t *times = (const void *)(step + 1);
    const float *chunk = (const void *)(times + step->stage_count);
    for (uint32_t i = 0; i < step->stage_count; i++) {
      sum += times[i].runs;
    }
    for (uint32_t i = 0; i < step->chunk_count; i++) {
      sum += chunk[i] > 0;
    }
  } else if (event->kind == VLART_EVENT_KIND_POP) {
    const vlart_pop_event_record_t *pop = event->record;
    const float *actions = (const void *)(pop + 1);
    for (uint32_t i = 0; i < pop->rows * pop->dim; i++) {
      sum += actions[i] > 0;
    }
  }
  return sum;
}

/* The newest reading of the wall clock so far; false where an event is none that a reader may count on. */
static bool use_clock(const vlart_log_event_t *event, vlart_log_info_t *newest) {
  if (event->kind != VLART_EVENT_KIND_CLOCK) {
    return true;
  }
  const vlart_clock_event_record_t *clock = event->record;
  newest->last_wall_ns = clock->wall_ns;
  newest->last_clock_ns = event->time_ns;
  newest->clock_changes = clock->changes;
  return event->bytes == sizeof *clock && event->role == VLART_EVENT_ROLE_WRITER &&
         clock->changes > 0 && clock->moved_ns != 0;
}

bool fuzz_log(const uint8_t *data, size_t bytes, uint64_t *bytes_used) {
  size_t needed = 0;
  vlart_log_t *log = NULL;
  if (bytes == 0 ||
      vlart_log_required_bytes(data, bytes, "log", NULL, &needed) != VLART_STATUS_OK ||
      needed > LARGEST_LOG) {
    return false;
  }
  void *arena = malloc(needed);
  bool good = vlart_log_open(data, bytes, "log", arena, needed, NULL, &log) == VLART_STATUS_OK;
  vlart_log_info_t info = {.struct_size = sizeof info};
  vlart_log_event_t event = {.struct_size = sizeof event};
  uint64_t events = 0;
  if (good && vlart_log_info(log, &info) != VLART_STATUS_OK) {
    abort();
  }
  vlart_log_info_t newest = {.last_wall_ns = info.wall_ns, .last_clock_ns = info.clock_ns};
  while (good && vlart_log_next(log, &event) == VLART_STATUS_OK) {
    *bytes_used += use_event(&event) + use_arrays(&event);
    events++;
    if (!use_clock(&event, &newest)) {
      abort();
    }
  }
  if (good &&
      (events != info.events || newest.last_wall_ns != info.last_wall_ns ||
       newest.last_clock_ns != info.last_clock_ns || newest.clock_changes != info.clock_changes)) {
    abort(); /* what was validated is what is read */
  }
  free(arena);
  return good;
}

static void seal_block(const vlart_crc32_table_t *table, uint8_t *at, uint64_t recording) {
  vlart_block_record_t block;
  memcpy(&block, at, sizeof block);
  uint32_t room = VLART_RECORDING_BLOCK - (uint32_t)sizeof block;
  block.recording = recording;
  memcpy(at, &block, sizeof block);
  block.crc32 =
      vlart_crc32(table, 0, at + sizeof block.crc32,
                  sizeof block - sizeof block.crc32 + (block.used < room ? block.used : room));
  memcpy(at, &block.crc32, sizeof block.crc32);
}

void fuzz_seal_log(uint8_t *data, size_t bytes, void (*seal_plan)(uint8_t *data, size_t bytes)) {
  static vlart_crc32_table_t table;
  vlart_log_record_t head;
  if (bytes < sizeof head || memcmp(data, VLART_RECORDING_MAGIC, 8) != 0) {
    return;
  }
  if (table.byte[0][1] == 0) {
    vlart_crc32_init(&table);
  }
  memcpy(&head, data, sizeof head);
  if (head.plan_bytes <= bytes - sizeof head) {
    seal_plan(data + sizeof head, (size_t)head.plan_bytes);
    head.plan_crc32 = vlart_crc32(&table, 0, data + sizeof head, (size_t)head.plan_bytes);
  }
  head.head_crc32 = vlart_crc32(&table, 0, &head, offsetof(vlart_log_record_t, head_crc32));
  memcpy(data, &head, sizeof head);
  for (uint64_t at = head.head_bytes; at <= bytes && bytes - at >= VLART_RECORDING_BLOCK;
       at += VLART_RECORDING_BLOCK) {
    seal_block(&table, data + at, head.recording);
  }
}
