/* [open] Reads a recording. Blocks whose checksum is wrong are as if they were not there: a cut of power leaves such. A
   block whose checksum is right was written by a recorder, so that what contradicts the plan in it is refused. */
#include <string.h>

#include "base/crc32.h"
#include "base/diag.h"
#include "base/struct_size.h"
#include "bundle/log.h"
#include "record/track.h"

static vlart_status_t corrupt(const vlart_log_t *log, vlart_diag_t *diag, const char *why) {
  vlart_fail(diag, VLART_STATUS_CORRUPT, "the recording is damaged",
             "copy it from the robot again");
  vlart_where(diag, "%s", log->name);
  vlart_why(diag, "%s", why);
  return VLART_STATUS_CORRUPT;
}

static vlart_status_t read_head(vlart_log_t *log, const uint8_t *data, size_t bytes,
                                vlart_diag_t *diag) {
  vlart_log_record_t *head = &log->head;
  if (bytes < sizeof *head || memcmp(data, VLART_RECORDING_MAGIC, 8) != 0) {
    vlart_fail(diag, VLART_STATUS_NOT_A_BUNDLE, "the file is not a recording",
               "give a file that a recorder of libvlart wrote");
    vlart_where(diag, "%s", log->name);
    vlart_why(diag, "it has %zu bytes and does not begin as one", bytes);
    return VLART_STATUS_NOT_A_BUNDLE;
  }
  memcpy(head, data, sizeof *head);
  vlart_crc32_table_t table;
  vlart_crc32_init(&table);
  if (vlart_crc32(&table, 0, head, offsetof(vlart_log_record_t, head_crc32)) != head->head_crc32) {
    return corrupt(log, diag, "the checksum of its head is wrong");
  }
  if (head->version_major != VLART_RECORDING_MAJOR) {
    vlart_fail(diag, VLART_STATUS_VERSION, "the recording has another format", NULL);
    vlart_where(diag, "%s", log->name);
    vlart_why(diag, "it has version %u, this library reads %u", head->version_major,
              VLART_RECORDING_MAJOR);
    return VLART_STATUS_VERSION;
  }
  bool sizes = head->block_bytes == VLART_RECORDING_BLOCK && head->plan_bytes > 0 &&
               head->plan_bytes <= VLART_MAX_PLAN_BYTES && head->block_count > 0 &&
               head->block_count <= VLART_MAX_RECORDING / VLART_RECORDING_BLOCK &&
               head->head_bytes % VLART_RECORDING_BLOCK == 0 &&
               head->head_bytes >= sizeof *head + head->plan_bytes &&
               head->head_bytes < VLART_MAX_PLAN_BYTES + 2 * VLART_RECORDING_BLOCK;
  if (!sizes) {
    return corrupt(log, diag, "a size in its head is not possible");
  }
  if (bytes < sizeof *head + head->plan_bytes) {
    return corrupt(log, diag, "it ends before the plan of its bundle does");
  }
  const uint8_t *plan = data + sizeof *head;
  if (vlart_crc32(&table, 0, plan, (size_t)head->plan_bytes) != head->plan_crc32) {
    return corrupt(log, diag, "the checksum of its bundle's plan is wrong");
  }
  uint64_t behind = bytes > head->head_bytes ? bytes - head->head_bytes : 0;
  uint64_t there = behind / VLART_RECORDING_BLOCK;
  log->count = there < head->block_count ? there : head->block_count;
  log->data = data;
  vlart_status_t status = vlart_plan_read(plan, (size_t)head->plan_bytes, diag, &log->plan);
  if (status ==
      VLART_STATUS_OK) { /* not more than the file has: an event that claims more is not whole */
    size_t most = vlart_log_largest(&log->plan);
    uint64_t room = log->count * VLART_RECORDING_BLOCK;
    log->largest = most < room ? most : (size_t)room;
  }
  return status;
}

static vlart_log_t *take_log(vlart_log_t *draft, vlart_arena_t *arena) {
  vlart_log_t *log = vlart_arena_take(arena, 1, sizeof *log);
  vlart_plan_take(&draft->plan, arena);
  draft->good = vlart_arena_take(arena, (size_t)draft->count, 1);
  draft->event =
      vlart_arena_take(arena, sizeof(vlart_event_record_t) + draft->largest + VLART_EVENT_ALIGN, 1);
  return log;
}

static const uint8_t *block_at(const vlart_log_t *log, uint64_t sequence) {
  return log->data + log->head.head_bytes +
         sequence % log->head.block_count * VLART_RECORDING_BLOCK;
}

static vlart_block_record_t block_record(const vlart_log_t *log, uint64_t sequence) {
  vlart_block_record_t block;
  memcpy(&block, block_at(log, sequence), sizeof block);
  return block;
}

