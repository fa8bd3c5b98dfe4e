/* Part of vlart.h: stages of different clocks.

   A plan may put sources into lanes, from slow to fast. The stages that depend on sources of a lane
   alone (or of slower ones) are that lane's; all others are the control loop's. One session per lane
   and one for the control loop, of one bundle, each with its own thread:

     slow thread:     write the lane's sources; vlart_lane_step        // as long as it takes
     control thread:  write the others; vlart_session_step; pop        // never waits for a lane

   A step of a session that follows a lane begins with the newest set that the lane handed over: its
   sources and what its stages made of them, whole and of one step, with a sequence number. So an
   action is what the policy makes of the slow sources as they were at that number and of the others
   as they are now. A lane that reads a slower one hands over, beside its own, what it had of that
   one, and it is taken from there: an action has one step of each lane in it, and
   vlart_session_popped says which.

   vlart_session_reset of the control loop's session begins an episode for all of them. What lanes made of
   observations before it is not taken any more: a step is SOURCE_UNSET until they handed over a set of this episode.
   Lanes that have instructions alone go on. Phases, ownership and structs are as in vlart.h. */
#ifndef VLART_LANES_H
#define VLART_LANES_H

#include "vlart/vlart.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VLART_LANE_CONTROL 0xFFFFFFFFu /* options.lane: the stages of no lane */

typedef struct vlart_lane vlart_lane_t; /* opaque, lives in a caller's arena */

typedef struct {
  size_t struct_size;
  uint64_t sequence; /* steps of the lane up to the set that was taken last; 0: none was */
  uint64_t age_ns;   /* since that step began; 0 before the first */
} vlart_lane_info_t;

/* Index of a lane by name; NOT_FOUND without a diagnostic. Any thread. */
VLART_API vlart_status_t vlart_bundle_find_lane(const vlart_bundle_t *bundle, const char *name,
                                                uint32_t *out_lane);

/* [init] Bytes of arena that vlart_lane_init needs. `session`: with options.lane = 1 + the lane's
   index. `followers`: sessions that will follow it, 1..VLART_MAX_LANES. */
VLART_API vlart_status_t vlart_lane_required_bytes(const vlart_session_t *session,
                                                   uint32_t followers, vlart_diag_t *diag,
                                                   size_t *out_bytes);

/* [init] There is nothing to close; the session outlives the lane. */
VLART_API vlart_status_t vlart_lane_init(vlart_session_t *session, uint32_t followers, void *arena,
                                         size_t arena_bytes, vlart_diag_t *diag,
                                         vlart_lane_t **out_lane);

/* [init] Before the threads run: the session's steps begin with the lane's newest set. A session
   follows every lane that is slower than its own. */
VLART_API vlart_status_t vlart_session_follow(vlart_session_t *session, vlart_lane_t *lane,
                                              vlart_diag_t *diag);

/* [tick] Steps the lane's session and hands the set over. On any failure the followers keep what they
   have. NOT_FINITE: a value that others read holds a NaN, or an infinity that is no mask's. CANCELLED: another
   episode began, and what was written may have been seen before it (or a slower lane has handed nothing over in it
   yet): write the lane's sources anew, then step; until they are, every step is that. The lane's thread. */
VLART_API vlart_status_t vlart_lane_step(vlart_lane_t *lane, vlart_diag_t *diag);

/* [tick] For another instruction, or another event: a step that the lane's thread is in ends before its next stage or
   iteration (CANCELLED) and hands nothing over; its thread then writes and steps anew. Any thread. */
VLART_API vlart_status_t vlart_lane_interrupt(vlart_lane_t *lane);

/* [tick] What a session has of a lane that it follows. The session's thread. */
VLART_API vlart_status_t vlart_session_followed(const vlart_session_t *session, uint32_t lane,
                                                vlart_lane_info_t *out_info);

#ifdef __cplusplus
}
#endif

#endif
