/* [tick] A word becomes ids: WordPiece (the longest piece first) or BPE (the pair of lowest rank
   first, the leftmost of equals). A word of n bytes costs at most n * n steps of a search in the
   first, n * log n in the second. */
#include <string.h>

#include "tokenizer/tokenizer.h"

static uint32_t entry_bytes(const vlart_token_table_t *table, uint32_t entry) {
  return table->entry_begins[entry + 1] - table->entry_begins[entry];
}

/* First of the entries low..high, which share `depth` bytes, whose next byte is at least `byte`; one
   that ends there comes before all bytes. */
static uint32_t narrow(const vlart_token_table_t *table, uint32_t low, uint32_t high,
                       uint32_t depth, uint32_t byte) {
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    uint32_t begin = table->entry_begins[middle];
    bool below = entry_bytes(table, middle) <= depth || table->blob[begin + depth] < byte;
    if (below) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

uint32_t vlart_token_longest(const vlart_token_table_t *table, uint32_t begin, uint32_t count,
                             vlart_piece_t piece, size_t *out_bytes) {
  uint32_t low = begin;
  uint32_t high = begin + count;
  uint32_t best = VLART_NONE;
  *out_bytes = 0;
  for (uint32_t depth = 0; depth < piece.count && low < high; depth++) {
    uint32_t byte = piece.bytes[depth];
    low = narrow(table, low, high, depth, byte);
    high = narrow(table, low, high, depth, byte + 1);
    if (low < high && entry_bytes(table, low) == depth + 1) {
      best = low;
      *out_bytes = depth + 1;
    }
  }
  return best;
}

static void wordpiece(vlart_tokenizer_t *tokenizer, vlart_piece_t word) {
  const vlart_token_table_t *table = &tokenizer->table;
  const vlart_tokenizer_record_t *record = table->record;
  size_t before = tokenizer->id_count;
  size_t characters = 0;
  for (size_t i = 0; i < word.count; i++) {
    characters += (word.bytes[i] & 0xC0) != 0x80;
  }
  bool known = characters <= record->longest_word;
  for (size_t at = 0; known && at < word.count;) {
    vlart_piece_t rest = {word.bytes + at, word.count - at};
    size_t length;
    uint32_t entry =
        at == 0 ? vlart_token_longest(table, record->word_begin, record->word_count, rest, &length)
                : vlart_token_longest(table, record->rest_begin, record->rest_count, rest, &length);
    known = entry != VLART_NONE;
    if (known) {
      vlart_token_emit(tokenizer, table->entry_ids[entry]);
      at += length;
    }
  }
  if (!known) {
    tokenizer->id_count = before;
    vlart_token_emit(tokenizer, record->unknown);
  }
}

/* Index of the merge of two tokens, or VLART_NONE. */
static uint32_t find_merge(const vlart_token_table_t *table, uint32_t left, uint32_t right) {
  uint32_t low = table->merge_rows[left];
  uint32_t high = table->merge_rows[left + 1];
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    if (table->merge_rights[middle] == right) {
      return middle;
    }
    if (table->merge_rights[middle] < right) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return VLART_NONE;
}

static bool is_before(const vlart_merge_t *a, const vlart_merge_t *b) {
  return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

static void push(vlart_merge_t *heap, size_t *count, vlart_merge_t merge) {
  size_t at = (*count)++;
  for (; at > 0 && is_before(&merge, &heap[(at - 1) / 2]); at = (at - 1) / 2) {
    heap[at] = heap[(at - 1) / 2];
  }
  heap[at] = merge;
}

static vlart_merge_t pop(vlart_merge_t *heap, size_t *count) {
  vlart_merge_t top = heap[0];
  vlart_merge_t last = heap[--(*count)];
  size_t at = 0;
  for (size_t child = 1; child < *count; child = 2 * at + 1) {
    child += child + 1 < *count && is_before(&heap[child + 1], &heap[child]);
    if (!is_before(&heap[child], &last)) {
      break;
    }
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = last;
  return top;
}

static void push_pair(vlart_tokenizer_t *tokenizer, size_t *count, uint32_t position) {
  const vlart_token_table_t *table = &tokenizer->table;
  const vlart_symbol_t *left = &tokenizer->symbols[position];
  uint32_t merge = find_merge(table, left->id, tokenizer->symbols[left->next].id);
  if (merge != VLART_NONE) {
    push(tokenizer->heap, count,
         (vlart_merge_t){table->merge_ranks[merge], position, table->merge_ids[merge]});
  }
}

/* A pair that is merged leaves at most two new ones, so the heap never holds three times the symbols. */
static void merge_symbols(vlart_tokenizer_t *tokenizer, uint32_t count) {
  const vlart_token_table_t *table = &tokenizer->table;
  vlart_symbol_t *symbols = tokenizer->symbols;
  size_t waiting = 0;
  for (uint32_t i = 0; i + 1 < count; i++) {
    push_pair(tokenizer, &waiting, i);
  }
  while (waiting > 0) {
    vlart_merge_t top = pop(tokenizer->heap, &waiting);
    vlart_symbol_t *left = &symbols[top.position];
    if (!left->alive || left->next == VLART_NONE) {
      continue;
    }
    vlart_symbol_t *right = &symbols[left->next];
    uint32_t merge = find_merge(table, left->id, right->id);
    if (merge == VLART_NONE || table->merge_ids[merge] != top.id) {
      continue; /* the pair that waited here is gone */
    }
    left->id = top.id;
    left->next = right->next;
    right->alive = 0;
    if (left->next != VLART_NONE) {
      symbols[left->next].previous = top.position;
      push_pair(tokenizer, &waiting, top.position);
    }
    if (left->previous != VLART_NONE) {
      push_pair(tokenizer, &waiting, left->previous);
    }
  }
}

static void add_symbol(vlart_tokenizer_t *tokenizer, uint32_t *count, uint32_t id) {
  uint32_t at = (*count)++;
  if (at > 0) {
    tokenizer->symbols[at - 1].next = at;
  }
  tokenizer->symbols[at] = (vlart_symbol_t){id, at == 0 ? VLART_NONE : at - 1, VLART_NONE, 1};
}

/* The symbols of a word before any is merged: its characters, or its bytes. */
static uint32_t begin_symbols(vlart_tokenizer_t *tokenizer, vlart_piece_t word) {
  const vlart_token_table_t *table = &tokenizer->table;
  const vlart_tokenizer_record_t *record = table->record;
  uint32_t count = 0;
  bool after_unknown = false;
  for (size_t at = 0; at < word.count;) {
    size_t end = at + 1;
    uint32_t letter = VLART_NONE;
    if (record->letter_count > 0) {
      size_t length;
      end = at;
      vlart_text_point(word.bytes, &end);
      letter = vlart_token_longest(table, record->letter_begin, record->letter_count,
                                   (vlart_piece_t){word.bytes + at, end - at}, &length);
      letter = length == end - at ? letter : VLART_NONE;
    }
    bool unknown = letter == VLART_NONE && record->byte_count == 0;
    if (letter != VLART_NONE) {
      add_symbol(tokenizer, &count, table->entry_ids[letter]);
    }
    for (size_t i = at; letter == VLART_NONE && record->byte_count > 0 && i < end; i++) {
      uint32_t id = table->indices[record->byte_begin + word.bytes[i]];
      if (id != VLART_NONE) {
        add_symbol(tokenizer, &count, id);
      }
      unknown = unknown || id == VLART_NONE;
    }
    if (unknown && record->unknown != VLART_NONE && !(after_unknown && record->fuse_unknown != 0)) {
      add_symbol(tokenizer, &count, record->unknown);
    }
    after_unknown = unknown;
    at = end;
  }
  return count;
}

static void bpe(vlart_tokenizer_t *tokenizer, vlart_piece_t word) {
  const vlart_token_table_t *table = &tokenizer->table;
  size_t length;
  uint32_t whole = vlart_token_longest(table, table->record->word_begin, table->record->word_count,
                                       word, &length);
  if (whole != VLART_NONE && length == word.count) {
    vlart_token_emit(tokenizer, table->entry_ids[whole]);
    return;
  }
  uint32_t count = begin_symbols(tokenizer, word);
  merge_symbols(tokenizer, count);
  for (uint32_t i = count > 0 ? 0 : VLART_NONE; i != VLART_NONE; i = tokenizer->symbols[i].next) {
    vlart_token_emit(tokenizer, tokenizer->symbols[i].id);
  }
}

void vlart_encode_word(vlart_tokenizer_t *tokenizer, vlart_piece_t word) {
  if (tokenizer->table.record->model == VLART_TOKEN_MODEL_WORDPIECE) {
    wordpiece(tokenizer, word);
  } else {
    bpe(tokenizer, word);
  }
}
