/* Text to token ids: the public calls on a tokenizer's table, and cutting at tokens that stand in the
   text itself. A text of n bytes costs time in proportion to n * n at worst (runs of combining marks,
   one word of a WordPiece vocabulary), else to n * log n. */
#include <string.h>

#include "base/diag.h"
#include "tokenizer/tokenizer.h"

/* ---- room ----------------------------------------------------------------------------------- */

bool vlart_tokenizer_take(vlart_arena_t *arena, const vlart_token_table_t *table, size_t text_bytes,
                          vlart_tokenizer_t **out_tokenizer) {
  *out_tokenizer = NULL;
  uint64_t max_text_bytes = (uint64_t)text_bytes + table->record->ending_bytes;
  vlart_growth_t first = table->normalised;
  vlart_growth_t then = table->transformed;
  if (text_bytes == 0 || text_bytes > VLART_MAX_TEXT_BYTES ||
      max_text_bytes > VLART_MAX_TEXT_BYTES) {
    return false;
  }
  uint64_t normal = first.times * max_text_bytes + first.plus;
  uint64_t pieces =
      first.times * max_text_bytes + first.plus * (max_text_bytes + 1); /* all of them */
  uint64_t changed = then.times * normal + then.plus;
  uint64_t ids = then.times * pieces + then.plus * (pieces + 1) + max_text_bytes;
  if (changed > VLART_MAX_TEXT_BYTES || normal > VLART_MAX_TEXT_BYTES ||
      ids > 16ull * VLART_MAX_TEXT_BYTES) {
    return false;
  }
  vlart_tokenizer_t *tokenizer = vlart_arena_take(arena, 1, sizeof *tokenizer);
  vlart_tokenizer_t placed = {.table = *table,
                              .max_text_bytes = text_bytes,
                              .normal_bytes = (size_t)normal,
                              .changed_bytes = (size_t)changed,
                              .id_limit = (size_t)ids};
  placed.text = vlart_arena_take(arena, max_text_bytes, 1);
  for (int i = 0; i < 2; i++) {
    placed.normal[i] = vlart_arena_take(arena, placed.normal_bytes, 1);
    placed.changed[i] = vlart_arena_take(arena, placed.changed_bytes, 1);
  }
  placed.points = vlart_arena_take(arena, placed.changed_bytes, sizeof *placed.points);
  placed.symbols = vlart_arena_take(arena, placed.changed_bytes, sizeof *placed.symbols);
  placed.heap = vlart_arena_take(arena, 3 * placed.changed_bytes, sizeof *placed.heap);
  placed.ids = vlart_arena_take(arena, placed.id_limit, sizeof *placed.ids);
  if (tokenizer != NULL && !arena->full) {
    *tokenizer = placed;
    *out_tokenizer = tokenizer;
  }
  return true;
}

/* ---- tokens in the text --------------------------------------------------------------------- */

/* Unicode's White_Space. */
static bool is_blank(uint32_t point) {
  return (point >= 9 && point <= 13) || point == ' ' || point == 0x85 || point == 0xA0 ||
         point == 0x1680 || (point >= 0x2000 && point <= 0x200A) || point == 0x2028 ||
         point == 0x2029 || point == 0x202F || point == 0x205F || point == 0x3000;
}

static size_t before_blanks(const uint8_t *bytes, size_t end, size_t least) {
  while (end > least) {
    size_t begin = end - 1;
    while ((bytes[begin] & 0xC0) == 0x80) {
      begin--;
    }
    size_t next = begin;
    if (!is_blank(vlart_text_point(bytes, &next))) {
      break;
    }
    end = begin;
  }
  return end < least ? least : end;
}

static size_t behind_blanks(vlart_piece_t piece, size_t at) {
  for (size_t next = at; next < piece.count; at = next) {
    if (!is_blank(vlart_text_point(piece.bytes, &next))) {
      break;
    }
  }
  return at;
}

typedef struct {
  uint32_t begin; /* entries */
  uint32_t count;
} tokens_t;

