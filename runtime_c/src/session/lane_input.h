/* The sets of sources and values that a session is handed by sessions of slower clocks. */
#ifndef VLART_LANE_INPUT_H
#define VLART_LANE_INPUT_H

#include "base/handover.h"
#include "vlart/vlart.h"

/* What a lane made in one step: its sources and the outputs of its stages, one after the other. */
typedef struct {
  uint64_t sequence;
  uint64_t ns; /* CLOCK_MONOTONIC when the step began */
  uint8_t *data;
} vlart_lane_set_t;

/* One session that is handed sets. The giver owns `between.back`, the taker `between.front`. */
typedef struct {
  vlart_handover_t between;
  vlart_lane_set_t sets[VLART_SLOTS];
  uint64_t sequence; /* the taker's: of the set that it took last; 0: none */
} vlart_follower_t;

/* Copies what a lane hands over between the session and a set, in the plan's order: `into` the set, or out
   of it. Returns the bytes of a set; NULL only counts them. */
size_t vlart_lane_move(vlart_session_t *session, uint32_t lane, uint8_t *set, bool into);

/* BAD_ARGUMENT where the source is written in a session of another lane. */
vlart_status_t vlart_lane_check_source(const vlart_session_t *session, uint32_t source,
                                       vlart_diag_t *diag);

/* [tick] Takes what the lanes handed over. VLART_STATUS_LANE_STALE where the newest is too old. */
vlart_status_t vlart_lanes_take(vlart_session_t *session, vlart_diag_t *diag);

#endif
