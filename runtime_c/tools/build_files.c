/* Files of engines/: written beside, synced, renamed; so a cut leaves the old one or the new one. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32.h"
#include "base/diag.h"
#include "build.h"

static bool sync_directory(const char *dir) {
  int fd = openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  bool good = fd >= 0 && fsync(fd) == 0;
  if (fd >= 0) {
    close(fd);
  }
  return good;
}

static bool write_synced(const char *path, const void *data, size_t bytes) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  const char *from = data;
  bool good = fd >= 0;
  for (size_t done = 0; good && done < bytes;) {
    ssize_t more = write(fd, from + done, bytes - done);
    good = more > 0 || (more < 0 && errno == EINTR);
    done += more > 0 ? (size_t)more : 0;
  }
  good = good && fsync(fd) == 0;
  if (fd >= 0) {
    good = close(fd) == 0 && good;
  }
  return good;
}

bool build_publish(const char *dir, const char *path) {
  char from[VLART_TRT_PATH_BYTES + 512], to[VLART_TRT_PATH_BYTES + 512];
  char engines[VLART_TRT_PATH_BYTES + 512];
  snprintf(to, sizeof to, "%s/%s", dir, path);
  snprintf(from, sizeof from, "%s/%s.tmp", dir, path);
  snprintf(engines, sizeof engines, "%s/engines", dir);
  return rename(from, to) == 0 && sync_directory(engines);
}

/* A path that ends in .tmp already is only written: its caller publishes it once it is checked. */
bool build_write(const char *dir, const char *path, const void *data, size_t bytes) {
  char to[VLART_TRT_PATH_BYTES + 512];
  size_t length = strlen(path);
  bool beside = length > 4 && strcmp(path + length - 4, ".tmp") == 0;
  snprintf(to, sizeof to, "%s/%s%s", dir, path, beside ? "" : ".tmp");
  return write_synced(to, data, bytes) && (beside || build_publish(dir, path));
}

bool build_hash(const build_t *build, const char *path, const char *suffix, uint64_t *out_bytes,
                uint32_t *out_crc32, char out_sha256[65]) {
  char full[300];
  vlart_map_t map;
  snprintf(full, sizeof full, "%s%s", path, suffix);
  if (vlart_trt_map(build->bundle->dir, full, &map, NULL) != VLART_STATUS_OK) {
    return false;
  }
  vlart_crc32_table_t table;
  vlart_crc32_init(&table);
  *out_bytes = map.bytes;
  *out_crc32 = vlart_crc32(&table, 0, map.data, map.bytes);
  build_sha256(map.data, map.bytes, out_sha256);
  vlart_trt_unmap(&map);
  return true;
}

/* Only what vlart_json_read accepts: other characters become '?'. */
static void print_string(FILE *file, const char *string) {
  putc('"', file);
  for (; *string != '\0'; string++) {
    if (*string == '"' || *string == '\\') {
      putc('\\', file);
    }
    putc(*string >= ' ' && *string <= '~' ? *string : '?', file);
  }
  putc('"', file);
}

static void print_member(FILE *file, const char *key, const char *value, const char *after) {
  fprintf(file, "\"%s\": ", key);
  print_string(file, value);
  fputs(after, file);
}

static void print_board(FILE *file, const build_t *build) {
  const vlart_trt_facts_t *facts = &build->facts;
  fputs(" \"board\": {", file);
  print_member(file, "model", build->system.model, ",\n  ");
  print_member(file, "jetpack", build->system.jetpack, ", ");
  print_member(file, "l4t", build->system.l4t, ", ");
  print_member(file, "tensorrt", facts->tensorrt, ", ");
  print_member(file, "cuda", facts->cuda, ",\n  ");
  print_member(file, "gpu", facts->gpu, ", ");
  fprintf(file, "\"compute_capability\": %u, \"multiprocessors\": %u, \"memory_bytes\": %llu},\n",
          facts->compute_capability, facts->multiprocessors,
          (unsigned long long)facts->memory_bytes);
  fputs(" \"clocks\": {", file);
  build_print_clocks(file, facts->system_root);
  fputs("},\n", file);
}

