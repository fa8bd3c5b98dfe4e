/* [init] Keeps what the library packed of a stage's weights, for the next start to map.

   An entry is a folder of three files in the cache's: the optimised model, its weights as stored and as packed, and a
   record of what both were made from and of their checksums. It is written beside and renamed into place, so that an
   entry is whole or absent whoever else starts; one that is damaged, or of another engine, processor or bundle, is
   replaced. Nothing here fails a start: without the cache a stage is packed as it would be.

   Whose files these are says the mode of the folders (base/private_folder.h). The files of the bundle are told apart by
   device, number and time of change besides their checksums: another bundle cannot be made that takes this one's place. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/private_folder.h"
#include "base/processor.h"
#include "ort_engine.h"

enum {
  WORTH_BYTES = 8 << 20,   /* weights of a stage from which on an entry is worth its file */
  MAX_FILES = 4,           /* the stage's own and those of weights */
  KEPT_S = 30 * 24 * 3600, /* an entry that was not used for so long is removed */
  LEFT_S = 3600,           /* what a process that ended left half written */
  COPIES = 3,      /* of the weights: room for them as stored, as packed, and one to spare */
  LEAST_MINOR = 32 /* of version 1: saves what it packs, and maps it again */
};
#define CACHED_MODEL "model.onnx"
#define CACHED_RECORD "made-from"
#define HALF_WRITTEN ".new-"

typedef struct {
  uint64_t device, number, bytes;
  int64_t changed_ns;
  uint32_t crc32, file; /* number in the plan, from 1; 0: none */
} source_t;

/* Written as it is, read by the same library on the same machine. No padding: it is compared as bytes. */
typedef struct {
  char magic[8];
  char version[32]; /* of the library */
  uint32_t processor[VLART_PROCESSOR_WORDS];
  source_t library; /* two builds of one version may pack in two ways */
  source_t sources[MAX_FILES];
  uint32_t config, level, stage, zero;
} made_from_t;

typedef struct {
  made_from_t key;
  uint64_t model_bytes, data_bytes;
  uint32_t model_crc32, data_crc32;
  uint32_t crc32; /* of all before */
  uint32_t zero;
} record_t;

static_assert(sizeof(source_t) == 40 && sizeof(made_from_t) == 8 + 32 + 64 + 200 + 16,
              "no padding");
static_assert(sizeof(record_t) == sizeof(made_from_t) + 32, "no padding");

typedef struct {
  const ort_engine_t *engine;
  vlart_weight_cache_t *told;
  int folder; /* the cache's, open */
  char path[VLART_BUNDLE_PATH_BYTES];
  char name[64]; /* of the entry in it */
  made_from_t key;
  vlart_crc32_table_t table;
} cache_t;

__attribute__((format(printf, 2, 3))) static void say_why(vlart_weight_cache_t *told,
                                                          const char *format, ...) {
  va_list rest;
  va_start(rest, format);
  vsnprintf(told->why, sizeof told->why, format, rest);
  va_end(rest);
}

static bool refuse(cache_t *cache, const char *what, int error) {
  const char *fault = vlart_file_fault(error);
  if (error == 0) {
    say_why(cache->told, "%s", what);
  } else if (fault != NULL) {
    say_why(cache->told, "%s: %s", what, fault);
  } else {
    say_why(cache->told, "%s: errno %d", what, error);
  }
  return false;
}

static bool add_source(cache_t *cache, uint32_t *count, uint32_t file) {
  const vlart_bundle_t *bundle = cache->engine->bundle;
  const vlart_map_t *map = &bundle->files[file];
  if (*count == MAX_FILES) {
    return false;
  }
  cache->key.sources[(*count)++] = (source_t){.device = map->device,
                                              .number = map->number,
                                              .bytes = map->bytes,
                                              .changed_ns = map->changed_ns,
                                              .crc32 = vlart_plan_file(&bundle->plan, file)->crc32,
                                              .file = file + 1};
  return true;
}

