/* [init] Which address a binding has in which iteration: the meaning of WHOLE, ROW and CARRY. */
#include "session/bind_addresses.h"

#include "session/session.h"

static const vlart_carry_record_t *find_carry(const vlart_plan_t *plan,
                                              const vlart_stage_record_t *stage, uint32_t binding) {
  for (uint32_t i = 0; i < stage->carry_count; i++) {
    const vlart_carry_record_t *carry = vlart_plan_carry(plan, stage->carry_begin + i);
    if (carry->input == binding || carry->output == binding) {
      return carry;
    }
  }
  return NULL; /* not reached: the plan's check found one carry for every carry binding */
}

/* What iteration k writes: counted from the last iteration, which writes the result, the two
   buffers alternate. So no iteration reads what it writes, and the result of a whole loop
   is never copied. */
uint32_t vlart_carried_output(const vlart_carry_record_t *carry, uint32_t iteration,
                              uint32_t iterations) {
  return (iterations - 1 - iteration) % 2 == 0 ? carry->result : carry->scratch;
}

static void *address_of(const vlart_session_t *session, const vlart_stage_record_t *stage,
                        uint32_t index, uint32_t iteration) {
  const vlart_plan_t *plan = &session->bundle->plan;
  const vlart_binding_record_t *binding = vlart_plan_binding(plan, index);
  uint32_t value = binding->value;
  if (binding->mode == VLART_BINDING_MODE_ROW) {
    uint64_t row_bytes = vlart_plan_value(plan, value)->bytes / stage->iterations;
    return (uint8_t *)session->values.at[value] + row_bytes * iteration;
  }
  if (binding->mode == VLART_BINDING_MODE_CARRY) {
    const vlart_carry_record_t *carry = find_carry(plan, stage, index);
    if (carry->output == index) {
      value = vlart_carried_output(carry, iteration, stage->iterations);
    } else if (iteration > 0) {
      value = vlart_carried_output(carry, iteration - 1, stage->iterations);
    }
  }
  return session->values.at[value];
}

vlart_status_t vlart_session_bind(vlart_session_t *session, uint32_t index, vlart_diag_t *diag) {
  const vlart_stage_record_t *stage = vlart_plan_stage(&session->bundle->plan, index);
  const vlart_stage_state_t *state = &session->stages[index];
  void **inputs = session->engines.addresses;
  void **outputs = session->engines.addresses + stage->input_count;
  for (uint32_t k = 0; k < stage->iterations; k++) {
    for (uint32_t i = 0; i < stage->input_count; i++) {
      inputs[i] = address_of(session, stage, stage->input_begin + i, k);
    }
    for (uint32_t i = 0; i < stage->output_count; i++) {
      outputs[i] = address_of(session, stage, stage->output_begin + i, k);
    }
    vlart_status_t status = state->backend->prepare(
        state->engine, vlart_carried_addresses(session, index, k), inputs, outputs, diag);
    if (status != VLART_STATUS_OK) {
      return status;
    }
  }
  return VLART_STATUS_OK;
}
