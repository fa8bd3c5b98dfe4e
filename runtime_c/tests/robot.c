#include "robot.h"

#include "null_backend.h"

_Thread_local vlart_diag_t diag = {.struct_size = sizeof diag};

const char *sample_path(const char *samples, const char *name) {
  static char path[1024];
  CHECK((size_t)snprintf(path, sizeof path, "%s/%s", samples, name) < sizeof path);
  return path;
}

vlart_bundle_t *open_bundle(const char *dir, void **out_arena) {
  vlart_bundle_t *bundle = NULL;
  size_t bytes = 0;
  CHECK_STATUS(vlart_bundle_required_bytes(dir, &diag, &bytes), OK);
  *out_arena = test_take(bytes);
  CHECK_STATUS(vlart_bundle_open(dir, NULL, *out_arena, bytes - 64, &diag, &bundle), OUT_OF_MEMORY);
  CHECK_STATUS(vlart_bundle_open(dir, NULL, *out_arena, bytes, &diag, &bundle), OK);
  return bundle;
}

vlart_session_t *open_session(const vlart_bundle_t *bundle, const vlart_session_options_t *options,
                              void **out_arena) {
  vlart_session_t *session = NULL;
  size_t bytes = 0;
  CHECK_STATUS(vlart_session_required_bytes(bundle, options, &diag, &bytes), OK);
  *out_arena = test_take(bytes);
  CHECK_STATUS(vlart_session_init(bundle, options, *out_arena, bytes - 64, &diag, &session),
               OUT_OF_MEMORY);
  CHECK_STATUS(vlart_session_init(bundle, options, *out_arena, bytes, &diag, &session), OK);
  return session;
}

robot_t open_robot(const char *dir, const vlart_session_options_t *options) {
  robot_t r = {0};
  vlart_session_options_t null = null_options();
  r.bundle = open_bundle(dir, &r.arenas[0]);
  r.session = open_session(r.bundle, options != NULL ? options : &null, &r.arenas[1]);
  null_control = (null_control_t){.fail_stage = VLART_NONE};
  return r;
}

void make_async(robot_t *r, const vlart_async_options_t *options) {
  size_t bytes = 0;
  CHECK_STATUS(vlart_async_required_bytes(r->session, options, &diag, &bytes), OK);
  r->arenas[2] = test_take(bytes);
  CHECK_STATUS(vlart_async_init(r->session, options, r->arenas[2], bytes - 64, &diag, &r->async),
               OUT_OF_MEMORY);
  CHECK_STATUS(vlart_async_init(r->session, options, r->arenas[2], bytes, &diag, &r->async), OK);
}

static void *serve(void *async) {
  CHECK_STATUS(vlart_async_serve(async), OK);
  return NULL;
}

void start_worker(robot_t *r) {
  CHECK(pthread_create(&r->worker, NULL, serve, r->async) == 0);
  r->started = true;
}

void close_robot(robot_t *r) {
  vlart_async_stop(r->async);
  if (r->started) {
    CHECK(pthread_join(r->worker, NULL) == 0);
  }
  vlart_async_close(r->async);
  vlart_session_close(r->session);
  vlart_bundle_close(r->bundle);
  for (int i = 0; i < 3; i++) {
    test_give(r->arenas[i]);
  }
}

vlart_value_info_t source_value(const vlart_bundle_t *bundle, uint32_t source) {
  vlart_source_info_t info = {.struct_size = sizeof info};
  vlart_value_info_t value = {.struct_size = sizeof value};
  CHECK_STATUS(vlart_bundle_source(bundle, source, &info), OK);
  CHECK_STATUS(vlart_bundle_value(bundle, info.value, &value), OK);
  return value;
}

vlart_status_t write_source(const robot_t *r, uint32_t source, const void *data) {
  vlart_value_info_t v = source_value(r->bundle, source);
  return r->async != NULL
             ? vlart_async_write(r->async, source, data, v.bytes, v.dtype, v.rank, v.dims, &diag)
             : vlart_session_write(r->session, source, data, v.bytes, v.dtype, v.rank, v.dims,
                                   &diag);
}

vlart_queue_info_t queue_of(const robot_t *r) {
  vlart_queue_info_t info = {.struct_size = sizeof info};
  CHECK_STATUS(vlart_session_queue(r->session, &info), OK);
  return info;
}

vlart_session_totals_t totals_of(const robot_t *r) {
  vlart_session_totals_t totals = {.struct_size = sizeof totals};
  CHECK_STATUS(vlart_session_totals(r->session, &totals), OK);
  return totals;
}

uint64_t runs_of(const vlart_session_t *session, uint32_t stage) {
  vlart_stage_stats_t stats = {.struct_size = sizeof stats};
  CHECK_STATUS(vlart_session_stats(session, stage, &stats), OK);
  return stats.runs;
}
