/* Texts of a session: their tokenizers, and writing one. */

#include "session/task_text.h"

#include "base/diag.h"
#include "plan/plan_instructions.h"
#include "session/known_instructions.h"
#include "session/session.h"

void vlart_texts_take(vlart_session_t *draft, vlart_arena_t *arena) {
  const vlart_plan_t *plan = &draft->bundle->plan;
  uint32_t count = vlart_plan_count(plan, VLART_SECTION_TEXTS);
  draft->texts = vlart_arena_take(arena, count, sizeof *draft->texts);
  for (uint32_t i = 0; i < count && !arena->full; i++) {
    const vlart_text_record_t *text = vlart_plan_text(plan, i);
    const vlart_value_record_t *tokens = vlart_plan_source_value(plan, text->tokens);
    vlart_session_text_t taken = {0};
    vlart_tokenizer_take(arena, &draft->bundle->token_tables[i], text->max_bytes, &taken.tokenizer);
    taken.ids = vlart_arena_take(arena, tokens->bytes, 1);
    taken.mask = vlart_arena_take(arena, tokens->dims[1], 1);
    if (draft->texts != NULL) {
      draft->texts[i] = taken;
    }
  }
}

static vlart_status_t write_row(vlart_session_t *session, uint32_t source, const void *data,
                                vlart_diag_t *diag) {
  const vlart_value_record_t *value = vlart_plan_source_value(&session->bundle->plan, source);
  return vlart_session_write(session, source, data, value->bytes, value->dtype, value->rank,
                             value->dims, diag);
}

static vlart_status_t write_text(vlart_session_t *session, uint32_t source, const char *text,
                                 size_t bytes, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  uint32_t known = vlart_instruction_find(plan, source, text, bytes);
  if (known != VLART_NONE) {
    return vlart_instruction_apply(session, known, diag);
  }
  uint32_t count = vlart_plan_count(plan, VLART_SECTION_TEXTS);
  uint32_t i = 0;
  while (i < count && vlart_plan_text(plan, i)->tokens != source) {
    i++;
  }
  const char *name = vlart_plan_value_name(plan, vlart_plan_source(plan, source)->value);
  if (i == count) {
    char names[400];
    vlart_instruction_names(plan, source, names, sizeof names);
    vlart_fail(diag, VLART_STATUS_NOT_FOUND,
               "the source has no tokenizer, and the text is not known",
               "write token ids, or build the bundle with the policy's tokenizer");
    vlart_where(diag, "source %u \"%s\"", source, name);
    vlart_why(diag, "known: %s", names[0] == '\0' ? "none" : names);
    return VLART_STATUS_NOT_FOUND;
  }
  const vlart_text_record_t *record = vlart_plan_text(plan, i);
  const vlart_session_text_t *room = &session->texts[i];
  const vlart_value_record_t *tokens = vlart_plan_source_value(plan, source);
  vlart_status_t status = vlart_tokenizer_run(room->tokenizer, text, bytes, diag);
  if (status == VLART_STATUS_OK) {
    status = vlart_tokenizer_lay_out(room->tokenizer, room->ids, tokens->dtype, room->mask,
                                     (size_t)tokens->dims[1], diag);
  }
  if (status != VLART_STATUS_OK) {
    vlart_where(diag, "source %u \"%s\"", source, name);
    return status;
  }
  status = write_row(session, source, room->ids, diag);
  return status == VLART_STATUS_OK && record->mask != VLART_NONE
             ? write_row(session, record->mask, room->mask, diag)
             : status;
}

vlart_status_t vlart_session_write_text(vlart_session_t *session, uint32_t source, const char *text,
                                        size_t bytes, vlart_diag_t *diag) {
  const char *call = "vlart_session_write_text";
  if (session == NULL || (text == NULL && bytes > 0)) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  if (source >= session->bundle->plan.source_count) {
    return vlart_bad_argument(diag, call, "there is no source of this index");
  }
  vlart_recorded_text(session, source, text, bytes);
  vlart_status_t status = write_text(session, source, text, bytes, diag);
  if (status == VLART_STATUS_OK) {
    vlart_recorded_keep_text(session, source, text, bytes);
  } else {
    vlart_recorded_refusal(session->recorded.track, source, status);
  }
  return status;
}
