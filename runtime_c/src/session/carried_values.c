/* [tick] How a value gets from one step to the next without a copy: it and its next value lie in two places that are
   exchanged before a step, if the last one ended well. Engines know both ways round since [init]. So a step that fails
   has written the next values alone, and the carried ones are as they were. */
#include "session/carried_values.h"

#include <string.h>

#include "session/lifetimes.h"
#include "session/session.h"

void vlart_carried_take(vlart_session_carried_t *carried, const vlart_plan_t *plan,
                        vlart_arena_t *arena) {
  carried->state = vlart_arena_take(arena, plan->carried_count, sizeof *carried->state);
}

void vlart_carried_exchange(vlart_session_t *session) {
  const vlart_plan_t *plan = &session->bundle->plan;
  void **at = session->values.at;
  for (uint32_t i = 0; i < plan->carried_count; i++) {
    const vlart_carried_record_t *record = vlart_plan_carried(plan, i);
    void *value = at[record->value];
    at[record->value] = at[record->next];
    at[record->next] = value;
  }
  session->carried.place ^= 1;
}

static void fill(vlart_session_t *session, const vlart_carried_record_t *record) {
  uint64_t bytes = vlart_plan_value(&session->bundle->plan, record->value)->bytes;
  void *to = session->values.at[record->value];
  if (bytes > 0 && record->initial == VLART_NONE) {
    memset(to, 0, bytes);
  } else if (bytes > 0) {
    memcpy(to, vlart_bundle_weight(session->bundle, record->initial), bytes);
  }
}

static uint32_t maker_of(const vlart_plan_t *plan, uint32_t index) {
  return plan->writers[vlart_plan_carried(plan, index)->next].index;
}

void vlart_carried_begin(vlart_session_t *session, vlart_is_ours_t is_ours) {
  const vlart_plan_t *plan = &session->bundle->plan;
  vlart_session_carried_t *carried = &session->carried;
  if (vlart_task_versions(session) != carried->task ||
      session->selection.action_value != carried->task_value) {
    vlart_carried_end(session, VLART_LIFETIME_TASK);
  }
  if (carried->made) {
    vlart_carried_exchange(session);
    carried->moves++;
    carried->made = false;
  }
  for (uint32_t i = 0; i < plan->carried_count; i++) {
    if (carried->state[i] == VLART_CARRIED_ENDED && is_ours(session, maker_of(plan, i))) {
      fill(session, vlart_plan_carried(plan, i));
      carried->state[i] = VLART_CARRIED_INITIAL;
      carried->moves++;
    }
  }
}

void vlart_carried_commit(vlart_session_t *session, vlart_is_ours_t is_ours) {
  const vlart_plan_t *plan = &session->bundle->plan;
  for (uint32_t i = 0; i < plan->carried_count; i++) {
    session->carried.state[i] =
        is_ours(session, maker_of(plan, i)) ? VLART_CARRIED_MADE : VLART_CARRIED_ENDED;
  }
  session->carried.made = plan->carried_count > 0;
  session->carried.task = vlart_task_versions(session);
  session->carried.task_value = session->selection.action_value;
}

void vlart_carried_end(vlart_session_t *session, uint32_t until) {
  const vlart_plan_t *plan = &session->bundle->plan;
  for (uint32_t i = 0; i < plan->carried_count; i++) {
    if (until == VLART_LIFETIME_EPISODE || vlart_plan_carried(plan, i)->until == until) {
      session->carried.state[i] = VLART_CARRIED_ENDED;
    }
  }
}

bool vlart_carried_find(const vlart_session_t *session, uint32_t value, const void **out_at) {
  const vlart_plan_t *plan = &session->bundle->plan;
  for (uint32_t i = 0; i < plan->carried_count; i++) {
    const vlart_carried_record_t *record = vlart_plan_carried(plan, i);
    bool next = record->next == value;
    if (!next && record->value != value) {
      continue;
    }
    /* Where the last step failed, the next value is still the one that was made before it. */
    uint32_t where = next && session->carried.made ? record->next : record->value;
    uint8_t state = session->carried.state[i];
    bool there = next ? state == VLART_CARRIED_MADE : state != VLART_CARRIED_ENDED;
    *out_at = there ? session->values.at[where] : NULL;
    return true;
  }
  return false;
}

uint32_t vlart_carried_addresses(const vlart_session_t *session, uint32_t stage,
                                 uint32_t iteration) {
  const vlart_plan_t *plan = &session->bundle->plan;
  bool other = session->carried.place == 1 && plan->places[stage] == 2;
  return iteration + (other ? vlart_plan_stage(plan, stage)->iterations : 0);
}