/* Finds the next token of the list from *at on, the first one, of those the longest. False: none. */
static bool next_token(const vlart_token_table_t *table, tokens_t list, vlart_piece_t piece,
                       size_t *at, size_t *out_end, const vlart_added_record_t **out_added) {
  for (; list.count > 0 && *at < piece.count; (*at)++) {
    vlart_piece_t rest = {piece.bytes + *at, piece.count - *at};
    size_t length;
    uint32_t entry = vlart_token_longest(table, list.begin, list.count, rest, &length);
    if (entry != VLART_NONE) {
      *out_end = *at + length;
      *out_added = vlart_record(&table->file.tables[VLART_SECTION_ADDED], table->entry_ids[entry]);
      return true;
    }
  }
  return false;
}

typedef void (*use_piece_t)(vlart_tokenizer_t *tokenizer, vlart_piece_t piece, bool at_start);

/* Gives the tokens of a list as ids, and what lies between them to `use`. */
static void cut_tokens(vlart_tokenizer_t *tokenizer, tokens_t list, vlart_piece_t piece,
                       bool at_start, use_piece_t use) {
  const vlart_added_record_t *added = NULL;
  size_t given = 0;
  size_t end = 0;
  for (size_t at = 0; next_token(&tokenizer->table, list, piece, &at, &end, &added); at = end) {
    size_t begin = added->strip_left != 0 ? before_blanks(piece.bytes, at, given) : at;
    size_t behind = added->strip_right != 0 ? behind_blanks(piece, end) : end;
    if (begin > given) {
      use(tokenizer, (vlart_piece_t){piece.bytes + given, begin - given}, at_start && given == 0);
    }
    vlart_token_emit(tokenizer, added->id);
    given = behind;
  }
  if (piece.count > given) {
    use(tokenizer, (vlart_piece_t){piece.bytes + given, piece.count - given},
        at_start && given == 0);
  }
}

static void use_normalised(vlart_tokenizer_t *tokenizer, vlart_piece_t piece, bool at_start) {
  const vlart_tokenizer_record_t *record = tokenizer->table.record;
  vlart_piece_t changed =
      vlart_text_rewrite(tokenizer, record->normalise, record->transform, piece, tokenizer->changed,
                         tokenizer->changed_bytes, at_start);
  if (changed.count > 0) {
    vlart_pretokenise(tokenizer, record->normalise + record->transform, changed);
  }
}

static void use_raw(vlart_tokenizer_t *tokenizer, vlart_piece_t piece, bool at_start) {
  const vlart_tokenizer_record_t *record = tokenizer->table.record;
  vlart_piece_t normal = vlart_text_rewrite(tokenizer, 0, record->normalise, piece,
                                            tokenizer->normal, tokenizer->normal_bytes, at_start);
  tokens_t list = {record->normalised_begin, record->normalised_count};
  cut_tokens(tokenizer, list, normal, at_start, use_normalised);
}

static vlart_status_t refuse(vlart_diag_t *diag, const char *what, const char *fix) {
  vlart_fail(diag, VLART_STATUS_TEXT_REFUSED, what, fix);
  vlart_where(diag, "the text");
  return VLART_STATUS_TEXT_REFUSED;
}

static vlart_piece_t with_ending(vlart_tokenizer_t *tokenizer, vlart_piece_t text) {
  size_t count = tokenizer->table.record->ending_bytes;
  const uint8_t *ending = tokenizer->table.blob + tokenizer->table.record->ending;
  if (count == 0 ||
      (text.count >= count && memcmp(text.bytes + text.count - count, ending, count) == 0)) {
    return text;
  }
  if (text.count > 0) {
    memcpy(tokenizer->text, text.bytes, text.count);
  }
  memcpy(tokenizer->text + text.count, ending, count);
  return (vlart_piece_t){tokenizer->text, text.count + count};
}

