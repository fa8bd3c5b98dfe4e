#include "session/inbox.h"

#include <string.h>

#include "base/diag.h"
#include "session/lane_input.h"
#include "session/tensor_io.h"

void vlart_inbox_take(vlart_inbox_t *inbox, const vlart_plan_t *plan, vlart_arena_t *arena) {
  vlart_sensors_take(&inbox->sensors, plan, arena);
  for (unsigned k = 0; k < VLART_SLOTS; k++) {
    vlart_inbox_slot_t *slot = &inbox->slots[k];
    slot->versions = vlart_arena_take(arena, plan->source_count, sizeof *slot->versions);
    slot->times = vlart_arena_take(arena, plan->source_count, sizeof *slot->times);
    slot->data = vlart_arena_take(arena, plan->source_count, sizeof *slot->data);
    for (uint32_t i = 0; i < plan->source_count; i++) {
      uint8_t *room = vlart_arena_take(arena, vlart_plan_source_value(plan, i)->bytes, 1);
      if (slot->data != NULL) {
        slot->data[i] = room;
      }
    }
  }
}

/* Where the system has no such mutex, an ordinary one. */
static void init_turn(pthread_mutex_t *turn) {
  pthread_mutexattr_t lends;
  pthread_mutexattr_init(&lends);
  if (pthread_mutexattr_setprotocol(&lends, PTHREAD_PRIO_INHERIT) != 0 ||
      pthread_mutex_init(turn, &lends) != 0) {
    pthread_mutex_init(turn, NULL);
  }
  pthread_mutexattr_destroy(&lends);
}

void vlart_inbox_init(vlart_inbox_t *inbox, const vlart_session_t *session,
                      const vlart_sensor_options_t *options) {
  inbox->session = session;
  vlart_sensors_init(&inbox->sensors, options, 0);
  vlart_handover_init(&inbox->between);
  init_turn(&inbox->turn);
}

static const vlart_tensor_t *tensor_at(const vlart_tensor_t *tensors, size_t index) {
  return (const vlart_tensor_t *)(const void *)((const uint8_t *)tensors +
                                                index * tensors->struct_size);
}

static vlart_status_t check_tensor(vlart_inbox_t *inbox, const vlart_tensor_t *t, uint64_t *seen,
                                   const char *call, vlart_diag_t *diag) {
  const vlart_plan_t *plan = inbox->sensors.plan;
  if (t->source >= plan->source_count || (*seen >> t->source & 1) != 0) {
    return vlart_bad_argument(diag, call, "a source does not exist, or comes twice");
  }
  if ((t->data == NULL && t->bytes > 0) || (t->dims == NULL && t->rank > 0)) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  *seen |= 1ull << t->source;
  vlart_status_t status = vlart_lane_check_source(inbox->session, t->source, diag);
  if (status == VLART_STATUS_OK) {
    status = vlart_check_shape(plan, t->source, t->bytes, t->dtype, t->rank, t->dims, diag);
  }
  return status != VLART_STATUS_OK
             ? status
             : vlart_sensors_check(&inbox->sensors, t->source, t->data, t->bytes, diag);
}

static vlart_status_t check_set(vlart_inbox_t *inbox, const vlart_tensor_t *tensors, size_t count,
                                const char *call, vlart_diag_t *diag) {
  if (tensors == NULL || count == 0 || tensors->struct_size < sizeof *tensors ||
      tensors->struct_size % sizeof(void *) != 0) {
    return vlart_bad_argument(diag, call, "there is no tensor, or its struct_size is not set");
  }
  uint64_t seen = 0;
  vlart_status_t status = VLART_STATUS_OK;
  for (size_t i = 0; status == VLART_STATUS_OK && i < count; i++) {
    status = check_tensor(inbox, tensor_at(tensors, i), &seen, call, diag);
  }
  return status;
}

/* What the set does not have is as in the set before. */
static void complete(vlart_inbox_t *inbox, vlart_inbox_slot_t *slot) {
  const vlart_plan_t *plan = inbox->sensors.plan;
  const vlart_inbox_slot_t *before = &inbox->slots[inbox->latest];
  for (uint32_t i = 0; i < plan->source_count; i++) {
    uint64_t bytes = vlart_plan_source_value(plan, i)->bytes;
    if (slot->versions[i] != before->versions[i] && bytes > 0) {
      memcpy(slot->data[i], before->data[i], bytes);
    }
    slot->versions[i] = before->versions[i];
    slot->times[i] = before->times[i];
  }
}

static void put(vlart_inbox_t *inbox, const vlart_tensor_t *tensors, size_t count,
                uint64_t observation, uint64_t time_us) {
  vlart_inbox_slot_t *slot = &inbox->slots[inbox->between.back];
  if (inbox->sets > 0) {
    complete(inbox, slot);
  }
  inbox->sets++;
  for (size_t i = 0; i < count; i++) {
    const vlart_tensor_t *t = tensor_at(tensors, i);
    if (t->bytes > 0) {
      memcpy(slot->data[t->source], t->data, t->bytes);
    }
    slot->versions[t->source] = inbox->sets;
    slot->times[t->source] = time_us;
  }
  slot->observation = observation;
  slot->set = inbox->sets;
  inbox->latest = inbox->between.back;
  vlart_handover_give(&inbox->between);
}

vlart_status_t vlart_inbox_write(vlart_inbox_t *inbox, const char *call,
                                 const vlart_tensor_t *tensors, size_t count, uint64_t observation,
                                 uint64_t time_us, vlart_diag_t *diag) {
  pthread_mutex_lock(&inbox->turn);
  vlart_status_t status = check_set(inbox, tensors, count, call, diag);
  if (status == VLART_STATUS_OK) {
    put(inbox, tensors, count, observation, time_us);
  }
  pthread_mutex_unlock(&inbox->turn);
  return status;
}

const vlart_inbox_slot_t *vlart_inbox_newest(vlart_inbox_t *inbox, uint64_t *out_since) {
  if (!vlart_handover_take(&inbox->between)) {
    return NULL;
  }
  const vlart_inbox_slot_t *slot = &inbox->slots[inbox->between.front];
  *out_since = inbox->seen;
  inbox->seen = slot->set;
  return slot;
}
