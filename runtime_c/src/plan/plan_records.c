/* [open] Checks every record that stands for itself: policy, files, weights, values, sources. */
#include <math.h>
#include <string.h>

#include "base/diag.h"
#include "base/sort.h"
#include "plan/plan_check.h"

typedef struct {
  const vlart_plan_t *plan;
  uint32_t section;
} names_t;

/* The string that identifies a record: first field of values, weights, stages and files. */
static const char *name_of(const names_t *names, uint32_t index) {
  const uint32_t *record = vlart_record(&names->plan->file.tables[names->section], index);
  return vlart_plan_string(names->plan, record[0]);
}

static bool name_less(const void *context, uint32_t a, uint32_t b) {
  return strcmp(name_of(context, a), name_of(context, b)) < 0;
}

/* Checks that the records' names are unique; leaves `order` sorted by name. */
static vlart_status_t check_names(const vlart_plan_t *plan, uint32_t section, const char *label,
                                  uint32_t *order, vlart_diag_t *diag) {
  names_t names = {plan, section};
  uint32_t count = vlart_plan_count(plan, section);
  for (uint32_t i = 0; i < count; i++) {
    order[i] = i;
  }
  vlart_sort(order, count, name_less, &names);
  for (uint32_t i = 1; i < count; i++) {
    if (strcmp(name_of(&names, order[i - 1]), name_of(&names, order[i])) == 0) {
      return vlart_corrupt(diag, "plan.bin", label, order[i], "the name \"%s\" comes twice",
                           name_of(&names, order[i]));
    }
  }
  return VLART_STATUS_OK;
}

static vlart_status_t check_bounds(const vlart_plan_t *plan, uint32_t begin, uint32_t count,
                                   vlart_diag_t *diag) {
  if (count == 0) {
    return VLART_STATUS_OK;
  }
  if (count != plan->policy->action_dim) {
    return vlart_corrupt(diag, "plan.bin", "policy", 0, "%u bounds for %u action dimensions", count,
                         plan->policy->action_dim);
  }
  for (uint32_t d = 0; d < count; d++) {
    if (isnan(vlart_plan_floats(plan, begin)[d])) {
      return vlart_corrupt(diag, "plan.bin", "policy", 0, "the bound of dimension %u is NaN", d);
    }
  }
  return VLART_STATUS_OK;
}

static vlart_status_t check_policy(const vlart_plan_t *plan, vlart_diag_t *diag) {
  const vlart_policy_record_t *policy = plan->policy;
  if (policy->action_value == VLART_NONE) {
    return VLART_STATUS_OK;
  }
  if (policy->chunk_steps == 0 || policy->action_dim == 0 || policy->execute_steps == 0 ||
      policy->execute_steps > policy->chunk_steps) {
    return vlart_corrupt(diag, "plan.bin", "policy", 0,
                         "chunk of %u actions of %u numbers, of which %u are executed",
                         policy->chunk_steps, policy->action_dim, policy->execute_steps);
  }
  vlart_status_t status = check_bounds(plan, policy->low_begin, policy->low_count, diag);
  if (status == VLART_STATUS_OK) {
    status = check_bounds(plan, policy->high_begin, policy->high_count, diag);
  }
  if (status != VLART_STATUS_OK || policy->low_count == 0 || policy->high_count == 0) {
    return status;
  }
  for (uint32_t d = 0; d < policy->action_dim; d++) {
    if (vlart_plan_floats(plan, policy->low_begin)[d] >
        vlart_plan_floats(plan, policy->high_begin)[d]) {
      return vlart_corrupt(diag, "plan.bin", "policy", 0,
                           "the lower bound of dimension %u is above the upper", d);
    }
  }
  return VLART_STATUS_OK;
}

/* A path must stay inside the bundle: relative, no empty, "." or ".." component. */
static bool path_is_safe(const char *path) {
  for (const char *part = path;; part++) {
    size_t length = strcspn(part, "/");
    if (length == 0 || (length == 1 && part[0] == '.') ||
        (length == 2 && part[0] == '.' && part[1] == '.')) {
      return false;
    }
    part += length;
    if (*part == '\0') {
      return true;
    }
  }
}

