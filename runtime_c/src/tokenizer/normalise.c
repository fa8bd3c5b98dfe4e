/* [tick] Text steps that change a piece: from one buffer into the other, never beyond its end. */
#include <string.h>

#include "tokenizer/tokenizer.h"

typedef struct {
  uint8_t *out;
  size_t used;
  size_t capacity;
  bool full;
} writer_t;

static void put(writer_t *writer, const uint8_t *bytes, size_t count) {
  if (count > writer->capacity - writer->used) {
    writer->full = true;
  } else if (count > 0) {
    memcpy(writer->out + writer->used, bytes, count);
    writer->used += count;
  }
}

static void put_point(writer_t *writer, uint32_t point) {
  uint8_t bytes[4];
  size_t count = vlart_text_point_bytes(point);
  static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
  for (size_t i = count; i-- > 1;) {
    bytes[i] = (uint8_t)(0x80u | (point & 0x3Fu));
    point >>= 6;
  }
  bytes[0] = (uint8_t)(lead[count] | point);
  put(writer, bytes, count);
}

const vlart_span_record_t *vlart_text_span(const vlart_token_table_t *table,
                                           const vlart_step_record_t *step, uint32_t point) {
  uint32_t low = 0;
  uint32_t high = step->span_count;
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    const vlart_span_record_t *span = vlart_token_span(table, step->span_begin + middle);
    if (point < span->first) {
      high = middle;
    } else if (point > span->last) {
      low = middle + 1;
    } else {
      return span;
    }
  }
  return NULL;
}

enum { SYLLABLES = 0xAC00, LEADS = 0x1100, VOWELS = 0x1161, TAILS = 0x11A7 };

static void put_mapped(const vlart_token_table_t *table, const vlart_span_record_t *span,
                       uint32_t point, writer_t *writer) {
  const uint8_t blank = ' ';
  uint32_t syllable = point - SYLLABLES;
  switch (span->action) {
    case VLART_SPAN_ACTION_DELETE: break;
    case VLART_SPAN_ACTION_SHIFT: put_point(writer, point + span->argument); break;
    case VLART_SPAN_ACTION_SPACE:
      put(writer, &blank, 1);
      put_point(writer, point);
      put(writer, &blank, 1);
      break;
    case VLART_SPAN_ACTION_HANGUL:
      put_point(writer, LEADS + syllable / 588);
      put_point(writer, VOWELS + syllable % 588 / 28);
      if (syllable % 28 > 0) {
        put_point(writer, TAILS + syllable % 28);
      }
      break;
    default:
      for (uint32_t i = 0; i < table->indices[span->argument]; i++) {
        put_point(writer, table->indices[span->argument + 1 + i]);
      }
  }
}

static void map(const vlart_token_table_t *table, const vlart_step_record_t *step,
                vlart_piece_t piece, writer_t *writer) {
  for (size_t at = 0; at < piece.count;) {
    size_t begin = at;
    uint32_t point = vlart_text_point(piece.bytes, &at);
    const vlart_span_record_t *span = vlart_text_span(table, step, point);
    if (span == NULL) {
      put(writer, piece.bytes + begin, at - begin);
    } else {
      put_mapped(table, span, point, writer);
    }
  }
}

/* Canonical order (Unicode 3.11, D109): within a run of marks, a stable sort by combining class. The
   class is kept above the 21 bits of a code point. */
static size_t decode(const vlart_token_table_t *table, const vlart_step_record_t *step,
                     vlart_piece_t piece, uint32_t *points) {
  size_t count = 0;
  for (size_t at = 0; at < piece.count;) {
    uint32_t point = vlart_text_point(piece.bytes, &at);
    const vlart_span_record_t *span = vlart_text_span(table, step, point);
    points[count++] = point | (span == NULL ? 0 : span->action) << 24;
  }
  return count;
}

static void order(uint32_t *points, size_t count) {
  for (size_t i = 1; i < count; i++) {
    uint32_t moved = points[i];
    size_t at = i;
    for (; at > 0 && moved >> 24 > 0 && points[at - 1] >> 24 > moved >> 24; at--) {
      points[at] = points[at - 1];
    }
    points[at] = moved;
  }
}

