/* An engine fails in turn at every call that this library makes of it while a session opens, is prepared, steps and
   closes: a clear status, nothing of the engine's kept, and the next session works. Usage: test_engines FAILING ENGINE
   BUNDLE..., where ENGINE is ONNX Runtime's or OpenVINO's library and FAILING that of failing_ort.c or
   failing_openvino.c. */
#include <dirent.h>
#include <dlfcn.h>
#include <string.h>

#include "check.h"
#include "failing_engine.h"
#include "vlart/vlart.h"

static vlart_diag_t diag = {.struct_size = sizeof diag};
static uint8_t arenas[2][1 << 20];
static failing_engine_t *engine;

static int64_t open_files(void) {
  int64_t count = 0;
  DIR *dir = opendir("/proc/self/fd");
  while (dir != NULL && readdir(dir) != NULL) {
    count++;
  }
  closedir(dir);
  return count;
}

static vlart_status_t step(vlart_bundle_t *bundle, vlart_session_t *session) {
  static uint8_t zeros[4096];
  vlart_bundle_info_t info = {.struct_size = sizeof info};
  CHECK_STATUS(vlart_bundle_info(bundle, &info), OK);
  for (uint32_t i = 0; i < info.source_count; i++) {
    vlart_source_info_t source = {.struct_size = sizeof source};
    vlart_value_info_t value = {.struct_size = sizeof value};
    CHECK_STATUS(vlart_bundle_source(bundle, i, &source), OK);
    CHECK_STATUS(vlart_bundle_value(bundle, source.value, &value), OK);
    CHECK(value.bytes <= sizeof zeros);
    CHECK_STATUS(vlart_session_write(session, i, zeros, value.bytes, value.dtype, value.rank,
                                     value.dims, &diag),
                 OK);
  }
  return vlart_session_step(session, &diag);
}

static vlart_status_t all_of_it(const char *library, const char *dir) {
  vlart_bundle_t *bundle = NULL;
  vlart_session_t *session = NULL;
  vlart_session_options_t options = {.struct_size = sizeof options,
                                     .ort_library = library,
                                     .openvino_library = library,
                                     .threads = 1};
  CHECK_STATUS(vlart_bundle_open(dir, NULL, arenas[0], sizeof arenas[0], &diag, &bundle), OK);
  vlart_status_t status =
      vlart_session_init(bundle, &options, arenas[1], sizeof arenas[1], &diag, &session);
  if (status == VLART_STATUS_OK) {
    status = step(bundle, session);
    engine->at = 0;
    if (status != VLART_STATUS_OK) { /* a step that failed is made up for by the next one */
      CHECK_STATUS(vlart_session_step(session, &diag), OK);
    }
  }
  vlart_session_close(session);
  vlart_bundle_close(bundle);
  return status;
}

static uint64_t sweep(const char *library, const char *dir, bool lasting) {
  *engine = (failing_engine_t){0};
  CHECK_STATUS(all_of_it(library, dir), OK);
  CHECK(engine->live == 0);
  uint64_t calls = engine->calls;
  int64_t files = open_files();
  for (uint64_t at = 1; at <= calls; at++) {
    *engine = (failing_engine_t){.at = at, .lasting = lasting};
    diag = (vlart_diag_t){.struct_size = sizeof diag};
    vlart_status_t status = all_of_it(library, dir);
    if (status != VLART_STATUS_BACKEND_FAILED || engine->live != 0) {
      fprintf(stderr, "call %llu%s: %s, %lld live | %s | %s | %s\n", (unsigned long long)at,
              lasting ? " and all after it" : "", vlart_status_name(status),
              (long long)engine->live, diag.what, diag.where, diag.why);
    }
    CHECK(status == VLART_STATUS_BACKEND_FAILED && engine->live == 0 && open_files() == files);
    CHECK(strcmp(diag.why, "told to fail") == 0 && strstr(diag.where, "in stage") != NULL);
    *engine = (failing_engine_t){0};
    CHECK_STATUS(all_of_it(library, dir), OK);
    CHECK(engine->calls == calls && engine->live == 0);
  }
  return calls;
}

int main(int argc, char **argv) {
  CHECK(argc >= 4);
  void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  failing_engine_t *(*state)(void) = NULL;
  bool (*load)(const char *) = NULL;
  void *symbol = dlsym(library, "failing_engine_state");
  memcpy(&state, &symbol, sizeof state);
  symbol = dlsym(library, "failing_engine_load");
  memcpy(&load, &symbol, sizeof load);
  CHECK(state != NULL && load != NULL && load(argv[2]));
  engine = state();
  uint64_t calls = 0;
  for (int i = 3; i < argc; i++) {
    calls += sweep(argv[1], argv[i], false) + sweep(argv[1], argv[i], true);
  }
  printf("test_engines: %llu calls failed in turn, passed\n", (unsigned long long)calls);
  return 0;
}
