/* The action that was handed out last: what is held, what the next one may not be far from, and what it was made of.
   It belongs to the episode. */
#ifndef VLART_HANDED_ACTION_H
#define VLART_HANDED_ACTION_H

#include <stdbool.h>

#include "plan/plan.h"

typedef struct {
  const vlart_rate_limit_record_t *limit; /* NULL: none */
  const float *most;                      /* [action_dim] of a limit: the largest step, 0: any */
  float *last;                            /* [action_dim] */
  float *next;                            /* [action_dim] room for one that may be refused */
  float *kept;                            /* [action_dim] of vlart_handed_keep */
  uint32_t dim;
  bool moved; /* `last` is one, of this episode */
  vlart_action_info_t info;
} vlart_handed_t;

/* [init] Places, or measures; then sets it up. Without an action value there is nothing. */
void vlart_handed_take(vlart_handed_t *handed, const vlart_plan_t *plan, vlart_arena_t *arena);
void vlart_handed_init(vlart_handed_t *handed, const vlart_plan_t *plan);

/* [tick] Numbers of the action that are farther from the last one than they may be. */
uint32_t vlart_handed_too_far(const vlart_handed_t *handed, const float *action);

/* [tick] Brings an action within the limit, and keeps it as the last one. */
void vlart_handed_give(vlart_handed_t *handed, float *action, vlart_action_info_t info);

/* [tick] Remembers the last action, and makes it the last one again. */
vlart_handed_t vlart_handed_keep(vlart_handed_t *handed);
void vlart_handed_return(vlart_handed_t *handed, const vlart_handed_t *before);

/* [tick] Whether the plan refuses the action; says so. */
bool vlart_handed_refuses(const vlart_handed_t *handed, const float *action, vlart_diag_t *diag);

/* [tick] */
void vlart_handed_end_episode(vlart_handed_t *handed);
vlart_status_t vlart_handed_info(const vlart_handed_t *handed, vlart_action_info_t *out_info);

#endif
