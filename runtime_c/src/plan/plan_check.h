/* The parts of vlart_plan_check, in the order in which it calls them: each relies on those before it. */
#ifndef VLART_PLAN_CHECK_H
#define VLART_PLAN_CHECK_H

#include "plan/plan.h"

/* plan_records.c: policy, files, weights, values, sources. */
vlart_status_t vlart_plan_check_records(vlart_plan_t *plan, vlart_diag_t *diag);

/* plan_build.c: engines to build, and their board. */
vlart_status_t vlart_plan_check_builds(const vlart_plan_t *plan, vlart_diag_t *diag);
vlart_status_t vlart_plan_check_concurrency(const vlart_plan_t *plan, vlart_diag_t *diag);

/* plan_delays.c: histories and delays; then, once the stages are known, what delays begin with. */
vlart_status_t vlart_plan_check_delays(vlart_plan_t *plan, vlart_diag_t *diag);
vlart_status_t vlart_plan_check_delay_flow(vlart_plan_t *plan, vlart_diag_t *diag);

/* plan_carried.c: values that a step takes from the one before; what makes them, once the stages are known; and that no
   lane does. */
vlart_status_t vlart_plan_check_carried(vlart_plan_t *plan, vlart_diag_t *diag);
vlart_status_t vlart_plan_check_carried_flow(vlart_plan_t *plan, vlart_diag_t *diag);
vlart_status_t vlart_plan_check_carried_lanes(const vlart_plan_t *plan, vlart_diag_t *diag);

/* plan_flow.c: stages. Called between the two. */
vlart_status_t vlart_plan_check_flow(vlart_plan_t *plan, vlart_diag_t *diag);

/* plan_loops.c: loops that the data ends, once the stages are known. */
vlart_status_t vlart_plan_check_loops(vlart_plan_t *plan, vlart_diag_t *diag);

/* plan_action.c: decode steps and consumption. */
vlart_status_t vlart_plan_check_action(vlart_plan_t *plan, vlart_diag_t *diag);

/* plan_rates.c: how far an action may be from the last one. */
vlart_status_t vlart_plan_check_rates(const vlart_plan_t *plan, vlart_diag_t *diag);

/* plan_texts.c, plan_instructions.c: texts, and those that were compiled in advance. */
vlart_status_t vlart_plan_check_texts(const vlart_plan_t *plan, vlart_diag_t *diag);
vlart_status_t vlart_plan_check_instructions(const vlart_plan_t *plan, vlart_diag_t *diag);

/* plan_tokens.c: sources that are rows of a table. */
vlart_status_t vlart_plan_check_token_ranges(const vlart_plan_t *plan, vlart_diag_t *diag);

/* plan_guard.c: ranges and ages of sources. */
vlart_status_t vlart_plan_check_guards(const vlart_plan_t *plan, vlart_diag_t *diag);

/* plan_backbones.c: backbones, and which stage serves which. */
vlart_status_t vlart_plan_check_backbones(vlart_plan_t *plan, vlart_diag_t *diag);

/* plan_buckets.c: backbones that a text decides between. */
vlart_status_t vlart_plan_check_buckets(const vlart_plan_t *plan, vlart_diag_t *diag);

/* plan_lanes.c: lanes, and the lane of every stage. */
vlart_status_t vlart_plan_check_lanes(vlart_plan_t *plan, vlart_diag_t *diag);

#endif
