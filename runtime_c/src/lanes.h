/* The inside of lanes: which stages a session runs, and the sets that it is handed. */
#ifndef VLART_LANES_INSIDE_H
#define VLART_LANES_INSIDE_H

#include "handover.h"
#include "session.h"

/* What a lane made in one step: its sources and the outputs of its stages, one after the other. */
typedef struct {
  uint64_t sequence;
  uint64_t ns; /* CLOCK_MONOTONIC when the step began */
  uint8_t *data;
} vlart_lane_set_t;

/* One session that is handed sets. The giver owns `between.back`, the taker `between.front`. */
typedef struct vlart_follower {
  vlart_handover_t between;
  vlart_lane_set_t sets[VLART_SLOTS];
  uint64_t sequence; /* the taker's: of the set that it took last; 0: none */
} vlart_follower_t;

struct vlart_lane {
  vlart_session_t *session;
  uint32_t index;
  uint32_t room;  /* of followers */
  uint32_t count; /* that follow */
  uint64_t sequence;
  vlart_follower_t *followers; /* [room] */
};

/* [open] The plan's records, and the lane of every stage. */
vlart_status_t vlart_plan_check_lanes(vlart_plan_t *plan, vlart_diag_t *diag);

/* [init] Engines for stages that another session runs: nothing. */
extern const vlart_backend_t vlart_backend_elsewhere;

/* Whether a session with this option runs a stage. */
bool vlart_lane_owns(const vlart_plan_t *plan, uint32_t option, uint32_t stage);

/* BAD_ARGUMENT where the source is written in a session of another lane. */
vlart_status_t vlart_lane_check_source(const vlart_session_t *session, uint32_t source,
                                       vlart_diag_t *diag);

/* [tick] Takes what the lanes handed over. VLART_STATUS_LANE_STALE where the newest is too old. */
vlart_status_t vlart_lanes_take(vlart_session_t *session, vlart_diag_t *diag);

#endif
