/* Texts of a session: the plan's records of them, their tokenizers, and writing one. */
#include "text.h"

#include "diag.h"
#include "instruction.h"

static bool is_row(const vlart_value_record_t *value, uint64_t length) {
  return value->rank == 2 && value->dims[0] == 1 && value->dims[1] == length;
}

static const vlart_value_record_t *source_value(const vlart_plan_t *plan, uint32_t source) {
  return vlart_plan_value(plan, vlart_plan_source(plan, source)->value);
}

static const char *text_fault(const vlart_plan_t *plan, const vlart_text_record_t *text,
                              uint64_t *taken) {
  bool masked = text->mask != VLART_NONE;
  if (text->tokenizer >= plan->file_count ||
      vlart_plan_file(plan, text->tokenizer)->kind != VLART_FILE_KIND_TOKENIZER) {
    return "its tokenizer is no file of that kind";
  }
  if (text->tokens >= plan->source_count || (masked && text->mask >= plan->source_count)) {
    return "a source does not exist";
  }
  uint64_t own = 1ull << text->tokens | (masked ? 1ull << text->mask : 0);
  if ((*taken & own) != 0 || text->mask == text->tokens || (plan->histories & own) != 0) {
    return "a source is another text's, or has a history";
  }
  *taken |= own;
  const vlart_value_record_t *tokens = source_value(plan, text->tokens);
  if ((tokens->dtype != VLART_DTYPE_I32 && tokens->dtype != VLART_DTYPE_I64) ||
      !is_row(tokens, tokens->dims[1]) || tokens->dims[1] == 0 ||
      tokens->dims[1] > VLART_MAX_TEXT_BYTES) {
    return "the tokens are not i32 or i64 [1,L]";
  }
  if (masked && (source_value(plan, text->mask)->dtype != VLART_DTYPE_BOOL ||
                 !is_row(source_value(plan, text->mask), tokens->dims[1]))) {
    return "the mask is not bool [1,L]";
  }
  return text->max_bytes > 0 && text->max_bytes <= VLART_MAX_TEXT_BYTES
             ? NULL
             : "its longest text is not 1 byte to 1 MiB";
}

vlart_status_t vlart_plan_check_texts(const vlart_plan_t *plan, vlart_diag_t *diag) {
  uint64_t taken = 0;
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_TEXTS); i++) {
    const char *fault = text_fault(plan, vlart_plan_text(plan, i), &taken);
    if (fault != NULL) {
      return vlart_corrupt(diag, "plan.bin", "texts", i, "%s", fault);
    }
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_bundle_read_tokenizers(vlart_bundle_t *bundle, vlart_diag_t *diag) {
  for (uint32_t i = 0; i < vlart_plan_count(&bundle->plan, VLART_SECTION_TEXTS); i++) {
    const vlart_text_record_t *text = vlart_plan_text(&bundle->plan, i);
    const vlart_map_t *map = &bundle->files[text->tokenizer];
    const char *path = vlart_plan_string(&bundle->plan, vlart_plan_file(&bundle->plan, text->tokenizer)->path);
    vlart_status_t status =
        vlart_token_table_read(map->data, map->bytes, path, diag, &bundle->token_tables[i]);
    if (status != VLART_STATUS_OK) {
      return status;
    }
    vlart_arena_t arena;
    vlart_tokenizer_t *none;
    vlart_arena_measure(&arena);
    if (!vlart_tokenizer_take(&arena, &bundle->token_tables[i], text->max_bytes, &none)) {
      return vlart_corrupt(diag, "plan.bin", "texts", i, "%u bytes of text may become too many", text->max_bytes);
    }
  }
  return VLART_STATUS_OK;
}

void vlart_texts_take(vlart_session_t *draft, vlart_arena_t *arena) {
  const vlart_plan_t *plan = &draft->bundle->plan;
  uint32_t count = vlart_plan_count(plan, VLART_SECTION_TEXTS);
  draft->texts = vlart_arena_take(arena, count, sizeof *draft->texts);
  for (uint32_t i = 0; i < count && !arena->full; i++) {
    const vlart_text_record_t *text = vlart_plan_text(plan, i);
    const vlart_value_record_t *tokens = source_value(plan, text->tokens);
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
  const vlart_value_record_t *value = source_value(&session->bundle->plan, source);
  return vlart_session_write(session, source, data, value->bytes, value->dtype, value->rank,
                             value->dims, diag);
}

vlart_status_t vlart_session_write_text(vlart_session_t *session, uint32_t source, const char *text,
                                        size_t bytes, vlart_diag_t *diag) {
  const char *call = "vlart_session_write_text";
  if (session == NULL || (text == NULL && bytes > 0)) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  const vlart_plan_t *plan = &session->bundle->plan;
  if (source >= plan->source_count) {
    return vlart_bad_argument(diag, call, "there is no source of this index");
  }
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
    vlart_fail(diag, VLART_STATUS_NOT_FOUND, "the source has no tokenizer, and the text is not known",
               "write token ids, or build the bundle with the policy's tokenizer");
    vlart_where(diag, "source %u \"%s\"", source, name);
    vlart_why(diag, "known: %s", names[0] == '\0' ? "none" : names);
    return VLART_STATUS_NOT_FOUND;
  }
  const vlart_text_record_t *record = vlart_plan_text(plan, i);
  const vlart_session_text_t *room = &session->texts[i];
  const vlart_value_record_t *tokens = source_value(plan, source);
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