static bool is_good(const vlart_log_t *log, uint64_t place, const vlart_crc32_table_t *table) {
  const uint8_t *at = block_at(log, place);
  vlart_block_record_t block;
  memcpy(&block, at, sizeof block);
  uint32_t room = VLART_RECORDING_BLOCK - (uint32_t)sizeof block;
  return block.recording == log->head.recording && block.used > 0 && block.used <= room &&
         block.sequence < UINT64_MAX / 2 && block.sequence % log->head.block_count == place &&
         (block.first == VLART_NONE ||
          (block.first < block.used && block.first % VLART_EVENT_ALIGN == 0)) &&
         block.used % VLART_EVENT_ALIGN == 0 &&
         block.crc32 == vlart_crc32(table, 0, at + sizeof block.crc32,
                                    sizeof block - sizeof block.crc32 + block.used);
}

static void find_blocks(vlart_log_t *log) {
  vlart_crc32_table_t table;
  vlart_crc32_init(&table);
  bool any = false;
  for (uint64_t i = 0; i < log->count; i++) {
    log->good[i] = is_good(log, i, &table);
    uint64_t sequence = log->good[i] ? block_record(log, i).sequence : 0;
    if (log->good[i] && (!any || sequence > log->info.last_block)) {
      log->info.last_block = sequence;
      any = true;
    }
  }
  if (!any) {
    log->info.first_block = 1; /* behind the last one */
    return;
  }
  uint64_t lap = log->head.block_count;
  log->info.first_block = log->info.last_block >= lap ? log->info.last_block - lap + 1 : 0;
  for (uint64_t i = 0; i < log->count; i++) { /* of an earlier lap: what stood beside is gone */
    log->good[i] = log->good[i] && block_record(log, i).sequence >= log->info.first_block;
    log->info.blocks += log->good[i];
  }
  log->info.missing_blocks = log->info.last_block - log->info.first_block + 1 - log->info.blocks;
}

static bool is_there(const vlart_log_t *log, uint64_t sequence) {
  uint64_t place = sequence % log->head.block_count;
  return sequence <= log->info.last_block && place < log->count && log->good[place] != 0;
}

/* The next place at which an event begins, in this block or behind it. False: there is none. */
static bool resume(const vlart_log_t *log, vlart_log_place_t *place) {
  for (uint64_t i = place->block; i <= log->info.last_block; i++) {
    uint32_t first = is_there(log, i) ? block_record(log, i).first : VLART_NONE;
    if (first != VLART_NONE) {
      *place = (vlart_log_place_t){i, first};
      return true;
    }
  }
  return false;
}

/* Copies bytes of the stream; false where a block of them is missing. */
static bool copy_out(const vlart_log_t *log, vlart_log_place_t *place, uint8_t *out, size_t bytes) {
  while (bytes > 0) {
    if (!is_there(log, place->block)) {
      return false;
    }
    vlart_block_record_t block = block_record(log, place->block);
    if (place->at >= block.used) {
      *place = (vlart_log_place_t){place->block + 1, 0};
      continue;
    }
    size_t left = block.used - place->at;
    size_t piece = bytes < left ? bytes : left;
    memcpy(out, block_at(log, place->block) + sizeof block + place->at, piece);
    out += piece;
    bytes -= piece;
    place->at += (uint32_t)piece;
  }
  return true;
}

static bool is_behind(const vlart_log_t *log, const vlart_log_place_t *place) {
  vlart_log_place_t at = *place;
  if (is_there(log, at.block) && at.at >= block_record(log, at.block).used) {
    at.block++;
  }
  return at.block > log->info.last_block;
}

/* What one event is read into. */
typedef enum { EVENT_WHOLE, EVENT_NONE, EVENT_BAD } event_end_t;

/* The next whole event, in log->event; passes over what is torn. */
static event_end_t next_event(vlart_log_t *log, uint64_t *torn) {
  vlart_event_record_t *event = (void *)log->event;
  while (!is_behind(log, &log->next)) {
    vlart_log_place_t place = log->next;
    bool whole = copy_out(log, &place, log->event, sizeof *event);
    if (whole && event->bytes > log->largest) {
      bool fits = event->bytes <= vlart_log_largest(&log->plan);
      if (!fits) {
        return EVENT_BAD;
      }
      whole = false;
    }
    if (whole) {
      size_t rest = vlart_event_bytes(event->bytes) - sizeof *event;
      whole = copy_out(log, &place, log->event + sizeof *event, rest);
    }
    if (whole) {
      log->next = place;
      return EVENT_WHOLE;
    }
    (*torn)++;
    /* `place` is in front of the missing block: what comes behind it begins anew. */
    vlart_log_place_t from = {is_there(log, place.block) ? log->next.block + 1 : place.block + 1,
                              0};
    if (!resume(log, &from)) {
      break;
    }
    log->next = from;
  }
  return EVENT_NONE;
}

static void rewind_log(vlart_log_t *log) {
  log->next = (vlart_log_place_t){log->info.first_block, 0};
  if (!resume(log, &log->next)) {
    log->next = (vlart_log_place_t){log->info.last_block + 1, 0};
  }
}

