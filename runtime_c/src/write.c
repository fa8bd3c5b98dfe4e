/* [tick] What goes into a session and what can be read from it. */
#include <string.h>

#include "diag.h"
#include "session.h"

/* A float whose exponent bits are all set is an infinity or a NaN. The caller's data may have any
   alignment. */
#define FIRST_NOT_FINITE(name, type)                                                \
  static size_t name(const uint8_t *floats, size_t count, type exponent) {          \
    for (size_t i = 0; i < count; i++) {                                            \
      type word;                                                                    \
      memcpy(&word, floats + i * sizeof word, sizeof word);                         \
      if ((word & exponent) == exponent) {                                          \
        return i;                                                                   \
      }                                                                             \
    }                                                                               \
    return count;                                                                   \
  }
FIRST_NOT_FINITE(first_not_finite_16, uint16_t)
FIRST_NOT_FINITE(first_not_finite_32, uint32_t)
FIRST_NOT_FINITE(first_not_finite_64, uint64_t)
#undef FIRST_NOT_FINITE

size_t vlart_first_not_finite(const void *data, size_t count, uint32_t dtype) {
  switch (dtype) {
    case VLART_DTYPE_F16: return first_not_finite_16(data, count, 0x7C00u);
    case VLART_DTYPE_BF16: return first_not_finite_16(data, count, 0x7F80u);
    case VLART_DTYPE_F32: return first_not_finite_32(data, count, 0x7F800000u);
    case VLART_DTYPE_F64: return first_not_finite_64(data, count, 0x7FF0000000000000u);
    default: return count;
  }
}

static vlart_status_t refuse(const vlart_session_t *session, uint32_t source,
                             vlart_status_t status, const char *what, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  vlart_fail(diag, status, what, NULL);
  vlart_where(diag, "source %u \"%s\"", source,
              vlart_plan_value_name(plan, vlart_plan_source(plan, source)->value));
  return status;
}

static vlart_status_t check_shape(const vlart_session_t *session, uint32_t source,
                                  const vlart_value_record_t *value, size_t bytes, uint32_t dtype,
                                  uint32_t rank, const uint64_t *dims, vlart_diag_t *diag) {
  if (dtype != value->dtype) {
    vlart_status_t status = refuse(session, source, VLART_STATUS_WRONG_DTYPE,
                                   "the tensor has the wrong element type", diag);
    const char *name = vlart_dtype_name(dtype);
    vlart_why(diag, "it is %s (%u), the plan says %s", name != NULL ? name : "unknown", dtype,
              vlart_dtype_name(value->dtype));
    return status;
  }
  const char *what = "the tensor has the wrong shape";
  if (rank != value->rank) {
    vlart_status_t status = refuse(session, source, VLART_STATUS_WRONG_SHAPE, what, diag);
    vlart_why(diag, "it has %u dimensions, the plan says %u", rank, value->rank);
    return status;
  }
  for (uint32_t d = 0; d < rank; d++) {
    if (dims[d] != value->dims[d]) {
      vlart_status_t status = refuse(session, source, VLART_STATUS_WRONG_SHAPE, what, diag);
      vlart_why(diag, "dimension %u is %llu, the plan says %llu", d, (unsigned long long)dims[d],
                (unsigned long long)value->dims[d]);
      return status;
    }
  }
  if (bytes != value->bytes) {
    vlart_status_t status = refuse(session, source, VLART_STATUS_WRONG_SHAPE, what, diag);
    vlart_why(diag, "it has %zu bytes, the plan says %llu", bytes,
              (unsigned long long)value->bytes);
    return status;
  }
  return VLART_STATUS_OK;
}

