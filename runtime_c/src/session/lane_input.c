/* [tick] What a session takes from the sessions of slower clocks. */

#include "session/lane_input.h"

#include <string.h>

#include "base/clock.h"
#include "base/diag.h"
#include "base/struct_size.h"
#include "plan/plan_lanes.h"
#include "session/session.h"
#include "session/stage_versions.h"

vlart_status_t vlart_lane_check_source(const vlart_session_t *session, uint32_t source,
                                       vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  uint32_t lane = 0;
  while (lane < plan->lane_count && (plan->lane_sources[lane] >> source & 1) == 0) {
    lane++;
  }
  uint32_t own =
      session->lanes.option == VLART_LANE_CONTROL ? plan->lane_count : session->lanes.option - 1;
  if (session->lanes.option == 0 || lane == own) {
    return VLART_STATUS_OK;
  }
  vlart_fail(diag, VLART_STATUS_BAD_ARGUMENT, "the source belongs to another clock",
             "write it in that session");
  vlart_where(diag, "source %u \"%s\"", source,
              vlart_plan_value_name(plan, vlart_plan_source(plan, source)->value));
  vlart_why(diag, "it is of %s, this session is of %s", vlart_plan_lane_name(plan, lane),
            vlart_plan_lane_name(plan, own));
  return VLART_STATUS_BAD_ARGUMENT;
}

/* Copies one value; returns the bytes that it takes in a set. */
static size_t move_value(const vlart_session_t *session, uint32_t value, uint8_t *set, bool into) {
  size_t bytes = (size_t)vlart_plan_value(&session->bundle->plan, value)->bytes;
  if (set != NULL && bytes > 0) {
    memcpy(into ? set : session->values.at[value], into ? session->values.at[value] : set, bytes);
  }
  return bytes;
}

/* One lane's part of a set. */
static size_t move_part(vlart_session_t *session, uint32_t lane, uint8_t *set, bool into) {
  const vlart_plan_t *plan = &session->bundle->plan;
  size_t at = 0;
  for (uint32_t i = 0; i < plan->source_count; i++) {
    if ((plan->lane_sources[lane] >> i & 1) != 0) {
      uint32_t value = vlart_plan_source(plan, i)->value;
      at += move_value(session, value, set == NULL ? NULL : set + at, into);
    }
  }
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    const vlart_stage_record_t *stage = vlart_plan_stage(plan, i);
    for (uint32_t k = 0; plan->lanes[i] == lane && k < stage->output_count; k++) {
      uint32_t value = vlart_plan_binding(plan, stage->output_begin + k)->value;
      at += move_value(session, value, set == NULL ? NULL : set + at, into);
    }
  }
  return at;
}

size_t vlart_lane_fill(vlart_session_t *session, uint32_t lane, uint8_t *set) {
  size_t at = 0;
  for (uint32_t i = 0; i <= lane; i++) {
    if ((session->bundle->plan.lane_carries[lane] >> i & 1) != 0) {
      at += move_part(session, i, set == NULL ? NULL : set + at, true);
    }
  }
  return at;
}

/* Whether a source is what it was: an instruction that a lane hands over again is no other task. */
static bool is_same(const vlart_session_t *session, uint32_t source, const uint8_t *data) {
  const vlart_plan_t *plan = &session->bundle->plan;
  const vlart_source_record_t *record = vlart_plan_source(plan, source);
  return record->update == VLART_UPDATE_TASK && session->sources.versions[source] > 0 &&
         memcmp(session->values.at[record->value], data,
                vlart_plan_value(plan, record->value)->bytes) == 0;
}

/* A lane's sources and values are those of a set; what was computed of others is computed anew. */
static void take_part(vlart_session_t *session, uint32_t lane, uint8_t *data) {
  const vlart_plan_t *plan = &session->bundle->plan;
  size_t at = 0;
  for (uint32_t i = 0; i < plan->source_count; i++) {
    if ((plan->lane_sources[lane] >> i & 1) != 0) {
      session->sources.versions[i] += !is_same(session, i, data + at);
      session->sources.written |= 1ull << i;
      at += (size_t)vlart_plan_source_value(plan, i)->bytes;
    }
  }
  move_part(session, lane, data, false);
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    if (plan->lanes[i] == lane) {
      vlart_stage_made_current(session, i);
    }
  }
}

