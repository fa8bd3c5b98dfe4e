#include "trt_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/crc32.h"
#include "base/diag.h"

#define BUILD_AGAIN "run vlart-build on this bundle again"

static vlart_status_t unreadable(const char *dir, const char *path, int error, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_IO, "a file that vlart-build wrote cannot be read", BUILD_AGAIN);
  vlart_where(diag, "%s/%s", dir, path);
  const char *fault = vlart_file_fault(error);
  if (fault != NULL) {
    vlart_why(diag, "%s", fault);
  } else {
    vlart_why(diag, "opening or mapping it failed with errno %u", (unsigned)error);
  }
  return VLART_STATUS_IO;
}

vlart_status_t vlart_trt_map(const char *dir, const char *path, vlart_map_t *out_map,
                             vlart_diag_t *diag) {
  *out_map = (vlart_map_t){0};
  int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int error = dir_fd < 0 ? errno : vlart_file_map(dir_fd, path, out_map);
  if (dir_fd >= 0) {
    close(dir_fd);
  }
  return error == 0 ? VLART_STATUS_OK : unreadable(dir, path, error, diag);
}

static vlart_status_t not_built(const char *dir, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_NOT_FOUND, "the engines of this bundle are not built",
             "run vlart-build on this bundle, on the board that will run it");
  vlart_where(diag, "%s/%s", dir, VLART_TRT_LOCK_FILE);
  vlart_why(diag, "there is no such file; engines cannot be moved from another machine");
  return VLART_STATUS_NOT_FOUND;
}

static vlart_status_t built_by_another(const char *dir, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_VERSION, "an earlier vlart-build recorded the engines",
             BUILD_AGAIN);
  vlart_where(diag, "%s/%s", dir, VLART_TRT_OLD_LOCK_FILE);
  vlart_why(diag, "this version reads %s, of format %u.%u", VLART_TRT_LOCK_FILE, VLART_FORMAT_MAJOR,
            VLART_FORMAT_MINOR);
  return VLART_STATUS_VERSION;
}

static bool exists(int dir_fd, const char *path) {
  return dir_fd >= 0 && faccessat(dir_fd, path, F_OK, 0) == 0;
}

vlart_status_t vlart_trt_lock_open(const char *dir, vlart_trt_lock_t *out_lock,
                                   vlart_diag_t *diag) {
  *out_lock = (vlart_trt_lock_t){0};
  int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  bool there = exists(dir_fd, VLART_TRT_LOCK_FILE);
  bool old = !there && exists(dir_fd, VLART_TRT_OLD_LOCK_FILE);
  if (dir_fd >= 0) {
    close(dir_fd);
  }
  if (!there) {
    return old ? built_by_another(dir, diag) : not_built(dir, diag);
  }
  vlart_status_t status = vlart_trt_map(dir, VLART_TRT_LOCK_FILE, &out_lock->map, diag);
  if (status == VLART_STATUS_OK) {
    status = vlart_engine_lock_read(out_lock->map.data, out_lock->map.bytes, VLART_TRT_LOCK_FILE,
                                    diag, &out_lock->content);
    if (status != VLART_STATUS_OK) {
      vlart_fix(diag, BUILD_AGAIN);
    }
  }
  return status;
}

void vlart_trt_lock_close(vlart_trt_lock_t *lock) { vlart_file_unmap(&lock->map); }

uint32_t vlart_trt_plan_crc32(const vlart_bundle_t *bundle) {
  vlart_crc32_table_t table;
  vlart_crc32_init(&table);
  return vlart_crc32(&table, 0, bundle->plan_map.data, bundle->plan_map.bytes);
}
