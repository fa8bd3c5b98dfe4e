#ifndef FUZZ_LOG_H
#define FUZZ_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether the bytes are a recording; of one that is accepted every event is read. */
bool fuzz_log(const uint8_t *data, size_t bytes, uint64_t *bytes_used);

/* Makes the checksums of a recording right. `seal_plan`: those of the plan in it. */
void fuzz_seal_log(uint8_t *data, size_t bytes, void (*seal_plan)(uint8_t *data, size_t bytes));

#endif
