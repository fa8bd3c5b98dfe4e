/* [init] OpenVINO's library: found and loaded, its functions by name, its errors in our words. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "base/diag.h"
#include "ov_engine.h"

static vlart_status_t no_library(const char *path, const char *why, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_NO_BACKEND, "OpenVINO cannot be loaded",
             "`pip install openvino`, then give the path of its libs/libopenvino_c.so.* as "
             "openvino_library (vlart-run: --openvino)");
  vlart_where(diag, "%s", path);
  vlart_why(diag, "%s", why != NULL ? why : "the loader gives no reason");
  return VLART_STATUS_NO_BACKEND;
}

static vlart_status_t find_functions(ov_context_t *context, const char *path, vlart_diag_t *diag) {
  ov_api_t *api = &context->api;
  const struct {
    const char *name;
    void *to;
  } wanted[] = {
#define OV_WANTED(name, result, parameters) {"ov_" #name, &api->name},
      OV_FUNCTIONS(OV_WANTED)
#undef OV_WANTED
  };
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
    void *symbol = dlsym(context->library, wanted[i].name);
    if (symbol == NULL) {
      return no_library(path, "it does not export OpenVINO's C functions", diag);
    }
    memcpy(wanted[i].to, &symbol, sizeof symbol);
  }
  return VLART_STATUS_OK;
}

static vlart_status_t check_version(const ov_api_t *api, const char *path, vlart_diag_t *diag) {
  OvVersion version = {0};
  vlart_status_t status =
      ov_check(api, api->get_openvino_version(&version), "get_openvino_version", "*", diag);
  if (status == VLART_STATUS_OK) {
    if (version.build == NULL || strtol(version.build, NULL, 10) < OV_OLDEST_YEAR) {
      status = no_library(path, "it is older than version 2026.0", diag);
    }
    api->version_free(&version);
  }
  return status;
}

vlart_status_t ov_load_library(ov_context_t *context, const char *path, vlart_diag_t *diag) {
  /* The library is kept in the process after the last close: its threads and thread-local
     destructors must not point into unmapped code. */
  context->library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (context->library == NULL) {
    return no_library(path, dlerror(), diag);
  }
  vlart_status_t status = find_functions(context, path, diag);
  return status == VLART_STATUS_OK ? check_version(&context->api, path, diag) : status;
}

/* The library's texts have several lines: where in its sources, then what. */
static void tell(vlart_diag_t *diag, const char *message) {
  char line[400];
  size_t length = 0;
  for (; *message != '\0' && length + 1 < sizeof line; message++) {
    line[length++] = *message == '\n' ? ' ' : *message;
  }
  line[length] = '\0';
  vlart_why(diag, "%s", length > 0 ? line : "it gives no reason");
}

vlart_status_t ov_check(const ov_api_t *api, int error, const char *call, const char *where,
                        vlart_diag_t *diag) {
  if (error == 0) {
    return VLART_STATUS_OK;
  }
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, "OpenVINO reports an error", NULL);
  vlart_where(diag, "%s in stage \"%s\"", call, where);
  const char *message = api->get_last_err_msg();
  tell(diag, message != NULL ? message : "");
  if (message != NULL) {
    api->free(message);
  }
  return VLART_STATUS_BACKEND_FAILED;
}

const char *ov_stage_name(const ov_engine_t *engine) {
  return vlart_plan_stage_name(&engine->bundle->plan, engine->stage);
}