static void print_engine(FILE *file, const build_engine_t *engine) {
  fputs("  {", file);
  print_member(file, "stage", engine->name, ", ");
  print_member(file, "file", engine->file, ",\n   ");
  fprintf(file, "\"bytes\": %llu, \"crc32\": \"%08x\",\n   ", (unsigned long long)engine->bytes,
          engine->crc32);
  print_member(file, "sha256", engine->sha256, ",\n   ");
  fprintf(file, "\"stage_crc32\": \"%08x\", \"weights_crc32\": \"%08x\", \"recipe_crc32\": \"%08x\",\n",
          engine->stage_crc32, engine->weights_crc32, engine->recipe.crc32);
  fprintf(file, "   \"scratch_bytes\": %llu, \"build_s\": %.1f, \"build_peak_bytes\": %llu",
          (unsigned long long)engine->scratch_bytes, engine->build_s,
          (unsigned long long)engine->peak_bytes);
  if (engine->runs > 0) {
    fprintf(file, ",\n   \"runs\": %zu, \"median_ms\": %.3f, \"p95_ms\": %.3f", engine->runs,
            engine->median_ms, engine->p95_ms);
  }
  fputs("}", file);
}

vlart_status_t build_write_lock(const build_t *build, vlart_diag_t *diag) {
  char *text = NULL;
  size_t bytes = 0;
  FILE *file = open_memstream(&text, &bytes);
  bool good = file != NULL;
  if (good) {
    fprintf(file, "{\"format\": %u, \"plan_crc32\": \"%08x\", ", VLART_TRT_LOCK_FORMAT,
            vlart_trt_plan_crc32(build->bundle));
    print_member(file, "golden", build->golden, ", ");
    print_member(file, "whole_tick", build->whole_tick, ",\n");
    print_board(file, build);
    fputs(" \"engines\": [\n", file);
    const char *between = "";
    for (uint32_t i = 0; i < build->count; i++) {
      if (build->engines[i].done) {
        fputs(between, file);
        print_engine(file, &build->engines[i]);
        between = ",\n";
      }
    }
    fputs("]}\n", file);
    good = fclose(file) == 0 && build_write(build->bundle->dir, VLART_TRT_LOCK_FILE, text, bytes);
  }
  int error = errno;
  free(text);
  if (good) {
    return VLART_STATUS_OK;
  }
  vlart_fail(diag, VLART_STATUS_IO, "the record of the engines cannot be written",
             "check the free space and the rights of the directory engines");
  vlart_where(diag, "%s/%s", build->bundle->dir, VLART_TRT_LOCK_FILE);
  vlart_why(diag, "%s", strerror(error));
  return VLART_STATUS_IO;
}

/* A number that is no whole one. */
static double real_of(vlart_json_t object, const char *key) {
  vlart_json_t value;
  char text[64] = "0";
  if (vlart_json_member(object, key, &value) && value.end - value.at < (ptrdiff_t)sizeof text) {
    snprintf(text, sizeof text, "%.*s", (int)(value.end - value.at), value.at);
  }
  return strtod(text, NULL);
}

static uint64_t whole_of(vlart_json_t object, const char *key) {
  vlart_json_t value;
  uint64_t number = 0;
  return vlart_json_member(object, key, &value) && vlart_json_u64(value, &number) ? number : 0;
}

static bool same_machine(const build_t *build, const vlart_trt_lock_t *lock) {
  return strcmp(lock->tensorrt, build->facts.tensorrt) == 0 &&
         strcmp(lock->jetpack, build->system.jetpack) == 0 &&
         strcmp(lock->model, build->system.model) == 0 &&
         strcmp(lock->gpu, build->facts.gpu) == 0 &&
         lock->compute_capability == build->facts.compute_capability;
}

void build_resume(build_t *build) {
  vlart_trt_lock_t lock;
  if (vlart_trt_lock_open(build->bundle->dir, &lock, NULL) != VLART_STATUS_OK) {
    vlart_trt_lock_close(&lock);
    return;
  }
  for (uint32_t i = 0; same_machine(build, &lock) && i < build->count; i++) {
    build_engine_t *engine = &build->engines[i];
    vlart_trt_locked_t locked;
    if (!vlart_trt_lock_find(&lock, engine->name, &locked) ||
        strcmp(locked.file, engine->file) != 0 || locked.stage_crc32 != engine->stage_crc32 ||
        locked.weights_crc32 != engine->weights_crc32 ||
        locked.recipe_crc32 != engine->recipe.crc32 ||
        !build_hash(build, engine->file, "", &engine->bytes, &engine->crc32, engine->sha256)) {
      continue;
    }
    engine->done = engine->bytes == locked.bytes && engine->crc32 == locked.crc32;
    engine->scratch_bytes = whole_of(locked.text, "scratch_bytes");
    engine->peak_bytes = whole_of(locked.text, "build_peak_bytes");
    engine->build_s = real_of(locked.text, "build_s");
  }
  vlart_trt_lock_close(&lock);
}
