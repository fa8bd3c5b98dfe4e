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

size_t vlart_lane_move(vlart_session_t *session, uint32_t lane, uint8_t *set, bool into) {
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

/* The lane's sources and values are those of the set; what was computed of others is computed anew. */
static void take_set(vlart_session_t *session, uint32_t lane, vlart_follower_t *follower) {
  const vlart_plan_t *plan = &session->bundle->plan;
  vlart_lane_set_t *set = &follower->sets[follower->between.front];
  vlart_lane_move(session, lane, set->data, false);
  follower->sequence = set->sequence;
  for (uint32_t i = 0; i < plan->source_count; i++) {
    if ((plan->lane_sources[lane] >> i & 1) != 0) {
      session->sources.versions[i]++;
      session->sources.written |= 1ull << i;
    }
  }
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    if (plan->lanes[i] == lane) {
      vlart_stage_made_current(session, i);
    }
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

vlart_status_t vlart_lanes_take(vlart_session_t *session, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  for (uint32_t i = 0; i < plan->lane_count; i++) {
    vlart_follower_t *follower = session->lanes.follows[i];
    if (follower == NULL) {
      continue;
    }
    if (vlart_handover_take(&follower->between)) {
      take_set(session, i, follower);
    }
    uint64_t allowed = (uint64_t)vlart_plan_lane(plan, i)->max_age_ms * 1000000u;
    if (follower->sequence > 0 && allowed > 0) {
      uint64_t age = vlart_now_ns() - follower->sets[follower->between.front].ns;
      if (age > allowed) {
        return too_old(session, i, age, diag);
      }
    }
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_session_followed(const vlart_session_t *session, uint32_t lane,
                                      vlart_lane_info_t *out_info) {
  if (session == NULL || lane >= session->bundle->plan.lane_count ||
      session->lanes.follows[lane] == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  const vlart_follower_t *follower = session->lanes.follows[lane];
  vlart_lane_info_t info = {.sequence = follower->sequence};
  if (follower->sequence > 0) {
    info.age_ns = vlart_now_ns() - follower->sets[follower->between.front].ns;
  }
  return vlart_copy_out(out_info, &info, sizeof info);
}