/* Which file the library came from. */
static bool add_library(cache_t *cache) {
  Dl_info where;
  struct stat info;
  if (dladdr((const void *)cache->engine->context->api, &where) == 0 || where.dli_fname == NULL ||
      stat(where.dli_fname, &info) != 0) {
    return refuse(cache, "the file of ONNX Runtime is no longer where it was", 0);
  }
  cache->key.library =
      (source_t){.device = info.st_dev,
                 .number = info.st_ino,
                 .bytes = (uint64_t)info.st_size,
                 .changed_ns = (int64_t)info.st_ctim.tv_sec * 1000000000 + info.st_ctim.tv_nsec};
  return true;
}

/* What the entry must have been made from, and its name: two bundles have two, and so have two engines or processors. A
   bundle that was copied has the same, and takes the place of the other. */
static bool make_key(cache_t *cache) {
  const ort_engine_t *engine = cache->engine;
  const vlart_plan_t *plan = &engine->bundle->plan;
  uint32_t count = 0;
  memcpy(cache->key.magic, "VLARTPW1", sizeof cache->key.magic);
  snprintf(cache->key.version, sizeof cache->key.version, "%s", engine->context->version);
  vlart_processor_describe(cache->key.processor);
  cache->key.config = ort_config_crc32(&cache->table);
  cache->key.level = (uint32_t)ort_level(engine);
  cache->key.stage = engine->stage;
  bool good = add_source(cache, &count, vlart_plan_stage(plan, engine->stage)->artefact);
  for (uint32_t i = 0; good && i < plan->file_count; i++) {
    good =
        vlart_plan_file(plan, i)->kind != VLART_FILE_KIND_WEIGHTS || add_source(cache, &count, i);
  }
  const vlart_map_t *whole = &engine->bundle->plan_map;
  uint32_t made_by = vlart_crc32(&cache->table, 0, cache->key.version,
                                 sizeof cache->key.version + sizeof cache->key.processor);
  snprintf(cache->name, sizeof cache->name, "%08x-%08x-%u",
           vlart_crc32(&cache->table, 0, whole->data, whole->bytes), made_by, engine->stage);
  if (!good) {
    return refuse(cache, "the bundle has more than three files of weights", 0);
  }
  return add_library(cache);
}

static bool open_cache(cache_t *cache) {
  const char *path = cache->told->folder;
  int major = 0, minor = 0;
  if (sscanf(cache->engine->context->version, "%d.%d", &major, &minor) != 2 || major < 1 ||
      (major == 1 && minor < LEAST_MINOR)) {
    return refuse(cache, "ONNX Runtime is older than 1.32", 0);
  }
  if ((size_t)snprintf(cache->path, sizeof cache->path, "%s", path) >= sizeof cache->path) {
    return refuse(cache, "the path of the cache is too long", 0);
  }
  int error = vlart_private_make(cache->path, &cache->folder);
  if (error == EPERM) {
    return refuse(cache, "the cache is another user's, or others may look into it (chmod 700)", 0);
  }
  return error == 0 || refuse(cache, "the cache cannot be opened", error);
}

static bool join(char *out, size_t bytes, const char *a, const char *b) {
  return (size_t)snprintf(out, bytes, "%s/%s", a, b) < bytes;
}

static uint32_t crc_of(const cache_t *cache, const record_t *record) {
  return vlart_crc32(&cache->table, 0, record, offsetof(record_t, crc32));
}

typedef struct {
  vlart_map_t model, data;
} entry_t;

static void close_entry(entry_t *entry) {
  vlart_file_unmap(&entry->model);
  vlart_file_unmap(&entry->data);
}

/* Maps what lies in an entry's folder and compares it with its record. ENOENT: there is none; EILSEQ: it is damaged, or
   made from something else. */
static int map_entry(cache_t *cache, int folder, entry_t *out) {
  record_t record;
  vlart_map_t map;
  int error = vlart_file_map(folder, CACHED_RECORD, &map);
  if (error != 0) {
    return error;
  }
  bool good = map.bytes == sizeof record;
  if (good) memcpy(&record, map.data, sizeof record);
  vlart_file_unmap(&map);
  good = good && record.crc32 == crc_of(cache, &record) &&
         memcmp(&record.key, &cache->key, sizeof record.key) == 0;
  error = good ? vlart_file_map(folder, CACHED_MODEL, &out->model) : EILSEQ;
  if (error == 0) error = vlart_file_map(folder, ORT_CACHED_DATA, &out->data);
  if (error == 0) {
    good = out->model.bytes == record.model_bytes && out->data.bytes == record.data_bytes &&
           vlart_file_crc32(&out->model, &cache->table) == record.model_crc32 &&
           vlart_file_crc32(&out->data, &cache->table) == record.data_crc32;
    error = good ? 0 : EILSEQ;
  }
  return error;
}

