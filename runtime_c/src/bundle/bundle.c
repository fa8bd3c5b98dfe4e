/* [open] Maps the files of a bundle and has them checked. */

#include "bundle/bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32.h"
#include "base/diag.h"
#include "base/struct_size.h"

static vlart_status_t io_error(vlart_diag_t *diag, const char *dir, const char *path,
                               const char *call, int error) {
  vlart_fail(diag, VLART_STATUS_IO, "a file of the bundle cannot be read",
             "check that the path names a complete bundle and that it may be read");
  vlart_where(diag, "%s/%s", dir, path);
  const char *fault = vlart_file_fault(error);
  if (fault != NULL) {
    vlart_why(diag, "%s", fault);
  } else {
    vlart_why(diag, "%s failed with errno %u", call, (unsigned)error);
  }
  return VLART_STATUS_IO;
}

static vlart_status_t map_file(const char *dir, int dir_fd, const char *path, vlart_diag_t *diag,
                               vlart_map_t *out_map) {
  int error = vlart_file_map(dir_fd, path, out_map);
  return error == 0 ? VLART_STATUS_OK : io_error(diag, dir, path, "map", error);
}

static vlart_status_t open_dir(const char *dir, vlart_diag_t *diag, int *out_fd) {
  *out_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return *out_fd >= 0 ? VLART_STATUS_OK : io_error(diag, dir, "", "open", errno);
}

/* Places, or measures, everything that a bundle keeps. The plan's counts must be known. */
static vlart_bundle_t *take_bundle(vlart_arena_t *arena, vlart_plan_t *plan, size_t dir_bytes) {
  vlart_bundle_t *bundle = vlart_arena_take(arena, 1, sizeof *bundle);
  vlart_map_t *files = vlart_arena_take(arena, plan->file_count, sizeof *files);
  vlart_token_table_t *tables =
      vlart_arena_take(arena, vlart_plan_count(plan, VLART_SECTION_TEXTS), sizeof *tables);
  char *dir = vlart_arena_take(arena, dir_bytes, 1);
  vlart_plan_take(plan, arena);
  if (bundle != NULL && !arena->full) {
    *bundle = (vlart_bundle_t){.plan = *plan, .files = files, .token_tables = tables, .dir = dir};
  }
  return bundle;
}

/* Size and checksum of every other file. They stay mapped, so that what is used later is what was checked,
   whatever becomes of its path. */
static vlart_status_t check_file(vlart_bundle_t *bundle, uint32_t index, int dir_fd,
                                 const vlart_crc32_table_t *table, vlart_diag_t *diag) {
  const vlart_file_record_t *file = vlart_plan_file(&bundle->plan, index);
  const char *path = vlart_plan_string(&bundle->plan, file->path);
  vlart_map_t *map = &bundle->files[index];
  vlart_status_t status = map_file(bundle->dir, dir_fd, path, diag, map);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  if (map->bytes != file->bytes) {
    return vlart_corrupt(diag, path, "file", index, "it has %zu bytes, the plan says %llu",
                         map->bytes, (unsigned long long)file->bytes);
  }
  if (table != NULL) {
    uint32_t crc = vlart_file_crc32(map, table);
    if (crc != file->crc32) {
      return vlart_corrupt(diag, path, "file", index, "its CRC-32 is %08x, the plan says %08x", crc,
                           file->crc32);
    }
  }
  return VLART_STATUS_OK;
}

