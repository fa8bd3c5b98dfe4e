/* The inside of a lane: the sets that its session hands to sessions of faster clocks. */
#ifndef VLART_LANES_INSIDE_H
#define VLART_LANES_INSIDE_H

#include "session/lane_input.h"
#include "vlart/vlart_lanes.h"

struct vlart_lane {
  vlart_session_t *session;
  uint32_t index;
  uint32_t room;  /* of followers */
  uint32_t count; /* that follow */
  uint64_t sequence;
  atomic_uint interrupts;
  vlart_follower_t *followers; /* [room] */
};

#endif
