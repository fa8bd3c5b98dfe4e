/* [open] Files of sections by themselves. */
#include <string.h>

#include "base/diag.h"
#include "bundle/bundle.h"
#include "container/engine_lock.h"
#include "container/golden_frames.h"

static bool is_plan(const void *data, size_t bytes) {
  return bytes >= 8 && memcmp(data, VLART_PLAN_MAGIC, 8) == 0;
}

static vlart_status_t bad(vlart_diag_t *diag, const char *call) {
  return vlart_bad_argument(diag, call, "a pointer is NULL, or the content is not 8-byte aligned");
}

vlart_status_t vlart_content_required_bytes(const void *data, size_t bytes, const char *name,
                                            vlart_diag_t *diag, size_t *out_bytes) {
  if (data == NULL || (uintptr_t)data % 8 != 0 || name == NULL || out_bytes == NULL) {
    return bad(diag, "vlart_content_required_bytes");
  }
  *out_bytes = 0;
  if (!is_plan(data, bytes)) {
    return VLART_STATUS_OK;
  }
  vlart_plan_t plan;
  vlart_arena_t arena;
  vlart_status_t status = vlart_plan_read(data, bytes, diag, &plan);
  if (status == VLART_STATUS_OK) {
    vlart_arena_measure(&arena);
    vlart_plan_take(&plan, &arena);
    *out_bytes = vlart_arena_required(&arena);
  }
  return status;
}

static vlart_status_t check_plan(const void *data, size_t bytes, void *base, size_t capacity,
                                 vlart_diag_t *diag) {
  vlart_plan_t plan;
  vlart_arena_t arena;
  vlart_status_t status = vlart_plan_read(data, bytes, diag, &plan);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  vlart_arena_place(&arena, base, capacity);
  vlart_plan_take(&plan, &arena);
  if (arena.full) {
    vlart_arena_measure(&arena);
    vlart_plan_take(&plan, &arena);
    return vlart_arena_too_small(diag, "vlart_content_check", vlart_arena_required(&arena),
                                 capacity);
  }
  return vlart_plan_check(&plan, diag);
}

vlart_status_t vlart_content_check(const void *data, size_t bytes, const char *name, void *arena,
                                   size_t arena_bytes, vlart_diag_t *diag) {
  if (data == NULL || (uintptr_t)data % 8 != 0 || name == NULL) {
    return bad(diag, "vlart_content_check");
  }
  if (is_plan(data, bytes)) {
    return check_plan(data, bytes, arena, arena_bytes, diag);
  }
  if (bytes >= 8 && memcmp(data, VLART_LOCK_MAGIC, 8) == 0) {
    vlart_engine_lock_t lock;
    return vlart_engine_lock_read(data, bytes, name, diag, &lock);
  }
  vlart_frames_t frames;
  return vlart_frames_read(data, bytes, name, diag, &frames);
}

vlart_status_t vlart_bundle_plan(const vlart_bundle_t *bundle, const void **out_data,
                                 size_t *out_bytes) {
  if (bundle == NULL || out_data == NULL || out_bytes == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  *out_data = bundle->plan_map.data;
  *out_bytes = bundle->plan_map.bytes;
  return VLART_STATUS_OK;
}
