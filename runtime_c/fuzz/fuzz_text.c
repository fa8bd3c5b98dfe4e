/* Uses a tokenizer's table that the reader accepted, however it was damaged: the ids must stay below
   its token count, and encoding within what was placed. */
#include "fuzz_text.h"

#include <stdlib.h>
#include <string.h>

enum { LONGEST = 48, LARGEST_TOKENIZER = 1 << 22 };

static const char *const texts[] = {
    "",
    "Put it [SEP] now",
    "go ab|ab--12 <x>  \xC3\xA9\xC3\x9F",
    "e\xCC\xA3\xCC\x81 \xEA\xB0\x80\xE5\xAD\x97!\r\n x",
    "\xF0\x9F\xA4\x96 don't'S\t\t  99 zz",
    "\xFF",
    "putputputputputputputputputputputputputputputput",
};

static uint64_t encode(vlart_tokenizer_t *tokenizer, const char *text, size_t bytes) {
  uint8_t mask[9];
  int64_t filled[9];
  uint64_t sum = 0;
  size_t count = 0;
  size_t capacity = tokenizer->id_limit + tokenizer->table.record->prefix_count +
                    tokenizer->table.record->suffix_count;
  int64_t *ids = malloc((capacity + 1) * sizeof *ids);
  if (vlart_tokenizer_encode(tokenizer, text, bytes, ids, capacity, &count, NULL) ==
      VLART_STATUS_OK) {
    for (size_t i = 0; i < count; i++) {
      if (ids[i] < 0 || ids[i] >= tokenizer->table.record->token_count) {
        abort();
      }
      sum += (uint64_t)ids[i];
    }
  } else if (bytes <= LONGEST && vlart_text_fault((const uint8_t *)text, bytes) == bytes) {
    abort(); /* a text that may be given is encoded, whatever the table says */
  }
  if (vlart_tokenizer_fill(tokenizer, text, bytes, filled, mask, 9, NULL) == VLART_STATUS_OK) {
    sum += (uint64_t)filled[8] + mask[8];
  }
  free(ids);
  return sum;
}

bool fuzz_table(const uint8_t *data, size_t bytes, uint64_t *bytes_used) {
  size_t needed = 0;
  vlart_diag_t diag = {.struct_size = sizeof diag};
  vlart_token_table_t table;
  if (vlart_token_table_read(data, bytes, "table", &diag, &table) != VLART_STATUS_OK) {
    return false;
  }
  if (vlart_tokenizer_required_bytes(data, bytes, LONGEST, &diag, &needed) != VLART_STATUS_OK ||
      needed > LARGEST_TOKENIZER) {
    return true;
  }
  void *arena = malloc(needed);
  vlart_tokenizer_t *tokenizer = NULL;
  if (vlart_tokenizer_open(data, bytes, LONGEST, arena, needed, &diag, &tokenizer) !=
      VLART_STATUS_OK) {
    abort();
  }
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    *bytes_used += encode(tokenizer, texts[i], strlen(texts[i]));
  }
  for (size_t at = 0; at + LONGEST < bytes && at < 8 * LONGEST; at += LONGEST) {
    *bytes_used += encode(tokenizer, (const char *)data + bytes - at - LONGEST, LONGEST);
  }
  free(arena);
  return true;
}
