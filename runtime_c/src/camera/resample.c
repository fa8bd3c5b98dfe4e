#include "camera/resample.h"

#include <math.h>
#include <string.h>

#include "vlart/vlart_camera.h"

#define COLUMN_BLOCK 512u /* bytes of a row that are summed at a time */
#define MOST_SHIFT 22u

static bool is_weighted(uint32_t resize) {
  return resize == VLART_RESIZE_BILINEAR || resize == VLART_RESIZE_BICUBIC ||
         resize == VLART_RESIZE_BILINEAR_PLAIN;
}

static double reach(uint32_t resize) { return resize == VLART_RESIZE_BICUBIC ? 2.0 : 1.0; }

static double filter(uint32_t resize, double x) {
  const double a = -0.5; /* of the antialiased cubic */
  x = fabs(x);
  if (resize == VLART_RESIZE_BILINEAR) {
    return x < 1.0 ? 1.0 - x : 0.0;
  }
  if (x < 1.0) {
    return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  }
  return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

static double support_of(const vlart_axis_t *axis, uint32_t resize) {
  double scale = (double)axis->in / axis->out;
  return reach(resize) * (scale > 1.0 ? scale : 1.0);
}

void vlart_axis_take(vlart_axis_t *axis, uint32_t in, uint32_t out, uint32_t resize,
                     vlart_arena_t *arena) {
  axis->in = in;
  axis->out = out;
  axis->taps = is_weighted(resize) ? (uint32_t)ceil(support_of(axis, resize)) * 2 + 1 : 0;
  axis->firsts = vlart_arena_take(arena, out, sizeof *axis->firsts);
  axis->counts = vlart_arena_take(arena, out, sizeof *axis->counts);
  axis->weights = vlart_arena_take(arena, (size_t)out * axis->taps, sizeof *axis->weights);
}

/* The input that position `at` shows; in f32, as torch computes it. */
static uint32_t nearest(const vlart_axis_t *axis, uint32_t resize, uint32_t at) {
  float scale = (float)axis->in / (float)axis->out;
  float where = resize == VLART_RESIZE_NEAREST ? (float)at * scale : ((float)at + 0.5f) * scale;
  uint32_t index = (uint32_t)floorf(where);
  return index < axis->in ? index : axis->in - 1;
}

/* Two neighbours, whatever the reduction. Returns the larger weight. */
static double fill_pair(vlart_axis_t *axis, uint32_t at, double *weights) {
  double where = (double)axis->in / axis->out * (at + 0.5) - 0.5;
  where = where > 0.0 ? where : 0.0;
  uint32_t first = (uint32_t)where < axis->in ? (uint32_t)where : axis->in - 1;
  double second = first + 1 < axis->in ? where - first : 0.0;
  weights[0] = 1.0 - second;
  weights[1] = second;
  axis->firsts[at] = first;
  axis->counts[at] = first + 1 < axis->in ? 2 : 1;
  return second > 0.5 ? second : weights[0];
}

/* The weights of one position, summing up to 1. Returns the largest. */
static double fill_position(vlart_axis_t *axis, uint32_t resize, uint32_t at, double *weights) {
  if (resize == VLART_RESIZE_BILINEAR_PLAIN) {
    return fill_pair(axis, at, weights);
  }
  double scale = (double)axis->in / axis->out, support = support_of(axis, resize);
  double center = scale * (at + 0.5), shrink = scale >= 1.0 ? 1.0 / scale : 1.0;
  double begin = center - support + 0.5, end = center + support + 0.5;
  uint32_t first = begin > 0.0 ? (uint32_t)begin : 0;
  uint32_t last = end < axis->in ? (uint32_t)end : axis->in;
  uint32_t count = last - first < axis->taps ? last - first : axis->taps;
  double sum = 0.0, most = 0.0;
  for (uint32_t k = 0; k < count; k++) {
    weights[k] = filter(resize, (k + first - center + 0.5) * shrink);
    sum += weights[k];
  }
  for (uint32_t k = 0; k < count; k++) {
    weights[k] /= sum;
    most = weights[k] > most ? weights[k] : most;
  }
  axis->firsts[at] = first;
  axis->counts[at] = count;
  return most;
}

void vlart_axis_fill(vlart_axis_t *axis, uint32_t resize, double *scratch) {
  if (!is_weighted(resize)) {
    for (uint32_t i = 0; i < axis->out; i++) {
      axis->firsts[i] = resize == VLART_RESIZE_NONE ? i : nearest(axis, resize, i);
      axis->counts[i] = 1;
    }
    return;
  }
  double most = 0.0;
  for (uint32_t i = 0; i < axis->out; i++) {
    double found = fill_position(axis, resize, i, scratch + (size_t)i * axis->taps);
    most = found > most ? found : most;
  }
  for (axis->shift = 0; axis->shift < MOST_SHIFT; axis->shift++) {
    if ((int)(0.5 + most * (double)(1u << (axis->shift + 1))) >= 1 << 15) {
      break;
    }
  }
  double one = (double)(1u << axis->shift);
  for (uint32_t i = 0; i < axis->out; i++) {
    for (uint32_t k = 0; k < axis->counts[i]; k++) {
      size_t at = (size_t)i * axis->taps + k;
      axis->weights[at] = (int16_t)(scratch[at] * one + (scratch[at] < 0 ? -0.5 : 0.5));
    }
  }
}

static uint8_t byte_of(int32_t sum, unsigned shift) {
  int32_t value = sum >> shift;
  return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* `channels` is a constant where it is called, so that the loops over it are unrolled. */
static inline void weighted_row(const vlart_axis_t *axis, const uint8_t *row,
                                const uint32_t channels, uint8_t *out) {
  for (uint32_t i = 0; i < axis->out; i++) {
    const int16_t *weights = axis->weights + (size_t)i * axis->taps;
    const uint8_t *from = row + channels * (size_t)axis->firsts[i];
    int32_t sums[4] = {0};
    for (uint32_t k = 0; k < axis->counts[i]; k++) {
      for (uint32_t c = 0; c < channels; c++) {
        sums[c] += weights[k] * from[channels * (size_t)k + c];
      }
    }
    for (uint32_t c = 0; c < channels; c++) {
      out[channels * (size_t)i + c] = byte_of(sums[c] + (1 << (axis->shift - 1)), axis->shift);
    }
  }
}

void vlart_axis_row(const vlart_axis_t *axis, const uint8_t *row, uint32_t channels, uint8_t *out) {
  if (axis->taps == 0) {
    for (uint32_t i = 0; i < axis->out; i++) {
      memcpy(out + channels * (size_t)i, row + channels * (size_t)axis->firsts[i], channels);
    }
    return;
  }
  switch (channels) {
    case 1: weighted_row(axis, row, 1, out); break;
    case 2: weighted_row(axis, row, 2, out); break;
    case 3: weighted_row(axis, row, 3, out); break;
    default: weighted_row(axis, row, 4, out); break;
  }
}

void vlart_axis_column(const vlart_axis_t *axis, uint32_t at, const uint8_t *rows, size_t bytes,
                       uint8_t *out) {
  const uint8_t *from = rows + axis->firsts[at] * bytes;
  if (axis->taps == 0) {
    memcpy(out, from, bytes);
    return;
  }
  const int16_t *weights = axis->weights + (size_t)at * axis->taps;
  int32_t sums[COLUMN_BLOCK];
  for (size_t begin = 0; begin < bytes; begin += COLUMN_BLOCK) {
    size_t count = bytes - begin < COLUMN_BLOCK ? bytes - begin : COLUMN_BLOCK;
    for (size_t i = 0; i < count; i++) {
      sums[i] = 1 << (axis->shift - 1);
    }
    for (uint32_t k = 0; k < axis->counts[at]; k++) {
      const uint8_t *row = from + k * bytes + begin;
      int32_t weight = weights[k];
      for (size_t i = 0; i < count; i++) {
        sums[i] += weight * row[i];
      }
    }
    for (size_t i = 0; i < count; i++) {
      out[begin + i] = byte_of(sums[i], axis->shift);
    }
  }
}
