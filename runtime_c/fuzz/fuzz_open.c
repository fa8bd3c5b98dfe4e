/* Feeds damaged files of every kind to the reader, and runs on the null engine whatever it accepts: a plan that
   passes the checks must not be able to do harm. The target of libFuzzer (make fuzz) and of fuzz_main.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32.h"
#include "container/golden_frames.h"
#include "fuzz_log.h"
#include "fuzz_open.h"
#include "fuzz_router.h"
#include "fuzz_text.h"
#include "null_backend.h"

enum { LARGEST_FILE = 1 << 20, LARGEST_SESSION = 1 << 22, LARGEST_LOOP = 4096 };

fuzz_counts_t fuzz_counts;

/* Another first byte in every source that may hold it. */
static void change_state(const vlart_plan_t *plan, vlart_session_t *session, uint8_t byte) {
  for (uint32_t i = 0; i < plan->source_count; i++) {
    const vlart_value_record_t *value = vlart_plan_value(plan, vlart_plan_source(plan, i)->value);
    uint8_t *bytes = calloc(value->bytes + 1, 1);
    bytes[0] = byte;
    vlart_session_write(session, i, bytes, value->bytes, value->dtype, value->rank, value->dims,
                        NULL);
    free(bytes);
  }
}

static void write_sources(const vlart_plan_t *plan, vlart_session_t *session, int byte) {
  for (uint32_t i = 0; i < plan->source_count; i++) {
    const vlart_value_record_t *value = vlart_plan_value(plan, vlart_plan_source(plan, i)->value);
    void *bytes = malloc(value->bytes + 1);
    memset(bytes, byte, value->bytes + 1);
    vlart_status_t status = vlart_session_write(session, i, bytes, value->bytes, value->dtype,
                                                value->rank, value->dims, NULL);
    if (status != VLART_STATUS_OK && status != VLART_STATUS_INPUT_OUT_OF_RANGE) {
      abort();
    }
    free(bytes);
  }
}

/* What a plan that guards its sources, or knows its instructions, may make of any content. */
static bool is_of_a_guard(const vlart_plan_t *plan, vlart_status_t status) {
  bool guards = vlart_plan_count(plan, VLART_SECTION_GUARDS) > 0;
  bool knows = vlart_plan_count(plan, VLART_SECTION_INSTRUCTIONS) > 0;
  return (guards && (status == VLART_STATUS_STALE_INPUT || status == VLART_STATUS_SOURCE_UNSET)) ||
         (knows && status == VLART_STATUS_TEXT_REFUSED);
}

static void use_session(vlart_bundle_t *bundle, vlart_session_t *session) {
  const vlart_plan_t *plan = &bundle->plan;
  for (int byte = 0; byte < 2; byte++) { /* a first frame, then another */
    write_sources(plan, session, byte);
    vlart_status_t status = vlart_session_observe(session, NULL);
    if (status != VLART_STATUS_OK && plan->policy->deadline_us == 0 &&
        !is_of_a_guard(plan, status)) {
      abort();
    }
  }
  uint32_t dim = plan->policy->action_value == VLART_NONE ? 0 : plan->policy->action_dim;
  float *action = malloc((dim + 1) * sizeof *action);
  for (int64_t tick = 0; tick < 4; tick++) {
    null_control.token = (tick + 1) * 37 % 7; /* some are in the tables, some are not */
    vlart_status_t status = vlart_session_step_deadline(session, 0, NULL);
    if (status != VLART_STATUS_OK && status != VLART_STATUS_ACTION_OUT_OF_RANGE &&
        status != VLART_STATUS_ACTION_NOT_FINITE && status != VLART_STATUS_ACTION_NOT_DECODED &&
        status != VLART_STATUS_CHUNK_TOO_LATE && !is_of_a_guard(plan, status)) {
      abort();
    }
    vlart_session_pop(session, action, dim, NULL);
    change_state(plan, session, (uint8_t)(tick % 3)); /* 2 is no bool */
  }
  for (uint32_t i = 0; i < plan->value_count; i++) {
    size_t size = vlart_plan_value(plan, i)->bytes;
    void *out = malloc(size + 1);
    vlart_session_read(session, i, out, size, NULL);
    free(out);
  }
  while (dim > 0 && vlart_session_pop(session, action, dim, NULL) == VLART_STATUS_OK) {
  }
  free(action);
  vlart_session_reset(session);
  write_sources(plan, session, 0);
  vlart_session_observe(session, NULL);
  fuzz_counts.stepped++;
}

