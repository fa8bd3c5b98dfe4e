#include "session/recorded.h"

#include <string.h>

#include "base/crc32.h"
#include "base/diag.h"
#include "base/struct_size.h"
#include "plan/plan_lanes.h"
#include "record/recorder.h"
#include "session/session.h"

enum { AGAIN = 0, EPISODE = 1, FRESH = 2 }; /* why the content of all sources is recorded */

void vlart_recorded_take(vlart_recorded_t *recorded, const vlart_plan_t *plan,
                         vlart_arena_t *arena) {
  recorded->runs = vlart_arena_take(arena, plan->stage_count, sizeof *recorded->runs);
  recorded->times = vlart_arena_take(arena, plan->stage_count, sizeof *recorded->times);
  recorded->stop_stage = VLART_NONE;
}

static void put_source(vlart_session_t *session, uint32_t source, uint32_t flags) {
  vlart_track_t *track = session->recorded.track;
  const vlart_plan_t *plan = &session->bundle->plan;
  const vlart_value_record_t *value = vlart_plan_source_value(plan, source);
  const void *data = session->values.at[vlart_plan_source(plan, source)->value];
  bool full = track->full != 0 && (flags & VLART_SOURCE_FLAG_SAME) == 0;
  vlart_source_event_record_t event = {.source = source,
                                       .flags = flags | (full ? VLART_SOURCE_FLAG_FULL : 0u),
                                       .bytes = value->bytes,
                                       .version = session->sources.versions[source],
                                       .observation = session->written.observation};
  if ((flags & VLART_SOURCE_FLAG_SAME) == 0) {
    event.crc32 = vlart_crc32(track->crc, 0, data, (size_t)value->bytes);
  }
  vlart_track_part_t parts[] = {{&event, sizeof event}, {data, full ? (size_t)value->bytes : 0}};
  vlart_track_put(track, VLART_EVENT_KIND_SOURCE, parts, 2);
}

/* What is needed to go on from here: the instruction and the content of all sources. */
static void put_keyframe(vlart_session_t *session, uint32_t why) {
  vlart_track_t *track = session->recorded.track;
  const vlart_plan_t *plan = &session->bundle->plan;
  track->since_keyframe = 0;
  vlart_track_note(
      track, VLART_EVENT_KIND_KEYFRAME,
      (vlart_note_event_record_t){.index = why, .number = session->selection.backbone});
  if (session->recorded.text_bytes > 0) {
    vlart_recorded_text(session, session->recorded.text_source, session->recorded.text,
                        session->recorded.text_bytes);
  }
  for (uint32_t i = 0; i < plan->source_count; i++) {
    if (session->sources.versions[i] > 0 && (session->realtime.filled >> i & 1) == 0 &&
        (session->sources.own >> i & 1) != 0) {
      put_source(session, i, VLART_SOURCE_FLAG_KEYFRAME);
    }
  }
}

void vlart_recorded_source(vlart_session_t *session, uint32_t source, bool same) {
  if (!same && source == session->recorded.text_source) {
    session->recorded.text_bytes =
        0; /* what is there now is not that text's, or will be told to be */
  }
  if (session->recorded.track != NULL) {
    put_source(session, source, same ? VLART_SOURCE_FLAG_SAME : 0);
  }
}

void vlart_recorded_refusal(vlart_track_t *track, uint32_t source, vlart_status_t status) {
  if (track != NULL) {
    vlart_track_note(track, VLART_EVENT_KIND_REFUSED,
                     (vlart_note_event_record_t){.status = status, .index = source});
  }
}

void vlart_recorded_text(const vlart_session_t *session, uint32_t source, const char *text,
                         size_t bytes) {
  vlart_note_event_record_t note = {.index = source};
  size_t kept = bytes < VLART_MAX_RECORDED_TEXT ? bytes : VLART_MAX_RECORDED_TEXT;
  vlart_track_part_t parts[] = {{&note, sizeof note}, {text, kept}};
  if (session->recorded.track != NULL) {
    vlart_track_put(session->recorded.track, VLART_EVENT_KIND_TEXT, parts, 2);
  }
}

void vlart_recorded_keep_text(vlart_session_t *session, uint32_t source, const char *text,
                              size_t bytes) {
  vlart_recorded_t *recorded = &session->recorded;
  recorded->text_source = source;
  recorded->text_bytes = bytes <= sizeof recorded->text ? (uint32_t)bytes : 0;
  if (recorded->text_bytes > 0) {
    memcpy(recorded->text, text, bytes);
  }
}

