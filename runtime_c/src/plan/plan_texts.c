/* [open] Texts of a plan: which tokenizer gives which source its ids and its mask. */
#include "base/diag.h"
#include "plan/plan_check.h"
#include "tokenizer/token_table.h"

static bool is_row(const vlart_value_record_t *value, uint64_t length) {
  return value->rank == 2 && value->dims[0] == 1 && value->dims[1] == length;
}

static const char *text_fault(const vlart_plan_t *plan, const vlart_text_record_t *text,
                              uint64_t *taken) {
  bool masked = text->mask != VLART_NONE;
  if (text->tokenizer == VLART_NONE ||
      vlart_plan_file(plan, text->tokenizer)->kind != VLART_FILE_KIND_TOKENIZER) {
    return "its tokenizer is no file of that kind";
  }
  uint64_t own = 1ull << text->tokens | (masked ? 1ull << text->mask : 0);
  if ((*taken & own) != 0 || text->mask == text->tokens || (plan->histories & own) != 0) {
    return "a source is another text's, or has a history";
  }
  *taken |= own;
  const vlart_value_record_t *tokens = vlart_plan_source_value(plan, text->tokens);
  if ((tokens->dtype != VLART_DTYPE_I32 && tokens->dtype != VLART_DTYPE_I64) ||
      !is_row(tokens, tokens->dims[1]) || tokens->dims[1] == 0 ||
      tokens->dims[1] > VLART_MAX_TEXT_BYTES) {
    return "the tokens are not i32 or i64 [1,L]";
  }
  if (masked && (vlart_plan_source_value(plan, text->mask)->dtype != VLART_DTYPE_BOOL ||
                 !is_row(vlart_plan_source_value(plan, text->mask), tokens->dims[1]))) {
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
