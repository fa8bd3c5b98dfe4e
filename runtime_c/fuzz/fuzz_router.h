#ifndef FUZZ_ROUTER_H
#define FUZZ_ROUTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Each: whether the bytes are one; what is accepted is used. A routing table; the state of a router, which belongs to
   the table that was given; the record of built engines. */
bool fuzz_router(const uint8_t *data, size_t bytes, uint64_t *stepped);
bool fuzz_state(const uint8_t *data, size_t bytes, uint64_t *stepped);
bool fuzz_lock(const uint8_t *data, size_t bytes, uint64_t *bytes_used);

/* The table of the states; it stays the caller's. */
void fuzz_state_table(const uint8_t *table, size_t bytes);

/* Makes the checksum and the table of a state right; leaves every other file alone. */
void fuzz_seal_state(uint8_t *data, size_t bytes);

#endif
