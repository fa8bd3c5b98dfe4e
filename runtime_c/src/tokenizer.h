/* The inside of a tokenizer: a validated table, and room for one text. The table is constant after
   [open]; the room is written by every call, so a tokenizer belongs to one thread at a time.
   Knows nothing of bundles and sessions: it works on memory alone, which is what the fuzzers feed. */
#ifndef VLART_TOKENIZER_H
#define VLART_TOKENIZER_H

#include "arena.h"
#include "container.h"

#define VLART_MAX_TEXT_STEPS 16u       /* of all three kinds together */
#define VLART_MAX_TEXT_BYTES 1048576u  /* of one text, and of what its steps may make of it */

/* Text of n bytes becomes at most times * n + plus bytes. */
typedef struct {
  uint64_t times;
  uint64_t plus;
} vlart_growth_t;

typedef struct {
  vlart_container_t file;
  const vlart_tokenizer_record_t *record;
  const uint8_t *blob;
  const uint32_t *indices;
  const uint32_t *entry_begins;
  const uint32_t *entry_ids;
  const uint32_t *merge_rows;
  const uint32_t *merge_rights;
  const uint32_t *merge_ranks;
  const uint32_t *merge_ids;
  vlart_growth_t normalised;  /* by the normalise steps */
  vlart_growth_t transformed; /* by the transform steps, of what was normalised */
} vlart_token_table_t;

typedef struct {
  uint32_t id;
  uint32_t previous; /* VLART_NONE at the ends */
  uint32_t next;
  uint32_t alive;
} vlart_symbol_t;

typedef struct {
  uint32_t rank;
  uint32_t position;
  uint32_t id;
} vlart_merge_t;

struct vlart_tokenizer {
  vlart_token_table_t table;
  size_t max_text_bytes;
  size_t normal_bytes;  /* of each of the two buffers */
  size_t changed_bytes;
  size_t id_limit;
  uint8_t *text; /* [max_text_bytes + ending] with its ending */
  uint8_t *normal[2];
  uint8_t *changed[2];
  uint32_t *points;        /* [normal_bytes] code points of one piece */
  vlart_symbol_t *symbols; /* [changed_bytes] of one word */
  vlart_merge_t *heap;     /* [3 * changed_bytes] */
  uint32_t *ids;           /* [id_limit] of the text, without prefix and suffix */
  size_t id_count;
  bool full; /* something did not fit: the bounds of [open] are wrong */
};

typedef struct {
  const uint8_t *bytes;
  size_t count;
} vlart_piece_t;

static inline const vlart_step_record_t *vlart_token_step(const vlart_token_table_t *table,
                                                          uint32_t index) {
  return vlart_record(&table->file.tables[VLART_SECTION_STEPS], index);
}

static inline const vlart_span_record_t *vlart_token_span(const vlart_token_table_t *table,
                                                          uint32_t index) {
  return vlart_record(&table->file.tables[VLART_SECTION_SPANS], index);
}

/* [open] Checks every record; `data` is 8-byte aligned and stays valid while the table is used. */
vlart_status_t vlart_token_table_read(const uint8_t *data, size_t bytes, const char *name,
                                      vlart_diag_t *diag, vlart_token_table_t *out_table);

/* [init] Places, or measures, a tokenizer for texts of up to `max_text_bytes`; NULL while measuring.
   False: texts of that length could become larger than VLART_MAX_TEXT_BYTES. */
bool vlart_tokenizer_take(vlart_arena_t *arena, const vlart_token_table_t *table,
                          size_t max_text_bytes, vlart_tokenizer_t **out_tokenizer);

/* [tick] Cuts and encodes; the ids are in tokenizer->ids. */
vlart_status_t vlart_tokenizer_run(vlart_tokenizer_t *tokenizer, const char *text, size_t bytes,
                                   vlart_diag_t *diag);

/* [tick] The ids of the last run with prefix and suffix: `length` of them, cut or filled up as the
   table says. i32 or i64; `mask`, one byte each, may be NULL. */
vlart_status_t vlart_tokenizer_lay_out(const vlart_tokenizer_t *tokenizer, void *ids, uint32_t dtype,
                                       uint8_t *mask, size_t length, vlart_diag_t *diag);

/* [tick] Runs `count` text steps from `first` on; the result lies in `piece` itself or in one of the
   buffers. at_start: the piece begins where the text does. */
vlart_piece_t vlart_text_change(vlart_tokenizer_t *tokenizer, uint32_t first, uint32_t count,
                                vlart_piece_t piece, uint8_t *const buffers[2], size_t bytes,
                                bool at_start);

/* [tick] Cuts a piece into words with the steps from `step` on, and gives them to the model. */
void vlart_text_cut(vlart_tokenizer_t *tokenizer, uint32_t step, vlart_piece_t piece);

/* [tick] The ids of one word. */
void vlart_token_model(vlart_tokenizer_t *tokenizer, vlart_piece_t word);

static inline void vlart_token_emit(vlart_tokenizer_t *tokenizer, uint32_t id) {
  if (tokenizer->id_count < tokenizer->id_limit) {
    tokenizer->ids[tokenizer->id_count++] = id;
  } else {
    tokenizer->full = true;
  }
}

/* The longest of `count` entries from `begin` on that `piece` begins with, or VLART_NONE. */
uint32_t vlart_token_longest(const vlart_token_table_t *table, uint32_t begin, uint32_t count,
                             vlart_piece_t piece, size_t *out_bytes);

/* The action of the step's span that holds the code point, NULL: none does. */
const vlart_span_record_t *vlart_text_span(const vlart_token_table_t *table,
                                           const vlart_step_record_t *step, uint32_t point);

/* The code point at `text`, which is well-formed; its length is added to *at. */
static inline uint32_t vlart_text_point(const uint8_t *text, size_t *at) {
  const uint8_t *t = text + *at;
  if (t[0] < 0x80) {
    *at += 1;
    return t[0];
  }
  if (t[0] < 0xE0) {
    *at += 2;
    return (t[0] & 0x1Fu) << 6 | (t[1] & 0x3Fu);
  }
  if (t[0] < 0xF0) {
    *at += 3;
    return (t[0] & 0x0Fu) << 12 | (t[1] & 0x3Fu) << 6 | (t[2] & 0x3Fu);
  }
  *at += 4;
  return (t[0] & 0x07u) << 18 | (t[1] & 0x3Fu) << 12 | (t[2] & 0x3Fu) << 6 | (t[3] & 0x3Fu);
}

static inline size_t vlart_text_point_bytes(uint32_t point) {
  return point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
}

/* Of text that need not be well-formed: bytes before the first fault; `count`: there is none. */
size_t vlart_text_fault(const uint8_t *text, size_t count);

#endif
