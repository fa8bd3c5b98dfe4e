#ifndef FUZZ_TEXT_H
#define FUZZ_TEXT_H

#include "tokenizer/tokenizer.h"

/* Whether the bytes, aligned to 8, are a table; if so, texts are encoded with it. */
bool fuzz_table(const uint8_t *data, size_t bytes, uint64_t *bytes_used);

#endif
