/* [tick] What goes into a session and what can be read from it. */
#include "session/tensor_io.h"

#include <pthread.h>
#include <string.h>

#include "base/diag.h"
#include "base/struct_size.h"
#include "session/frame_history.h"
#include "session/session.h"

static vlart_status_t refuse(const vlart_plan_t *plan, uint32_t source, vlart_status_t status,
                             const char *what, vlart_diag_t *diag) {
  vlart_fail(diag, status, what, NULL);
  vlart_where(diag, "source %u \"%s\"", source,
              vlart_plan_value_name(plan, vlart_plan_source(plan, source)->value));
  return status;
}

vlart_status_t vlart_check_shape(const vlart_plan_t *plan, uint32_t source, size_t bytes,
                                 uint32_t dtype, uint32_t rank, const uint64_t *dims,
                                 vlart_diag_t *diag) {
  const vlart_value_record_t *value =
      vlart_plan_value(plan, vlart_plan_source(plan, source)->value);
  if (dtype != value->dtype) {
    vlart_status_t status = refuse(plan, source, VLART_STATUS_WRONG_DTYPE,
                                   "the tensor has the wrong element type", diag);
    const char *name = vlart_dtype_name(dtype);
    vlart_why(diag, "it is %s (%u), the plan says %s", name != NULL ? name : "unknown", dtype,
              vlart_dtype_name(value->dtype));
    return status;
  }
  const char *what = "the tensor has the wrong shape";
  if (rank != value->rank) {
    vlart_status_t status = refuse(plan, source, VLART_STATUS_WRONG_SHAPE, what, diag);
    vlart_why(diag, "it has %u dimensions, the plan says %u", rank, value->rank);
    return status;
  }
  for (uint32_t d = 0; d < rank; d++) {
    if (dims[d] != value->dims[d]) {
      vlart_status_t status = refuse(plan, source, VLART_STATUS_WRONG_SHAPE, what, diag);
      vlart_why(diag, "dimension %u is %llu, the plan says %llu", d, (unsigned long long)dims[d],
                (unsigned long long)value->dims[d]);
      return status;
    }
  }
  if (bytes != value->bytes) {
    vlart_status_t status = refuse(plan, source, VLART_STATUS_WRONG_SHAPE, what, diag);
    vlart_why(diag, "it has %zu bytes, the plan says %llu", bytes,
              (unsigned long long)value->bytes);
    return status;
  }
  return VLART_STATUS_OK;
}

/* Content that was found to fit, apart from what its sensor says. */
static vlart_status_t store(vlart_session_t *session, uint32_t source, const void *data,
                            size_t bytes, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  uint32_t index = vlart_plan_source(plan, source)->value;
  bool remembers = (plan->histories >> source & 1) != 0;
  bool written = session->sources.versions[source] > 0;
  bool same = written && (bytes == 0 || memcmp(session->values.at[index], data, bytes) == 0);
  vlart_status_t status =
      same ? VLART_STATUS_OK : vlart_sensors_check(&session->sensors, source, data, bytes, diag);
  if (status != VLART_STATUS_OK) {
    vlart_recorded_refusal(session->recorded.track, source, status);
    return status;
  }
  if ((session->written.live >> source & 1) != 0 && !session->sensors.trusting) {
    session->written.observation = vlart_sensors_captured(&session->sensors, source);
  }
  if (remembers) {
    vlart_history_advance(session);
  }
  if (!same && bytes > 0) {
    memcpy(session->values.at[index], data, bytes);
  }
  vlart_sensors_taken(&session->sensors, source, same ? NULL : session->values.at[index],
                      same ? 0 : bytes);
  session->sources.versions[source] += !same;
  session->sources.written |= 1ull << source;
  vlart_realtime_written(session, source);
  vlart_recorded_source(session, source, same);
  return VLART_STATUS_OK;
}

void vlart_written_init(vlart_session_t *session) {
  const vlart_plan_t *plan = &session->bundle->plan;
  for (uint32_t i = 0; i < plan->source_count; i++) {
    uint32_t update = vlart_plan_source(plan, i)->update;
    session->written.live |= (uint64_t)(update >= VLART_UPDATE_OBSERVATION) << i;
    session->written.seen |=
        (uint64_t)(update == VLART_UPDATE_OBSERVATION || update == VLART_UPDATE_TICK) << i;
  }
  session->written.live &= ~session->realtime.filled;
  session->written.seen &= ~session->realtime.filled;
  atomic_init(&session->written.writer, 0);
  vlart_inbox_init(&session->inbox, session, &session->sensors.options);
}

void vlart_written_take(vlart_session_t *session) {
  uint64_t since;
  const vlart_inbox_slot_t *slot = vlart_inbox_newest(&session->inbox, &since);
  const vlart_plan_t *plan = &session->bundle->plan;
  for (uint32_t i = 0; slot != NULL && i < plan->source_count; i++) {
    if (slot->versions[i] > since) {
      vlart_sensors_capture(&session->sensors, i, slot->times[i]);
      store(session, i, slot->data[i], vlart_plan_source_value(plan, i)->bytes, NULL);
    }
  }
  if (slot != NULL && slot->observation != 0) {
    session->written.observation = slot->observation;
  }
}

void vlart_written_end_episode(vlart_session_t *session) {
  vlart_written_take(session); /* a set that waits was seen before, too */
  session->sources.written &= ~session->written.seen;
}