static vlart_status_t check_files(const vlart_plan_t *plan, vlart_diag_t *diag) {
  vlart_status_t status = check_names(plan, VLART_SECTION_FILES, "files", plan->order, diag);
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < plan->file_count; i++) {
    const vlart_file_record_t *file = vlart_plan_file(plan, i);
    if (!path_is_safe(vlart_plan_string(plan, file->path))) {
      return vlart_corrupt(diag, "plan.bin", "files", i, "the path \"%s\" could leave the bundle",
                           vlart_plan_string(plan, file->path));
    }
  }
  return status;
}

static vlart_status_t check_weights(const vlart_plan_t *plan, vlart_diag_t *diag) {
  vlart_status_t status = check_names(plan, VLART_SECTION_WEIGHTS, "weights", plan->order, diag);
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < plan->weight_count; i++) {
    const vlart_weight_record_t *weight = vlart_plan_weight(plan, i);
    const char *fault = vlart_shape_fault(weight->dtype, weight->rank, weight->dims, weight->bytes);
    if (fault != NULL) {
      return vlart_corrupt(diag, "plan.bin", "weights", i, "%s", fault);
    }
    if (weight->file == VLART_NONE ||
        vlart_plan_file(plan, weight->file)->kind != VLART_FILE_KIND_WEIGHTS) {
      return vlart_corrupt(diag, "plan.bin", "weights", i, "file %u is not a weights file",
                           weight->file);
    }
    uint64_t file_bytes = vlart_plan_file(plan, weight->file)->bytes;
    if (weight->offset % VLART_ALIGN != 0 || weight->offset > file_bytes ||
        weight->bytes > file_bytes - weight->offset) {
      return vlart_corrupt(diag, "plan.bin", "weights", i,
                           "%llu bytes at offset %llu are not aligned or not inside file %u",
                           (unsigned long long)weight->bytes, (unsigned long long)weight->offset,
                           weight->file);
    }
  }
  return status;
}

static vlart_status_t check_storage(vlart_plan_t *plan, uint32_t i, vlart_diag_t *diag) {
  const vlart_value_record_t *value = vlart_plan_value(plan, i);
  if (value->storage == VLART_STORAGE_ARENA) {
    if (value->offset % VLART_ALIGN != 0 || value->offset > plan->policy->arena_bytes ||
        value->bytes > plan->policy->arena_bytes - value->offset) {
      return vlart_corrupt(diag, "plan.bin", "values", i,
                           "%llu bytes at offset %llu are not aligned or not inside the arena",
                           (unsigned long long)value->bytes, (unsigned long long)value->offset);
    }
    return VLART_STATUS_OK;
  }
  if (value->weight == VLART_NONE) {
    return vlart_corrupt(diag, "plan.bin", "values", i, "it is a weight, and of none");
  }
  const vlart_weight_record_t *weight = vlart_plan_weight(plan, value->weight);
  if (weight->dtype != value->dtype || weight->rank != value->rank ||
      memcmp(weight->dims, value->dims, sizeof value->dims) != 0) {
    return vlart_corrupt(diag, "plan.bin", "values", i, "its shape is not that of weight %u",
                         value->weight);
  }
  plan->writers[i] = (vlart_writer_t){VLART_ORIGIN_WEIGHT, value->weight};
  return VLART_STATUS_OK;
}

static bool offset_less(const void *context, uint32_t a, uint32_t b) {
  return vlart_plan_value(context, a)->offset < vlart_plan_value(context, b)->offset;
}

/* Values live on from step to step, so no two of them may share memory. */
static vlart_status_t check_overlap(const vlart_plan_t *plan, vlart_diag_t *diag) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < plan->value_count; i++) {
    const vlart_value_record_t *value = vlart_plan_value(plan, i);
    if (value->storage == VLART_STORAGE_ARENA && value->bytes > 0) {
      plan->order[count++] = i;
    }
  }
  vlart_sort(plan->order, count, offset_less, plan);
  for (uint32_t i = 1; i < count; i++) {
    const vlart_value_record_t *before = vlart_plan_value(plan, plan->order[i - 1]);
    if (before->offset + before->bytes > vlart_plan_value(plan, plan->order[i])->offset) {
      return vlart_corrupt(diag, "plan.bin", "values", plan->order[i],
                           "it overlaps value %u in the arena", plan->order[i - 1]);
    }
  }
  return VLART_STATUS_OK;
}