/* Stages are passed in this order, so that it is where a step stopped that did not end well. */
static uint32_t first_not_current(const vlart_session_t *session) {
  const vlart_plan_t *plan = &session->bundle->plan;
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    bool ours = vlart_plan_owns_stage(plan, session->lanes.option, i) &&
                (plan->serves[i] & session->selection.backbones) != 0;
    if (ours && !vlart_stage_is_current(session, i)) {
      return i;
    }
  }
  return VLART_NONE;
}

static vlart_stage_time_record_t stage_time(vlart_session_t *session, uint32_t stage) {
  const vlart_stage_state_t *state = &session->stages[stage];
  bool ran = state->runs != session->recorded.runs[stage];
  session->recorded.runs[stage] = state->runs;
  return (vlart_stage_time_record_t){.runs = state->runs,
                                     .ns = ran ? state->last_ns : 0,
                                     .iterations = (uint32_t)state->last_iterations,
                                     .ran = ran};
}

void vlart_recorded_step(vlart_session_t *session, uint64_t deadline_us, vlart_status_t status) {
  vlart_recorded_t *recorded = &session->recorded;
  if (recorded->track == NULL) {
    return;
  }
  const vlart_policy_record_t *policy = session->bundle->plan.policy;
  uint32_t stages = session->bundle->plan.stage_count;
  bool is_new = session->queue.chunks != recorded->chunks;
  uint32_t numbers = is_new ? policy->chunk_steps * policy->action_dim : 0;
  recorded->chunks = session->queue.chunks;
  vlart_step_event_record_t step = {
      .status = status,
      .stop_stage = status == VLART_STATUS_OK ? VLART_NONE : first_not_current(session),
      .stage_count = stages,
      .chunk_count = numbers,
      .backbone = session->selection.runs,
      .remaining = session->queue.remaining,
      .chunk = session->queue.chunks,
      .observation = session->written.observation,
      .request = recorded->request,
      .ns = session->totals.last_step_ns,
      .deadline_us = deadline_us,
      .deadline_misses = session->totals.deadline_misses,
      .deadline_overruns = session->totals.deadline_overruns};
  vlart_lanes_taken(session, step.lanes);
  for (uint32_t i = 0; i < stages; i++) {
    recorded->times[i] = stage_time(session, i);
  }
  vlart_track_part_t parts[] = {{&step, sizeof step},
                                {recorded->times, stages * sizeof *recorded->times},
                                {session->queue.actions, numbers * sizeof(float)}};
  vlart_track_put(recorded->track, VLART_EVENT_KIND_STEP, parts, 3);
  if (recorded->track->since_keyframe > recorded->track->keyframe_bytes) {
    put_keyframe(session, AGAIN);
  }
}

void vlart_recorded_observe(vlart_session_t *session, vlart_status_t status) {
  if (session->recorded.track != NULL) {
    uint32_t stop = status == VLART_STATUS_OK ? VLART_NONE : first_not_current(session);
    vlart_track_note(session->recorded.track, VLART_EVENT_KIND_OBSERVE,
                     (vlart_note_event_record_t){.status = status, .index = stop});
  }
}

void vlart_recorded_call(vlart_session_t *session, uint32_t kind, uint32_t index) {
  if (session->recorded.track != NULL) {
    vlart_track_note(session->recorded.track, kind, (vlart_note_event_record_t){.index = index});
  }
}

void vlart_recorded_reset(vlart_session_t *session) {
  if (session->recorded.track != NULL) {
    vlart_recorded_call(session, VLART_EVENT_KIND_RESET, 0);
    put_keyframe(session, EPISODE);
  }
}

void vlart_recorded_pop(vlart_session_t *session, const float *actions, size_t rows,
                        vlart_status_t status) {
  vlart_recorded_t *recorded = &session->recorded;
  if (recorded->track == NULL) {
    return;
  }
  const vlart_action_info_t *info = &session->handed.info;
  bool given = status == VLART_STATUS_OK;
  vlart_pop_event_record_t pop = {.status = status,
                                  .rows = given ? (uint32_t)rows : 0,
                                  .dim = session->handed.dim,
                                  .row = info->row,
                                  .clipped = info->clipped,
                                  .asked = (uint32_t)rows,
                                  .observation = info->observation,
                                  .chunk = info->chunk,
                                  .tick = recorded->pops};
  recorded->pops += pop.rows;
  vlart_track_part_t parts[] = {{&pop, sizeof pop},
                                {actions, (size_t)pop.rows * pop.dim * sizeof *actions}};
  vlart_track_put(recorded->track, VLART_EVENT_KIND_POP, parts, 2);
}

