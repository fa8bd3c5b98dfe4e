/* [tick] Cuts a piece into words. Every step cuts what the one before gave, and the last gives its
   words to the model; the depth is the number of steps, which [open] bounds. */
/* NOLINTBEGIN(misc-no-recursion): at most VLART_MAX_TEXT_STEPS deep */
#include <string.h>

#include "tokenizer/tokenizer.h"

typedef struct {
  const vlart_token_table_t *table;
  const vlart_step_record_t *step;
  vlart_piece_t piece;
} reader_t;

enum { OTHER = 0 };

/* Class of the character at *at, which moves behind it. */
static uint32_t take(const reader_t *reader, size_t *at) {
  uint32_t point = vlart_text_point(reader->piece.bytes, at);
  const vlart_span_record_t *span = vlart_text_span(reader->table, reader->step, point);
  return span == NULL ? OTHER : span->action;
}

/* Behind the characters of one class from `at` on, at most `most` of them. */
static size_t run_of(const reader_t *reader, size_t at, uint32_t class, size_t most) {
  for (size_t n = 0; n < most && at < reader->piece.count; n++) {
    size_t next = at;
    if (take(reader, &next) != class) {
      break;
    }
    at = next;
  }
  return at;
}

static bool is_newline(uint8_t byte) { return byte == '\r' || byte == '\n'; }

/* Behind 's 't 're 've 'm 'll 'd at `at`; `at` itself where there is none. Without regard to case,
   the long s is an s. */
static size_t contraction(vlart_piece_t piece, size_t at, bool any_case) {
  static const char *const ends[] = {"s", "t", "re", "ve", "m", "ll", "d"};
  if (piece.bytes[at] != '\'') {
    return at;
  }
  const uint8_t *rest = piece.bytes + at + 1;
  size_t count = piece.count - at - 1;
  for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
    size_t length = strlen(ends[i]);
    size_t same = 0;
    while (same < length && same < count &&
           (any_case && rest[same] >= 'A' && rest[same] <= 'Z' ? rest[same] + 32 : rest[same]) ==
               (uint8_t)ends[i][same]) {
      same++;
    }
    if (same == length) {
      return at + 1 + length;
    }
  }
  return any_case && count >= 2 && rest[0] == 0xC5 && rest[1] == 0xBF ? at + 3 : at;
}

/* \s+(?!\S)|\s+ */
static size_t blanks(const reader_t *reader, size_t at) {
  size_t end = run_of(reader, at, VLART_CHAR_CLASS_SPACE, SIZE_MAX);
  if (end == reader->piece.count) {
    return end;
  }
  size_t last = end - 1;
  while ((reader->piece.bytes[last] & 0xC0) == 0x80) {
    last--;
  }
  return last > at ? last : end;
}

/* GPT-2: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static size_t word_gpt2(const reader_t *reader, size_t at) {
  size_t end = contraction(reader->piece, at, false);
  if (end > at) {
    return end;
  }
  size_t begin = at;
  if (reader->piece.bytes[at] == ' ' && at + 1 < reader->piece.count) {
    size_t next = at + 1;
    begin = take(reader, &next) != VLART_CHAR_CLASS_SPACE ? at + 1 : at;
  }
  size_t next = begin;
  uint32_t class = take(reader, &next);
  return class == VLART_CHAR_CLASS_SPACE ? blanks(reader, at)
                                         : run_of(reader, next, class, SIZE_MAX);
}

/* \s*[\r\n]+ : behind the last line end of the white space; `at` where it has none. */
static size_t lines(const reader_t *reader, size_t at) {
  size_t end = run_of(reader, at, VLART_CHAR_CLASS_SPACE, SIZE_MAX);
  while (end > at && !is_newline(reader->piece.bytes[end - 1])) {
    end--;
  }
  return end;
}

