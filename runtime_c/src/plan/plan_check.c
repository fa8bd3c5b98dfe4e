/* [open] Everything that a plan must be, in order: each part relies on those before it. */
#include "plan/plan_check.h"

vlart_status_t vlart_plan_check(vlart_plan_t *plan, vlart_diag_t *diag) {
  vlart_status_t status = vlart_plan_check_records(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_builds(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_concurrency(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_delays(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_carried(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_flow(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_carried_flow(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_loops(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_delay_flow(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_action(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_rates(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_texts(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_instructions(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_guards(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_token_ranges(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_backbones(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_buckets(plan, diag);
  if (status == VLART_STATUS_OK) status = vlart_plan_check_lanes(plan, diag);
  return status != VLART_STATUS_OK ? status : vlart_plan_check_carried_lanes(plan, diag);
}
