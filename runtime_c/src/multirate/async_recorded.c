#include "multirate/async_recorded.h"

#include "base/diag.h"
#include "record/recorder.h"

static void note(vlart_track_t *track, uint32_t kind, vlart_note_event_record_t event) {
  if (track != NULL) {
    vlart_track_note(track, kind, event);
  }
}

void vlart_async_recorded_request(const vlart_async_t *async, const vlart_observation_t *o,
                                  vlart_status_t status) {
  vlart_note_event_record_t event = {.status = status, .tick = async->clock.now};
  if (o != NULL) {
    event.number = o->request;
    event.observation = o->observation;
  }
  note(async->track, VLART_EVENT_KIND_REQUEST, event);
}

static void put_options(const vlart_async_t *async) {
  const vlart_async_options_t *o = &async->options;
  vlart_control_event_record_t event = {.lead_ticks = o->lead_ticks,
                                        .stale_ticks = o->stale_ticks,
                                        .deadline_ticks = o->deadline_ticks,
                                        .safe = o->safe,
                                        .expire = o->expire,
                                        .dim = async->dim,
                                        .deadline_us = o->deadline_us};
  vlart_track_part_t parts[] = {{&event, sizeof event}, {async->safe, async->dim * sizeof(float)}};
  vlart_track_put(async->track, VLART_EVENT_KIND_CONTROL, parts, 2);
}

void vlart_async_recorded_cancel(const vlart_async_t *async, uint32_t how) {
  if (async->track != NULL && how == VLART_CANCEL_EPISODE) {
    put_options(async);
  }
  note(async->track, VLART_EVENT_KIND_CANCEL, (vlart_note_event_record_t){.index = how});
}

void vlart_async_recorded_select(const vlart_async_t *async, uint32_t backbone) {
  note(async->track, VLART_EVENT_KIND_SELECT, (vlart_note_event_record_t){.index = backbone});
}

void vlart_async_recorded_result(const vlart_async_t *async, const vlart_result_t *r) {
  note(async->track, VLART_EVENT_KIND_RESULT,
       (vlart_note_event_record_t){.status = r->status,
                                   .number = r->request,
                                   .tick = r->ns,
                                   .observation = r->made_of.observation});
}

void vlart_async_recorded_pop(const vlart_async_t *async, const float *action,
                              vlart_status_t status) {
  if (async->track == NULL) {
    return;
  }
  bool given = status == VLART_STATUS_OK || status == VLART_STATUS_DEADLINE_MISSED ||
               status == VLART_STATUS_SAFE_ACTION;
  bool executed = given && status != VLART_STATUS_SAFE_ACTION;
  const vlart_action_info_t *info = &async->handed.info;
  vlart_pop_event_record_t pop = {.status = status,
                                  .rows = given,
                                  .dim = async->dim,
                                  .row = info->row,
                                  .clipped = info->clipped,
                                  .asked = 1,
                                  .observation = executed ? info->observation : 0,
                                  .chunk = executed ? info->chunk : 0,
                                  .tick = async->clock.pops - 1};
  vlart_track_part_t parts[] = {{&pop, sizeof pop},
                                {action, (size_t)pop.rows * pop.dim * sizeof *action}};
  vlart_track_put(async->track, VLART_EVENT_KIND_POP, parts, 2);
}

void vlart_async_recorded_take(vlart_async_t *async, const vlart_observation_t *o) {
  async->session->recorded.request = o->request;
  note(async->session->recorded.track, VLART_EVENT_KIND_TAKE,
       (vlart_note_event_record_t){
           .number = o->request, .tick = o->tick, .observation = o->observation});
}

vlart_status_t vlart_async_record(vlart_async_t *async, vlart_recorder_t *recorder,
                                  vlart_diag_t *diag) {
  const char *call = "vlart_async_record";
  if (async == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  if (recorder == NULL) {
    async->track = NULL;
    return vlart_session_record(async->session, NULL, diag);
  }
  if (async->track != NULL) {
    return vlart_bad_argument(diag, call, "the asynchronous control is recorded already");
  }
  vlart_status_t status = VLART_STATUS_OK;
  if (async->session->recorded.track == NULL) {
    status = vlart_session_record(async->session, recorder, diag);
  }
  if (status == VLART_STATUS_OK) {
    status =
        vlart_recorder_track(recorder, VLART_EVENT_ROLE_CONTROL,
                             async->session->recorded.track->index + 1, call, diag, &async->track);
  }
  if (status == VLART_STATUS_OK) {
    put_options(async);
  }
  return status;
}