static const uint8_t *stand_in;
static size_t stand_in_bytes;

void fuzz_stand_in(const uint8_t *table, size_t bytes) {
  stand_in = table;
  stand_in_bytes = bytes;
}

/* The table of every text; false: there is none that could stand for it. */
static bool give_tables(vlart_bundle_t *bundle) {
  uint32_t count = vlart_plan_count(&bundle->plan, VLART_SECTION_TEXTS);
  bool fits = count == 0 || stand_in != NULL;
  bundle->token_tables = calloc(count + 1, sizeof *bundle->token_tables);
  for (uint32_t i = 0; i < bundle->plan.file_count; i++) {
    if (vlart_plan_file(&bundle->plan, i)->kind == VLART_FILE_KIND_TOKENIZER) {
      bundle->files[i] = (vlart_map_t){.data = stand_in, .bytes = stand_in_bytes};
    }
  }
  return fits && vlart_bundle_read_tokenizers(bundle, NULL) == VLART_STATUS_OK;
}

static void say(const vlart_plan_t *plan, vlart_session_t *session, const char *text) {
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_TEXTS); i++) {
    vlart_diag_t diag = {.struct_size = sizeof diag};
    vlart_status_t status = vlart_session_write_text(session, vlart_plan_text(plan, i)->tokens,
                                                     text, strlen(text), &diag);
    if (status != VLART_STATUS_OK && status != VLART_STATUS_TEXT_REFUSED) {
      fprintf(stderr, "%s | %s | %s\n", diag.what, diag.where, diag.why);
      abort();
    }
  }
}

/* Stands in for the mapped files: every weights file gets exactly the bytes that the plan claims. */
static void run_plan(const vlart_plan_t *plan) {
  vlart_bundle_t bundle = {.plan = *plan, .dir = "."};
  bundle.files = calloc(plan->file_count + 1, sizeof *bundle.files);
  bool fits = true;
  for (uint32_t i = 0; i < plan->file_count; i++) {
    const vlart_file_record_t *file = vlart_plan_file(plan, i);
    if (file->kind == VLART_FILE_KIND_WEIGHTS) {
      fits = fits && file->bytes <= LARGEST_FILE;
      bundle.files[i].data = fits ? calloc(file->bytes + (file->bytes == 0), 1) : NULL;
    }
  }
  fits = fits && give_tables(&bundle);
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    fits = fits && vlart_plan_stage(plan, i)->iterations <= LARGEST_LOOP;
  }
  vlart_session_options_t options = null_options();
  size_t needed = 0;
  if (fits && vlart_session_required_bytes(&bundle, &options, NULL, &needed) == VLART_STATUS_OK &&
      needed <= LARGEST_SESSION) {
    void *arena = malloc(needed);
    vlart_session_t *session = NULL;
    vlart_diag_t diag = {.struct_size = sizeof diag};
    if (vlart_session_init(&bundle, &options, arena, needed, &diag, &session) != VLART_STATUS_OK) {
      fprintf(stderr, "%s | %s | %s\n", diag.what, diag.where, diag.why);
      abort();
    }
    use_session(&bundle, session);
    say(plan, session, "put it!");
    say(plan, session, "");
    say(plan, session, "wait");
    vlart_session_step_deadline(session, 0, NULL);
    vlart_session_close(session);
    free(arena);
  }
  for (uint32_t i = 0; i < plan->file_count; i++) {
    if (bundle.files[i].data != stand_in) {
      free((void *)(uintptr_t)bundle.files[i].data);
    }
  }
  free(bundle.token_tables);
  free(bundle.files);
}

