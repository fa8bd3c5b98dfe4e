/* engines/lock.json: what vlart-build built, from what, where, and with what. */
#ifndef VLART_TRT_LOCK_H
#define VLART_TRT_LOCK_H

#include "bundle/bundle.h"
#include "trt_json.h"

#define VLART_TRT_LOCK_FILE "engines/lock.json"
#define VLART_TRT_LOCK_FORMAT 1u
#define VLART_TRT_PATH_BYTES 4096u

typedef struct {
  vlart_map_t map; /* the file */
  vlart_json_t engines;
  uint32_t plan_crc32;
  char golden[16]; /* "passed", "failed", "pending", or "none" where the bundle has no frames */
  char whole_tick[16]; /* the same of a whole tick as one launch; "unsupported" where there is none */
  char tensorrt[32];
  char jetpack[32]; /* "unknown" where no release file is */
  char model[128];
  char gpu[128];
  uint64_t compute_capability;
  uint64_t multiprocessors;
} vlart_trt_lock_t;

typedef struct {
  char file[256]; /* of the engine, in the bundle */
  uint64_t bytes;
  uint32_t crc32;
  uint32_t stage_crc32;   /* of the stage's ONNX file */
  uint32_t weights_crc32; /* of all weights files */
  uint32_t recipe_crc32;
  vlart_json_t text;
} vlart_trt_locked_t;

/* [init] Maps and reads the lock of a bundle directory. NOT_FOUND without one, CORRUPT if it is not
   what vlart-build writes. */
vlart_status_t vlart_trt_lock_open(const char *dir, vlart_trt_lock_t *out_lock, vlart_diag_t *diag);
void vlart_trt_lock_close(vlart_trt_lock_t *lock);

/* The same of bytes in memory; they stay where they are. */
bool vlart_trt_lock_read(const char *data, size_t bytes, vlart_trt_lock_t *lock);

/* False if the lock has no (whole) entry of that stage. */
bool vlart_trt_lock_find(const vlart_trt_lock_t *lock, const char *stage,
                         vlart_trt_locked_t *out_locked);

/* [init] Maps a file of the bundle. IO if it cannot be. */
vlart_status_t vlart_trt_map(const char *dir, const char *path, vlart_map_t *out_map,
                             vlart_diag_t *diag);
void vlart_trt_unmap(vlart_map_t *map);

uint32_t vlart_trt_plan_crc32(const vlart_bundle_t *bundle);

#endif