/* Qwen 2, and Llama 3 with \p{N}{1,3}: (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|
   ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t word_qwen2(const reader_t *reader, size_t at, size_t digits) {
  vlart_piece_t piece = reader->piece;
  size_t end = contraction(piece, at, true);
  if (end > at) {
    return end;
  }
  size_t next = at;
  uint32_t class = take(reader, &next);
  size_t behind = next;
  uint32_t following = next < piece.count ? take(reader, &behind) : OTHER;
  if (class == VLART_CHAR_CLASS_LETTER) {
    return run_of(reader, next, class, SIZE_MAX);
  }
  if (class != VLART_CHAR_CLASS_NUMBER && !is_newline(piece.bytes[at]) &&
      following == VLART_CHAR_CLASS_LETTER) {
    return run_of(reader, behind, following, SIZE_MAX);
  }
  if (class == VLART_CHAR_CLASS_NUMBER) {
    return run_of(reader, next, class, digits - 1);
  }
  if (class == OTHER || (piece.bytes[at] == ' ' && next < piece.count && following == OTHER)) {
    end = run_of(reader, class == OTHER ? next : behind, OTHER, SIZE_MAX);
    while (end < piece.count && is_newline(piece.bytes[end])) {
      end++;
    }
    return end;
  }
  end = lines(reader, at);
  return end > at ? end : blanks(reader, at);
}

static size_t word_digits(const reader_t *reader, size_t at) {
  size_t next = at;
  uint32_t class = take(reader, &next);
  bool alone = class != OTHER && reader->step->option == 1;
  return alone ? next : run_of(reader, next, class, SIZE_MAX);
}

/* White space is dropped, punctuation stands alone. */
static void cut_bert(vlart_tokenizer_t *tokenizer, uint32_t index, const reader_t *reader) {
  const uint8_t *bytes = reader->piece.bytes;
  for (size_t at = 0; at < reader->piece.count;) {
    size_t end = at;
    uint32_t class = take(reader, &end);
    if (class == OTHER) {
      end = run_of(reader, end, OTHER, SIZE_MAX);
    }
    if (class != VLART_CHAR_CLASS_SPACE) {
      vlart_pretokenise(tokenizer, index + 1, (vlart_piece_t){bytes + at, end - at});
    }
    at = end;
  }
}

static size_t find(const reader_t *reader, size_t at) {
  const vlart_step_record_t *step = reader->step;
  const uint8_t *wanted = reader->table->blob + step->find;
  for (; reader->piece.count - at >= step->find_bytes; at++) {
    if (memcmp(reader->piece.bytes + at, wanted, step->find_bytes) == 0) {
      return at;
    }
  }
  return reader->piece.count;
}

static void cut_string(vlart_tokenizer_t *tokenizer, uint32_t index, const reader_t *reader) {
  const uint8_t *bytes = reader->piece.bytes;
  uint32_t rule = reader->step->option;
  size_t begin = 0; /* of the word that is not given yet */
  for (size_t at = find(reader, 0); at < reader->piece.count;
       at = find(reader, at + reader->step->find_bytes)) {
    size_t behind = at + reader->step->find_bytes;
    size_t end = rule == VLART_CUT_RULE_PREVIOUS ? behind : at;
    if (end > begin) {
      vlart_pretokenise(tokenizer, index + 1, (vlart_piece_t){bytes + begin, end - begin});
    }
    if (rule == VLART_CUT_RULE_ALONE) {
      vlart_pretokenise(tokenizer, index + 1, (vlart_piece_t){bytes + at, behind - at});
    }
    begin = rule == VLART_CUT_RULE_NEXT ? at : behind;
  }
  if (reader->piece.count > begin) {
    vlart_pretokenise(tokenizer, index + 1,
                      (vlart_piece_t){bytes + begin, reader->piece.count - begin});
  }
}

static size_t word_end(const reader_t *reader, size_t at) {
  if (reader->step->kind == VLART_TEXT_STEP_CUT_DIGITS) {
    return word_digits(reader, at);
  }
  switch (reader->step->option) {
    case VLART_WORD_RULE_GPT2: return word_gpt2(reader, at);
    case VLART_WORD_RULE_QWEN2: return word_qwen2(reader, at, 1);
    default: return word_qwen2(reader, at, 3);
  }
}

void vlart_pretokenise(vlart_tokenizer_t *tokenizer, uint32_t index, vlart_piece_t piece) {
  const vlart_token_table_t *table = &tokenizer->table;
  if (index == table->file.tables[VLART_SECTION_STEPS].count) {
    vlart_encode_word(tokenizer, piece);
    return;
  }
  reader_t reader = {table, vlart_token_step(table, index), piece};
  switch (reader.step->kind) {
    case VLART_TEXT_STEP_CUT: cut_string(tokenizer, index, &reader); break;
    case VLART_TEXT_STEP_CUT_BERT: cut_bert(tokenizer, index, &reader); break;
    default:
      for (size_t at = 0; at < piece.count;) {
        size_t end = word_end(&reader, at);
        vlart_pretokenise(tokenizer, index + 1, (vlart_piece_t){piece.bytes + at, end - at});
        at = end;
      }
  }
}
/* NOLINTEND(misc-no-recursion) */
