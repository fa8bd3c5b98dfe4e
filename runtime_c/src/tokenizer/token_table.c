/* [open] Checks a tokenizer's table: afterwards every offset, index, id and code point is in range,
   and whatever is looked up by search is in order. */
#include "tokenizer/token_table.h"

#include <string.h>

#include "base/diag.h"
#include "base/utf8.h"

enum { LARGEST_POINT = 0x10FFFF };

static uint32_t count_of(const vlart_token_table_t *table, uint32_t section) {
  return table->file.tables[section].count;
}

static bool is_scalar(uint64_t point) {
  return point <= LARGEST_POINT && (point < 0xD800 || point > 0xDFFF);
}

static const char *text_fault(const vlart_token_table_t *table, uint32_t begin, uint32_t bytes) {
  uint32_t available = count_of(table, VLART_SECTION_BLOB);
  if (begin > available || bytes > available - begin) {
    return "a string is not inside the blob section";
  }
  return vlart_text_fault(table->blob + begin, bytes) == bytes ? NULL : "a string is not UTF-8";
}

/* ---- steps ---------------------------------------------------------------------------------- */

/* Bytes of a sequence of code points; 0 with a fault if it is none. */
static uint64_t sequence_bytes(const vlart_token_table_t *table, uint32_t begin,
                               const char **fault) {
  uint32_t available = count_of(table, VLART_SECTION_INDICES);
  uint64_t bytes = 0;
  if (begin >= available || table->indices[begin] > available - begin - 1) {
    *fault = "a sequence is not inside the indices";
    return 0;
  }
  for (uint32_t i = 0; i < table->indices[begin]; i++) {
    uint32_t point = table->indices[begin + 1 + i];
    if (!is_scalar(point)) {
      *fault = "a sequence holds what is no code point";
      return 0;
    }
    bytes += vlart_text_point_bytes(point);
  }
  return bytes;
}

/* What a span makes of its widest code point, in bytes. */
static uint64_t mapped_bytes(const vlart_token_table_t *table, const vlart_span_record_t *span,
                             const char **fault) {
  uint32_t first = span->first + span->argument;
  uint32_t last = span->last + span->argument;
  switch (span->action) {
    case VLART_SPAN_ACTION_DELETE: return 0;
    case VLART_SPAN_ACTION_SPACE: return vlart_text_point_bytes(span->last) + 2;
    case VLART_SPAN_ACTION_SEQUENCE: return sequence_bytes(table, span->argument, fault);
    case VLART_SPAN_ACTION_SHIFT:
      if (first > last || !is_scalar(first) || !is_scalar(last) ||
          (first < 0xD800 && last > 0xDFFF)) {
        *fault = "a span is shifted to what are no code points";
      }
      return vlart_text_point_bytes(last);
    case VLART_SPAN_ACTION_HANGUL:
      if (span->first != 0xAC00 || span->last != 0xD7A3) {
        *fault = "it is not the span of Hangul syllables";
      }
      return 9;
    default: *fault = "its action is unknown"; return 0;
  }
}

/* What cuts looks for these classes alone: with another one it would find no end. */
static bool class_fits(uint32_t kind, uint32_t class) {
  switch (kind) {
    case VLART_TEXT_STEP_CUT_BERT:
      return class == VLART_CHAR_CLASS_SPACE || class == VLART_CHAR_CLASS_PUNCTUATION;
    case VLART_TEXT_STEP_CUT_DIGITS: return class == VLART_CHAR_CLASS_NUMBER;
    case VLART_TEXT_STEP_CUT_WORDS:
      return class == VLART_CHAR_CLASS_SPACE || class == VLART_CHAR_CLASS_LETTER ||
             class == VLART_CHAR_CLASS_NUMBER;
    default: return class >= 1 && class <= 255;
  }
}

static vlart_status_t check_spans(const vlart_token_table_t *table, const vlart_step_record_t *step,
                                  uint64_t *times, vlart_diag_t *diag) {
  uint64_t next = 0;
  for (uint32_t i = 0; i < step->span_count; i++) {
    const vlart_span_record_t *span = vlart_token_span(table, step->span_begin + i);
    const char *fault = NULL;
    if (span->first < next || span->first > span->last || span->last > LARGEST_POINT) {
      fault = "the spans of a step are not in order";
    } else if (step->kind == VLART_TEXT_STEP_MAP) {
      uint64_t bytes = mapped_bytes(table, span, &fault);
      uint64_t of = vlart_text_point_bytes(span->first);
      *times = (bytes + of - 1) / of > *times ? (bytes + of - 1) / of : *times;
    } else if (!class_fits(step->kind, span->action)) {
      fault = "its class is none of this step's";
    }
    if (fault != NULL) {
      return vlart_corrupt(diag, table->file.name, "spans", step->span_begin + i, "%s", fault);
    }
    next = (uint64_t)span->last + 1;
  }
  return VLART_STATUS_OK;
}

