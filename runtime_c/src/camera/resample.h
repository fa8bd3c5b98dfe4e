/* Resizing of byte images along one axis, as torchvision's resize does it: weights of a triangle or a cubic that grows
   with the reduction, as 16-bit integers; first along rows, then along columns, each rounded to bytes. */
#ifndef VLART_RESAMPLE_H
#define VLART_RESAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"

/* Of each output position: `counts` weights of the inputs from `firsts` on. */
typedef struct {
  uint32_t in, out;
  uint32_t taps; /* distance between two positions' weights */
  unsigned shift;
  uint32_t *firsts; /* [out] */
  uint32_t *counts; /* [out] */
  int16_t *weights; /* [out, taps]; of the nearest one none */
} vlart_axis_t;

/* [init] Places or measures. resize: VLART_RESIZE_... */
void vlart_axis_take(vlart_axis_t *axis, uint32_t in, uint32_t out, uint32_t resize,
                     vlart_arena_t *arena);
/* [init] `scratch`: room for as many numbers as the axis has weights. */
void vlart_axis_fill(vlart_axis_t *axis, uint32_t resize, double *scratch);

/* [tick] A row of `in` pixels -> one of `out` pixels, of 1 to 4 channels. */
void vlart_axis_row(const vlart_axis_t *axis, const uint8_t *row, uint32_t channels, uint8_t *out);

/* [tick] Position `at` of `bytes` numbers each; rows: [in, bytes]. */
void vlart_axis_column(const vlart_axis_t *axis, uint32_t at, const uint8_t *rows, size_t bytes,
                       uint8_t *out);

#endif