static vlart_status_t check_values(vlart_plan_t *plan, vlart_diag_t *diag) {
  vlart_status_t status = check_names(plan, VLART_SECTION_VALUES, "values", plan->names, diag);
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < plan->value_count; i++) {
    const vlart_value_record_t *value = vlart_plan_value(plan, i);
    const char *fault = vlart_shape_fault(value->dtype, value->rank, value->dims, value->bytes);
    if (fault != NULL) {
      return vlart_corrupt(diag, "plan.bin", "values", i, "%s", fault);
    }
    status = check_storage(plan, i, diag);
  }
  return status != VLART_STATUS_OK ? status : check_overlap(plan, diag);
}

static vlart_status_t check_sources(vlart_plan_t *plan, vlart_diag_t *diag) {
  if (plan->source_count > VLART_MAX_SOURCES) {
    vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "the plan has too many sources", NULL);
    vlart_where(diag, "plan.bin, sources");
    vlart_why(diag, "there are %u, this reader takes %u", plan->source_count, VLART_MAX_SOURCES);
    return VLART_STATUS_UNSUPPORTED;
  }
  for (uint32_t i = 0; i < plan->source_count; i++) {
    const vlart_source_record_t *source = vlart_plan_source(plan, i);
    if (vlart_plan_value(plan, source->value)->storage != VLART_STORAGE_ARENA ||
        plan->writers[source->value].origin != VLART_ORIGIN_NOBODY) {
      return vlart_corrupt(diag, "plan.bin", "sources", i,
                           "value %u is a weight, or is another source's", source->value);
    }
    if (!(source->clock_hz >= 0 && isfinite(source->clock_hz))) {
      return vlart_corrupt(diag, "plan.bin", "sources", i, "its clock is not a rate");
    }
    plan->writers[source->value] = (vlart_writer_t){VLART_ORIGIN_SOURCE, i};
  }
  return VLART_STATUS_OK;
}

static bool is_error(float number) { return number >= 0 && isfinite(number); }

/* Of stages in ascending order, so that there is at most one for each. */
static vlart_status_t check_samplings(const vlart_plan_t *plan, vlart_diag_t *diag) {
  uint32_t next = 0;
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_SAMPLINGS); i++) {
    const vlart_sampling_record_t *sampling = vlart_plan_sampling(plan, i);
    if (sampling->stage < next) {
      return vlart_corrupt(diag, "plan.bin", "samplings", i, "stage %u comes twice or too late",
                           sampling->stage);
    }
    next = sampling->stage + 1;
    uint32_t runs = vlart_plan_stage(plan, sampling->stage)->iterations;
    if (runs != (sampling->form == VLART_LOOP_FORM_FUSED ? 1 : sampling->iterations) ||
        sampling->iterations == 0 || sampling->written == 0) {
      return vlart_corrupt(diag, "plan.bin", "samplings", i,
                           "form %u with %u iterations does not fit a stage that runs %u times",
                           sampling->form, sampling->iterations, runs);
    }
    if (!is_error(sampling->error) || !is_error(sampling->budget)) {
      return vlart_corrupt(diag, "plan.bin", "samplings", i, "an error or a budget is no number");
    }
  }
  return VLART_STATUS_OK;
}

static vlart_status_t check_precisions(const vlart_plan_t *plan, vlart_diag_t *diag) {
  uint32_t stage = 0;
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_PRECISIONS); i++) {
    const vlart_precision_record_t *precision = vlart_plan_precision(plan, i);
    if (precision->stage < stage) {
      return vlart_corrupt(diag, "plan.bin", "precisions", i, "stage %u comes too late",
                           precision->stage);
    }
    stage = precision->stage;
    if (precision->layers == 0) {
      return vlart_corrupt(diag, "plan.bin", "precisions", i, "it is of no layer");
    }
    if (!is_error(precision->error) || !is_error(precision->time_us)) {
      return vlart_corrupt(diag, "plan.bin", "precisions", i, "an error or a time is no number");
    }
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_plan_check_records(vlart_plan_t *plan, vlart_diag_t *diag) {
  vlart_status_t status = check_policy(plan, diag);
  if (status == VLART_STATUS_OK) status = check_files(plan, diag);
  if (status == VLART_STATUS_OK) status = check_weights(plan, diag);
  if (status == VLART_STATUS_OK) status = check_values(plan, diag);
  if (status == VLART_STATUS_OK) status = check_sources(plan, diag);
  if (status == VLART_STATUS_OK) {
    status = check_names(plan, VLART_SECTION_STAGES, "stages", plan->order, diag);
  }
  if (status == VLART_STATUS_OK) status = check_samplings(plan, diag);
  if (status == VLART_STATUS_OK) status = check_precisions(plan, diag);
  return status;
}
