#include "session/handed_action.h"

#include <math.h>
#include <string.h>

#include "base/diag.h"
#include "base/struct_size.h"

void vlart_handed_take(vlart_handed_t *h, const vlart_plan_t *plan, vlart_arena_t *arena) {
  h->dim = plan->policy->action_value == VLART_NONE ? 0 : plan->policy->action_dim;
  h->last = vlart_arena_take(arena, h->dim, sizeof *h->last);
  h->next = vlart_arena_take(arena, h->dim, sizeof *h->next);
  h->kept = vlart_arena_take(arena, h->dim, sizeof *h->kept);
}

void vlart_handed_init(vlart_handed_t *h, const vlart_plan_t *plan) {
  if (vlart_plan_count(plan, VLART_SECTION_RATE_LIMITS) > 0) {
    h->limit = vlart_plan_rate_limit(plan, 0);
    h->most = vlart_plan_floats(plan, h->limit->step_begin);
  }
}

/* With the tolerance that bounds have: a limit that was reached by clipping is not passed by rounding. */
static bool is_far(const vlart_handed_t *h, const float *action, uint32_t d) {
  return h->most[d] > 0 &&
         fabs((double)action[d] - (double)h->last[d]) > (double)h->most[d] * (1 + 1e-6);
}

uint32_t vlart_handed_too_far(const vlart_handed_t *h, const float *action) {
  uint32_t far = 0;
  for (uint32_t d = 0; h->limit != NULL && h->moved && d < h->dim; d++) {
    far += is_far(h, action, d);
  }
  return far;
}

bool vlart_handed_refuses(const vlart_handed_t *h, const float *action, vlart_diag_t *diag) {
  if (h->limit == NULL || h->limit->rule != VLART_RATE_RULE_REFUSE ||
      vlart_handed_too_far(h, action) == 0) {
    return false;
  }
  uint32_t d = 0;
  while (!is_far(h, action, d)) {
    d++;
  }
  vlart_fail(diag, VLART_STATUS_ACTION_TOO_FAR, "the action is too far from the last one",
             "stop, or replan from where the robot is");
  vlart_where(diag, "dimension %u", d);
  vlart_why(diag, "it is %g, the last one was %g, and a tick may change it by %g",
            (double)action[d], (double)h->last[d], (double)h->most[d]);
  return true;
}

void vlart_handed_give(vlart_handed_t *h, float *action, vlart_action_info_t info) {
  info.clipped = vlart_handed_too_far(h, action);
  for (uint32_t d = 0; info.clipped > 0 && d < h->dim; d++) {
    if (is_far(h, action, d)) {
      double step = action[d] > h->last[d] ? (double)h->most[d] : -(double)h->most[d];
      action[d] = (float)((double)h->last[d] + step);
      if (is_far(h, action,
                 d)) { /* by rounding, where an action's numbers lie farther apart than the limit */
        action[d] = nextafterf(action[d], h->last[d]);
      }
    }
  }
  memcpy(h->last, action, h->dim * sizeof *action);
  h->moved = true;
  h->info = info;
}

vlart_handed_t vlart_handed_keep(vlart_handed_t *h) {
  memcpy(h->kept, h->last, h->dim * sizeof *h->last);
  return *h;
}

void vlart_handed_return(vlart_handed_t *h, const vlart_handed_t *before) {
  memcpy(h->last, h->kept, h->dim * sizeof *h->last);
  h->moved = before->moved;
  h->info = before->info;
}

void vlart_handed_end_episode(vlart_handed_t *h) { h->moved = false; }

vlart_status_t vlart_handed_info(const vlart_handed_t *h, vlart_action_info_t *out_info) {
  return h->moved ? vlart_copy_out(out_info, &h->info, sizeof h->info) : VLART_STATUS_QUEUE_EMPTY;
}