vlart_status_t vlart_tokenizer_run(vlart_tokenizer_t *tokenizer, const char *text, size_t bytes,
                                   vlart_diag_t *diag) {
  const uint8_t *data = (const uint8_t *)text;
  tokenizer->id_count = 0;
  tokenizer->full = false;
  if (bytes > tokenizer->max_text_bytes) {
    refuse(diag, "the text is too long", "shorten it, or build the bundle for longer ones");
    vlart_why(diag, "it has %zu bytes, at most %zu are taken", bytes, tokenizer->max_text_bytes);
    return VLART_STATUS_TEXT_REFUSED;
  }
  size_t fault = vlart_text_fault(data, bytes);
  if (fault != bytes) {
    refuse(diag, "the text is not UTF-8", "convert it to UTF-8");
    vlart_why(diag, "byte %zu of %zu begins no character", fault, bytes);
    return VLART_STATUS_TEXT_REFUSED;
  }
  const vlart_tokenizer_record_t *record = tokenizer->table.record;
  tokens_t list = {record->raw_begin, record->raw_count};
  cut_tokens(tokenizer, list, with_ending(tokenizer, (vlart_piece_t){data, bytes}), true, use_raw);
  if (tokenizer->full) {
    refuse(diag, "the text becomes too large", "shorten it");
    vlart_why(diag, "its pieces leave the bounds that follow from the tokenizer's table");
    return VLART_STATUS_TEXT_REFUSED;
  }
  return VLART_STATUS_OK;
}

/* ---- ids ------------------------------------------------------------------------------------ */

static void put_id(void *ids, uint32_t dtype, size_t at, uint32_t id) {
  int32_t narrow = (int32_t)id;
  int64_t wide = (int64_t)id;
  if (dtype == VLART_DTYPE_I32) {
    memcpy((uint8_t *)ids + at * sizeof narrow, &narrow, sizeof narrow);
  } else {
    memcpy((uint8_t *)ids + at * sizeof wide, &wide, sizeof wide);
  }
}

/* Prefix, ids from `first` on, suffix; returns how many. */
static size_t put_ids(const vlart_tokenizer_t *tokenizer, void *ids, uint32_t dtype, size_t at,
                      size_t first, size_t count) {
  const vlart_token_table_t *table = &tokenizer->table;
  const vlart_tokenizer_record_t *record = table->record;
  for (uint32_t i = 0; i < record->prefix_count; i++) {
    put_id(ids, dtype, at++, table->indices[record->prefix_begin + i]);
  }
  for (size_t i = 0; i < count; i++) {
    put_id(ids, dtype, at++, tokenizer->ids[first + i]);
  }
  for (uint32_t i = 0; i < record->suffix_count; i++) {
    put_id(ids, dtype, at++, table->indices[record->suffix_begin + i]);
  }
  return at;
}

vlart_status_t vlart_tokenizer_lay_out(const vlart_tokenizer_t *tokenizer, void *ids,
                                       uint32_t dtype, uint8_t *mask, size_t length,
                                       vlart_diag_t *diag) {
  const vlart_tokenizer_record_t *record = tokenizer->table.record;
  size_t fixed = (size_t)record->prefix_count + record->suffix_count;
  size_t count = tokenizer->id_count;
  size_t first = 0;
  if (fixed + count > length) {
    if (record->truncate == VLART_NONE || fixed > length) {
      refuse(diag, "the text has too many tokens", "shorten it");
      vlart_why(diag, "they are %zu, the policy takes %zu", fixed + count, length);
      return VLART_STATUS_TEXT_REFUSED;
    }
    first = record->truncate == VLART_TEXT_SIDE_LEFT ? fixed + count - length : 0;
    count = length - fixed;
  }
  size_t filling = length - fixed - count;
  size_t begin = record->pad_side == VLART_TEXT_SIDE_LEFT ? filling : 0;
  for (size_t i = 0; i < length; i++) {
    put_id(ids, dtype, i, record->pad);
    if (mask != NULL) {
      mask[i] = i >= begin && i < begin + fixed + count;
    }
  }
  put_ids(tokenizer, ids, dtype, begin, first, count);
  return VLART_STATUS_OK;
}

/* ---- public --------------------------------------------------------------------------------- */