vlart_status_t vlart_written_by_one(atomic_uintptr_t *writer, const char *call,
                                    vlart_diag_t *diag) {
  uintptr_t self = (uintptr_t)pthread_self(), nobody = 0;
  if (atomic_compare_exchange_strong_explicit(writer, &nobody, self, memory_order_relaxed,
                                              memory_order_relaxed) ||
      nobody == self) {
    return VLART_STATUS_OK;
  }
  vlart_bad_argument(diag, call, "another thread has begun to write this observation");
  vlart_fix(diag,
            "write it from one thread, or as a set: vlart_session_write_all, or the async one");
  return VLART_STATUS_BAD_ARGUMENT;
}

void vlart_written_end(atomic_uintptr_t *writer) {
  atomic_store_explicit(writer, 0, memory_order_relaxed);
}

vlart_status_t vlart_session_write_all(vlart_session_t *session, const vlart_tensor_t *tensors,
                                       size_t count, uint64_t observation, uint64_t time_us,
                                       vlart_diag_t *diag) {
  const char *call = "vlart_session_write_all";
  return session == NULL
             ? vlart_bad_argument(diag, call, "the session is NULL")
             : vlart_inbox_write(&session->inbox, call, tensors, count, observation, time_us, diag);
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
  vlart_status_t status = vlart_lane_check_source(session, source, diag);
  if (status == VLART_STATUS_OK && (session->written.live >> source & 1) != 0) {
    status = vlart_written_by_one(&session->written.writer, call, diag);
  }
  if (status == VLART_STATUS_OK) {
    status = vlart_check_shape(plan, source, bytes, dtype, rank, dims, diag);
  }
  if (status != VLART_STATUS_OK) {
    vlart_recorded_refusal(session->recorded.track, source, status);
    return status;
  }
  vlart_written_take(session);
  return store(session, source, data, bytes, diag);
}

/* Where the content of a value is; NULL: it has none. */
static const void *content_of(const vlart_session_t *session, uint32_t value) {
  vlart_writer_t writer = session->bundle->plan.writers[value];
  const void *at = session->values.at[value];
  if (vlart_carried_find(session, value, &at)) {
    return at;
  }
  switch (writer.origin) {
    case VLART_ORIGIN_WEIGHT: return at;
    case VLART_ORIGIN_SOURCE: return session->sources.versions[writer.index] > 0 ? at : NULL;
    case VLART_ORIGIN_STAGE: return session->stages[writer.index].readable ? at : NULL;
    case VLART_ORIGIN_DELAY: return session->history.filled ? at : NULL;
    default: return NULL;
  }
}

vlart_status_t vlart_session_read(vlart_session_t *session, uint32_t value, void *out, size_t bytes,
                                  vlart_diag_t *diag) {
  const char *call = "vlart_session_read";
  if (session == NULL || out == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  const vlart_plan_t *plan = &session->bundle->plan;
  if (value >= plan->value_count) {
    return vlart_bad_argument(diag, call, "there is no value of this index");
  }
  const vlart_value_record_t *record = vlart_plan_value(plan, value);
  const void *content = content_of(session, value);
  vlart_status_t status = VLART_STATUS_OK;
  if (bytes != record->bytes) {
    status = vlart_fail(diag, VLART_STATUS_WRONG_SHAPE, "the buffer has the wrong size", NULL);
    vlart_why(diag, "it has %zu bytes, the value %llu", bytes, (unsigned long long)record->bytes);
  } else if (content == NULL) {
    status = vlart_fail(diag, VLART_STATUS_VALUE_UNSET, "the value has no content yet", NULL);
    vlart_why(diag, "nothing has written it completely since init");
  }
  if (status != VLART_STATUS_OK) {
    vlart_where(diag, "value %u \"%s\"", value, vlart_plan_value_name(plan, value));
    return status;
  }
  if (content != NULL && bytes > 0) {
    memcpy(out, content, bytes);
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_session_sensors(vlart_session_t *session,
                                     const vlart_sensor_options_t *options, vlart_diag_t *diag) {
  const char *call = "vlart_session_sensors";
  vlart_sensor_options_t chosen;
  if (session == NULL) {
    return vlart_bad_argument(diag, call, "the session is NULL");
  }
  vlart_status_t status = vlart_copy_in(&chosen, sizeof chosen, sizeof chosen, options, call, diag);
  if (status == VLART_STATUS_OK && chosen.accept >= 2 * VLART_ACCEPT_DENORMAL) {
    status = vlart_bad_argument(diag, call, "a bit of `accept` is not known");
  }
  if (status == VLART_STATUS_OK && session->sources.written != 0) {
    status = vlart_bad_argument(diag, call, "a source was written already");
  }
  if (status == VLART_STATUS_OK) {
    vlart_sensors_init(&session->sensors, &chosen, session->realtime.filled);
    vlart_inbox_init(&session->inbox, session, &chosen);
  }
  return status;
}

vlart_status_t vlart_session_time(vlart_session_t *session, uint64_t now_us) {
  if (session == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  vlart_sensors_time(&session->sensors, now_us);
  return VLART_STATUS_OK;
}

vlart_status_t vlart_session_stamp(vlart_session_t *session, uint32_t source, uint32_t sequence,
                                   uint64_t time_us, vlart_diag_t *diag) {
  const char *call = "vlart_session_stamp";
  return session == NULL
             ? vlart_bad_argument(diag, call, "the session is NULL")
             : vlart_sensors_stamp(&session->sensors, source, sequence, time_us, call, diag);
}

vlart_status_t vlart_session_sensor(const vlart_session_t *session, uint32_t source,
                                    vlart_sensor_info_t *out_info) {
  return session == NULL ? VLART_STATUS_BAD_ARGUMENT
                         : vlart_sensors_info(&session->sensors, source, out_info);
}
