#ifndef FUZZ_OPEN_H
#define FUZZ_OPEN_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
  uint64_t executed;
  uint64_t accepted;
  uint64_t stepped;
  uint64_t bytes_used; /* keeps the reads alive */
} fuzz_counts_t;

extern fuzz_counts_t fuzz_counts;

/* A tokenizer's table, which stands for every one that a plan names. It stays the caller's. */
void fuzz_stand_in(const uint8_t *table, size_t bytes);

/* One file, aligned to 8, in a block of exactly its size. */
void fuzz_read(const uint8_t *data, size_t bytes);

/* Makes size and checksums right, so that only the structure can be what is refused. */
void fuzz_seal(uint8_t *data, size_t bytes);

/* The file as it is and sealed. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#endif
