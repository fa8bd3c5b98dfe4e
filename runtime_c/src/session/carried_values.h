/* Values that a step takes from the one before. */
#ifndef VLART_CARRIED_VALUES_H
#define VLART_CARRIED_VALUES_H

#include "plan/plan.h"

/* What a carried value holds. */
typedef enum {
  VLART_CARRIED_ENDED, /* nothing of this lifetime: the next step begins with its initial content */
  VLART_CARRIED_INITIAL, /* its initial content */
  VLART_CARRIED_MADE,    /* what a step made that ended well */
} vlart_carried_state_t;

typedef struct {
  uint64_t moves;      /* each one changes a carried value: stages that depend on one run again */
  uint32_t place;      /* 0 or 1: which of the two sets of addresses is in use */
  bool made;           /* the last step ended well: the coming one reads its next values */
  uint64_t task;       /* versions of the task's sources then */
  uint32_t task_value; /* the action value then */
  uint8_t *state;      /* [carried_count] vlart_carried_state_t */
} vlart_session_carried_t;

/* [init] */
void vlart_carried_take(vlart_session_carried_t *carried, const vlart_plan_t *plan,
                        vlart_arena_t *arena);

/* [init], [tick] Exchanges the places of every carried value and its next one. */
void vlart_carried_exchange(vlart_session_t *session);

/* Whether the session runs a stage. */
typedef bool (*vlart_is_ours_t)(const vlart_session_t *session, uint32_t stage);

/* [tick] Before the stages run: the values that they make are those of the last step that ended well, or initial. */
void vlart_carried_begin(vlart_session_t *session, vlart_is_ours_t is_ours);

/* [tick] The step ended well: what it made is what the next one reads. A value of stages that did not run, as those of
   another backbone, missed it and begins anew. */
void vlart_carried_commit(vlart_session_t *session, vlart_is_ours_t is_ours);

/* [tick] What belongs to a lifetime ends. */
void vlart_carried_end(vlart_session_t *session, uint32_t until);

/* [tick] Whether `value` is one that is carried, or the next one of such; then where its content is, NULL: it has none. */
bool vlart_carried_find(const vlart_session_t *session, uint32_t value, const void **out_at);

/* [tick] Which set of addresses an iteration of a stage uses. */
uint32_t vlart_carried_addresses(const vlart_session_t *session, uint32_t stage,
                                 uint32_t iteration);

#endif
