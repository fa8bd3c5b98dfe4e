/* Files that vlart-build wrote into a bundle: the record of the engines, and the engines. */
#ifndef VLART_TRT_LOCK_H
#define VLART_TRT_LOCK_H

#include "bundle/bundle.h"
#include "container/engine_lock.h"

#define VLART_TRT_LOCK_FILE "engines/lock.bin"
#define VLART_TRT_OLD_LOCK_FILE "engines/lock.json" /* until format 1.6 */
#define VLART_TRT_PATH_BYTES 4096u

typedef struct {
  vlart_map_t map;
  vlart_engine_lock_t content;
} vlart_trt_lock_t;

/* [init] Maps and reads the lock of a bundle directory. NOT_FOUND without one, VERSION if an earlier
   vlart-build wrote it, NOT_A_BUNDLE or CORRUPT if it is damaged. */
vlart_status_t vlart_trt_lock_open(const char *dir, vlart_trt_lock_t *out_lock, vlart_diag_t *diag);
void vlart_trt_lock_close(vlart_trt_lock_t *lock);

/* [init] Maps a file of the bundle; vlart_file_unmap. IO if it cannot be. */
vlart_status_t vlart_trt_map(const char *dir, const char *path, vlart_map_t *out_map,
                             vlart_diag_t *diag);

uint32_t vlart_trt_plan_crc32(const vlart_bundle_t *bundle);

#endif
