/* The sets of sources and values that a session is handed by sessions of slower clocks. */
#ifndef VLART_LANE_INPUT_H
#define VLART_LANE_INPUT_H

#include "base/handover.h"
#include "plan/plan.h"
#include "vlart/vlart_lanes.h"

/* Of a lane: its step that made a set. */
typedef struct {
  uint64_t sequence; /* 0: none */
  uint64_t ns;       /* CLOCK_MONOTONIC when the step began */
} vlart_lane_step_t;

/* What a lane made in one step: sources and outputs of stages, its own and those of the slower lanes that its sets
   carry, one after the other. */
typedef struct {
  vlart_lane_step_t steps[VLART_MAX_LANES]; /* of the lanes that it carries */
  unsigned episode; /* of the control loop, when the lane's session began it */
  uint8_t *data;
} vlart_lane_set_t;

/* One session that is handed sets. The giver owns `between.back`, the taker `between.front`. */
typedef struct {
  vlart_handover_t between;
  vlart_lane_set_t sets[VLART_SLOTS];
  bool taken;             /* the taker takes these sets; otherwise a faster lane's carry them */
  vlart_lane_step_t step; /* the taker's: of what it has of this lane */
  atomic_uint episode;    /* the taker's; that of the control loop is what a lane goes by */
} vlart_follower_t;

/* Copies what a lane hands over into a set, lane by lane in the plan's order. Returns the bytes of a set; NULL only
   counts them. */
size_t vlart_lane_fill(vlart_session_t *session, uint32_t lane, uint8_t *set);

/* BAD_ARGUMENT where the source is written in a session of another lane. */
vlart_status_t vlart_lane_check_source(const vlart_session_t *session, uint32_t source,
                                       vlart_diag_t *diag);

/* Whether what a lane hands over was computed from observations. */
bool vlart_lane_observes(const vlart_plan_t *plan, uint32_t lane);

/* [tick] What lanes made of observations is of the last episode: none is taken until they begin this one. The
   session of the control loop says so, those of the lanes hear it. */
void vlart_lanes_end_episode(vlart_session_t *session);

/* [tick] Which step of each lane made the set that was taken last, [VLART_MAX_LANES]. */
void vlart_lanes_taken(const vlart_session_t *session, uint64_t *out_sequences);

/* [tick] Takes what the lanes handed over. VLART_STATUS_LANE_STALE where the newest is too old. */
vlart_status_t vlart_lanes_take(vlart_session_t *session, vlart_diag_t *diag);

#endif
