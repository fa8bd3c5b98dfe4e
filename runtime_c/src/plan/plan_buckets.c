/* [open] Buckets of a plan: how many tokens of text each backbone reads, so that the text decides which is run. */
#include "base/diag.h"
#include "plan/plan_check.h"

static const char *bucket_fault(const vlart_plan_t *plan, uint32_t index) {
  const vlart_bucket_record_t *bucket = vlart_plan_bucket(plan, index);
  const vlart_bucket_record_t *first = vlart_plan_bucket(plan, 0);
  if (bucket->mask != first->mask || bucket->side != first->side) {
    return "its mask or its side is not that of the first";
  }
  const vlart_value_record_t *mask = vlart_plan_source_value(plan, bucket->mask);
  if (mask->dtype != VLART_DTYPE_BOOL || mask->rank != 2 || mask->dims[0] != 1) {
    return "its mask is not bool [1,L]";
  }
  if ((plan->histories >> bucket->mask & 1) != 0) {
    return "its mask has a history";
  }
  uint32_t before = index == 0 ? 0 : vlart_plan_bucket(plan, index - 1)->length;
  bool last = index + 1 == plan->backbone_count;
  if (bucket->length <= before || (last && bucket->length != mask->dims[1])) {
    return "lengths do not ascend to that of the mask";
  }
  return NULL;
}

vlart_status_t vlart_plan_check_buckets(const vlart_plan_t *plan, vlart_diag_t *diag) {
  uint32_t count = vlart_plan_count(plan, VLART_SECTION_BUCKETS);
  if (count == 0) {
    return VLART_STATUS_OK;
  }
  if (count != plan->backbone_count || plan->carried_count > 0) {
    return vlart_corrupt(diag, "plan.bin", "buckets", 0,
                         "there is not one per backbone, or a value is carried");
  }
  for (uint32_t i = 0; i < count; i++) {
    const char *fault = bucket_fault(plan, i);
    if (fault != NULL) {
      return vlart_corrupt(diag, "plan.bin", "buckets", i, "%s", fault);
    }
  }
  return VLART_STATUS_OK;
}
