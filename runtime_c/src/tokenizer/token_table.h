/* A validated table of a tokenizer; constant after [open].
   Knows nothing of bundles and sessions: it works on memory alone, which is what the fuzzers feed. */
#ifndef VLART_TOKEN_TABLE_H
#define VLART_TOKEN_TABLE_H

#include "container/container.h"

#define VLART_MAX_TEXT_BYTES 1048576u /* of one text, and of what its steps may make of it */
#define VLART_MAX_TEXT_STEPS 16u      /* of all three kinds together */

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

/* The longest of `count` entries from `begin` on that `piece` begins with, or VLART_NONE. */
uint32_t vlart_token_longest(const vlart_token_table_t *table, uint32_t begin, uint32_t count,
                             vlart_piece_t piece, size_t *out_bytes);

/* The action of the step's span that holds the code point, NULL: none does. */
const vlart_span_record_t *vlart_text_span(const vlart_token_table_t *table,
                                           const vlart_step_record_t *step, uint32_t point);

#endif
