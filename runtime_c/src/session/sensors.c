/* [tick] Checks what sensors give and how old it is. Times and numbers are compared modulo their width, so
   that both may wrap around. */

#include "session/sensors.h"

#include <string.h>

#include "base/clock.h"
#include "base/diag.h"
#include "base/float_scan.h"
#include "base/struct_size.h"

static uint64_t now_us(const vlart_sensors_t *s) {
  return s->told ? s->now_us : vlart_now_ns() / 1000;
}

static vlart_status_t refuse(const vlart_sensors_t *s, uint32_t source, vlart_status_t status,
                             const char *what, vlart_diag_t *diag) {
  vlart_fail(diag, status, what, NULL);
  vlart_where(diag, "source %u \"%s\"", source,
              vlart_plan_value_name(s->plan, vlart_plan_source(s->plan, source)->value));
  return status;
}

void vlart_sensors_take(vlart_sensors_t *s, const vlart_plan_t *plan, vlart_arena_t *arena) {
  s->plan = plan;
  s->of = vlart_arena_take(arena, plan->source_count, sizeof *s->of);
}

/* Token ids without a known table are at least not negative: an engine would count them from its end. */
static void set_token_range(vlart_sensors_t *s, uint32_t source) {
  uint32_t dtype = vlart_plan_source_value(s->plan, source)->dtype;
  bool counts = dtype == VLART_DTYPE_I32 || dtype == VLART_DTYPE_I64;
  s->of[source].rows = counts ? UINT32_MAX : 0;
}

static void set_token_ranges(vlart_sensors_t *s) {
  const vlart_plan_t *plan = s->plan;
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_TEXTS); i++) {
    set_token_range(s, vlart_plan_text(plan, i)->tokens);
  }
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_INSTRUCTIONS); i++) {
    set_token_range(s, vlart_plan_instruction(plan, i)->source);
  }
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_TOKEN_RANGES); i++) {
    const vlart_token_range_record_t *range = vlart_plan_token_range(plan, i);
    s->of[range->source].rows = range->rows;
  }
}

void vlart_sensors_init(vlart_sensors_t *s, const vlart_sensor_options_t *options,
                        uint64_t filled) {
  const vlart_plan_t *plan = s->plan;
  s->options = *options;
  s->limited = 0;
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_GUARDS); i++) {
    const vlart_guard_record_t *guard = vlart_plan_guard(plan, i);
    s->of[guard->source].guard = guard;
  }
  set_token_ranges(s);
  for (uint32_t i = 0; i < plan->source_count; i++) {
    bool live = vlart_plan_source(plan, i)->update >= VLART_UPDATE_OBSERVATION;
    uint64_t age = s->of[i].guard != NULL ? s->of[i].guard->max_age_us : 0;
    age = age == 0 && live && (filled >> i & 1) == 0 ? options->max_age_us : age;
    age = (options->accept & VLART_ACCEPT_STALE) != 0 ? 0 : age;
    s->of[i].max_age_us = s->of[i].counts.max_age_us = age;
    s->limited |= (uint64_t)(age > 0) << i;
  }
}

static vlart_status_t check_range(vlart_sensors_t *s, uint32_t source, const void *data,
                                  size_t count, vlart_diag_t *diag) {
  vlart_sensor_t *sensor = &s->of[source];
  const vlart_guard_record_t *guard = sensor->guard;
  if (guard == NULL || guard->low_count == 0 ||
      (s->options.accept & VLART_ACCEPT_OUT_OF_RANGE) != 0) {
    return VLART_STATUS_OK;
  }
  const float *low = vlart_plan_floats(s->plan, guard->low_begin);
  const float *high = vlart_plan_floats(s->plan, guard->high_begin);
  size_t bad = vlart_first_outside(data, count, low, high, guard->low_count);
  if (bad == count) {
    return VLART_STATUS_OK;
  }
  sensor->counts.out_of_range++;
  sensor->counts.element = (uint32_t)bad;
  memcpy(&sensor->counts.number, (const uint8_t *)data + bad * sizeof(float), sizeof(float));
  if (guard->outside == VLART_GUARD_RULE_COUNT) {
    return VLART_STATUS_OK;
  }
  refuse(s, source, VLART_STATUS_INPUT_OUT_OF_RANGE, "the input leaves its range", diag);
  vlart_why(diag, "element %zu of %zu is %g, the plan says %g to %g", bad, count,
            (double)sensor->counts.number, (double)low[bad % guard->low_count],
            (double)high[bad % guard->low_count]);
  return VLART_STATUS_INPUT_OUT_OF_RANGE;
}