/* What the library mapped by its path is what was compared. */
static bool is_at(const char *folder, const vlart_map_t *data) {
  char path[VLART_BUNDLE_PATH_BYTES];
  struct stat info;
  return join(path, sizeof path, folder, ORT_CACHED_DATA) && lstat(path, &info) == 0 &&
         info.st_dev == data->device && info.st_ino == data->number;
}

/* Makes the session from the entry; false: there is none that is good. */
static bool map_cached(cache_t *cache, ort_engine_t *engine) {
  vlart_diag_t unsaid = {.struct_size = sizeof unsaid};
  char path[VLART_BUNDLE_PATH_BYTES];
  int folder = -1;
  entry_t entry = {0};
  int error = join(path, sizeof path, cache->path, cache->name)
                  ? vlart_private_open(cache->folder, cache->name, &folder)
                  : ENAMETOOLONG;
  if (error == ENOENT) {
    return false;
  }
  if (error == 0) {
    error = map_entry(cache, folder, &entry);
    (void)futimens(folder, NULL); /* it was used now */
    close(folder);
  }
  bool good = error == 0 && is_at(path, &entry.data) &&
              ort_map_session(engine, &entry.model, path, &unsaid) == VLART_STATUS_OK &&
              is_at(path, &entry.data) && ort_check_ports(engine, &unsaid) == VLART_STATUS_OK;
  close_entry(&entry);
  if (!good) {
    ort_release_session(engine);
    refuse(cache, "an entry was damaged or made from something else", 0);
  }
  return good;
}

/* 0 or an errno. */
static int write_record(int folder, const record_t *record) {
  int fd =
      openat(folder, CACHED_RECORD, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) {
    return errno;
  }
  ssize_t bytes = write(fd, record, sizeof *record);
  int error = bytes == (ssize_t)sizeof *record ? 0 : bytes < 0 ? errno : ENOSPC;
  return close(fd) != 0 && error == 0 ? errno : error;
}

/* Records what the library wrote into the folder `made`, and gives it the entry's name. */
static bool publish(cache_t *cache, const char *made) {
  record_t record = {.key = cache->key};
  entry_t entry = {0};
  int folder = -1;
  int error = vlart_private_open(cache->folder, made, &folder);
  if (error != 0) {
    return refuse(cache, "an entry cannot be written", error);
  }
  error = vlart_file_map(folder, CACHED_MODEL, &entry.model);
  if (error == 0) error = vlart_file_map(folder, ORT_CACHED_DATA, &entry.data);
  if (error == 0) {
    record.model_bytes = entry.model.bytes;
    record.data_bytes = entry.data.bytes;
    record.model_crc32 = vlart_file_crc32(&entry.model, &cache->table);
    record.data_crc32 = vlart_file_crc32(&entry.data, &cache->table);
    record.crc32 = crc_of(cache, &record);
    error = write_record(folder, &record);
  }
  close_entry(&entry);
  close(folder);
  /* An empty folder is all that a rename replaces. What lies there is bad, or as good as ours by now. */
  if (error == 0 && renameat(cache->folder, made, cache->folder, cache->name) != 0) {
    vlart_private_remove(cache->folder, cache->name);
    error = renameat(cache->folder, made, cache->folder, cache->name) != 0 ? errno : 0;
  }
  return error == 0 || refuse(cache, "an entry cannot be written", error);
}

static size_t digits(const char *text) { return strspn(text, "0123456789abcdef"); }

/* As make_key and pack name theirs: somebody may have named a folder that holds other things too. */
static bool is_ours(const char *name, bool half) {
  if (half) {
    name += sizeof HALF_WRITTEN - 1;
    return name[strspn(name, "0123456789-")] == '\0';
  }
  for (int i = 0; i < 2; i++) {
    if (digits(name) != 8 || name[8] != '-') {
      return false;
    }
    name += 9;
  }
  return name[0] != '\0' && name[strspn(name, "0123456789")] == '\0';
}

