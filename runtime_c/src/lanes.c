/* [init] [tick] Sessions of one bundle that run at different clocks, and what they hand over. */
#include "lanes.h"

#include <string.h>
#include <time.h>

#include "diag.h"

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

bool vlart_lane_owns(const vlart_plan_t *plan, uint32_t option, uint32_t stage) {
  return option == 0 ||
         plan->lanes[stage] == (option == VLART_LANE_CONTROL ? plan->lane_count : option - 1);
}

static const char *lane_name(const vlart_plan_t *plan, uint32_t lane) {
  return lane < plan->lane_count ? vlart_plan_string(plan, vlart_plan_lane(plan, lane)->name)
                                 : "the control loop";
}

vlart_status_t vlart_lane_check_source(const vlart_session_t *session, uint32_t source,
                                       vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  uint32_t lane = 0;
  while (lane < plan->lane_count && (plan->lane_sources[lane] >> source & 1) == 0) {
    lane++;
  }
  uint32_t own = session->lane == VLART_LANE_CONTROL ? plan->lane_count : session->lane - 1;
  if (session->lane == 0 || lane == own) {
    return VLART_STATUS_OK;
  }
  vlart_fail(diag, VLART_STATUS_BAD_ARGUMENT, "the source belongs to another clock",
             "write it in that session");
  vlart_where(diag, "source %u \"%s\"", source,
              vlart_plan_value_name(plan, vlart_plan_source(plan, source)->value));
  vlart_why(diag, "it is of %s, this session is of %s", lane_name(plan, lane), lane_name(plan, own));
  return VLART_STATUS_BAD_ARGUMENT;
}

