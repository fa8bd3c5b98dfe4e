/* [tick] Which of the bundle's backbones a session runs. */

#include "session/select_backbone.h"

#include "base/diag.h"
#include "plan/plan_lanes.h"
#include "session/session.h"

uint64_t vlart_sources_of(const vlart_session_t *session, uint32_t backbones) {
  const vlart_plan_t *plan = &session->bundle->plan;
  uint64_t sources = session->decode.sources;
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    if (vlart_plan_owns_stage(plan, session->lanes.option, i) &&
        (plan->serves[i] & backbones) != 0) {
      sources |= plan->depends[i];
    }
  }
  return sources;
}

vlart_status_t vlart_check_backbone(const vlart_plan_t *plan, uint32_t backbone, const char *call,
                                    vlart_diag_t *diag) {
  bool one = plan->backbone_count == 0; /* then it is the first, and all */
  if (backbone == VLART_BACKBONE_ALL || backbone < plan->backbone_count || (one && backbone == 0)) {
    return VLART_STATUS_OK;
  }
  vlart_bad_argument(diag, call, "");
  vlart_why(diag, "there is no backbone %u, the bundle has %u", backbone, plan->backbone_count);
  return VLART_STATUS_BAD_ARGUMENT;
}

uint32_t vlart_backbone_bits(uint32_t backbone) {
  return backbone == VLART_BACKBONE_ALL ? VLART_ALL_BACKBONES : 1u << backbone;
}

static void run_backbone(vlart_session_t *session, uint32_t backbone) {
  const vlart_plan_t *plan = &session->bundle->plan;
  session->selection.runs = backbone;
  session->selection.backbones = vlart_backbone_bits(backbone);
  session->selection.action_value =
      vlart_plan_chunk(plan, backbone == VLART_BACKBONE_ALL ? 0 : backbone)->value;
  session->selection.action_stage = plan->writers[session->selection.action_value].index;
  session->sources.needed = vlart_sources_of(session, session->selection.backbones);
}

/* Tokens that the text takes, with padding between them. Where there is none, all: what attends to no token may attend
   to the padding, and is answered as the policy was made, with all of it. */
static uint32_t text_length(const vlart_session_t *session, const vlart_bucket_record_t *bucket) {
  const vlart_plan_t *plan = &session->bundle->plan;
  const uint8_t *mask = session->values.at[vlart_plan_source(plan, bucket->mask)->value];
  uint32_t length = (uint32_t)vlart_plan_source_value(plan, bucket->mask)->dims[1];
  bool left = bucket->side == VLART_TEXT_SIDE_LEFT;
  uint32_t padding = 0;
  while (padding < length && mask[left ? padding : length - 1 - padding] == 0) {
    padding++;
  }
  return padding == length ? length : length - padding;
}

void vlart_follow_text(vlart_session_t *session) {
  const vlart_plan_t *plan = &session->bundle->plan;
  uint32_t count = vlart_plan_count(plan, VLART_SECTION_BUCKETS);
  if (count == 0 || session->selection.backbone == VLART_BACKBONE_ALL ||
      (session->sources.written >> vlart_plan_bucket(plan, 0)->mask & 1) == 0) {
    return;
  }
  uint32_t tokens = text_length(session, vlart_plan_bucket(plan, 0));
  uint32_t fits = session->selection.backbone;
  while (fits + 1 < count && vlart_plan_bucket(plan, fits)->length < tokens) {
    fits++;
  }
  if (fits != session->selection.runs) {
    run_backbone(session, fits);
  }
}

vlart_status_t vlart_session_backbone(const vlart_session_t *session, uint32_t *out_backbone) {
  if (session == NULL || out_backbone == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  *out_backbone = session->selection.runs;
  return VLART_STATUS_OK;
}

uint32_t vlart_policy_value(const vlart_session_t *session) {
  const vlart_plan_t *plan = &session->bundle->plan;
  return vlart_plan_count(plan, VLART_SECTION_BUCKETS) > 0 ? plan->policy->action_value
                                                           : session->selection.action_value;
}

vlart_status_t vlart_session_select(vlart_session_t *session, uint32_t backbone,
                                    vlart_diag_t *diag) {
  const char *call = "vlart_session_select";
  if (session == NULL) {
    return vlart_bad_argument(diag, call, "the session is NULL");
  }
  const vlart_plan_t *plan = &session->bundle->plan;
  vlart_status_t status = vlart_check_backbone(plan, backbone, call, diag);
  if (status != VLART_STATUS_OK || plan->backbone_count == 0) {
    return status;
  }
  session->selection.backbone = backbone;
  run_backbone(session, backbone);
  vlart_follow_text(session);
  vlart_recorded_call(session, VLART_EVENT_KIND_SELECT, backbone);
  return VLART_STATUS_OK;
}
