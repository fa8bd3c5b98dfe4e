/* The clock that durations and ages are measured with. */
#ifndef VLART_CLOCK_H
#define VLART_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t vlart_now_ns(void);

#endif