static vlart_status_t check_content(const vlart_session_t *session, uint32_t source,
                                    const void *data, size_t bytes, uint32_t dtype,
                                    vlart_diag_t *diag) {
  size_t count = bytes / vlart_dtype_bytes(dtype);
  size_t bad = vlart_first_not_finite(data, count, dtype);
  if (bad < count) {
    vlart_status_t status = refuse(session, source, VLART_STATUS_NOT_FINITE,
                                   "the input is not finite", diag);
    vlart_why(diag, "element %zu of %zu is a NaN or an infinity", bad, count);
    return status;
  }
  for (size_t i = 0; dtype == VLART_DTYPE_BOOL && i < count; i++) {
    if (((const uint8_t *)data)[i] > 1) {
      vlart_status_t status = refuse(session, source, VLART_STATUS_WRONG_DTYPE,
                                     "a bool is neither 0 nor 1", diag);
      vlart_why(diag, "element %zu of %zu is %u", i, count, ((const uint8_t *)data)[i]);
      return status;
    }
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_session_write(vlart_session_t *session, uint32_t source, const void *data,
                                   size_t bytes, uint32_t dtype, uint32_t rank,
                                   const uint64_t *dims, vlart_diag_t *diag) {
  const char *call = "vlart_session_write";
  if (session == NULL || (data == NULL && bytes > 0) || (dims == NULL && rank > 0)) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  const vlart_plan_t *plan = &session->bundle->plan;
  if (source >= plan->source_count) {
    return vlart_bad_argument(diag, call, "there is no source of this index");
  }
  uint32_t index = vlart_plan_source(plan, source)->value;
  bool remembers = (plan->histories >> source & 1) != 0;
  const vlart_value_record_t *value = vlart_plan_value(plan, index);
  vlart_status_t status =
      check_shape(session, source, value, bytes, dtype, rank, dims, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  bool written = session->versions[source] > 0;
  if (written && (bytes == 0 || memcmp(session->data[index], data, bytes) == 0)) {
    vlart_realtime_written(session, source);
    if (remembers) {
      vlart_history_advance(session);
    }
    return VLART_STATUS_OK;
  }
  status = check_content(session, source, data, bytes, dtype, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  if (remembers) {
    vlart_history_advance(session);
  }
  if (bytes > 0) {
    memcpy(session->data[index], data, bytes);
  }
  session->versions[source]++;
  session->sources_set |= 1ull << source;
  vlart_realtime_written(session, source);
  return VLART_STATUS_OK;
}

static bool is_readable(const vlart_session_t *session, uint32_t value) {
  vlart_writer_t writer = session->bundle->plan.writers[value];
  switch (writer.origin) {
    case VLART_ORIGIN_WEIGHT: return true;
    case VLART_ORIGIN_SOURCE: return session->versions[writer.index] > 0;
    case VLART_ORIGIN_STAGE: return session->stages[writer.index].readable;
    case VLART_ORIGIN_DELAY: return session->filled;
    default: return false;
  }
}

vlart_status_t vlart_session_read(vlart_session_t *session, uint32_t value, void *out,
                                  size_t bytes, vlart_diag_t *diag) {
  const char *call = "vlart_session_read";
  if (session == NULL || out == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  const vlart_plan_t *plan = &session->bundle->plan;
  if (value >= plan->value_count) {
    return vlart_bad_argument(diag, call, "there is no value of this index");
  }
  const vlart_value_record_t *record = vlart_plan_value(plan, value);
  vlart_status_t status = VLART_STATUS_OK;
  if (bytes != record->bytes) {
    status = vlart_fail(diag, VLART_STATUS_WRONG_SHAPE, "the buffer has the wrong size", NULL);
    vlart_why(diag, "it has %zu bytes, the value %llu", bytes, (unsigned long long)record->bytes);
  } else if (!is_readable(session, value)) {
    status = vlart_fail(diag, VLART_STATUS_VALUE_UNSET, "the value has no content yet", NULL);
    vlart_why(diag, "nothing has written it completely since init");
  }
  if (status != VLART_STATUS_OK) {
    vlart_where(diag, "value %u \"%s\"", value, vlart_plan_value_name(plan, value));
    return status;
  }
  if (bytes > 0) {
    memcpy(out, session->data[value], bytes);
  }
  return VLART_STATUS_OK;
}
