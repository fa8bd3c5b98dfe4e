#include "container/engine_lock.h"

#include <string.h>

#include "base/diag.h"
#include "container/record_fields.h"

const char *vlart_proof_name(uint32_t proof) {
  return vlart_member_name(vlart_field(VLART_SECTION_LOCK, "golden")->of, proof);
}

/* A path stays in the bundle. */
static const char *engine_fault(const vlart_engine_lock_t *lock,
                                const vlart_engine_record_t *engine) {
  const char *file = vlart_engine_lock_string(lock, engine->file);
  return file[0] == '\0' || file[0] == '/' || strstr(file, "..") != NULL
             ? "its file lies outside of the bundle"
             : NULL;
}

vlart_status_t vlart_engine_lock_read(const uint8_t *data, size_t bytes, const char *name,
                                      vlart_diag_t *diag, vlart_engine_lock_t *out_lock) {
  *out_lock = (vlart_engine_lock_t){0};
  vlart_status_t status =
      vlart_container_open(data, bytes, VLART_LOCK_MAGIC, name, diag, &out_lock->file);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  const vlart_table_t *locks = &out_lock->file.tables[VLART_SECTION_LOCK];
  if (locks->count != 1) {
    return vlart_corrupt(diag, name, "lock", 0, "there are %u records instead of 1", locks->count);
  }
  out_lock->record = vlart_record(locks, 0);
  out_lock->engine_count = out_lock->file.tables[VLART_SECTION_ENGINES].count;
  for (uint32_t i = 0; i < out_lock->engine_count; i++) {
    const char *fault = engine_fault(out_lock, vlart_engine_lock_engine(out_lock, i));
    if (fault != NULL) {
      return vlart_corrupt(diag, name, "engines", i, "%s", fault);
    }
  }
  return VLART_STATUS_OK;
}

const vlart_engine_record_t *vlart_engine_lock_find(const vlart_engine_lock_t *lock,
                                                    const char *stage) {
  for (uint32_t i = 0; i < lock->engine_count; i++) {
    const vlart_engine_record_t *engine = vlart_engine_lock_engine(lock, i);
    if (strcmp(vlart_engine_lock_string(lock, engine->stage), stage) == 0) {
      return engine;
    }
  }
  return NULL;
}
