/* The inside of a tokenizer: a table, and room for one text, which every call writes: a tokenizer belongs to
   one thread at a time. */
#ifndef VLART_TOKENIZER_H
#define VLART_TOKENIZER_H

#include "base/arena.h"
#include "base/utf8.h"
#include "tokenizer/token_table.h"

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
  size_t normal_bytes; /* of each of the two buffers */
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

/* [init] Places, or measures, a tokenizer for texts of up to `max_text_bytes`; NULL while measuring.
   False: texts of that length could become larger than VLART_MAX_TEXT_BYTES. */
bool vlart_tokenizer_take(vlart_arena_t *arena, const vlart_token_table_t *table,
                          size_t max_text_bytes, vlart_tokenizer_t **out_tokenizer);

/* [tick] Cuts and encodes; the ids are in tokenizer->ids. */
vlart_status_t vlart_tokenizer_run(vlart_tokenizer_t *tokenizer, const char *text, size_t bytes,
                                   vlart_diag_t *diag);

/* [tick] The ids of the last run with prefix and suffix: `length` of them, cut or filled up as the
   table says. i32 or i64; `mask`, one byte each, may be NULL. */
vlart_status_t vlart_tokenizer_lay_out(const vlart_tokenizer_t *tokenizer, void *ids,
                                       uint32_t dtype, uint8_t *mask, size_t length,
                                       vlart_diag_t *diag);

/* normalise.c. [tick] Runs `count` text steps from `first` on; the result lies in `piece` itself or in one of the
   buffers. at_start: the piece begins where the text does. */
vlart_piece_t vlart_text_rewrite(vlart_tokenizer_t *tokenizer, uint32_t first, uint32_t count,
                                 vlart_piece_t piece, uint8_t *const buffers[2], size_t bytes,
                                 bool at_start);

/* pretokenise.c. [tick] Cuts a piece into words with the steps from `index` on, and gives them to the model. */
void vlart_pretokenise(vlart_tokenizer_t *tokenizer, uint32_t index, vlart_piece_t piece);

/* subword_model.c. [tick] The ids of one word. */
void vlart_encode_word(vlart_tokenizer_t *tokenizer, vlart_piece_t word);

static inline void vlart_token_emit(vlart_tokenizer_t *tokenizer, uint32_t id) {
  if (tokenizer->id_count < tokenizer->id_limit) {
    tokenizer->ids[tokenizer->id_count++] = id;
  } else {
    tokenizer->full = true;
  }
}

#endif