/* Also of recordings: what an engine makes of a row that does not exist is no action. */
static vlart_status_t check_tokens(vlart_sensors_t *s, uint32_t source, const void *data,
                                   size_t count, vlart_diag_t *diag) {
  vlart_sensor_t *sensor = &s->of[source];
  bool wide = vlart_plan_source_value(s->plan, source)->dtype == VLART_DTYPE_I64;
  for (size_t i = 0; i < count; i++) {
    int32_t narrow = 0;
    int64_t token = 0;
    if (wide) {
      memcpy(&token, (const uint8_t *)data + i * sizeof token, sizeof token);
    } else {
      memcpy(&narrow, (const uint8_t *)data + i * sizeof narrow, sizeof narrow);
      token = narrow;
    }
    if (token >= 0 && token < sensor->rows) {
      continue;
    }
    sensor->counts.out_of_range++;
    sensor->counts.element = (uint32_t)i;
    sensor->counts.number = (float)token;
    refuse(s, source, VLART_STATUS_INPUT_OUT_OF_RANGE, "the input leaves its range", diag);
    vlart_why(diag, "element %zu of %zu is %g, and a token id is 0 to %u", i, count, (double)token,
              sensor->rows - 1);
    return VLART_STATUS_INPUT_OUT_OF_RANGE;
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_sensors_check(vlart_sensors_t *s, uint32_t source, const void *data,
                                   size_t bytes, vlart_diag_t *diag) {
  uint32_t dtype = vlart_plan_value(s->plan, vlart_plan_source(s->plan, source)->value)->dtype;
  vlart_sensor_t *sensor = &s->of[source];
  size_t count = bytes / vlart_dtype_bytes(dtype);
  if (s->trusting) {
    return VLART_STATUS_OK;
  }
  bool any = (s->options.accept & VLART_ACCEPT_NOT_FINITE) != 0 ||
             (sensor->guard != NULL && sensor->guard->not_finite != 0);
  size_t bad = any ? count : vlart_first_not_finite(data, count, dtype);
  if (bad < count) {
    sensor->counts.not_finite++;
    refuse(s, source, VLART_STATUS_NOT_FINITE, "the input is not finite", diag);
    vlart_why(diag, "element %zu of %zu is a NaN or an infinity", bad, count);
    return VLART_STATUS_NOT_FINITE;
  }
  for (size_t i = 0; dtype == VLART_DTYPE_BOOL && i < count; i++) {
    if (((const uint8_t *)data)[i] > 1) {
      refuse(s, source, VLART_STATUS_WRONG_DTYPE, "a bool is neither 0 nor 1", diag);
      vlart_why(diag, "element %zu of %zu is %u", i, count, ((const uint8_t *)data)[i]);
      return VLART_STATUS_WRONG_DTYPE;
    }
  }
  return sensor->rows > 0 ? check_tokens(s, source, data, count, diag)
                          : check_range(s, source, data, count, diag);
}

void vlart_sensors_taken(vlart_sensors_t *s, uint32_t source, void *data, size_t bytes) {
  vlart_sensor_t *sensor = &s->of[source];
  if (s->trusting) {
    return;
  }
  if (data != NULL && (s->options.accept & VLART_ACCEPT_DENORMAL) == 0) {
    uint32_t dtype = vlart_plan_value(s->plan, vlart_plan_source(s->plan, source)->value)->dtype;
    sensor->counts.denormal += vlart_flush_denormals(data, bytes / vlart_dtype_bytes(dtype), dtype);
  }
  sensor->counts.writes++;
  if ((s->limited >> source & 1) != 0) {
    sensor->time_us = sensor->stamped ? sensor->next_us : now_us(s);
    sensor->aged = true;
  }
  sensor->stamped = false;
}

/* True with the age, 0 where the capture lies ahead: two clocks are never read at once. */
static bool is_fresh(vlart_sensor_t *sensor, uint64_t now) {
  uint64_t age = now - sensor->time_us;
  uint64_t ahead = sensor->time_us - now;
  sensor->counts.age_us = ahead < age ? 0 : age;
  return sensor->aged && (age <= sensor->max_age_us || ahead <= sensor->max_age_us);
}

vlart_status_t vlart_sensors_fresh(vlart_sensors_t *s, uint64_t needed, vlart_diag_t *diag) {
  uint64_t left = needed & s->limited;
  if (left == 0 || s->trusting) {
    return VLART_STATUS_OK;
  }
  uint64_t now = now_us(s);
  for (uint32_t i = 0; left != 0; i++, left >>= 1) {
    vlart_sensor_t *sensor = &s->of[i];
    if ((left & 1) == 0 || is_fresh(sensor, now)) {
      continue;
    }
    sensor->counts.stale++;
    refuse(s, i, VLART_STATUS_STALE_INPUT, "the input is too old", diag);
    unsigned long long most = sensor->max_age_us;
    if (!sensor->aged) {
      vlart_why(diag, "nothing says when it was captured; at most %llu us are allowed", most);
    } else if (sensor->counts.age_us == 0) {
      vlart_why(diag, "it was captured %llu us in the future, at most %llu us are allowed",
                (unsigned long long)(sensor->time_us - now), most);
    } else {
      vlart_why(diag, "it was captured %llu us ago, at most %llu us are allowed",
                (unsigned long long)sensor->counts.age_us, most);
    }
    return VLART_STATUS_STALE_INPUT;
  }
  return VLART_STATUS_OK;
}

uint64_t vlart_sensors_captured(const vlart_sensors_t *s, uint32_t source) {
  return s->of[source].stamped ? s->of[source].next_us : now_us(s);
}

void vlart_sensors_capture(vlart_sensors_t *s, uint32_t source, uint64_t time_us) {
  if (time_us != 0) {
    s->of[source].stamped = true;
    s->of[source].next_us = time_us;
  }
}

void vlart_sensors_time(vlart_sensors_t *s, uint64_t now) {
  for (uint32_t i = 0; !s->told && i < s->plan->source_count; i++) {
    s->of[i].aged = false; /* by another clock */
  }
  s->told = true;
  s->now_us = now;
}

vlart_status_t vlart_sensors_stamp(vlart_sensors_t *s, uint32_t source, uint32_t sequence,
                                   uint64_t time_us, const char *call, vlart_diag_t *diag) {
  if (source >= s->plan->source_count) {
    return vlart_bad_argument(diag, call, "there is no source of this index");
  }
  vlart_sensor_t *sensor = &s->of[source];
  uint32_t step = sequence - sensor->sequence;
  if (sensor->numbered && (step == 0 || step > UINT32_MAX / 2)) {
    sensor->counts.reordered++;
    refuse(s, source, VLART_STATUS_STALE_INPUT, "the input is not newer than the last", diag);
    vlart_why(diag, "it has number %u, the last one had %u", sequence, sensor->sequence);
    return VLART_STATUS_STALE_INPUT;
  }
  sensor->counts.lost += sensor->numbered ? step - 1 : 0;
  sensor->sequence = sequence;
  sensor->numbered = sensor->stamped = true;
  sensor->next_us = time_us;
  return VLART_STATUS_OK;
}

vlart_status_t vlart_sensors_info(const vlart_sensors_t *s, uint32_t source,
                                  vlart_sensor_info_t *out_info) {
  return source >= s->plan->source_count
             ? VLART_STATUS_BAD_ARGUMENT
             : vlart_copy_out(out_info, &s->of[source].counts, sizeof s->of[source].counts);
}
