/* [task] What a router tells a recorder. */
#include <string.h>

#include "base/diag.h"
#include "record/recorder.h"
#include "router/router.h"

void vlart_router_recorded(vlart_router_t *router, const vlart_decision_t *d) {
  if (router->track == NULL) {
    return;
  }
  vlart_decision_event_record_t event = {.sequence = d->sequence,
                                         .route = d->route,
                                         .cluster = d->cluster,
                                         .by = d->by,
                                         .level = d->level,
                                         .backbone = d->backbone,
                                         .backbone_count = d->backbone_count,
                                         .similarity = d->similarity,
                                         .delta = d->delta,
                                         .tau = d->tau};
  memcpy(event.alpha, d->alpha, sizeof event.alpha);
  memcpy(event.beta, d->beta, sizeof event.beta);
  memcpy(event.probability, d->probability, sizeof event.probability);
  memcpy(event.cost_ms, d->cost_ms, sizeof event.cost_ms);
  vlart_track_part_t parts[] = {{&event, sizeof event},
                                {d->text, strnlen(d->text, sizeof d->text)}};
  vlart_track_put(router->track, VLART_EVENT_KIND_DECISION, parts, 2);
}

void vlart_router_recorded_outcome(vlart_router_t *router, uint32_t success) {
  if (router->track != NULL) {
    vlart_track_note(
        router->track, VLART_EVENT_KIND_OUTCOME,
        (vlart_note_event_record_t){.index = success, .number = router->last.sequence});
  }
}

vlart_status_t vlart_router_record(vlart_router_t *router, vlart_recorder_t *recorder,
                                   vlart_diag_t *diag) {
  const char *call = "vlart_router_record";
  if (router == NULL) {
    return vlart_bad_argument(diag, call, "the router is NULL");
  }
  if (recorder == NULL) {
    router->track = NULL;
    return VLART_STATUS_OK;
  }
  if (router->track != NULL) {
    return vlart_bad_argument(diag, call, "the router is recorded already");
  }
  return vlart_recorder_track(recorder, VLART_EVENT_ROLE_ROUTER, 0, call, diag, &router->track);
}
