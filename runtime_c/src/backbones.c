/* Backbones of a bundle, and which of them a session runs. */
#include <string.h>

#include "async.h"
#include "bundle.h"
#include "diag.h"
#include "lanes.h"

const char *vlart_bundle_backbone(const vlart_bundle_t *bundle, uint32_t backbone) {
  return bundle == NULL || backbone >= bundle->plan.backbone_count
             ? NULL
             : vlart_plan_string(&bundle->plan, vlart_plan_chunk(&bundle->plan, backbone)->backbone);
}

vlart_status_t vlart_bundle_find_backbone(const vlart_bundle_t *bundle, const char *name,
                                          uint32_t *out_backbone) {
  if (bundle == NULL || name == NULL || out_backbone == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  for (uint32_t i = 0; i < bundle->plan.backbone_count; i++) {
    if (strcmp(name, vlart_bundle_backbone(bundle, i)) == 0) {
      *out_backbone = i;
      return VLART_STATUS_OK;
    }
  }
  return VLART_STATUS_NOT_FOUND;
}

uint64_t vlart_sources_of(const vlart_session_t *session, uint32_t backbones) {
  const vlart_plan_t *plan = &session->bundle->plan;
  uint64_t sources = session->decode.sources;
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    if (vlart_lane_owns(plan, session->lane, i) && (plan->serves[i] & backbones) != 0) {
      sources |= plan->depends[i];
    }
  }
  return sources;
}

static vlart_status_t check_backbone(const vlart_plan_t *plan, uint32_t backbone, const char *call,
                                     vlart_diag_t *diag) {
  bool one = plan->backbone_count == 0; /* then it is the first, and all */
  if (backbone == VLART_BACKBONE_ALL || backbone < plan->backbone_count || (one && backbone == 0)) {
    return VLART_STATUS_OK;
  }
  vlart_bad_argument(diag, call, "");
  vlart_why(diag, "there is no backbone %u, the bundle has %u", backbone, plan->backbone_count);
  return VLART_STATUS_BAD_ARGUMENT;
}

static uint32_t bits_of(uint32_t backbone) {
  return backbone == VLART_BACKBONE_ALL ? VLART_ALL_BACKBONES : 1u << backbone;
}

vlart_status_t vlart_session_select(vlart_session_t *session, uint32_t backbone, vlart_diag_t *diag) {
  const char *call = "vlart_session_select";
  if (session == NULL) {
    return vlart_bad_argument(diag, call, "the session is NULL");
  }
  const vlart_plan_t *plan = &session->bundle->plan;
  vlart_status_t status = check_backbone(plan, backbone, call, diag);
  if (status != VLART_STATUS_OK || plan->backbone_count == 0) {
    return status;
  }
  session->selected = backbone;
  session->backbones = bits_of(backbone);
  session->action_value = vlart_plan_chunk(plan, backbone == VLART_BACKBONE_ALL ? 0 : backbone)->value;
  session->action_stage = plan->writers[session->action_value].index;
  session->sources_needed = vlart_sources_of(session, session->backbones);
  return VLART_STATUS_OK;
}

vlart_status_t vlart_async_select(vlart_async_t *async, uint32_t backbone, vlart_diag_t *diag) {
  const char *call = "vlart_async_select";
  if (async == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  vlart_status_t status = check_backbone(async->plan, backbone, call, diag);
  if (status == VLART_STATUS_OK && async->plan->backbone_count > 0) {
    async->backbone = backbone;
    async->needed = vlart_sources_of(async->session, bits_of(backbone));
  }
  return status;
}
