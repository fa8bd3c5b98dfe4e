/* [open] Checks what is said of the content and the age of sources. */
#include <math.h>

#include "base/diag.h"
#include "plan/plan_check.h"

static const char *guard_fault(const vlart_plan_t *plan, const vlart_guard_record_t *guard) {
  const vlart_value_record_t *value =
      vlart_plan_value(plan, vlart_plan_source(plan, guard->source)->value);
  uint64_t last = value->rank > 0 ? value->dims[value->rank - 1] : 1;
  const vlart_consumption_record_t *filled = plan->consumption;
  if (filled != NULL && guard->max_age_us > 0 &&
      (filled->previous == vlart_plan_source(plan, guard->source)->value ||
       filled->weights == vlart_plan_source(plan, guard->source)->value)) {
    return "its source is filled by the runtime and has no age";
  }
  if (guard->low_count != guard->high_count) {
    return "it has not as many upper bounds as lower ones";
  }
  if (guard->low_count == 0) {
    return NULL;
  }
  if (value->dtype != VLART_DTYPE_F32) {
    return "its source is not of f32";
  }
  if (guard->low_count != 1 && guard->low_count != last) {
    return "its bounds are neither one nor as many as the last axis of its source";
  }
  const float *low = vlart_plan_floats(plan, guard->low_begin);
  const float *high = vlart_plan_floats(plan, guard->high_begin);
  for (uint32_t i = 0; i < guard->low_count; i++) {
    if (isnan(low[i]) || isnan(high[i]) || low[i] > high[i]) {
      return "a lower bound is above its upper one, or is no number";
    }
  }
  return NULL;
}

/* Of sources in ascending order, so that there is at most one for each. */
vlart_status_t vlart_plan_check_guards(const vlart_plan_t *plan, vlart_diag_t *diag) {
  uint32_t next = 0;
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_GUARDS); i++) {
    const vlart_guard_record_t *guard = vlart_plan_guard(plan, i);
    if (guard->source < next) {
      return vlart_corrupt(diag, "plan.bin", "guards", i, "source %u comes twice or too late",
                           guard->source);
    }
    next = guard->source + 1;
    const char *fault = guard_fault(plan, guard);
    if (fault != NULL) {
      return vlart_corrupt(diag, "plan.bin", "guards", i, "%s", fault);
    }
  }
  return VLART_STATUS_OK;
}
