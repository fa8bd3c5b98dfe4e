/* [init] [tick] Sessions of one bundle that run at different clocks: the side that hands over. */

#include "multirate/lanes.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/diag.h"
#include "session/session.h"

static vlart_lane_t *take_lane(vlart_lane_t *draft, vlart_session_t *session, uint32_t room,
                               vlart_arena_t *arena) {
  vlart_lane_t *lane = vlart_arena_take(arena, 1, sizeof *lane);
  *draft = (vlart_lane_t){.session = session, .index = session->lanes.option - 1, .room = room};
  draft->followers = vlart_arena_take(arena, room, sizeof *draft->followers);
  size_t bytes = vlart_lane_move(session, draft->index, NULL, true);
  for (uint32_t i = 0; i < room; i++) {
    for (uint32_t k = 0; k < VLART_SLOTS; k++) {
      uint8_t *data = vlart_arena_take(arena, bytes, 1);
      if (draft->followers != NULL) {
        draft->followers[i].sets[k].data = data;
      }
    }
  }
  return lane;
}

static vlart_status_t check_lane(const vlart_session_t *session, uint32_t followers,
                                 const char *call, vlart_diag_t *diag) {
  if (session == NULL) {
    return vlart_bad_argument(diag, call, "the session is NULL");
  }
  if (session->lanes.option == 0 || session->lanes.option == VLART_LANE_CONTROL) {
    return vlart_bad_argument(diag, call, "the session is not of a lane: options.lane");
  }
  if (followers == 0 || followers > VLART_MAX_LANES) {
    return vlart_bad_argument(diag, call, "a lane has 1 to 8 followers");
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_lane_required_bytes(const vlart_session_t *session, uint32_t followers,
                                         vlart_diag_t *diag, size_t *out_bytes) {
  const char *call = "vlart_lane_required_bytes";
  if (out_bytes == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  vlart_status_t status = check_lane(session, followers, call, diag);
  if (status == VLART_STATUS_OK) {
    vlart_lane_t draft;
    vlart_arena_t arena;
    vlart_arena_measure(&arena);
    take_lane(&draft, (vlart_session_t *)(uintptr_t)session, followers, &arena);
    *out_bytes = vlart_arena_required(&arena);
  }
  return status;
}

vlart_status_t vlart_lane_init(vlart_session_t *session, uint32_t followers, void *arena_base,
                               size_t arena_bytes, vlart_diag_t *diag, vlart_lane_t **out_lane) {
  const char *call = "vlart_lane_init";
  if (out_lane == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  *out_lane = NULL;
  vlart_status_t status = check_lane(session, followers, call, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  vlart_lane_t draft;
  vlart_arena_t arena;
  vlart_arena_place(&arena, arena_base, arena_bytes);
  vlart_lane_t *lane = take_lane(&draft, session, followers, &arena);
  if (arena.full) {
    vlart_arena_measure(&arena);
    take_lane(&draft, session, followers, &arena);
    return vlart_arena_too_small(diag, call, vlart_arena_required(&arena), arena_bytes);
  }
  for (uint32_t i = 0; i < followers; i++) {
    vlart_handover_init(&draft.followers[i].between);
  }
  *lane = draft;
  *out_lane = lane;
  return VLART_STATUS_OK;
}

vlart_status_t vlart_session_follow(vlart_session_t *session, vlart_lane_t *lane,
                                    vlart_diag_t *diag) {
  const char *call = "vlart_session_follow";
  if (session == NULL || lane == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  if (session->bundle != lane->session->bundle) {
    return vlart_bad_argument(diag, call, "the two are of different bundles");
  }
  if (session->lanes.option == 0 || session->lanes.option - 1 <= lane->index) {
    return vlart_bad_argument(diag, call, "the session is not of a faster clock: options.lane");
  }
  if (session->lanes.follows[lane->index] != NULL || lane->count == lane->room) {
    return vlart_bad_argument(diag, call, "it follows already, or there is no room for it");
  }
  session->lanes.follows[lane->index] = &lane->followers[lane->count++];
  return VLART_STATUS_OK;
}

vlart_status_t vlart_lane_step(vlart_lane_t *lane, vlart_diag_t *diag) {
  if (lane == NULL) {
    return vlart_bad_argument(diag, "vlart_lane_step", "the lane is NULL");
  }
  uint64_t began = vlart_now_ns();
  vlart_status_t status = vlart_session_step(lane->session, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  lane->sequence++;
  for (uint32_t i = 0; i < lane->count; i++) {
    vlart_follower_t *follower = &lane->followers[i];
    vlart_lane_set_t *set = &follower->sets[follower->between.back];
    vlart_lane_move(lane->session, lane->index, set->data, true);
    set->sequence = lane->sequence;
    set->ns = began;
    vlart_handover_give(&follower->between);
  }
  return VLART_STATUS_OK;
}
