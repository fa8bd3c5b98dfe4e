/* Three metrics, always together: cosine hides a scale, an absolute difference hides a small
   tensor that is all wrong, and a relative norm hides one bad element among many. */
#include <math.h>
#include <string.h>

#include "run.h"

static double half_to_double(uint16_t bits) {
  int exponent = bits >> 10 & 31;
  double fraction = bits & 1023;
  double magnitude = exponent == 31  ? (fraction > 0 ? (double)NAN : (double)INFINITY)
                     : exponent == 0 ? ldexp(fraction, -24)
                                     : ldexp(fraction + 1024, exponent - 25);
  return bits >> 15 ? -magnitude : magnitude;
}

static double element(const uint8_t *data, size_t index, uint32_t dtype) {
  const uint8_t *at = data + index * vlart_dtype_bytes(dtype);
  uint16_t u16;
  uint32_t u32;
  int32_t i32;
  int64_t i64;
  float f32;
  double f64;
  switch (dtype) {
    case VLART_DTYPE_F32: memcpy(&f32, at, sizeof f32); return (double)f32;
    case VLART_DTYPE_F64: memcpy(&f64, at, sizeof f64); return f64;
    case VLART_DTYPE_I32: memcpy(&i32, at, sizeof i32); return (double)i32;
    case VLART_DTYPE_I64: memcpy(&i64, at, sizeof i64); return (double)i64;
    case VLART_DTYPE_I8: return (double)(int8_t)*at;
    case VLART_DTYPE_F16: memcpy(&u16, at, sizeof u16); return half_to_double(u16);
    case VLART_DTYPE_BF16:
      memcpy(&u16, at, sizeof u16);
      u32 = (uint32_t)u16 << 16;
      memcpy(&f32, &u32, sizeof f32);
      return (double)f32;
    default: return (double)*at; /* u8, bool */
  }
}

bool run_is_worse(double difference, double allowed, double than, double than_allowed) {
  double share = difference * than_allowed;
  double than_share = than * allowed;
  return share > than_share || (share == than_share && difference > than);
}

run_metrics_t run_compare(const void *got, const void *want, size_t count, uint32_t dtype,
                          const float *allowed, uint32_t columns) {
  run_metrics_t metrics = {0, (double)allowed[0], 0, 1};
  double difference2 = 0;
  double got2 = 0;
  double want2 = 0;
  double product = 0;
  for (size_t i = 0; i < count; i++) {
    double g = element(got, i, dtype);
    double w = element(want, i, dtype);
    if ((isinf(w) && g == w) || (isnan(w) && isnan(g))) { /* a mask; no number in PyTorch either */
      continue;
    }
    double d = g - w;
    if (!isfinite(d)) {
      return (run_metrics_t){(double)INFINITY, (double)allowed[i % columns], (double)INFINITY, -1};
    }
    double most = (double)allowed[i % columns];
    if (run_is_worse(fabs(d), most, metrics.max_abs, metrics.max_abs_allowed)) {
      metrics.max_abs = fabs(d);
      metrics.max_abs_allowed = most;
    }
    difference2 += d * d;
    got2 += g * g;
    want2 += w * w;
    product += g * w;
  }
  if (difference2 > 0) {
    metrics.rel_l2 = want2 > 0 ? sqrt(difference2 / want2) : (double)INFINITY;
    metrics.cosine = got2 > 0 && want2 > 0 ? product / sqrt(got2 * want2) : 0;
  }
  return metrics;
}
