/* Texts of a session on the null engine: nothing is allocated by them, and what they refuse leaves
   the sources alone. Argument: the sample bundle "spoken". */
#include <stdio.h>
#include <string.h>

#include "bundle/bundle.h"
#include "check.h"
#include "null_backend.h"

static uint8_t bundle_arena[1 << 20];
static uint8_t session_arena[1 << 20];
static int allocations;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void __real_free(void *memory);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void __wrap_free(void *memory);

void *__wrap_malloc(size_t bytes) {
  allocations++;
  return __real_malloc(bytes);
}
void *__wrap_calloc(size_t count, size_t bytes) {
  allocations++;
  return __real_calloc(count, bytes);
}
void *__wrap_realloc(void *memory, size_t bytes) {
  allocations++;
  return __real_realloc(memory, bytes);
}
void __wrap_free(void *memory) {
  allocations++;
  __real_free(memory);
}

static vlart_status_t say(vlart_session_t *session, const char *text, vlart_diag_t *diag) {
  return vlart_session_write_text(session, 0, text, strlen(text), diag);
}

static uint64_t runs(vlart_session_t *session) {
  vlart_stage_stats_t stats = {.struct_size = sizeof stats};
  CHECK(vlart_session_stats(session, 0, &stats) == VLART_STATUS_OK);
  return stats.runs;
}

/* The tokenizer by itself. */
static void check_alone(const vlart_bundle_t *bundle, vlart_diag_t *diag) {
  static uint8_t arena[1 << 16];
  const vlart_map_t *file = &bundle->files[vlart_plan_text(&bundle->plan, 0)->tokenizer];
  vlart_tokenizer_t *tokenizer;
  int64_t ids[8];
  uint8_t mask[8];
  size_t count = 0;
  CHECK(vlart_tokenizer_open(file->data, file->bytes, 32, arena, sizeof arena, diag, &tokenizer) ==
        VLART_STATUS_OK);
  CHECK(vlart_tokenizer_encode(tokenizer, "put it", 6, ids, 8, &count, diag) == VLART_STATUS_OK);
  CHECK(count == 4 && ids[0] == 2 && ids[1] == 4 && ids[2] == 6 && ids[3] == 3);
  CHECK(vlart_tokenizer_encode(tokenizer, "put it", 6, ids, 3, &count, diag) ==
        VLART_STATUS_WRONG_SHAPE && count == 4);
  CHECK(vlart_tokenizer_fill(tokenizer, "put it", 6, ids, mask, 8, diag) == VLART_STATUS_OK);
  CHECK(ids[3] == 3 && ids[4] == 0 && mask[3] == 1 && mask[4] == 0);
  CHECK(vlart_tokenizer_fill(tokenizer, "\xFF", 1, ids, mask, 8, diag) == VLART_STATUS_TEXT_REFUSED);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  vlart_diag_t diag = {.struct_size = sizeof diag};
  vlart_bundle_t *bundle;
  vlart_session_t *session;
  CHECK(vlart_bundle_open(argv[1], NULL, bundle_arena, sizeof bundle_arena, &diag, &bundle) == VLART_STATUS_OK);
  vlart_session_options_t options = null_options();
  CHECK(vlart_session_init(bundle, &options, session_arena, sizeof session_arena, &diag, &session) ==
        VLART_STATUS_OK);
  allocations = 0;
  int64_t ids[6];
  uint8_t mask[6];
  const int64_t put_it[6] = {2, 4, 6, 3, 0, 0};
  const uint8_t four[6] = {1, 1, 1, 1, 0, 0};
  CHECK(say(session, "put it", &diag) == VLART_STATUS_OK);
  CHECK(vlart_session_read(session, 0, ids, sizeof ids, &diag) == VLART_STATUS_OK);
  CHECK(vlart_session_read(session, 1, mask, sizeof mask, &diag) == VLART_STATUS_OK);
  CHECK(memcmp(ids, put_it, sizeof ids) == 0 && memcmp(mask, four, sizeof mask) == 0);
  CHECK(vlart_session_step(session, &diag) == VLART_STATUS_OK && runs(session) == 1);
  CHECK(say(session, "Put  IT", &diag) == VLART_STATUS_OK); /* the same ids */
  CHECK(vlart_session_step(session, &diag) == VLART_STATUS_OK && runs(session) == 1);

  CHECK(say(session, "put \xFF", &diag) == VLART_STATUS_TEXT_REFUSED);
  CHECK(strstr(diag.where, "\"tokens\"") != NULL && strstr(diag.why, "byte 4 of 5") != NULL);
  CHECK(say(session, "put it, then put it on top of it again", &diag) == VLART_STATUS_TEXT_REFUSED);
  CHECK(strstr(diag.why, "at most 32") != NULL);
  CHECK(vlart_session_write_text(session, 1, "put", 3, &diag) == VLART_STATUS_NOT_FOUND);
  CHECK(vlart_session_write_text(session, 9, "put", 3, &diag) == VLART_STATUS_BAD_ARGUMENT);
  CHECK(vlart_session_write_text(session, 0, NULL, 3, &diag) == VLART_STATUS_BAD_ARGUMENT);
  CHECK(vlart_session_write_text(NULL, 0, "put", 3, &diag) == VLART_STATUS_BAD_ARGUMENT);
  CHECK(vlart_session_read(session, 0, ids, sizeof ids, &diag) == VLART_STATUS_OK);
  CHECK(memcmp(ids, put_it, sizeof ids) == 0);

  CHECK(say(session, "it it it it it it", &diag) == VLART_STATUS_OK); /* cut on the right */
  CHECK(vlart_session_read(session, 0, ids, sizeof ids, &diag) == VLART_STATUS_OK);
  CHECK(ids[4] == 6 && ids[5] == 3);
  CHECK(vlart_session_step(session, &diag) == VLART_STATUS_OK && runs(session) == 2);

  const int64_t wait[6] = {2, 11, 11, 3, 0, 0}; /* an instruction that is known: nothing runs */
  CHECK(say(session, "wait", &diag) == VLART_STATUS_OK);
  CHECK(vlart_session_read(session, 0, ids, sizeof ids, &diag) == VLART_STATUS_OK);
  CHECK(memcmp(ids, wait, sizeof ids) == 0);
  CHECK(vlart_session_step(session, &diag) == VLART_STATUS_OK && runs(session) == 2);
  CHECK(vlart_session_read(session, 2, ids, sizeof ids, &diag) == VLART_STATUS_OK);
  CHECK(ids[0] == 7 && ids[5] == 7);
  CHECK(vlart_session_invalidate(session) == VLART_STATUS_OK); /* for measurements: all stages run */
  CHECK(vlart_session_step(session, &diag) == VLART_STATUS_OK && runs(session) == 3);
  check_alone(bundle, &diag);
  CHECK(allocations == 0);
  vlart_session_close(session);
  vlart_bundle_close(bundle);
  puts("texts: ok");
  return 0;
}
