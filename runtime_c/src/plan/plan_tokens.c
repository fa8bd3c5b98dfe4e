/* [open] Checks which sources are said to be rows of a table: in ascending order, so that there is at most one each. */
#include "base/diag.h"
#include "plan/plan_check.h"

vlart_status_t vlart_plan_check_token_ranges(const vlart_plan_t *plan, vlart_diag_t *diag) {
  uint32_t next = 0;
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_TOKEN_RANGES); i++) {
    const vlart_token_range_record_t *range = vlart_plan_token_range(plan, i);
    if (range->source < next) {
      return vlart_corrupt(diag, "plan.bin", "token_ranges", i, "source %u comes twice or too late",
                           range->source);
    }
    next = range->source + 1;
    uint32_t dtype = vlart_plan_source_value(plan, range->source)->dtype;
    if (dtype != VLART_DTYPE_I32 && dtype != VLART_DTYPE_I64) {
      return vlart_corrupt(diag, "plan.bin", "token_ranges", i, "its source is not of i32 or i64");
    }
    if (range->rows == 0) {
      return vlart_corrupt(diag, "plan.bin", "token_ranges", i, "its table has no rows");
    }
  }
  return VLART_STATUS_OK;
}