/* What a step needs besides its spans; how many bytes it makes of one, and adds to a piece. */
static const char *step_fault(const vlart_token_table_t *table, const vlart_step_record_t *step,
                              bool cuts, vlart_growth_t *growth) {
  const char *fault = NULL;
  bool finds = step->kind == VLART_TEXT_STEP_REPLACE || step->kind == VLART_TEXT_STEP_CUT;
  bool puts = step->kind == VLART_TEXT_STEP_REPLACE || step->kind == VLART_TEXT_STEP_PREPEND;
  if (cuts != (step->kind >= VLART_TEXT_STEP_CUT)) {
    return "its kind does not belong there";
  }
  if (finds && step->find_bytes == 0) {
    return "it looks for an empty string";
  }
  if (finds) fault = text_fault(table, step->find, step->find_bytes);
  if (puts && fault == NULL) fault = text_fault(table, step->put, step->put_bytes);
  if (fault != NULL) {
    return fault;
  }
  uint64_t replaced =
      finds ? ((uint64_t)step->put_bytes + step->find_bytes - 1) / step->find_bytes : 1;
  switch (step->kind) {
    case VLART_TEXT_STEP_MAP:
    case VLART_TEXT_STEP_ORDER:
    case VLART_TEXT_STEP_COMPOSE:
    case VLART_TEXT_STEP_CUT_BERT: return NULL;
    case VLART_TEXT_STEP_REPLACE: growth->times = replaced > 1 ? replaced : 1; return NULL;
    case VLART_TEXT_STEP_PREPEND:
      growth->plus = step->put_bytes;
      return step->option <= VLART_PREPEND_RULE_MISSING_FIRST ? NULL : "its rule is unknown";
    case VLART_TEXT_STEP_CUT:
      return step->option <= VLART_CUT_RULE_NEXT ? NULL : "its rule is unknown";
    case VLART_TEXT_STEP_CUT_DIGITS: return step->option <= 1 ? NULL : "its option is unknown";
    default: /* CUT_WORDS */
      return step->option >= VLART_WORD_RULE_GPT2 && step->option <= VLART_WORD_RULE_LLAMA3
                 ? NULL
                 : "its rule is unknown";
  }
}

/* Steps first .. first + count. The growth of each phase is that of one piece. */
static vlart_status_t check_steps(const vlart_token_table_t *table, uint32_t first, uint32_t count,
                                  bool cuts, vlart_growth_t *out_growth, vlart_diag_t *diag) {
  *out_growth = (vlart_growth_t){1, 0};
  for (uint32_t i = first; i < first + count; i++) {
    const vlart_step_record_t *step = vlart_token_step(table, i);
    vlart_growth_t growth = {1, 0};
    const char *fault = step_fault(table, step, cuts, &growth);
    if (fault != NULL) {
      return vlart_corrupt(diag, table->file.name, "steps", i, "%s", fault);
    }
    vlart_status_t status = check_spans(table, step, &growth.times, diag);
    if (status != VLART_STATUS_OK) {
      return status;
    }
    if (growth.times > VLART_MAX_TEXT_BYTES || growth.plus > VLART_MAX_TEXT_BYTES ||
        out_growth->times * growth.times > VLART_MAX_TEXT_BYTES ||
        out_growth->plus * growth.times + growth.plus > VLART_MAX_TEXT_BYTES) {
      return vlart_corrupt(diag, table->file.name, "steps", i, "text grows without measure");
    }
    out_growth->times *= growth.times;
    out_growth->plus = out_growth->plus * growth.times + growth.plus;
  }
  return VLART_STATUS_OK;
}

/* ---- vocabulary ----------------------------------------------------------------------------- */

static vlart_status_t check_entries(const vlart_token_table_t *table, uint32_t begin,
                                    uint32_t count, bool added, vlart_diag_t *diag) {
  const char *fault = NULL;
  uint32_t i = begin;
  uint32_t ids = added ? count_of(table, VLART_SECTION_ADDED) : table->record->token_count;
  for (; i < begin + count; i++) {
    const uint8_t *bytes = table->blob + table->entry_begins[i];
    size_t length = table->entry_begins[i + 1] - table->entry_begins[i];
    if (length == 0) {
      fault = "it is empty";
    } else if (table->entry_ids[i] >= ids) {
      fault = "its id is none of the vocabulary";
    } else if (added && vlart_text_fault(bytes, length) != length) {
      fault = "it is not UTF-8";
    } else if (i > begin) {
      const uint8_t *before = table->blob + table->entry_begins[i - 1];
      size_t other = table->entry_begins[i] - table->entry_begins[i - 1];
      int order = memcmp(before, bytes, other < length ? other : length);
      fault = order < 0 || (order == 0 && other < length) ? NULL : "the entries are not in order";
    }
    if (fault != NULL) {
      return vlart_corrupt(diag, table->file.name, "entries", i, "%s", fault);
    }
  }
  return VLART_STATUS_OK;
}