/* What was not used for long goes. */
static void tidy(const cache_t *cache) {
  int again = openat(cache->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *folder = again < 0 ? NULL : fdopendir(again);
  if (folder == NULL) {
    if (again >= 0) close(again);
    return;
  }
  time_t now = time(NULL);
  for (const struct dirent *file; (file = readdir(folder)) != NULL;) {
    bool half = strncmp(file->d_name, HALF_WRITTEN, sizeof HALF_WRITTEN - 1) == 0;
    struct stat info;
    if (is_ours(file->d_name, half) &&
        fstatat(cache->folder, file->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISDIR(info.st_mode) && now - info.st_mtim.tv_sec > (half ? LEFT_S : KEPT_S)) {
      vlart_private_remove(cache->folder, file->d_name);
    }
  }
  closedir(folder);
}

static bool has_room(const cache_t *cache, uint64_t bytes) {
  struct statvfs disk;
  return fstatvfs(cache->folder, &disk) == 0 &&
         (uint64_t)disk.f_bavail * disk.f_frsize > COPIES * bytes;
}

/* Makes the session from the bundle and an entry of what was packed. */
static vlart_status_t pack(cache_t *cache, ort_engine_t *engine, uint64_t bytes,
                           vlart_diag_t *diag) {
  char made[64], folder[VLART_BUNDLE_PATH_BYTES], model[VLART_BUNDLE_PATH_BYTES];
  struct timespec now;
  tidy(cache);
  clock_gettime(CLOCK_MONOTONIC, &now);
  snprintf(made, sizeof made, HALF_WRITTEN "%ld-%lld-%ld", (long)getpid(), (long long)now.tv_sec,
           now.tv_nsec);
  bool good = has_room(cache, bytes) || refuse(cache, "the disk has no room for an entry", 0);
  good = good && ((join(folder, sizeof folder, cache->path, made) &&
                   join(model, sizeof model, folder, CACHED_MODEL)) ||
                  refuse(cache, "the path of the cache is too long", 0));
  good = good && (mkdirat(cache->folder, made, 0700) == 0 ||
                  refuse(cache, "the cache cannot be written", errno));
  if (!good) {
    cache->told->refused++;
    return ort_make_session(engine, NULL, diag);
  }
  vlart_diag_t unsaid = {.struct_size = sizeof unsaid};
  vlart_status_t status = ort_make_session(engine, model, &unsaid);
  good = status == VLART_STATUS_OK && publish(cache, made);
  if (!good) {
    vlart_private_remove(cache->folder, made);
  }
  if (status !=
      VLART_STATUS_OK) { /* of the writing, perhaps: a disk is full before its figures say so */
    ort_release_session(engine);
    refuse(cache, "an entry cannot be written", 0);
    status = ort_make_session(engine, NULL, diag);
  }
  cache->told->written += good;
  cache->told->refused += !good;
  return status;
}

vlart_status_t ort_cached_session(ort_engine_t *engine, vlart_diag_t *diag) {
  vlart_weight_cache_t *told = engine->context->cache;
  uint64_t bytes = 0;
  for (uint32_t i = 0; told != NULL && i < engine->constant_count; i++) {
    bytes += vlart_stage_constant(engine->bundle, engine->stage, i).bytes;
  }
  if (bytes < WORTH_BYTES || !ort_has_own_weights(engine) || !ort_weights_are_named(engine)) {
    return ort_make_session(engine, NULL, diag);
  }
  cache_t cache = {.engine = engine, .told = told, .folder = -1};
  vlart_crc32_init(&cache.table);
  vlart_status_t status = VLART_STATUS_OK;
  if (!open_cache(&cache) || !make_key(&cache)) {
    told->refused++;
    status = ort_make_session(engine, NULL, diag);
  } else if (map_cached(&cache, engine)) {
    told->mapped++;
  } else {
    status = pack(&cache, engine, bytes, diag);
  }
  if (cache.folder >= 0) {
    close(cache.folder);
  }
  return status;
}
