#include "trt_engine.h"

#include "base/diag.h"

const char *vlart_trt_stage_name(const vlart_trt_state_t *state) {
  return vlart_plan_stage_name(&state->bundle->plan, state->stage);
}

vlart_status_t vlart_trt_failed(vlart_diag_t *diag, const char *call, const char *where,
                                const vlart_trt_error_t *error) {
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, "TensorRT reports an error", NULL);
  vlart_where(diag, "%s in stage \"%s\"", call, where);
  vlart_why(diag, "%s", error->text[0] != '\0' ? error->text : "it gives no reason");
  return VLART_STATUS_BACKEND_FAILED;
}
