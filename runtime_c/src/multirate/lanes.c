/* [init] [tick] Sessions of one bundle that run at different clocks: the side that hands over. */

#include "multirate/lanes.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/diag.h"
#include "base/float_scan.h"
#include "plan/plan_lanes.h"
#include "session/session.h"

static vlart_lane_t *take_lane(vlart_lane_t *draft, vlart_session_t *session, uint32_t room,
                               vlart_arena_t *arena) {
  vlart_lane_t *lane = vlart_arena_take(arena, 1, sizeof *lane);
  *draft = (vlart_lane_t){.session = session, .index = session->lanes.option - 1, .room = room};
  draft->followers = vlart_arena_take(arena, room, sizeof *draft->followers);
  size_t bytes = vlart_lane_fill(session, draft->index, NULL);
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
    atomic_init(&draft.followers[i].episode, 0);
  }
  *lane = draft;
  atomic_init(&lane->interrupts, 0);
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
  vlart_follower_t *follower = &lane->followers[lane->count++];
  follower->taken =
      vlart_plan_takes_lane(&session->bundle->plan, session->lanes.option, lane->index);
  session->lanes.follows[lane->index] = follower;
  return VLART_STATUS_OK;
}

/* Where the control loop began an episode since the last step, the lane's session does too: what was written may
   have been seen before. */
static vlart_status_t follow_episode(vlart_lane_t *lane, vlart_diag_t *diag) {
  vlart_session_t *session = lane->session;
  unsigned newest = session->lanes.episode;
  for (uint32_t i = 0; i < lane->count; i++) { /* only the control loop's counts */
    unsigned episode = atomic_load_explicit(&lane->followers[i].episode, memory_order_acquire);
    newest = episode - newest < UINT32_MAX / 2 ? episode : newest;
  }
  if (newest == session->lanes.episode) {
    return VLART_STATUS_OK;
  }
  session->lanes.episode = newest;
  vlart_session_reset(session);
  if (!vlart_lane_observes(&session->bundle->plan, lane->index)) {
    return VLART_STATUS_OK;
  }
  vlart_fail(diag, VLART_STATUS_CANCELLED, "another episode began",
             "write the lane's sources anew, then step it");
  vlart_where(diag, "lane \"%s\"", vlart_plan_lane_name(&session->bundle->plan, lane->index));
  vlart_why(diag, "what was written may have been seen in the last one");
  return VLART_STATUS_CANCELLED;
}

/* Nothing of this episode was written here, or handed over by a slower lane, since it began: that is no fault. */
static bool awaits_episode(const vlart_session_t *session, vlart_status_t status) {
  uint64_t unset = session->sources.needed & session->sources.own & ~session->sources.written;
  bool before = true;
  for (uint32_t i = 0; i < session->bundle->plan.source_count; i++) {
    before = before && ((unset >> i & 1) == 0 || session->sources.versions[i] > 0);
  }
  return status == VLART_STATUS_SOURCE_UNSET && session->lanes.episode != 0 && before;
}

/* The steps that made what the lane's sets carry, its own the last. */
static void name_steps(const vlart_lane_t *lane, uint64_t began, vlart_lane_step_t *steps) {
  for (uint32_t i = 0; i < lane->index; i++) {
    const vlart_follower_t *slower = lane->session->lanes.follows[i];
    steps[i] = slower == NULL ? (vlart_lane_step_t){0} : slower->step;
  }
  steps[lane->index] = (vlart_lane_step_t){.sequence = lane->sequence, .ns = began};
}

static vlart_status_t interrupted(const vlart_lane_t *lane, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_CANCELLED, "the step was interrupted",
             "write what is new, then step it");
  vlart_where(diag, "lane \"%s\"", vlart_plan_lane_name(&lane->session->bundle->plan, lane->index));
  return VLART_STATUS_CANCELLED;
}

