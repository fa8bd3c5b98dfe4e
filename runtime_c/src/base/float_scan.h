/* Scans tensors for numbers that no policy was trained on. */
#ifndef VLART_FLOAT_SCAN_H
#define VLART_FLOAT_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* [tick] Index of the first element that is not finite, or `count`. Integers are always finite. */
size_t vlart_first_not_finite(const void *data, size_t count, uint32_t dtype);

/* [tick] The same without minus infinity, which masks of attention are written with. */
size_t vlart_first_not_a_result(const void *data, size_t count, uint32_t dtype);

/* [tick] Index of the first number outside its bounds, or `count`. Element i belongs to bound i modulo `bounds`.
   Of f32 in any alignment; a NaN is not outside. */
size_t vlart_first_outside(const void *data, size_t count, const float *low, const float *high,
                           size_t bounds);

/* [tick] Numbers of f32 or f64 that are too small to be normal become zeros of their sign; whether there was one.
   `data` is aligned. */
bool vlart_flush_denormals(void *data, size_t count, uint32_t dtype);

#endif
