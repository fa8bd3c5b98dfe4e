/* engines/lock.bin: writes what was built, as the layout's records, and takes over what an earlier run built. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32.h"
#include "base/diag.h"
#include "build.h"
#include "command_line.h"

/* What the file is made of; the strings are added while the records are made. */
typedef struct {
  char *strings; /* [most_string_bytes] */
  size_t string_bytes;
  vlart_lock_record_t lock;
  vlart_engine_record_t *engines; /* [engine_count] */
  uint32_t engine_count;
} lock_file_t;

typedef struct {
  uint32_t id;
  uint32_t stride;
  uint32_t count;
  const void *data;
} lock_section_t;

/* What all strings that a lock could have may take. */
static size_t most_string_bytes(const build_t *build) {
  size_t of_engine = sizeof(((build_engine_t *)0)->name) + sizeof(((build_engine_t *)0)->file);
  return sizeof build->system + sizeof build->facts + build->count * of_engine;
}

static uint32_t add_string(lock_file_t *file, const char *string) {
  size_t begin = file->string_bytes;
  size_t bytes = strlen(string) + 1;
  memcpy(file->strings + begin, string, bytes);
  file->string_bytes = begin + bytes;
  return (uint32_t)begin;
}

static void fill_lock(lock_file_t *file, const build_t *build) {
  const vlart_trt_facts_t *facts = &build->facts;
  file->lock = (vlart_lock_record_t){.memory_bytes = facts->memory_bytes,
                                     .plan_crc32 = vlart_trt_plan_crc32(build->bundle),
                                     .golden = build->golden,
                                     .whole_tick = build->whole_tick,
                                     .compute_capability = facts->compute_capability,
                                     .multiprocessors = facts->multiprocessors,
                                     .model = add_string(file, build->system.model),
                                     .jetpack = add_string(file, build->system.jetpack),
                                     .l4t = add_string(file, build->system.l4t),
                                     .tensorrt = add_string(file, facts->tensorrt),
                                     .cuda = add_string(file, facts->cuda),
                                     .gpu = add_string(file, facts->gpu)};
  build_read_clocks(facts->system_root, &file->lock);
}

static void fill_engine(lock_file_t *file, const build_engine_t *engine) {
  vlart_engine_record_t record = {.bytes = engine->bytes,
                                  .scratch_bytes = engine->scratch_bytes,
                                  .build_peak_bytes = engine->peak_bytes,
                                  .build_s = engine->build_s,
                                  .runs = engine->runs,
                                  .median_ms = engine->median_ms,
                                  .p95_ms = engine->p95_ms,
                                  .stage = add_string(file, engine->name),
                                  .file = add_string(file, engine->file),
                                  .crc32 = engine->crc32,
                                  .stage_crc32 = engine->stage_crc32,
                                  .weights_crc32 = engine->weights_crc32,
                                  .recipe_crc32 = engine->recipe.crc32};
  memcpy(record.sha256, engine->sha256, sizeof record.sha256);
  file->engines[file->engine_count++] = record;
}

static size_t aligned(size_t bytes) {
  return (bytes + VLART_ALIGN - 1) & ~(size_t)(VLART_ALIGN - 1);
}

/* The container of these sections; freed by the caller. */
static uint8_t *seal(const lock_section_t *sections, uint32_t count, size_t *out_bytes) {
  size_t bytes = aligned(sizeof(vlart_header_record_t) + count * sizeof(vlart_section_record_t));
  size_t at = bytes;
  for (uint32_t i = 0; i < count; i++) {
    bytes = aligned(bytes) + (size_t)sections[i].stride * sections[i].count;
  }
  uint8_t *data = tool_allocate(bytes, 1);
  vlart_header_record_t header = {.version_major = VLART_FORMAT_MAJOR,
                                  .version_minor = VLART_FORMAT_MINOR,
                                  .file_bytes = bytes,
                                  .section_count = count};
  memcpy(header.magic, VLART_LOCK_MAGIC, sizeof header.magic);
  for (uint32_t i = 0; i < count; i++) {
    const lock_section_t *section = &sections[i];
    vlart_section_record_t record = {.id = section->id,
                                     .stride = section->stride,
                                     .count = section->count,
                                     .offset = aligned(at),
                                     .bytes = (uint64_t)section->stride * section->count};
    memcpy(data + sizeof header + i * sizeof record, &record, sizeof record);
    if (record.bytes > 0) {
      memcpy(data + record.offset, section->data, (size_t)record.bytes);
    }
    at = (size_t)(record.offset + record.bytes);
  }
  vlart_crc32_table_t table;
  vlart_crc32_init(&table);
  header.payload_crc32 = vlart_crc32(&table, 0, data + sizeof header, bytes - sizeof header);
  header.header_crc32 =
      vlart_crc32(&table, 0, &header, offsetof(vlart_header_record_t, header_crc32));
  memcpy(data, &header, sizeof header);
  *out_bytes = bytes;
  return data;
}