static vlart_status_t check_files(vlart_bundle_t *bundle, int dir_fd, bool checksums,
                                  vlart_diag_t *diag) {
  vlart_crc32_table_t table;
  vlart_crc32_init(&table);
  for (uint32_t i = 0; i < bundle->plan.file_count; i++) {
    vlart_status_t status = check_file(bundle, i, dir_fd, checksums ? &table : NULL, diag);
    if (status != VLART_STATUS_OK) {
      return status;
    }
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_bundle_read_tokenizers(vlart_bundle_t *bundle, vlart_diag_t *diag) {
  for (uint32_t i = 0; i < vlart_plan_count(&bundle->plan, VLART_SECTION_TEXTS); i++) {
    const vlart_text_record_t *text = vlart_plan_text(&bundle->plan, i);
    const vlart_map_t *map = &bundle->files[text->tokenizer];
    const char *path =
        vlart_plan_string(&bundle->plan, vlart_plan_file(&bundle->plan, text->tokenizer)->path);
    vlart_status_t status =
        vlart_token_table_read(map->data, map->bytes, path, diag, &bundle->token_tables[i]);
    if (status != VLART_STATUS_OK) {
      return status;
    }
    vlart_arena_t arena;
    vlart_tokenizer_t *none;
    vlart_arena_measure(&arena);
    if (!vlart_tokenizer_take(&arena, &bundle->token_tables[i], text->max_bytes, &none)) {
      return vlart_corrupt(diag, "plan.bin", "texts", i, "%u bytes of text may become too many",
                           text->max_bytes);
    }
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_bundle_required_bytes(const char *dir, vlart_diag_t *diag, size_t *out_bytes) {
  if (dir == NULL || out_bytes == NULL) {
    return vlart_bad_argument(diag, "vlart_bundle_required_bytes", "a pointer is NULL");
  }
  int dir_fd;
  vlart_status_t status = open_dir(dir, diag, &dir_fd);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  vlart_map_t map;
  status = map_file(dir, dir_fd, "plan.bin", diag, &map);
  close(dir_fd);
  if (status == VLART_STATUS_OK) {
    vlart_plan_t plan;
    vlart_arena_t arena;
    status = vlart_plan_read(map.data, map.bytes, diag, &plan);
    if (status == VLART_STATUS_OK) {
      vlart_arena_measure(&arena);
      take_bundle(&arena, &plan, strlen(dir) + 1);
      *out_bytes = vlart_arena_required(&arena);
    }
    vlart_file_unmap(&map);
  }
  return status;
}

static vlart_status_t open_plan(const char *dir, int dir_fd, void *arena_base, size_t arena_bytes,
                                vlart_diag_t *diag, vlart_bundle_t **out_bundle) {
  vlart_map_t map;
  vlart_status_t status = map_file(dir, dir_fd, "plan.bin", diag, &map);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  vlart_plan_t plan;
  status = vlart_plan_read(map.data, map.bytes, diag, &plan);
  if (status == VLART_STATUS_OK) {
    vlart_arena_t arena;
    vlart_arena_place(&arena, arena_base, arena_bytes);
    vlart_bundle_t *bundle = take_bundle(&arena, &plan, strlen(dir) + 1);
    if (arena.full) {
      vlart_arena_measure(&arena);
      take_bundle(&arena, &plan, strlen(dir) + 1);
      vlart_arena_too_small(diag, "vlart_bundle_open", vlart_arena_required(&arena), arena_bytes);
      status = VLART_STATUS_OUT_OF_MEMORY;
    } else {
      memcpy(bundle->dir, dir, strlen(dir) + 1);
      bundle->plan_map = map;
      *out_bundle = bundle;
      return VLART_STATUS_OK;
    }
  }
  vlart_file_unmap(&map);
  return status;
}

vlart_status_t vlart_bundle_open(const char *dir, const vlart_open_options_t *options, void *arena,
                                 size_t arena_bytes, vlart_diag_t *diag,
                                 vlart_bundle_t **out_bundle) {
  vlart_open_options_t chosen;
  if (dir == NULL || out_bundle == NULL) {
    return vlart_bad_argument(diag, "vlart_bundle_open", "a pointer is NULL");
  }
  *out_bundle = NULL;
  vlart_status_t status =
      vlart_copy_in(&chosen, sizeof chosen, sizeof chosen, options, "vlart_bundle_open", diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  int dir_fd;
  status = open_dir(dir, diag, &dir_fd);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  vlart_bundle_t *bundle = NULL;
  status = open_plan(dir, dir_fd, arena, arena_bytes, diag, &bundle);
  if (status == VLART_STATUS_OK) status = vlart_plan_check(&bundle->plan, diag);
  if (status == VLART_STATUS_OK) {
    status = check_files(bundle, dir_fd, chosen.skip_file_checksums == 0, diag);
  }
  close(dir_fd);
  if (status == VLART_STATUS_OK) status = vlart_bundle_read_tokenizers(bundle, diag);
  if (status == VLART_STATUS_OK) {
    *out_bundle = bundle;
  } else {
    vlart_bundle_close(bundle);
  }
  return status;
}

void vlart_bundle_close(vlart_bundle_t *bundle) {
  if (bundle == NULL) {
    return;
  }
  for (uint32_t i = 0; i < bundle->plan.file_count; i++) {
    vlart_file_unmap(&bundle->files[i]);
  }
  vlart_file_unmap(&bundle->plan_map);
}

bool vlart_bundle_path(const vlart_bundle_t *bundle, uint32_t file, char *out, size_t bytes) {
  const char *path = vlart_plan_string(&bundle->plan, vlart_plan_file(&bundle->plan, file)->path);
  size_t dir_length = strlen(bundle->dir);
  size_t path_bytes = strlen(path) + 1;
  if (dir_length + 1 + path_bytes > bytes) {
    return false;
  }
  memcpy(out, bundle->dir, dir_length);
  out[dir_length] = '/';
  memcpy(out + dir_length + 1, path, path_bytes);
  return true;
}

bool vlart_bundle_is_at(const vlart_bundle_t *bundle, uint32_t file, const char *path) {
  const vlart_map_t *checked = &bundle->files[file];
  struct stat info;
  return lstat(path, &info) == 0 && info.st_dev == checked->device &&
         info.st_ino == checked->number;
}

bool vlart_bundle_weights_are_at(const vlart_bundle_t *bundle) {
  char path[VLART_BUNDLE_PATH_BYTES];
  for (uint32_t i = 0; i < bundle->plan.file_count; i++) {
    if (vlart_plan_file(&bundle->plan, i)->kind == VLART_FILE_KIND_WEIGHTS &&
        (!vlart_bundle_path(bundle, i, path, sizeof path) ||
         !vlart_bundle_is_at(bundle, i, path))) {
      return false;
    }
  }
  return true;
}

void vlart_bundle_forget_pages(const vlart_bundle_t *bundle) {
  for (uint32_t i = 0; i < bundle->plan.file_count; i++) {
    if (vlart_plan_file(&bundle->plan, i)->kind == VLART_FILE_KIND_WEIGHTS) {
      vlart_file_forget(&bundle->files[i]);
    }
  }
}

const void *vlart_bundle_weight(const vlart_bundle_t *bundle, uint32_t weight) {
  const vlart_weight_record_t *record = vlart_plan_weight(&bundle->plan, weight);
  return bundle->files[record->file].data + record->offset;
}
