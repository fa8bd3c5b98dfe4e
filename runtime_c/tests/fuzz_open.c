/* Feeds damaged plans and frames files to the reader, and runs on the null engine whatever it
   accepts: a plan that passes the checks must not be able to do harm.

   As a libFuzzer target: clang -fsanitize=fuzzer,address,undefined -DVLART_LIBFUZZER ...
   Standalone: fuzz_open [--sweep] [-n COUNT] [-s SEED] FILE...
     --sweep   every truncation, every bit, every aligned 32- and 64-bit word set to 0, 1, +1, -1,
               the largest and the largest signed number, each as it is and with right checksums
     -n COUNT  random mutants of the files, with right checksums */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crc32.h"
#include "frames.h"
#include "null_backend.h"

enum { LARGEST_FILE = 1 << 20, LARGEST_SESSION = 1 << 22, LARGEST_LOOP = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static uint64_t executed;
static uint64_t accepted;
static uint64_t stepped;
static uint64_t bytes_used; /* keeps the reads alive */

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
    if (vlart_session_write(session, i, bytes, value->bytes, value->dtype, value->rank,
                            value->dims, NULL) != VLART_STATUS_OK) {
      abort();
    }
    free(bytes);
  }
}

static void use_session(vlart_bundle_t *bundle, vlart_session_t *session) {
  const vlart_plan_t *plan = &bundle->plan;
  for (int byte = 0; byte < 2; byte++) { /* a first frame, then another */
    write_sources(plan, session, byte);
    if (vlart_session_observe(session, NULL) != VLART_STATUS_OK &&
        plan->policy->deadline_us == 0) {
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
        status != VLART_STATUS_CHUNK_TOO_LATE) {
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
  stepped++;
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
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    fits = fits && vlart_plan_stage(plan, i)->iterations <= LARGEST_LOOP;
  }
  vlart_session_options_t options = null_options();
  size_t needed = 0;
  if (fits &&
      vlart_session_required_bytes(&bundle, &options, NULL, &needed) == VLART_STATUS_OK &&
      needed <= LARGEST_SESSION) {
    void *arena = malloc(needed);
    vlart_session_t *session = NULL;
    if (vlart_session_init(&bundle, &options, arena, needed, NULL, &session) != VLART_STATUS_OK) {
      abort();
    }
    use_session(&bundle, session);
    vlart_session_close(session);
    free(arena);
  }
  for (uint32_t i = 0; i < plan->file_count; i++) {
    free((void *)(uintptr_t)bundle.files[i].data);
  }
  free(bundle.files);
}

/* Reads what a replay would read. */
static void use_frames(const vlart_frames_t *frames) {
  for (uint32_t i = 0; i < frames->frame_count; i++) {
    const vlart_frame_record_t *frame = vlart_frames_frame(frames, i);
    bytes_used += strlen(vlart_string(&frames->file, frame->label));
    for (uint32_t k = 0; k < frame->write_count + frame->expect_count && k < LARGEST_LOOP; k++) {
      uint32_t index = k < frame->write_count ? frame->write_begin + k
                                              : frame->expect_begin + k - frame->write_count;
      const vlart_tensor_record_t *tensor = vlart_frames_tensor(frames, index);
      bytes_used += strlen(vlart_string(&frames->file, tensor->name));
      for (uint64_t at = 0; at < tensor->bytes; at++) {
        bytes_used += frames->blob[tensor->offset + at];
      }
    }
  }
}

/* One file, in a block of exactly its size. */
static void read_file(const uint8_t *data, size_t bytes) {
  vlart_diag_t diag = {.struct_size = sizeof diag};
  vlart_plan_t plan;
  vlart_frames_t frames;
  executed++;
  if (vlart_frames_read(data, bytes, "frames", &diag, &frames) == VLART_STATUS_OK) {
    accepted++;
    use_frames(&frames);
  }
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
    accepted++;
    run_plan(&plan);
  }
  free(memory);
}