vlart_status_t vlart_bundle_find_lane(const vlart_bundle_t *bundle, const char *name,
                                      uint32_t *out_lane) {
  if (bundle == NULL || name == NULL || out_lane == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  for (uint32_t i = 0; i < bundle->plan.lane_count; i++) {
    if (strcmp(lane_name(&bundle->plan, i), name) == 0) {
      *out_lane = i;
      return VLART_STATUS_OK;
    }
  }
  return VLART_STATUS_NOT_FOUND;
}

/* Copies one value; returns the bytes that it takes in a set. */
static size_t move_value(const vlart_session_t *session, uint32_t value, uint8_t *set, bool into) {
  size_t bytes = (size_t)vlart_plan_value(&session->bundle->plan, value)->bytes;
  if (set != NULL && bytes > 0) {
    memcpy(into ? set : session->data[value], into ? session->data[value] : set, bytes);
  }
  return bytes;
}

/* Walks what a lane hands over, in the plan's order: NULL only counts. */
static size_t move_set(vlart_session_t *session, uint32_t lane, uint8_t *set, bool into) {
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

static vlart_lane_t *take_lane(vlart_lane_t *draft, vlart_session_t *session, uint32_t room,
                               vlart_arena_t *arena) {
  vlart_lane_t *lane = vlart_arena_take(arena, 1, sizeof *lane);
  *draft = (vlart_lane_t){.session = session, .index = session->lane - 1, .room = room};
  draft->followers = vlart_arena_take(arena, room, sizeof *draft->followers);
  size_t bytes = move_set(session, draft->index, NULL, true);
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
  if (session->lane == 0 || session->lane == VLART_LANE_CONTROL) {
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
  vlart_status_t status = check_lane(session, followers, call, diag);
  if (status == VLART_STATUS_OK && out_bytes == NULL) {
    status = vlart_bad_argument(diag, call, "a pointer is NULL");
  }
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
  if (session->lane == 0 || session->lane - 1 <= lane->index) {
    return vlart_bad_argument(diag, call, "the session is not of a faster clock: options.lane");
  }
  if (session->follows[lane->index] != NULL || lane->count == lane->room) {
    return vlart_bad_argument(diag, call, "it follows already, or there is no room for it");
  }
  session->follows[lane->index] = &lane->followers[lane->count++];
  return VLART_STATUS_OK;
}

vlart_status_t vlart_lane_step(vlart_lane_t *lane, vlart_diag_t *diag) {
  if (lane == NULL) {
    return vlart_bad_argument(diag, "vlart_lane_step", "the lane is NULL");
  }
  uint64_t began = now_ns();
  vlart_status_t status = vlart_session_step(lane->session, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  lane->sequence++;
  for (uint32_t i = 0; i < lane->count; i++) {
    vlart_follower_t *follower = &lane->followers[i];
    vlart_lane_set_t *set = &follower->sets[follower->between.back];
    move_set(lane->session, lane->index, set->data, true);
    set->sequence = lane->sequence;
    set->ns = began;
    vlart_handover_give(&follower->between);
  }
  return VLART_STATUS_OK;
}

/* The lane's sources and values are those of the set; what was computed of others is computed anew. */
static void take_set(vlart_session_t *session, uint32_t lane, vlart_follower_t *follower) {
  const vlart_plan_t *plan = &session->bundle->plan;
  vlart_lane_set_t *set = &follower->sets[follower->between.front];
  move_set(session, lane, set->data, false);
  follower->sequence = set->sequence;
  for (uint32_t i = 0; i < plan->source_count; i++) {
    if ((plan->lane_sources[lane] >> i & 1) != 0) {
      session->versions[i]++;
      session->sources_set |= 1ull << i;
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
  vlart_where(diag, "lane \"%s\"", lane_name(plan, lane));
  vlart_why(diag, "it is %llu ms old, %u ms are allowed", (unsigned long long)(age_ns / 1000000),
            vlart_plan_lane(plan, lane)->max_age_ms);
  return VLART_STATUS_LANE_STALE;
}

vlart_status_t vlart_lanes_take(vlart_session_t *session, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  for (uint32_t i = 0; i < plan->lane_count; i++) {
    vlart_follower_t *follower = session->follows[i];
    if (follower == NULL) {
      continue;
    }
    if (vlart_handover_take(&follower->between)) {
      take_set(session, i, follower);
    }
    uint64_t allowed = (uint64_t)vlart_plan_lane(plan, i)->max_age_ms * 1000000u;
    if (follower->sequence > 0 && allowed > 0) {
      uint64_t age = now_ns() - follower->sets[follower->between.front].ns;
      if (age > allowed) {
        return too_old(session, i, age, diag);
      }
    }
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_session_followed(const vlart_session_t *session, uint32_t lane,
                                      vlart_lane_info_t *out_info) {
  if (session == NULL || lane >= session->bundle->plan.lane_count || session->follows[lane] == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  const vlart_follower_t *follower = session->follows[lane];
  vlart_lane_info_t info = {.sequence = follower->sequence};
  if (follower->sequence > 0) {
    info.age_ns = now_ns() - follower->sets[follower->between.front].ns;
  }
  return vlart_copy_out(out_info, &info, sizeof info);
}

/* ---- an engine for stages that another session runs ------------------------------------------- */

static size_t no_bytes(const vlart_bundle_t *bundle) {
  (void)bundle;
  return 0;
}

static size_t no_engine(const vlart_bundle_t *bundle, uint32_t stage) {
  (void)bundle;
  (void)stage;
  return 0;
}

static vlart_status_t nothing_opens(void *context, const vlart_session_options_t *options,
                                    vlart_diag_t *diag) {
  (void)context;
  (void)options;
  (void)diag;
  return VLART_STATUS_OK;
}

static vlart_status_t nothing_loads(void *context, void *engine, const vlart_bundle_t *bundle,
                                    uint32_t stage, vlart_diag_t *diag) {
  (void)context;
  (void)engine;
  (void)bundle;
  (void)stage;
  (void)diag;
  return VLART_STATUS_OK;
}

static vlart_status_t nothing_prepares(void *engine, uint32_t iteration, void *const *inputs,
                                       void *const *outputs, vlart_diag_t *diag) {
  (void)engine;
  (void)iteration;
  (void)inputs;
  (void)outputs;
  (void)diag;
  return VLART_STATUS_OK;
}

static vlart_status_t nothing_runs(void *engine, uint32_t iteration, vlart_diag_t *diag) {
  (void)engine;
  (void)iteration;
  return vlart_bad_argument(diag, "vlart_session_step", "the stage is another session's");
}

static void nothing_ends(void *memory) { (void)memory; }

const vlart_backend_t vlart_backend_elsewhere = {.id = 0,
                                                 .name = "elsewhere",
                                                 .context_bytes = no_bytes,
                                                 .engine_bytes = no_engine,
                                                 .open = nothing_opens,
                                                 .load = nothing_loads,
                                                 .prepare = nothing_prepares,
                                                 .run = nothing_runs,
                                                 .unload = nothing_ends,
                                                 .close = nothing_ends};