/* Reads what a replay would read. */
static void use_frames(const vlart_frames_t *frames) {
  for (uint32_t i = 0; i < frames->frame_count; i++) {
    const vlart_frame_record_t *frame = vlart_frames_frame(frames, i);
    fuzz_counts.bytes_used += strlen(vlart_string(&frames->file, frame->label));
    for (uint32_t k = 0; k < frame->write_count + frame->expect_count && k < LARGEST_LOOP; k++) {
      uint32_t index = k < frame->write_count ? frame->write_begin + k
                                              : frame->expect_begin + k - frame->write_count;
      const vlart_tensor_record_t *tensor = vlart_frames_tensor(frames, index);
      fuzz_counts.bytes_used += strlen(vlart_string(&frames->file, tensor->name));
      for (uint64_t at = 0; at < tensor->bytes; at++) {
        fuzz_counts.bytes_used += frames->blob[tensor->offset + at];
      }
    }
  }
}

/* One file, in a block of exactly its size. */
void fuzz_read(const uint8_t *data, size_t bytes) {
  vlart_diag_t diag = {.struct_size = sizeof diag};
  vlart_plan_t plan;
  vlart_frames_t frames;
  fuzz_counts.executed++;
  if (vlart_frames_read(data, bytes, "frames", &diag, &frames) == VLART_STATUS_OK) {
    fuzz_counts.accepted++;
    use_frames(&frames);
  }
  fuzz_counts.accepted += fuzz_router(data, bytes, &fuzz_counts.stepped);
  fuzz_counts.accepted += fuzz_state(data, bytes, &fuzz_counts.stepped);
  fuzz_counts.accepted += fuzz_lock(data, bytes, &fuzz_counts.bytes_used);
  fuzz_counts.accepted += fuzz_table(data, bytes, &fuzz_counts.bytes_used);
  fuzz_counts.accepted += fuzz_log(data, bytes, &fuzz_counts.bytes_used);
  if (vlart_plan_read(data, bytes, &diag, &plan) != VLART_STATUS_OK) {
    return;
  }
  vlart_arena_t arena;
  vlart_plan_t measured = plan;
  vlart_arena_measure(&arena);
  vlart_plan_take(&measured, &arena);
  size_t needed = vlart_arena_required(&arena);
  void *memory = malloc(needed);
  vlart_arena_place(&arena, memory, needed);
  vlart_plan_take(&plan, &arena);
  if (!arena.full && vlart_plan_check(&plan, &diag) == VLART_STATUS_OK) {
    fuzz_counts.accepted++;
    run_plan(&plan);
  }
  free(memory);
}

static void seal_sections(uint8_t *data, size_t bytes) {
  static vlart_crc32_table_t table;
  if (table.byte[0][1] == 0) {
    vlart_crc32_init(&table);
  }
  vlart_header_record_t header;
  if (bytes >= sizeof header) {
    memcpy(&header, data, sizeof header);
    header.file_bytes = bytes;
    header.payload_crc32 = vlart_crc32(&table, 0, data + sizeof header, bytes - sizeof header);
    header.header_crc32 =
        vlart_crc32(&table, 0, &header, offsetof(vlart_header_record_t, header_crc32));
    memcpy(data, &header, sizeof header);
  }
}

/* Makes size and checksums right, so that only the structure can be what is refused. */
void fuzz_seal(uint8_t *data, size_t bytes) {
  if (bytes >= 8 && memcmp(data, VLART_RECORDING_MAGIC, 8) == 0) {
    fuzz_seal_log(data, bytes, seal_sections);
    return;
  }
  fuzz_seal_state(data, bytes);
  seal_sections(data, bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  uint8_t *copy = calloc(bytes, 1);
  if (bytes > 0) {
    memcpy(copy, data, bytes);
  }
  fuzz_read(copy, bytes);
  fuzz_seal(copy, bytes);
  fuzz_read(copy, bytes);
  free(copy);
  return 0;
}