/* Makes size and checksums right, so that only the structure can be what is refused. */
static void seal(uint8_t *data, size_t bytes) {
  static vlart_crc32_table_t table;
  if (table.byte[0][1] == 0) {
    vlart_crc32_init(&table);
  }
  vlart_header_record_t header;
  if (bytes >= sizeof header) {
    memcpy(&header, data, sizeof header);
    header.file_bytes = bytes;
    header.payload_crc32 = vlart_crc32(&table, 0, data + sizeof header, bytes - sizeof header);
    header.header_crc32 = vlart_crc32(&table, 0, &header, offsetof(vlart_header_record_t,
                                                                  header_crc32));
    memcpy(data, &header, sizeof header);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  uint8_t *copy = calloc(bytes, 1);
  if (bytes > 0) {
    memcpy(copy, data, bytes);
  }
  read_file(copy, bytes);
  seal(copy, bytes);
  read_file(copy, bytes);
  free(copy);
  return 0;
}

#ifndef VLART_LIBFUZZER
static void sweep_words(uint8_t *data, size_t bytes) {
  for (size_t at = 0; at + 4 <= bytes; at += 4) {
    for (size_t width = 4; width <= 8 && at % width == 0 && at + width <= bytes; width += 4) {
      uint64_t old = 0;
      memcpy(&old, data + at, width);
      uint64_t largest = width == 4 ? UINT32_MAX : UINT64_MAX;
      const uint64_t words[] = {0, 1, old + 1, old - 1, largest, largest >> 1};
      for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        memcpy(data + at, &words[i], width);
        LLVMFuzzerTestOneInput(data, bytes);
      }
      memcpy(data + at, &old, width);
    }
  }
}

static void sweep(uint8_t *data, size_t bytes) {
  for (size_t length = 0; length < bytes; length++) {
    LLVMFuzzerTestOneInput(data, length);
  }
  for (size_t bit = 0; bit < bytes * 8; bit++) {
    data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    LLVMFuzzerTestOneInput(data, bytes);
    data[bit / 8] ^= (uint8_t)(1u << bit % 8);
  }
  sweep_words(data, bytes);
}

static uint64_t next_random(uint64_t *state) { /* xorshift64* */
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 2685821657736338717ull;
}

/* One to four changes: a small number into a word, a word from elsewhere, a byte, a cut. */
static void mutate(const uint8_t *data, size_t bytes, uint64_t *state) {
  uint8_t *copy = malloc(bytes);
  memcpy(copy, data, bytes);
  size_t length = bytes;
  for (uint64_t changes = 1 + next_random(state) % 4; changes > 0; changes--) {
    size_t at = next_random(state) % (bytes / 4) * 4;
    size_t from = next_random(state) % (bytes / 4) * 4;
    uint32_t word = (uint32_t)(next_random(state) % 20);
    switch (next_random(state) % 8) {
      case 0: copy[next_random(state) % bytes] = (uint8_t)next_random(state); break;
      case 1: memcpy(copy + at, data + from, 4); break;
      case 2: length = next_random(state) % 50 == 0 ? at : length; break;
      default: memcpy(copy + at, &word, 4); break;
    }
  }
  seal(copy, length);
  read_file(copy, length);
  free(copy);
}

static uint8_t *load(const char *path, size_t *out_bytes) {
  FILE *file = fopen(path, "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
    perror(path);
    exit(1);
  }
  *out_bytes = (size_t)ftell(file);
  rewind(file);
  uint8_t *data = malloc(*out_bytes);
  if (fread(data, 1, *out_bytes, file) != *out_bytes) {
    perror(path);
    exit(1);
  }
  fclose(file);
  return data;
}

int main(int argc, char **argv) {
  bool sweeping = false;
  uint64_t count = 0;
  uint64_t state = 1;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--sweep") == 0) {
      sweeping = true;
    } else if (strcmp(argv[i], "-n") == 0 && i + 1 < argc) {
      count = strtoull(argv[++i], NULL, 10);
    } else if (strcmp(argv[i], "-s") == 0 && i + 1 < argc) {
      state = strtoull(argv[++i], NULL, 10) | 1;
    } else {
      size_t bytes = 0;
      uint8_t *data = load(argv[i], &bytes);
      read_file(data, bytes);
      if (accepted == 0) {
        fprintf(stderr, "%s: the undamaged file is refused\n", argv[i]);
        return 1;
      }
      if (sweeping) {
        sweep(data, bytes);
      }
      for (uint64_t n = 0; n < count; n++) {
        mutate(data, bytes, &state);
      }
      free(data);
    }
  }
  printf("%llu files read, %llu accepted, %llu sessions stepped\n", (unsigned long long)executed,
         (unsigned long long)accepted, (unsigned long long)stepped);
  return bytes_used == 0 && null_control.bytes_read == 0;
}
#endif
