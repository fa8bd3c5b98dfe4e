/* [tick] How values of earlier observations move. An observation begins with the first write to a history
   source after the one before was encoded: then every delayed value takes what its input holds. It is
   encoded once the stages that feed delays ran. */

#include "session/frame_history.h"

#include <string.h>

#include "session/session.h"

static void shift_delay(vlart_session_t *session, uint32_t index) {
  const vlart_plan_t *plan = &session->bundle->plan;
  const vlart_delay_record_t *delay = vlart_plan_delay(plan, index);
  uint64_t bytes = vlart_plan_value(plan, delay->output)->bytes;
  if (bytes > 0) {
    memcpy(session->values.at[delay->output], session->values.at[delay->input], bytes);
  }
}

void vlart_history_advance(vlart_session_t *session) {
  if (!session->history.encoded) {
    return; /* nothing is kept yet, or the one before was never encoded: this one replaces it */
  }
  for (uint32_t i = session->bundle->plan.delay_count; i > 0; i--) { /* ends of chains first */
    shift_delay(session, i - 1);
  }
  session->history.advances++;
  session->history.encoded = false;
}

void vlart_history_fill(vlart_session_t *session, vlart_origin_t origin, uint32_t index) {
  const vlart_plan_t *plan = &session->bundle->plan;
  for (uint32_t i = 0; !session->history.filled && i < plan->delay_count; i++) {
    vlart_writer_t writer = plan->writers[plan->delay_roots[i]];
    if (writer.origin == origin && (origin == VLART_ORIGIN_SOURCE || writer.index == index)) {
      shift_delay(session, i);
    }
  }
}

void vlart_history_passed(vlart_session_t *session, uint32_t stages) {
  if (stages >= session->bundle->plan.observing_stages) {
    session->history.encoded = true;
    session->history.filled = true;
  }
}
