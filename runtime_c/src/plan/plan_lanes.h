/* Lanes of a validated plan. */
#ifndef VLART_PLAN_LANES_H
#define VLART_PLAN_LANES_H

#include "plan/plan.h"

/* Whether a session with this option `lane` runs a stage. */
bool vlart_plan_owns_stage(const vlart_plan_t *plan, uint32_t option, uint32_t stage);

/* Whether a session with this option takes the sets of a lane; otherwise those of a faster one carry them. */
bool vlart_plan_takes_lane(const vlart_plan_t *plan, uint32_t option, uint32_t lane);

/* The lane's name; "the control loop" for plan->lane_count. */
const char *vlart_plan_lane_name(const vlart_plan_t *plan, uint32_t lane);

#endif