static vlart_status_t place(const void *table, size_t table_bytes, size_t max_text_bytes,
                            vlart_arena_t *arena, vlart_diag_t *diag,
                            vlart_tokenizer_t **out_tokenizer) {
  vlart_token_table_t read;
  if (table == NULL || (uintptr_t)table % 8 != 0) {
    return vlart_bad_argument(diag, "vlart_tokenizer_open",
                              "the table is NULL or not aligned to 8 bytes");
  }
  vlart_status_t status = vlart_token_table_read(table, table_bytes, "the tokenizer", diag, &read);
  if (status == VLART_STATUS_OK &&
      !vlart_tokenizer_take(arena, &read, max_text_bytes, out_tokenizer)) {
    status = vlart_bad_argument(diag, "vlart_tokenizer_open",
                                "texts may be 1 byte to 1 MiB long, also after normalisation");
  }
  return status;
}

vlart_status_t vlart_tokenizer_required_bytes(const void *table, size_t table_bytes,
                                              size_t max_text_bytes, vlart_diag_t *diag,
                                              size_t *out_bytes) {
  if (out_bytes == NULL) {
    return vlart_bad_argument(diag, "vlart_tokenizer_required_bytes", "a pointer is NULL");
  }
  vlart_arena_t arena;
  vlart_tokenizer_t *none;
  vlart_arena_measure(&arena);
  vlart_status_t status = place(table, table_bytes, max_text_bytes, &arena, diag, &none);
  if (status == VLART_STATUS_OK) {
    *out_bytes = vlart_arena_required(&arena);
  }
  return status;
}

vlart_status_t vlart_tokenizer_open(const void *table, size_t table_bytes, size_t max_text_bytes,
                                    void *arena, size_t arena_bytes, vlart_diag_t *diag,
                                    vlart_tokenizer_t **out_tokenizer) {
  if (out_tokenizer == NULL) {
    return vlart_bad_argument(diag, "vlart_tokenizer_open", "a pointer is NULL");
  }
  *out_tokenizer = NULL;
  vlart_arena_t pieces;
  vlart_arena_place(&pieces, arena, arena_bytes);
  vlart_status_t status = place(table, table_bytes, max_text_bytes, &pieces, diag, out_tokenizer);
  if (status == VLART_STATUS_OK && pieces.full) {
    size_t needed = 0;
    vlart_tokenizer_required_bytes(table, table_bytes, max_text_bytes, NULL, &needed);
    status = vlart_arena_too_small(diag, "vlart_tokenizer_open", needed, arena_bytes);
  }
  return status;
}

vlart_status_t vlart_tokenizer_encode(vlart_tokenizer_t *tokenizer, const char *text, size_t bytes,
                                      int64_t *ids, size_t capacity, size_t *out_count,
                                      vlart_diag_t *diag) {
  const char *call = "vlart_tokenizer_encode";
  if (tokenizer == NULL || (text == NULL && bytes > 0) || (ids == NULL && capacity > 0) ||
      out_count == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  vlart_status_t status = vlart_tokenizer_run(tokenizer, text, bytes, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  const vlart_tokenizer_record_t *record = tokenizer->table.record;
  *out_count = tokenizer->id_count + record->prefix_count + record->suffix_count;
  if (*out_count > capacity) {
    vlart_fail(diag, VLART_STATUS_WRONG_SHAPE, "the buffer is too small", NULL);
    vlart_where(diag, "%s", call);
    vlart_why(diag, "there are %zu ids, it takes %zu", *out_count, capacity);
    return VLART_STATUS_WRONG_SHAPE;
  }
  put_ids(tokenizer, ids, VLART_DTYPE_I64, 0, 0, tokenizer->id_count);
  return VLART_STATUS_OK;
}

vlart_status_t vlart_tokenizer_fill(vlart_tokenizer_t *tokenizer, const char *text, size_t bytes,
                                    int64_t *ids, uint8_t *mask, size_t length,
                                    vlart_diag_t *diag) {
  if (tokenizer == NULL || (text == NULL && bytes > 0) || (ids == NULL && length > 0)) {
    return vlart_bad_argument(diag, "vlart_tokenizer_fill", "a pointer is NULL");
  }
  vlart_status_t status = vlart_tokenizer_run(tokenizer, text, bytes, diag);
  return status != VLART_STATUS_OK
             ? status
             : vlart_tokenizer_lay_out(tokenizer, ids, VLART_DTYPE_I64, mask, length, diag);
}
