/* Descriptions of a bundle for the caller. */
#include <string.h>

#include "base/struct_size.h"
#include "bundle/bundle.h"
#include "plan/plan_lanes.h"

vlart_status_t vlart_bundle_info(const vlart_bundle_t *bundle, vlart_bundle_info_t *out_info) {
  if (bundle == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  const vlart_plan_t *plan = &bundle->plan;
  const vlart_policy_record_t *policy = plan->policy;
  vlart_bundle_info_t info = {
      .name = vlart_plan_string(plan, policy->name),
      .target = vlart_plan_string(plan, policy->target),
      .recipe = vlart_plan_string(plan, policy->recipe),
      .format_major = plan->file.version_major,
      .format_minor = plan->file.version_minor,
      .source_count = plan->source_count,
      .value_count = plan->value_count,
      .stage_count = plan->stage_count,
      .action_value = policy->action_value,
      .deadline_us = policy->deadline_us,
      .arena_bytes = policy->arena_bytes,
      .backbone_count = plan->backbone_count,
  };
  if (policy->action_value != VLART_NONE) {
    info.chunk_steps = policy->chunk_steps;
    info.execute_steps = policy->execute_steps;
    info.action_dim = policy->action_dim;
    info.consume = plan->consumption == NULL ? VLART_CONSUME_QUEUE : plan->consumption->consume;
    info.low = policy->low_count > 0 ? vlart_plan_floats(plan, policy->low_begin) : NULL;
    info.high = policy->high_count > 0 ? vlart_plan_floats(plan, policy->high_begin) : NULL;
  }
  return vlart_copy_out_since(out_info, &info, offsetof(vlart_bundle_info_t, backbone_count),
                              sizeof info);
}

vlart_status_t vlart_bundle_source(const vlart_bundle_t *bundle, uint32_t source,
                                   vlart_source_info_t *out_info) {
  if (bundle == NULL || source >= bundle->plan.source_count) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  const vlart_source_record_t *record = vlart_plan_source(&bundle->plan, source);
  vlart_source_info_t info = {
      .value = record->value, .update = record->update, .clock_hz = record->clock_hz};
  for (uint32_t i = 0; i < vlart_plan_count(&bundle->plan, VLART_SECTION_HISTORIES); i++) {
    const vlart_history_record_t *history = vlart_plan_history(&bundle->plan, i);
    info.frames = history->source == source ? history->frames : info.frames;
  }
  return vlart_copy_out(out_info, &info, sizeof info);
}

vlart_status_t vlart_bundle_value(const vlart_bundle_t *bundle, uint32_t value,
                                  vlart_value_info_t *out_info) {
  if (bundle == NULL || value >= bundle->plan.value_count) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  const vlart_value_record_t *record = vlart_plan_value(&bundle->plan, value);
  vlart_value_info_t info = {.name = vlart_plan_string(&bundle->plan, record->name),
                             .dtype = record->dtype,
                             .rank = record->rank,
                             .bytes = record->bytes};
  memcpy(info.dims, record->dims, sizeof info.dims);
  return vlart_copy_out(out_info, &info, sizeof info);
}

vlart_status_t vlart_bundle_stage(const vlart_bundle_t *bundle, uint32_t stage,
                                  vlart_stage_info_t *out_info) {
  if (bundle == NULL || stage >= bundle->plan.stage_count) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  const vlart_plan_t *plan = &bundle->plan;
  const vlart_stage_record_t *record = vlart_plan_stage(plan, stage);
  vlart_stage_info_t info = {.name = vlart_plan_string(plan, record->name),
                             .backend = record->backend,
                             .iterations = record->iterations,
                             .depends = plan->depends[stage],
                             .flops = record->flops,
                             .weight_bytes = record->weight_bytes,
                             .backbones = plan->serves[stage]};
  if (plan->loop_ends[stage] != VLART_NONE) {
    info.end = 1 + vlart_plan_loop_end(plan, plan->loop_ends[stage])->must_end;
  }
  if (record->artefact != VLART_NONE) {
    info.artefact = vlart_plan_string(plan, vlart_plan_file(plan, record->artefact)->path);
  }
  return vlart_copy_out_since(out_info, &info, offsetof(vlart_stage_info_t, backbones),
                              sizeof info);
}

vlart_status_t vlart_bundle_find_value(const vlart_bundle_t *bundle, const char *name,
                                       uint32_t *out_value) {
  if (bundle == NULL || name == NULL || out_value == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  uint32_t begin = 0;
  uint32_t end = bundle->plan.value_count;
  while (begin < end) {
    uint32_t middle = begin + (end - begin) / 2;
    uint32_t value = bundle->plan.names[middle];
    int order = strcmp(name, vlart_plan_value_name(&bundle->plan, value));
    if (order == 0) {
      *out_value = value;
      return VLART_STATUS_OK;
    }
    if (order < 0) {
      end = middle;
    } else {
      begin = middle + 1;
    }
  }
  return VLART_STATUS_NOT_FOUND;
}

vlart_status_t vlart_bundle_find_source(const vlart_bundle_t *bundle, const char *name,
                                        uint32_t *out_source) {
  uint32_t value;
  vlart_status_t status = vlart_bundle_find_value(bundle, name, &value);
  if (status != VLART_STATUS_OK || out_source == NULL) {
    return status != VLART_STATUS_OK ? status : VLART_STATUS_BAD_ARGUMENT;
  }
  vlart_writer_t writer = bundle->plan.writers[value];
  if (writer.origin != VLART_ORIGIN_SOURCE) {
    return VLART_STATUS_NOT_FOUND;
  }
  *out_source = writer.index;
  return VLART_STATUS_OK;
}

vlart_status_t vlart_bundle_find_stage(const vlart_bundle_t *bundle, const char *name,
                                       uint32_t *out_stage) {
  if (bundle == NULL || name == NULL || out_stage == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  for (uint32_t i = 0; i < bundle->plan.stage_count; i++) {
    if (strcmp(name, vlart_plan_stage_name(&bundle->plan, i)) == 0) {
      *out_stage = i;
      return VLART_STATUS_OK;
    }
  }
  return VLART_STATUS_NOT_FOUND;
}

const char *vlart_bundle_backbone(const vlart_bundle_t *bundle, uint32_t backbone) {
  return bundle == NULL || backbone >= bundle->plan.backbone_count
             ? NULL
             : vlart_plan_string(&bundle->plan,
                                 vlart_plan_chunk(&bundle->plan, backbone)->backbone);
}

uint32_t vlart_bundle_text_length(const vlart_bundle_t *bundle, uint32_t backbone) {
  return bundle == NULL || backbone >= vlart_plan_count(&bundle->plan, VLART_SECTION_BUCKETS)
             ? 0
             : vlart_plan_bucket(&bundle->plan, backbone)->length;
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

vlart_status_t vlart_bundle_find_lane(const vlart_bundle_t *bundle, const char *name,
                                      uint32_t *out_lane) {
  if (bundle == NULL || name == NULL || out_lane == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  for (uint32_t i = 0; i < bundle->plan.lane_count; i++) {
    if (strcmp(vlart_plan_lane_name(&bundle->plan, i), name) == 0) {
      *out_lane = i;
      return VLART_STATUS_OK;
    }
  }
  return VLART_STATUS_NOT_FOUND;
}
