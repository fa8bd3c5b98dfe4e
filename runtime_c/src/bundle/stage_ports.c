#include "bundle/stage_ports.h"

static vlart_port_t port_of(const vlart_bundle_t *bundle, uint32_t stage, uint32_t index) {
  const vlart_plan_t *plan = &bundle->plan;
  const vlart_binding_record_t *binding = vlart_plan_binding(plan, index);
  const vlart_value_record_t *value = vlart_plan_value(plan, binding->value);
  vlart_port_t port = {vlart_plan_string(plan, binding->port), value->dtype, value->rank,
                       value->dims, value->bytes};
  if (binding->mode == VLART_BINDING_MODE_ROW) {
    port.rank -= 1;
    port.dims += 1;
    port.bytes /= vlart_plan_stage(plan, stage)->iterations;
  }
  return port;
}

vlart_port_t vlart_stage_input(const vlart_bundle_t *bundle, uint32_t stage, uint32_t index) {
  return port_of(bundle, stage, vlart_plan_stage(&bundle->plan, stage)->input_begin + index);
}

vlart_port_t vlart_stage_output(const vlart_bundle_t *bundle, uint32_t stage, uint32_t index) {
  return port_of(bundle, stage, vlart_plan_stage(&bundle->plan, stage)->output_begin + index);
}

vlart_constant_t vlart_stage_constant(const vlart_bundle_t *bundle, uint32_t stage,
                                      uint32_t index) {
  const vlart_plan_t *plan = &bundle->plan;
  const vlart_initializer_record_t *initializer =
      vlart_plan_initializer(plan, vlart_plan_stage(plan, stage)->initializer_begin + index);
  const vlart_weight_record_t *weight = vlart_plan_weight(plan, initializer->weight);
  return (vlart_constant_t){vlart_plan_string(plan, initializer->port),
                            weight->dtype,
                            weight->rank,
                            weight->dims,
                            weight->bytes,
                            vlart_bundle_weight(bundle, initializer->weight)};
}