static vlart_status_t check_vocabulary(const vlart_token_table_t *table, vlart_diag_t *diag) {
  const vlart_tokenizer_record_t *record = table->record;
  uint32_t entries = count_of(table, VLART_SECTION_ENTRY_IDS);
  if (count_of(table, VLART_SECTION_ENTRY_BEGINS) != (uint64_t)entries + 1) {
    return vlart_corrupt(diag, table->file.name, "entries", 0,
                         "there is not one beginning more than ids");
  }
  for (uint32_t i = 0; i <= entries; i++) {
    uint32_t end = i < entries ? table->entry_begins[i + 1] : count_of(table, VLART_SECTION_BLOB);
    if (table->entry_begins[i] > end) {
      return vlart_corrupt(diag, table->file.name, "entries", i,
                           "it is not inside the blob section");
    }
  }
  for (uint32_t i = 0; i < count_of(table, VLART_SECTION_ADDED); i++) {
    const vlart_added_record_t *added = vlart_record(&table->file.tables[VLART_SECTION_ADDED], i);
    if (added->id >= record->token_count) {
      return vlart_corrupt(diag, table->file.name, "added", i, "its id is none of the vocabulary");
    }
  }
  vlart_status_t status = check_entries(table, record->word_begin, record->word_count, false, diag);
  if (status == VLART_STATUS_OK)
    status = check_entries(table, record->rest_begin, record->rest_count, false, diag);
  if (status == VLART_STATUS_OK)
    status = check_entries(table, record->letter_begin, record->letter_count, false, diag);
  if (status == VLART_STATUS_OK)
    status = check_entries(table, record->raw_begin, record->raw_count, true, diag);
  if (status == VLART_STATUS_OK) {
    status = check_entries(table, record->normalised_begin, record->normalised_count, true, diag);
  }
  return status;
}

static vlart_status_t check_merges(const vlart_token_table_t *table, vlart_diag_t *diag) {
  uint32_t tokens = table->record->token_count;
  uint32_t merges = count_of(table, VLART_SECTION_MERGE_RIGHTS);
  uint32_t rows = count_of(table, VLART_SECTION_MERGE_ROWS);
  if (table->record->model != VLART_TOKEN_MODEL_BPE) {
    return VLART_STATUS_OK;
  }
  if (merges != count_of(table, VLART_SECTION_MERGE_RANKS) ||
      merges != count_of(table, VLART_SECTION_MERGE_IDS) || rows != (uint64_t)tokens + 1 ||
      table->merge_rights == NULL || table->merge_rows[0] != 0 ||
      table->merge_rows[tokens] != merges) {
    return vlart_corrupt(diag, table->file.name, "merges", 0,
                         "rows, rights, ranks and ids do not fit together");
  }
  for (uint32_t left = 0; left < tokens; left++) {
    if (table->merge_rows[left] > table->merge_rows[left + 1]) {
      return vlart_corrupt(diag, table->file.name, "merge_rows", left, "the rows are not in order");
    }
    for (uint32_t i = table->merge_rows[left]; i < table->merge_rows[left + 1]; i++) {
      if (i >= merges || table->merge_rights[i] >= tokens || table->merge_ids[i] >= tokens) {
        return vlart_corrupt(diag, table->file.name, "merges", i,
                             "its ids are none of the vocabulary");
      }
      if (i > table->merge_rows[left] && table->merge_rights[i] <= table->merge_rights[i - 1]) {
        return vlart_corrupt(diag, table->file.name, "merges", i, "a row is not in order");
      }
    }
  }
  return VLART_STATUS_OK;
}

static bool ids_fit(const vlart_token_table_t *table, uint32_t begin, uint32_t count,
                    bool optional) {
  for (uint32_t i = begin; i < begin + count; i++) {
    uint32_t id = table->indices[i];
    if (id >= table->record->token_count && !(optional && id == VLART_NONE)) {
      return false;
    }
  }
  return true;
}

