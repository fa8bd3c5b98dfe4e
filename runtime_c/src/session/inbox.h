/* Whole observations on their way from any thread to the one that owns a session: writers take turns, and the owner
   takes the newest without waiting. */
#ifndef VLART_INBOX_H
#define VLART_INBOX_H

#include <pthread.h>

#include "base/handover.h"
#include "session/sensors.h"

/* All sources as the sets so far have them. */
typedef struct {
  uint64_t *versions; /* [source_count] 0: in no set yet */
  uint64_t *times;    /* [source_count] microseconds; 0: not given */
  uint8_t **data;     /* [source_count] */
  uint64_t observation;
  uint64_t set; /* number of the newest */
} vlart_inbox_slot_t;

typedef struct {
  const vlart_session_t *session; /* whose sources may be written */
  vlart_handover_t between;
  vlart_inbox_slot_t slots[VLART_SLOTS];

  /* the writer's whose turn it is; it runs as urgently as who waits for it: a thread of a real-time priority that
     only tried again and again would keep it from its core */
  pthread_mutex_t turn;
  vlart_sensors_t sensors; /* checks alone: what is taken is counted by the owner */
  unsigned latest;         /* slot of the newest set */
  uint64_t sets;

  uint64_t seen; /* the owner's: the newest set that it took */
} vlart_inbox_t;

/* [init] Places or measures; then sets it up. The second may be called again before the first set. */
void vlart_inbox_take(vlart_inbox_t *inbox, const vlart_plan_t *plan, vlart_arena_t *arena);
void vlart_inbox_init(vlart_inbox_t *inbox, const vlart_session_t *session,
                      const vlart_sensor_options_t *options);

/* [tick] Any thread. */
vlart_status_t vlart_inbox_write(vlart_inbox_t *inbox, const char *call,
                                 const vlart_tensor_t *tensors, size_t count, uint64_t observation,
                                 uint64_t time_us, vlart_diag_t *diag);

/* [tick] The newest set, if there is one that the owner has not taken; its sources are those of a version above
   `out_since`. */
const vlart_inbox_slot_t *vlart_inbox_newest(vlart_inbox_t *inbox, uint64_t *out_since);

#endif
