#include "ort_engine.h"

#include "base/diag.h"

vlart_status_t ort_check(ort_api_t api, OrtStatus *error, const char *call, const char *where,
                         vlart_diag_t *diag) {
  if (error == NULL) {
    return VLART_STATUS_OK;
  }
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, "ONNX Runtime reports an error", NULL);
  vlart_where(diag, "%s in stage \"%s\"", call, where);
  vlart_why(diag, "%s", ORT_FN(api, GetErrorMessage)(error));
  ORT_FN(api, ReleaseStatus)(error);
  return VLART_STATUS_BACKEND_FAILED;
}

const char *ort_stage_name(const ort_engine_t *engine) {
  return vlart_plan_stage_name(&engine->bundle->plan, engine->stage);
}