vlart_status_t vlart_session_record(vlart_session_t *session, vlart_recorder_t *recorder,
                                    vlart_diag_t *diag) {
  const char *call = "vlart_session_record";
  if (session == NULL) {
    return vlart_bad_argument(diag, call, "the session is NULL");
  }
  if (recorder == NULL) {
    session->recorded.track = NULL;
    return VLART_STATUS_OK;
  }
  const void *plan;
  size_t bytes;
  vlart_bundle_plan(session->bundle, &plan, &bytes);
  if (!vlart_recorder_is_of(recorder, plan, bytes)) {
    return vlart_bad_argument(diag, call, "the recorder was made for another bundle");
  }
  if (session->recorded.track != NULL) {
    return vlart_bad_argument(diag, call, "the session is recorded already");
  }
  vlart_status_t status =
      vlart_recorder_track(recorder, VLART_EVENT_ROLE_SESSION, session->lanes.option, call, diag,
                           &session->recorded.track);
  if (status == VLART_STATUS_OK) {
    put_keyframe(session,
                 session->sources.written == 0 && session->totals.steps == 0 ? FRESH : AGAIN);
  }
  return status;
}

vlart_status_t vlart_session_chunk(const vlart_session_t *session, float *chunk, size_t count,
                                   vlart_diag_t *diag) {
  const char *call = "vlart_session_chunk";
  if (session == NULL || chunk == NULL || session->selection.action_stage == VLART_NONE) {
    return vlart_bad_argument(diag, call, "a pointer is NULL, or the bundle has no action value");
  }
  const vlart_policy_record_t *policy = session->bundle->plan.policy;
  if (count != (size_t)policy->chunk_steps * policy->action_dim) {
    return vlart_bad_argument(diag, call, "a chunk has another size");
  }
  if (session->queue.chunks == 0) {
    vlart_fail(diag, VLART_STATUS_QUEUE_EMPTY, "there is no chunk yet", NULL);
    vlart_where(diag, "%s", call);
    vlart_why(diag, "no good chunk was computed");
    return VLART_STATUS_QUEUE_EMPTY;
  }
  memcpy(chunk, session->queue.actions, count * sizeof *chunk);
  return VLART_STATUS_OK;
}

vlart_status_t vlart_session_stop_before(vlart_session_t *session, uint32_t stage,
                                         vlart_status_t status) {
  if (session == NULL || (stage != VLART_NONE && stage >= session->bundle->plan.stage_count) ||
      (status == VLART_STATUS_OK && stage != VLART_NONE)) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  session->recorded.replays = true;
  session->recorded.stop_stage = stage;
  session->recorded.stop_status = status;
  return VLART_STATUS_OK;
}

/* With `where`, whatever the recorded step ended with. */
static vlart_status_t end_again(vlart_status_t status, const char *before, vlart_diag_t *diag) {
  vlart_fail(diag, status, "the step ended where the recorded one did", NULL);
  vlart_where(diag, "before stage \"%s\"", before);
  vlart_why(diag, "it was told to: vlart_session_stop_before");
  return status;
}

vlart_status_t vlart_recorded_refusal_of(const vlart_session_t *session, vlart_diag_t *diag) {
  const vlart_recorded_t *recorded = &session->recorded;
  vlart_status_t status = recorded->stop_status;
  bool refused = recorded->replays && recorded->stop_stage == VLART_NONE &&
                 (status == VLART_STATUS_SOURCE_UNSET || status == VLART_STATUS_STALE_INPUT ||
                  status == VLART_STATUS_LANE_STALE);
  return refused ? end_again(status, vlart_plan_stage_name(&session->bundle->plan, 0), diag)
                 : VLART_STATUS_OK;
}

vlart_status_t vlart_recorded_stop(const vlart_session_t *session, uint32_t stage,
                                   vlart_diag_t *diag) {
  return end_again(session->recorded.stop_status,
                   vlart_plan_stage_name(&session->bundle->plan, stage), diag);
}
