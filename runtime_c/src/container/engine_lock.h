/* A validated record of built engines: what vlart-build built, from what, where, and with what. */
#ifndef VLART_ENGINE_LOCK_H
#define VLART_ENGINE_LOCK_H

#include "container/container.h"

typedef struct {
  vlart_container_t file;
  const vlart_lock_record_t *record;
  uint32_t engine_count;
} vlart_engine_lock_t;

/* [open] Checks every record; `data` is 8-byte aligned and stays valid while the lock is used. */
vlart_status_t vlart_engine_lock_read(const uint8_t *data, size_t bytes, const char *name,
                                      vlart_diag_t *diag, vlart_engine_lock_t *out_lock);

static inline const vlart_engine_record_t *vlart_engine_lock_engine(const vlart_engine_lock_t *lock,
                                                                    uint32_t index) {
  return vlart_record(&lock->file.tables[VLART_SECTION_ENGINES], index);
}

static inline const char *vlart_engine_lock_string(const vlart_engine_lock_t *lock,
                                                   uint32_t string) {
  return vlart_string(&lock->file, string);
}

/* The engine of a stage; NULL: none was built. */
const vlart_engine_record_t *vlart_engine_lock_find(const vlart_engine_lock_t *lock,
                                                    const char *stage);

/* "passed"; NULL for a number that is no proof. */
const char *vlart_proof_name(uint32_t proof);

#endif