static void take_set(vlart_session_t *session, uint32_t lane, const vlart_lane_set_t *set) {
  size_t at = 0;
  for (uint32_t i = 0; i <= lane; i++) {
    vlart_follower_t *follower = session->lanes.follows[i];
    if ((session->bundle->plan.lane_carries[lane] >> i & 1) == 0) {
      continue;
    }
    uint64_t sequence = set->steps[i].sequence;
    if (follower != NULL && sequence > 0 && sequence != follower->step.sequence) {
      take_part(session, i, set->data + at);
      follower->step = set->steps[i];
    }
    at += move_part(session, i, NULL, true);
  }
}

static vlart_status_t too_old(const vlart_session_t *session, uint32_t lane, uint64_t age_ns,
                              vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  vlart_fail(diag, VLART_STATUS_LANE_STALE, "what a slower clock handed over is too old",
             "stop safely, and see why that thread gives nothing new");
  vlart_where(diag, "lane \"%s\"", vlart_plan_lane_name(plan, lane));
  vlart_why(diag, "it is %llu ms old, %u ms are allowed", (unsigned long long)(age_ns / 1000000),
            vlart_plan_lane(plan, lane)->max_age_ms);
  return VLART_STATUS_LANE_STALE;
}

/* Lanes hand on what slower ones gave them. */
bool vlart_lane_observes(const vlart_plan_t *plan, uint32_t lane) {
  for (uint32_t i = 0; i < plan->source_count; i++) {
    for (uint32_t k = 0; k <= lane; k++) {
      if ((plan->lane_sources[k] >> i & 1) != 0 &&
          vlart_plan_source(plan, i)->update >= VLART_UPDATE_OBSERVATION) {
        return true;
      }
    }
  }
  return false;
}

void vlart_lanes_end_episode(vlart_session_t *session) {
  const vlart_plan_t *plan = &session->bundle->plan;
  session->lanes.episode += session->lanes.option == VLART_LANE_CONTROL;
  for (uint32_t i = 0; i < plan->lane_count; i++) {
    vlart_follower_t *follower = session->lanes.follows[i];
    if (follower != NULL && vlart_lane_observes(plan, i)) {
      session->sources.written &= ~plan->lane_sources[i];
      follower->step.sequence = 0;
      if (session->lanes.option == VLART_LANE_CONTROL) {
        atomic_store_explicit(&follower->episode, session->lanes.episode, memory_order_release);
      }
    }
  }
}

vlart_status_t vlart_lanes_take(vlart_session_t *session, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  for (uint32_t i = 0; i < plan->lane_count; i++) {
    vlart_follower_t *follower = session->lanes.follows[i];
    if (follower == NULL) {
      continue;
    }
    bool fresh = follower->taken && vlart_handover_take(&follower->between);
    const vlart_lane_set_t *front = &follower->sets[follower->between.front];
    if ((fresh || follower->step.sequence == 0) && front->steps[i].sequence > 0 &&
        (!vlart_lane_observes(plan, i) || front->episode == session->lanes.episode)) {
      take_set(session, i, front);
    }
  }
  for (uint32_t i = 0; i < plan->lane_count; i++) {
    const vlart_follower_t *follower = session->lanes.follows[i];
    uint64_t allowed = (uint64_t)vlart_plan_lane(plan, i)->max_age_ms * 1000000u;
    if (follower != NULL && follower->step.sequence > 0 && allowed > 0 &&
        !session->recorded.replays) {
      uint64_t age = vlart_now_ns() - follower->step.ns;
      if (age > allowed) {
        return too_old(session, i, age, diag);
      }
    }
  }
  return VLART_STATUS_OK;
}

void vlart_lanes_taken(const vlart_session_t *session, uint64_t *out_sequences) {
  for (uint32_t i = 0; i < VLART_MAX_LANES; i++) {
    const vlart_follower_t *follower = session->lanes.follows[i];
    out_sequences[i] = follower == NULL ? 0 : follower->step.sequence;
  }
}

vlart_status_t vlart_session_followed(const vlart_session_t *session, uint32_t lane,
                                      vlart_lane_info_t *out_info) {
  if (session == NULL || lane >= session->bundle->plan.lane_count ||
      session->lanes.follows[lane] == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  const vlart_follower_t *follower = session->lanes.follows[lane];
  vlart_lane_info_t info = {.sequence = follower->step.sequence};
  if (info.sequence > 0) {
    info.age_ns = vlart_now_ns() - follower->step.ns;
  }
  return vlart_copy_out(out_info, &info, sizeof info);
}
