
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32.h"
#include "base/diag.h"
#include "trt_lock.h"

static bool text_of(vlart_json_t object, const char *key, char *out, size_t capacity) {
  vlart_json_t value;
  return vlart_json_member(object, key, &value) && vlart_json_string(value, out, capacity);
}

static bool number_of(vlart_json_t object, const char *key, uint64_t *out) {
  vlart_json_t value;
  return vlart_json_member(object, key, &value) && vlart_json_u64(value, out);
}

static bool hex_of(vlart_json_t object, const char *key, uint32_t *out) {
  vlart_json_t value;
  return vlart_json_member(object, key, &value) && vlart_json_hex32(value, out);
}

bool vlart_trt_lock_read(const char *data, size_t bytes, vlart_trt_lock_t *lock) {
  vlart_json_t all, board;
  uint64_t format = 0;
  return vlart_json_read(data, bytes, &all) && number_of(all, "format", &format) &&
         format == VLART_TRT_LOCK_FORMAT && hex_of(all, "plan_crc32", &lock->plan_crc32) &&
         text_of(all, "golden", lock->golden, sizeof lock->golden) &&
         text_of(all, "whole_tick", lock->whole_tick, sizeof lock->whole_tick) &&
         vlart_json_member(all, "engines", &lock->engines) &&
         vlart_json_member(all, "board", &board) &&
         text_of(board, "tensorrt", lock->tensorrt, sizeof lock->tensorrt) &&
         text_of(board, "jetpack", lock->jetpack, sizeof lock->jetpack) &&
         text_of(board, "model", lock->model, sizeof lock->model) &&
         text_of(board, "gpu", lock->gpu, sizeof lock->gpu) &&
         number_of(board, "compute_capability", &lock->compute_capability) &&
         number_of(board, "multiprocessors", &lock->multiprocessors);
}

bool vlart_trt_lock_find(const vlart_trt_lock_t *lock, const char *stage,
                         vlart_trt_locked_t *out_locked) {
  vlart_json_t entry;
  char name[VLART_MAX_STRING + 1];
  for (bool more = vlart_json_first(lock->engines, &entry); more;
       more = vlart_json_next(lock->engines, &entry)) {
    if (text_of(entry, "stage", name, sizeof name) && strcmp(name, stage) == 0) {
      *out_locked = (vlart_trt_locked_t){.text = entry};
      return text_of(entry, "file", out_locked->file, sizeof out_locked->file) &&
             strstr(out_locked->file, "..") == NULL && out_locked->file[0] != '/' &&
             number_of(entry, "bytes", &out_locked->bytes) &&
             hex_of(entry, "crc32", &out_locked->crc32) &&
             hex_of(entry, "stage_crc32", &out_locked->stage_crc32) &&
             hex_of(entry, "weights_crc32", &out_locked->weights_crc32) &&
             hex_of(entry, "recipe_crc32", &out_locked->recipe_crc32);
    }
  }
  return false;
}

static vlart_status_t unreadable(const char *dir, const char *path, int error,
                                 vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_IO, "a file that vlart-build wrote cannot be read",
             "run vlart-build on this bundle again");
  vlart_where(diag, "%s/%s", dir, path);
  if (error == ENOENT) {
    vlart_why(diag, "there is no such file");
  } else {
    vlart_why(diag, "opening or mapping it failed with errno %u", (unsigned)error);
  }
  return VLART_STATUS_IO;
}

vlart_status_t vlart_trt_map(const char *dir, const char *path, vlart_map_t *out_map,
                             vlart_diag_t *diag) {
  *out_map = (vlart_map_t){0};
  int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int fd = dir_fd < 0 ? -1 : openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
  int error = fd < 0 ? errno : 0;
  struct stat info;
  if (error == 0) {
    error = fstat(fd, &info) != 0 ? errno : S_ISREG(info.st_mode) ? 0 : EINVAL;
  }
  if (error == 0 && info.st_size > 0) {
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    error = data == MAP_FAILED ? errno : 0;
    if (error == 0) {
      *out_map = (vlart_map_t){data, (size_t)info.st_size};
    }
  }
  if (fd >= 0) {
    close(fd);
  }
  if (dir_fd >= 0) {
    close(dir_fd);
  }
  return error == 0 ? VLART_STATUS_OK : unreadable(dir, path, error, diag);
}

void vlart_trt_unmap(vlart_map_t *map) {
  if (map->data != NULL) {
    munmap((void *)(uintptr_t)map->data, map->bytes);
  }
  *map = (vlart_map_t){0};
}

static vlart_status_t not_built(const char *dir, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_NOT_FOUND, "the engines of this bundle are not built",
             "run vlart-build on this bundle, on the board that will run it");
  vlart_where(diag, "%s/%s", dir, VLART_TRT_LOCK_FILE);
  vlart_why(diag, "there is no such file; engines cannot be moved from another machine");
  return VLART_STATUS_NOT_FOUND;
}

vlart_status_t vlart_trt_lock_open(const char *dir, vlart_trt_lock_t *out_lock,
                                   vlart_diag_t *diag) {
  *out_lock = (vlart_trt_lock_t){0};
  int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  bool there = dir_fd >= 0 && faccessat(dir_fd, VLART_TRT_LOCK_FILE, F_OK, 0) == 0;
  if (dir_fd >= 0) {
    close(dir_fd);
  }
  if (!there) {
    return not_built(dir, diag);
  }
  vlart_status_t status = vlart_trt_map(dir, VLART_TRT_LOCK_FILE, &out_lock->map, diag);
  if (status == VLART_STATUS_OK &&
      (out_lock->map.data == NULL ||
       !vlart_trt_lock_read((const char *)out_lock->map.data, out_lock->map.bytes, out_lock))) {
    vlart_fail(diag, VLART_STATUS_CORRUPT, "the record of the built engines cannot be read",
               "run vlart-build on this bundle again");
    vlart_where(diag, "%s/%s", dir, VLART_TRT_LOCK_FILE);
    vlart_why(diag, "it is not what this version of vlart-build writes (format %u)",
              VLART_TRT_LOCK_FORMAT);
    status = VLART_STATUS_CORRUPT;
  }
  return status;
}

void vlart_trt_lock_close(vlart_trt_lock_t *lock) {
  vlart_trt_unmap(&lock->map);
}

uint32_t vlart_trt_plan_crc32(const vlart_bundle_t *bundle) {
  vlart_crc32_table_t table;
  vlart_crc32_init(&table);
  return vlart_crc32(&table, 0, bundle->plan_map.data, bundle->plan_map.bytes);
}
