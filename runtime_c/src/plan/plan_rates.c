/* [open] Checks how fast the plan lets actions change. */
#include <math.h>

#include "base/diag.h"
#include "plan/plan_check.h"

vlart_status_t vlart_plan_check_rates(const vlart_plan_t *plan, vlart_diag_t *diag) {
  uint32_t count = vlart_plan_count(plan, VLART_SECTION_RATE_LIMITS);
  if (count > 1 || (count == 1 && plan->policy->action_value == VLART_NONE)) {
    return vlart_corrupt(diag, "plan.bin", "rate_limits", 0, "%u records are too many", count);
  }
  if (count == 0) {
    return VLART_STATUS_OK;
  }
  const vlart_rate_limit_record_t *limit = vlart_plan_rate_limit(plan, 0);
  if (limit->step_count != plan->policy->action_dim) {
    return vlart_corrupt(diag, "plan.bin", "rate_limits", 0, "%u steps for %u dimensions",
                         limit->step_count, plan->policy->action_dim);
  }
  for (uint32_t d = 0; d < limit->step_count; d++) {
    float step = vlart_plan_floats(plan, limit->step_begin)[d];
    if (!isfinite(step) || step < 0) {
      return vlart_corrupt(diag, "plan.bin", "rate_limits", 0,
                           "the step of dimension %u is negative or not finite", d);
    }
  }
  return VLART_STATUS_OK;
}
