#include "tvm_engine.h"

#include <string.h>

#include "base/diag.h"

const char *tvm_stage_name(const tvm_engine_t *engine) {
  return vlart_plan_stage_name(&engine->bundle->plan, engine->stage);
}

/* The library's texts are counted, not ended. */
static void copy_text(char *out, size_t capacity, const tvm_text_t *text) {
  size_t bytes = text->bytes < capacity - 1 ? text->bytes : capacity - 1;
  memcpy(out, text->data, bytes);
  out[bytes] = '\0';
}

vlart_status_t tvm_raised(const tvm_api_t *api, const char *call, const char *where,
                          vlart_diag_t *diag) {
  void *object = NULL;
  api->take_error(&object);
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, "TVM reports an error", NULL);
  vlart_where(diag, "%s in stage \"%s\"", call, where);
  if (object == NULL) {
    vlart_why(diag, "it gives no reason");
    return VLART_STATUS_BACKEND_FAILED;
  }
  const tvm_error_t *error = object;
  char kind[64], message[400];
  copy_text(kind, sizeof kind, &error->kind);
  copy_text(message, sizeof message, &error->message);
  vlart_why(diag, "%s: %s", kind, message);
  api->release(object);
  return VLART_STATUS_BACKEND_FAILED;
}

void tvm_release(const tvm_api_t *api, void **object) {
  if (*object != NULL) {
    api->release(*object);
    *object = NULL;
  }
}

vlart_status_t tvm_call_for(const tvm_engine_t *engine, void *function, const char *name,
                            tvm_value_t *arguments, int32_t count, int32_t type, void **out_object,
                            vlart_diag_t *diag) {
  const tvm_api_t *api = &engine->context->api;
  tvm_value_t result = {0};
  if (api->call(function, arguments, count, &result) != 0) {
    return tvm_raised(api, name, tvm_stage_name(engine), diag);
  }
  if (result.type == type) {
    *out_object = result.as.object;
    return VLART_STATUS_OK;
  }
  if (result.type >= TVM_OBJECTS) {
    api->release(result.as.object);
  }
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, "a stage file is not what TVM compiles",
             "build the bundle again");
  vlart_where(diag, "%s in stage \"%s\"", name, tvm_stage_name(engine));
  vlart_why(diag, "a value of type %u was expected, it gives %u", (unsigned)type,
            (unsigned)result.type);
  return VLART_STATUS_BACKEND_FAILED;
}