/* The newest reading of the wall clock is what dates count from. */
static void take_clock(vlart_log_t *log) {
  const vlart_event_record_t *event = (const void *)log->event;
  if (event->kind == VLART_EVENT_KIND_CLOCK) {
    const vlart_clock_event_record_t *clock = (const void *)(event + 1);
    log->info.last_wall_ns = clock->wall_ns;
    log->info.last_clock_ns = event->time_ns;
    log->info.clock_changes = clock->changes;
  }
}

static vlart_status_t check_events(vlart_log_t *log, vlart_diag_t *diag) {
  const vlart_event_record_t *event = (const void *)log->event;
  uint64_t torn = 0;
  log->info.last_wall_ns = log->head.wall_ns;
  log->info.last_clock_ns = log->head.clock_ns;
  rewind_log(log);
  event_end_t end = next_event(log, &torn);
  while (end == EVENT_WHOLE) {
    const char *fault = vlart_log_event_fault(&log->plan, event, log->event + sizeof *event);
    if (fault != NULL) {
      return corrupt(log, diag, fault);
    }
    take_clock(log);
    log->info.events++;
    end = next_event(log, &torn);
  }
  if (end == EVENT_BAD) {
    return corrupt(log, diag, "an event is larger than this plan makes any");
  }
  log->info.torn_events = torn;
  rewind_log(log);
  return VLART_STATUS_OK;
}

static vlart_status_t bad(const char *call, vlart_diag_t *diag) {
  return vlart_bad_argument(diag, call, "a pointer is NULL, or the content is not 8-byte aligned");
}

vlart_status_t vlart_log_required_bytes(const void *data, size_t bytes, const char *name,
                                        vlart_diag_t *diag, size_t *out_bytes) {
  if (data == NULL || (uintptr_t)data % 8 != 0 || name == NULL || out_bytes == NULL) {
    return bad("vlart_log_required_bytes", diag);
  }
  vlart_log_t draft = {.name = name};
  vlart_status_t status = read_head(&draft, data, bytes, diag);
  if (status == VLART_STATUS_OK) {
    vlart_arena_t arena;
    vlart_arena_measure(&arena);
    take_log(&draft, &arena);
    *out_bytes = vlart_arena_required(&arena);
  }
  return status;
}

vlart_status_t vlart_log_open(const void *data, size_t bytes, const char *name, void *arena_base,
                              size_t arena_bytes, vlart_diag_t *diag, vlart_log_t **out_log) {
  const char *call = "vlart_log_open";
  if (data == NULL || (uintptr_t)data % 8 != 0 || name == NULL || out_log == NULL) {
    return bad(call, diag);
  }
  *out_log = NULL;
  vlart_log_t draft = {.name = name};
  vlart_status_t status = read_head(&draft, data, bytes, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  vlart_arena_t arena;
  vlart_arena_place(&arena, arena_base, arena_bytes);
  vlart_log_t *log = take_log(&draft, &arena);
  if (arena.full) {
    vlart_arena_measure(&arena);
    take_log(&draft, &arena);
    return vlart_arena_too_small(diag, call, vlart_arena_required(&arena), arena_bytes);
  }
  *log = draft;
  status = vlart_plan_check(&log->plan, diag);
  if (status == VLART_STATUS_OK) {
    find_blocks(log);
    status = check_events(log, diag);
  }
  if (status != VLART_STATUS_OK) {
    return status;
  }
  log->info.plan = log->data + sizeof log->head;
  log->info.plan_bytes = log->head.plan_bytes;
  log->info.recording = log->head.recording;
  log->info.wall_ns = log->head.wall_ns;
  log->info.clock_ns = log->head.clock_ns;
  log->info.block_count = log->head.block_count;
  log->info.full = log->head.full;
  log->info.version_minor = log->head.version_minor;
  *out_log = log;
  return VLART_STATUS_OK;
}

vlart_status_t vlart_log_info(const vlart_log_t *log, vlart_log_info_t *out_info) {
  return log == NULL ? VLART_STATUS_BAD_ARGUMENT
                     : vlart_copy_out(out_info, &log->info, sizeof log->info);
}

vlart_status_t vlart_log_next(vlart_log_t *log, vlart_log_event_t *out_event) {
  if (log == NULL || out_event == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  uint64_t torn = 0;
  if (next_event(log, &torn) != EVENT_WHOLE) {
    rewind_log(log);
    return VLART_STATUS_NOT_FOUND;
  }
  const vlart_event_record_t *event = (const void *)log->event;
  vlart_log_event_t found = {.kind = event->kind,
                             .role = event->role,
                             .track = event->track,
                             .lane = event->lane,
                             .sequence = event->sequence,
                             .time_ns = event->time_ns,
                             .record = log->event + sizeof *event,
                             .bytes = event->bytes};
  return vlart_copy_out(out_event, &found, sizeof found);
}
