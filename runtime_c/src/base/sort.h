/* Sorts indices in place without memory of its own (the C library's qsort may allocate). */
#ifndef VLART_SORT_H
#define VLART_SORT_H

#include <stdbool.h>
#include <stdint.h>

typedef bool (*vlart_less_t)(const void *context, uint32_t a, uint32_t b);

void vlart_sort(uint32_t *indices, uint32_t count, vlart_less_t less, const void *context);

#endif