static uint32_t composed(const vlart_token_table_t *table, uint32_t first, uint32_t second) {
  if (first - LEADS < 19 && second - VOWELS < 21) {
    return SYLLABLES + ((first - LEADS) * 21 + (second - VOWELS)) * 28;
  }
  if (first - SYLLABLES < 11172 && (first - SYLLABLES) % 28 == 0 && second - TAILS - 1 < 27) {
    return first + (second - TAILS);
  }
  const vlart_table_t *pairs = &table->file.tables[VLART_SECTION_COMPOSITIONS];
  uint64_t wanted = (uint64_t)first << 32 | second;
  uint32_t low = 0;
  uint32_t high = pairs->count;
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    const vlart_composition_record_t *row = vlart_record(pairs, middle);
    uint64_t key = (uint64_t)row->first << 32 | row->second;
    if (key == wanted) {
      return row->composed;
    }
    if (wanted < key) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return VLART_NONE;
}

/* Canonical composition (Unicode 3.11, D117): a mark joins the last starter unless one of its class
   or a higher one lies between. What is composed is a starter. */
static size_t compose(const vlart_token_table_t *table, uint32_t *points, size_t count) {
  size_t starter = SIZE_MAX;
  size_t kept = 0;
  uint32_t between = 0; /* class of what lies between; 256: a starter */
  for (size_t i = 0; i < count; i++) {
    uint32_t point = points[i] & 0x1FFFFFu;
    uint32_t class = points[i] >> 24;
    bool blocked = starter == SIZE_MAX || (kept > starter + 1 && (between >= class));
    uint32_t joined = blocked ? VLART_NONE : composed(table, points[starter], point);
    if (joined != VLART_NONE) {
      points[starter] = joined;
      continue;
    }
    between = class;
    if (class == 0) {
      starter = kept;
    }
    points[kept++] = points[i];
  }
  return kept;
}

static void replace(const vlart_token_table_t *table, const vlart_step_record_t *step,
                    vlart_piece_t piece, writer_t *writer) {
  const uint8_t *find = table->blob + step->find;
  for (size_t at = 0; at < piece.count;) {
    if (piece.count - at >= step->find_bytes &&
        memcmp(piece.bytes + at, find, step->find_bytes) == 0) {
      put(writer, table->blob + step->put, step->put_bytes);
      at += step->find_bytes;
    } else {
      put(writer, piece.bytes + at, 1);
      at++;
    }
  }
}

static void prepend(const vlart_token_table_t *table, const vlart_step_record_t *step,
                    vlart_piece_t piece, bool at_start, writer_t *writer) {
  const uint8_t *added = table->blob + step->put;
  bool has = piece.count >= step->put_bytes && memcmp(piece.bytes, added, step->put_bytes) == 0;
  bool wanted = step->option == VLART_PREPEND_RULE_ALWAYS ||
                (!has && (step->option == VLART_PREPEND_RULE_MISSING || at_start));
  if (wanted && piece.count > 0) {
    put(writer, added, step->put_bytes);
  }
  put(writer, piece.bytes, piece.count);
}

vlart_piece_t vlart_text_rewrite(vlart_tokenizer_t *tokenizer, uint32_t first, uint32_t count,
                                 vlart_piece_t piece, uint8_t *const buffers[2], size_t bytes,
                                 bool at_start) {
  const vlart_token_table_t *table = &tokenizer->table;
  size_t points = 0;
  for (uint32_t i = 0; i < count && piece.count > 0; i++) {
    const vlart_step_record_t *step = vlart_token_step(table, first + i);
    writer_t writer = {buffers[i % 2], 0, bytes, false};
    switch (step->kind) {
      case VLART_TEXT_STEP_MAP: map(table, step, piece, &writer); break;
      case VLART_TEXT_STEP_REPLACE: replace(table, step, piece, &writer); break;
      case VLART_TEXT_STEP_PREPEND: prepend(table, step, piece, at_start, &writer); break;
      default: /* ORDER, COMPOSE */
        points = decode(table, step, piece, tokenizer->points);
        order(tokenizer->points, points);
        if (step->kind == VLART_TEXT_STEP_COMPOSE) {
          points = compose(table, tokenizer->points, points);
        }
        for (size_t at = 0; at < points; at++) {
          put_point(&writer, tokenizer->points[at] & 0x1FFFFFu);
        }
    }
    tokenizer->full = tokenizer->full || writer.full;
    piece = (vlart_piece_t){writer.out, writer.used};
  }
  return piece;
}