static vlart_status_t check_record(const vlart_token_table_t *table, vlart_diag_t *diag) {
  const vlart_tokenizer_record_t *record = table->record;
  uint64_t steps = (uint64_t)record->normalise + record->transform + record->split;
  const char *fault = NULL;
  if (record->token_count == 0 || record->token_count == VLART_NONE) {
    fault = "it has no tokens";
  } else if (record->unknown != VLART_NONE ? record->unknown >= record->token_count
                                           : record->model == VLART_TOKEN_MODEL_WORDPIECE) {
    fault = "its unknown token is none of the vocabulary";
  } else if (steps != count_of(table, VLART_SECTION_STEPS) || steps > VLART_MAX_TEXT_STEPS) {
    fault = "its steps are not those of the section, or more than 16";
  } else if (!ids_fit(table, record->prefix_begin, record->prefix_count, false) ||
             !ids_fit(table, record->suffix_begin, record->suffix_count, false)) {
    fault = "its prefix or suffix is none of the vocabulary";
  } else if ((record->byte_count != 0 && record->byte_count != 256) ||
             !ids_fit(table, record->byte_begin, record->byte_count, true)) {
    fault = "its bytes are none of the vocabulary";
  } else if (text_fault(table, record->ending, record->ending_bytes) != NULL) {
    fault = "its ending is no text";
  } else if (record->pad > INT32_MAX || record->token_count > INT32_MAX) {
    fault = "an id is no i32";
  }
  return fault == NULL ? VLART_STATUS_OK
                       : vlart_corrupt(diag, table->file.name, "tokenizer", 0, "%s", fault);
}

/* ---- composition ---------------------------------------------------------------------------- */

static vlart_status_t check_compositions(const vlart_token_table_t *table, vlart_diag_t *diag) {
  uint64_t before = 0;
  for (uint32_t i = 0; i < count_of(table, VLART_SECTION_COMPOSITIONS); i++) {
    const vlart_composition_record_t *row =
        vlart_record(&table->file.tables[VLART_SECTION_COMPOSITIONS], i);
    uint64_t key = (uint64_t)row->first << 32 | row->second;
    /* Three bytes and more of two code points never become more bytes than they were. */
    bool grows = is_scalar(row->composed) && is_scalar(row->first) && is_scalar(row->second) &&
                 vlart_text_point_bytes(row->composed) >
                     vlart_text_point_bytes(row->first) + vlart_text_point_bytes(row->second);
    if (!is_scalar(row->first) || !is_scalar(row->second) || !is_scalar(row->composed) || grows ||
        (i > 0 && key <= before)) {
      return vlart_corrupt(diag, table->file.name, "compositions", i,
                           "the pairs are not in order, or no code points");
    }
    before = key;
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_token_table_read(const uint8_t *data, size_t bytes, const char *name,
                                      vlart_diag_t *diag, vlart_token_table_t *out_table) {
  vlart_token_table_t *table = out_table;
  *table = (vlart_token_table_t){0};
  vlart_status_t status =
      vlart_container_open(data, bytes, VLART_TOKENIZER_MAGIC, name, diag, &table->file);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  const vlart_table_t *tables = table->file.tables;
  if (tables[VLART_SECTION_TOKENIZER].count != 1) {
    return vlart_corrupt(diag, name, "tokenizer", 0, "there are %u records of it, not one",
                         tables[VLART_SECTION_TOKENIZER].count);
  }
  table->record = vlart_record(&tables[VLART_SECTION_TOKENIZER], 0);
  table->blob = tables[VLART_SECTION_BLOB].records;
  table->indices = (const void *)tables[VLART_SECTION_INDICES].records;
  table->entry_begins = (const void *)tables[VLART_SECTION_ENTRY_BEGINS].records;
  table->entry_ids = (const void *)tables[VLART_SECTION_ENTRY_IDS].records;
  table->merge_rows = (const void *)tables[VLART_SECTION_MERGE_ROWS].records;
  table->merge_rights = (const void *)tables[VLART_SECTION_MERGE_RIGHTS].records;
  table->merge_ranks = (const void *)tables[VLART_SECTION_MERGE_RANKS].records;
  table->merge_ids = (const void *)tables[VLART_SECTION_MERGE_IDS].records;
  if (table->blob == NULL || table->indices == NULL || table->entry_begins == NULL) {
    return vlart_corrupt(diag, name, "section", 0, "a section is missing");
  }
  vlart_growth_t none;
  const vlart_tokenizer_record_t *record = table->record;
  status = check_record(table, diag);
  if (status == VLART_STATUS_OK) {
    status = check_steps(table, 0, record->normalise, false, &table->normalised, diag);
  }
  if (status == VLART_STATUS_OK) {
    status =
        check_steps(table, record->normalise, record->transform, false, &table->transformed, diag);
  }
  if (status == VLART_STATUS_OK) {
    status =
        check_steps(table, record->normalise + record->transform, record->split, true, &none, diag);
  }
  if (status == VLART_STATUS_OK) status = check_compositions(table, diag);
  if (status == VLART_STATUS_OK) status = check_vocabulary(table, diag);
  return status == VLART_STATUS_OK ? check_merges(table, diag) : status;
}
