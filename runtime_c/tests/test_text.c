/* Texts of a session on the null engine: nothing is allocated by them, and what they refuse leaves
   the sources alone. Argument: the sample bundle "spoken". */
#include <stdio.h>
#include <string.h>

#include "bundle/bundle.h"
#include "null_backend.h"
#include "robot.h"

static vlart_status_t say(vlart_session_t *session, const char *text) {
  return vlart_session_write_text(session, 0, text, strlen(text), &diag);
}

/* The tokenizer by itself. */
static void check_alone(const vlart_bundle_t *bundle) {
  static uint8_t arena[1 << 16];
  const vlart_map_t *file = &bundle->files[vlart_plan_text(&bundle->plan, 0)->tokenizer];
  vlart_tokenizer_t *tokenizer;
  int64_t ids[8];
  uint8_t mask[8];
  size_t count = 0;
  CHECK(vlart_tokenizer_open(file->data, file->bytes, 32, arena, sizeof arena, &diag, &tokenizer) ==
        VLART_STATUS_OK);
  CHECK_STATUS(vlart_tokenizer_encode(tokenizer, "put it", 6, ids, 8, &count, &diag), OK);
  CHECK(count == 4 && ids[0] == 2 && ids[1] == 4 && ids[2] == 6 && ids[3] == 3);
  CHECK(vlart_tokenizer_encode(tokenizer, "put it", 6, ids, 3, &count, &diag) ==
            VLART_STATUS_WRONG_SHAPE &&
        count == 4);
  CHECK_STATUS(vlart_tokenizer_fill(tokenizer, "put it", 6, ids, mask, 8, &diag), OK);
  CHECK(ids[3] == 3 && ids[4] == 0 && mask[3] == 1 && mask[4] == 0);
  CHECK_STATUS(vlart_tokenizer_fill(tokenizer, "\xFF", 1, ids, mask, 8, &diag), TEXT_REFUSED);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  robot_t robot = open_robot(argv[1], NULL);
  vlart_session_t *session = robot.session;
  int64_t ids[6];
  uint8_t mask[6];
  const int64_t put_it[6] = {2, 4, 6, 3, 0, 0};
  const uint8_t four[6] = {1, 1, 1, 1, 0, 0};
  CHECK_STATUS(say(session, "put it"), OK);
  CHECK_STATUS(vlart_session_read(session, 0, ids, sizeof ids, &diag), OK);
  CHECK_STATUS(vlart_session_read(session, 1, mask, sizeof mask, &diag), OK);
  CHECK(memcmp(ids, put_it, sizeof ids) == 0 && memcmp(mask, four, sizeof mask) == 0);
  CHECK(vlart_session_step(session, &diag) == VLART_STATUS_OK && runs_of(session, 0) == 1);
  CHECK_STATUS(say(session, "Put  IT"), OK); /* the same ids */
  CHECK(vlart_session_step(session, &diag) == VLART_STATUS_OK && runs_of(session, 0) == 1);

  CHECK_STATUS(say(session, "put \xFF"), TEXT_REFUSED);
  CHECK(strstr(diag.where, "\"tokens\"") != NULL && strstr(diag.why, "byte 4 of 5") != NULL);
  CHECK_STATUS(say(session, "put it, then put it on top of it again"), TEXT_REFUSED);
  CHECK(strstr(diag.why, "at most 32") != NULL);
  CHECK_STATUS(vlart_session_write_text(session, 1, "put", 3, &diag), NOT_FOUND);
  CHECK_STATUS(vlart_session_write_text(session, 9, "put", 3, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_write_text(session, 0, NULL, 3, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_write_text(NULL, 0, "put", 3, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_session_read(session, 0, ids, sizeof ids, &diag), OK);
  CHECK(memcmp(ids, put_it, sizeof ids) == 0);

  CHECK_STATUS(say(session, "it it it it it it"), OK); /* cut on the right */
  CHECK_STATUS(vlart_session_read(session, 0, ids, sizeof ids, &diag), OK);
  CHECK(ids[4] == 6 && ids[5] == 3);
  CHECK(vlart_session_step(session, &diag) == VLART_STATUS_OK && runs_of(session, 0) == 2);

  const int64_t wait[6] = {2, 11, 11, 3, 0, 0}; /* an instruction that is known: nothing runs */
  CHECK_STATUS(say(session, "wait"), OK);
  CHECK_STATUS(vlart_session_read(session, 0, ids, sizeof ids, &diag), OK);
  CHECK(memcmp(ids, wait, sizeof ids) == 0);
  CHECK(vlart_session_step(session, &diag) == VLART_STATUS_OK && runs_of(session, 0) == 2);
  CHECK_STATUS(vlart_session_read(session, 2, ids, sizeof ids, &diag), OK);
  CHECK(ids[0] == 7 && ids[5] == 7);
  CHECK_STATUS(vlart_session_invalidate(session), OK); /* for measurements: all stages run */
  CHECK(vlart_session_step(session, &diag) == VLART_STATUS_OK && runs_of(session, 0) == 3);
  check_alone(robot.bundle);
  close_robot(&robot);
  CHECK(allocations == 0);
  puts("test_text: passed");
  return 0;
}
