/* [tick] An instruction that was compiled in advance: its sources are written, and what the stages make of
   them is copied from the weights instead of being computed. */

#include "session/known_instructions.h"

#include <string.h>

#include "plan/plan_instructions.h"
#include "session/session.h"
#include "session/stage_versions.h"

vlart_status_t vlart_instruction_apply(vlart_session_t *session, uint32_t instruction,
                                       vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  const vlart_instruction_record_t *row = vlart_plan_instruction(plan, instruction);
  for (uint32_t i = 0; i < row->stored_count; i++) {
    const vlart_stored_record_t *stored = vlart_instruction_value(plan, row, i);
    vlart_writer_t writer = plan->writers[stored->value];
    const vlart_value_record_t *value = vlart_plan_value(plan, stored->value);
    if (writer.origin == VLART_ORIGIN_SOURCE) {
      vlart_status_t status = vlart_session_write(
          session, writer.index, vlart_bundle_weight(session->bundle, stored->weight), value->bytes,
          value->dtype, value->rank, value->dims, diag);
      if (status != VLART_STATUS_OK) {
        return status;
      }
    }
  }
  uint64_t own = vlart_instruction_sources(plan, row);
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    if (!vlart_instruction_covers(plan, i, own) || i == session->selection.action_stage ||
        vlart_stage_is_current(session, i)) {
      continue;
    }
    for (uint32_t k = 0; k < row->stored_count; k++) {
      const vlart_stored_record_t *stored = vlart_instruction_value(plan, row, k);
      vlart_writer_t writer = plan->writers[stored->value];
      size_t bytes = vlart_plan_value(plan, stored->value)->bytes;
      if (writer.origin == VLART_ORIGIN_STAGE && writer.index == i && bytes > 0) {
        memcpy(session->values.at[stored->value],
               vlart_bundle_weight(session->bundle, stored->weight), bytes);
      }
    }
    vlart_stage_made_current(session, i);
  }
  return VLART_STATUS_OK;
}
