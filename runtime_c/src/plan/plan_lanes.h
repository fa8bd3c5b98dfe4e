/* Lanes of a validated plan. */
#ifndef VLART_PLAN_LANES_H
#define VLART_PLAN_LANES_H

#include "plan/plan.h"

/* Whether a session with this option `lane` runs a stage. */
bool vlart_plan_owns_stage(const vlart_plan_t *plan, uint32_t option, uint32_t stage);

/* The lane's name; "the control loop" for plan->lane_count. */
const char *vlart_plan_lane_name(const vlart_plan_t *plan, uint32_t lane);

#endif