/* Once there is a record of this version, that of an earlier one says nothing. */
static void drop_old_lock(const char *dir) {
  char path[VLART_TRT_PATH_BYTES + 512];
  snprintf(path, sizeof path, "%s/%s", dir, VLART_TRT_OLD_LOCK_FILE);
  (void)unlink(path);
}

vlart_status_t build_write_lock(const build_t *build, vlart_diag_t *diag) {
  lock_file_t file = {.strings = tool_allocate(most_string_bytes(build), 1),
                      .engines = tool_allocate(build->count + 1u, sizeof *file.engines)};
  fill_lock(&file, build);
  for (uint32_t i = 0; i < build->count; i++) {
    if (build->engines[i].done) {
      fill_engine(&file, &build->engines[i]);
    }
  }
  const lock_section_t sections[] = {
      {VLART_SECTION_STRINGS, 1, (uint32_t)file.string_bytes, file.strings},
      {VLART_SECTION_LOCK, sizeof file.lock, 1, &file.lock},
      {VLART_SECTION_ENGINES, sizeof *file.engines, file.engine_count, file.engines}};
  size_t bytes;
  uint8_t *data = seal(sections, sizeof sections / sizeof *sections, &bytes);
  bool good = build_write(build->bundle->dir, VLART_TRT_LOCK_FILE, data, bytes);
  int error = errno;
  free(data);
  free(file.engines);
  free(file.strings);
  if (good) {
    drop_old_lock(build->bundle->dir);
    return VLART_STATUS_OK;
  }
  vlart_fail(diag, VLART_STATUS_IO, "the record of the engines cannot be written",
             "check the free space and the rights of the directory engines");
  vlart_where(diag, "%s/%s", build->bundle->dir, VLART_TRT_LOCK_FILE);
  vlart_why(diag, "%s", strerror(error));
  return VLART_STATUS_IO;
}

static bool is_same_machine(const build_t *build, const vlart_engine_lock_t *lock) {
  const vlart_lock_record_t *record = lock->record;
  return strcmp(vlart_engine_lock_string(lock, record->tensorrt), build->facts.tensorrt) == 0 &&
         strcmp(vlart_engine_lock_string(lock, record->jetpack), build->system.jetpack) == 0 &&
         strcmp(vlart_engine_lock_string(lock, record->model), build->system.model) == 0 &&
         strcmp(vlart_engine_lock_string(lock, record->gpu), build->facts.gpu) == 0 &&
         record->compute_capability == build->facts.compute_capability;
}

void build_resume(build_t *build) {
  vlart_trt_lock_t lock;
  if (vlart_trt_lock_open(build->bundle->dir, &lock, NULL) != VLART_STATUS_OK) {
    vlart_trt_lock_close(&lock);
    return;
  }
  for (uint32_t i = 0; is_same_machine(build, &lock.content) && i < build->count; i++) {
    build_engine_t *engine = &build->engines[i];
    const vlart_engine_record_t *kept = vlart_engine_lock_find(&lock.content, engine->name);
    if (kept == NULL ||
        strcmp(vlart_engine_lock_string(&lock.content, kept->file), engine->file) != 0 ||
        kept->stage_crc32 != engine->stage_crc32 || kept->weights_crc32 != engine->weights_crc32 ||
        kept->recipe_crc32 != engine->recipe.crc32 ||
        !build_hash(build, engine->file, "", &engine->bytes, &engine->crc32, engine->sha256)) {
      continue;
    }
    engine->done = engine->bytes == kept->bytes && engine->crc32 == kept->crc32;
    engine->scratch_bytes = kept->scratch_bytes;
    engine->peak_bytes = kept->build_peak_bytes;
    engine->build_s = kept->build_s;
  }
  vlart_trt_lock_close(&lock);
}