static bool is_read_elsewhere(const vlart_plan_t *plan, uint32_t lane, uint32_t value) {
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    const vlart_stage_record_t *stage = vlart_plan_stage(plan, i);
    for (uint32_t k = 0; plan->lanes[i] != lane && k < stage->input_count; k++) {
      if (vlart_plan_binding(plan, stage->input_begin + k)->value == value) {
        return true;
      }
    }
  }
  return false;
}

/* What faster clocks would compute with: on the last set they go on, until that is too old. */
static vlart_status_t check_results(const vlart_lane_t *lane, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &lane->session->bundle->plan;
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    const vlart_stage_record_t *stage = vlart_plan_stage(plan, i);
    for (uint32_t k = 0; plan->lanes[i] == lane->index && k < stage->output_count; k++) {
      uint32_t value = vlart_plan_binding(plan, stage->output_begin + k)->value;
      const vlart_value_record_t *record = vlart_plan_value(plan, value);
      size_t count = (size_t)record->bytes / vlart_dtype_bytes(record->dtype);
      size_t bad = vlart_first_not_a_result(lane->session->values.at[value], count, record->dtype);
      if (bad < count && is_read_elsewhere(plan, lane->index, value)) {
        vlart_fail(diag, VLART_STATUS_NOT_FINITE, "what a lane would hand over is not finite",
                   "see what the lane's sources hold: the others go on with the last set");
        vlart_where(diag, "lane \"%s\", stage \"%s\", value \"%s\"",
                    vlart_plan_lane_name(plan, lane->index), vlart_plan_stage_name(plan, i),
                    vlart_plan_value_name(plan, value));
        vlart_why(diag, "element %llu is NaN or infinite", (unsigned long long)bad);
        return VLART_STATUS_NOT_FINITE;
      }
    }
  }
  return VLART_STATUS_OK;
}

static vlart_status_t step_lane(vlart_lane_t *lane, vlart_diag_t *diag) {
  vlart_status_t status = follow_episode(lane, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  uint64_t began = vlart_now_ns();
  unsigned interrupts = atomic_load_explicit(&lane->interrupts, memory_order_acquire);
  lane->session->cancel =
      (vlart_session_cancel_t){.epoch = &lane->interrupts, .allowed = interrupts};
  status = vlart_session_step(lane->session, diag);
  if (status != VLART_STATUS_OK) {
    return awaits_episode(lane->session, status) ? VLART_STATUS_CANCELLED : status;
  }
  if (atomic_load_explicit(&lane->interrupts, memory_order_acquire) != interrupts) {
    return interrupted(lane, diag); /* in its last stage */
  }
  status = check_results(lane, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  lane->sequence++;
  for (uint32_t i = 0; i < lane->count; i++) {
    vlart_follower_t *follower = &lane->followers[i];
    if (!follower->taken) {
      continue;
    }
    vlart_lane_set_t *set = &follower->sets[follower->between.back];
    vlart_lane_fill(lane->session, lane->index, set->data);
    name_steps(lane, began, set->steps);
    set->episode = lane->session->lanes.episode;
    vlart_handover_give(&follower->between);
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_lane_step(vlart_lane_t *lane, vlart_diag_t *diag) {
  if (lane == NULL) {
    return vlart_bad_argument(diag, "vlart_lane_step", "the lane is NULL");
  }
  vlart_status_t status = step_lane(lane, diag);
  if (lane->session->recorded.track != NULL) {
    vlart_track_note(
        lane->session->recorded.track, VLART_EVENT_KIND_HANDOVER,
        (vlart_note_event_record_t){
            .status = status, .number = lane->sequence, .tick = lane->session->lanes.episode});
  }
  return status;
}

vlart_status_t vlart_lane_interrupt(vlart_lane_t *lane) {
  if (lane == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  atomic_fetch_add_explicit(&lane->interrupts, 1, memory_order_acq_rel);
  return VLART_STATUS_OK;
}
