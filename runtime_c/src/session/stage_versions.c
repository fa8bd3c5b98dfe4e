/* [tick] Which stages are up to date: by the versions of their sources when they last ran. */

#include "session/stage_versions.h"

#include "session/session.h"

bool vlart_stage_is_current(const vlart_session_t *session, uint32_t index) {
  const vlart_plan_t *plan = &session->bundle->plan;
  const vlart_stage_record_t *stage = vlart_plan_stage(plan, index);
  const vlart_stage_state_t *state = &session->stages[index];
  if (plan->looks_back[index] && state->seen_advances != session->history.advances) {
    return false;
  }
  if (plan->continues[index] && state->seen_moves != session->carried.moves) {
    return false;
  }
  for (uint32_t i = 0; state->current && i < stage->dep_count; i++) {
    if (state->seen[i] != session->sources.versions[vlart_plan_index(plan, stage->dep_begin + i)]) {
      return false;
    }
  }
  return state->current;
}

void vlart_stage_made_current(vlart_session_t *session, uint32_t index) {
  const vlart_plan_t *plan = &session->bundle->plan;
  const vlart_stage_record_t *stage = vlart_plan_stage(plan, index);
  vlart_stage_state_t *state = &session->stages[index];
  for (uint32_t i = 0; i < stage->dep_count; i++) {
    state->seen[i] = session->sources.versions[vlart_plan_index(plan, stage->dep_begin + i)];
  }
  state->seen_moves = session->carried.moves;
  state->seen_advances = session->history.advances;
  state->current = true;
  state->readable = true;
}
