#include "container/engine_lock.h"

#include <string.h>

#include "base/diag.h"

const char *vlart_proof_name(uint32_t proof) {
  switch (proof) {
    case VLART_PROOF_NONE: return "none";
    case VLART_PROOF_PENDING: return "pending";
    case VLART_PROOF_PASSED: return "passed";
    case VLART_PROOF_FAILED: return "failed";
    case VLART_PROOF_UNSUPPORTED: return "unsupported";
    default: return NULL;
  }
}

static const char *strings_fault(const vlart_engine_lock_t *lock, const uint32_t *strings,
                                 size_t count) {
  const char *fault = NULL;
  for (size_t i = 0; fault == NULL && i < count; i++) {
    fault = vlart_string_fault(&lock->file, strings[i]);
  }
  return fault;
}

static const char *record_fault(const vlart_engine_lock_t *lock) {
  const vlart_lock_record_t *r = lock->record;
  const uint32_t strings[] = {r->model, r->jetpack, r->l4t, r->tensorrt, r->cuda, r->gpu};
  if (vlart_proof_name(r->golden) == NULL || vlart_proof_name(r->whole_tick) == NULL) {
    return "what proves the engines is unknown";
  }
  return strings_fault(lock, strings, sizeof strings / sizeof *strings);
}

/* A path stays in the bundle. */
static const char *engine_fault(const vlart_engine_lock_t *lock,
                                const vlart_engine_record_t *engine) {
  const uint32_t strings[] = {engine->stage, engine->file};
  const char *fault = strings_fault(lock, strings, sizeof strings / sizeof *strings);
  if (fault != NULL) {
    return fault;
  }
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
  const char *fault = record_fault(out_lock);
  if (fault != NULL) {
    return vlart_corrupt(diag, name, "lock", 0, "%s", fault);
  }
  for (uint32_t i = 0; i < out_lock->engine_count; i++) {
    fault = engine_fault(out_lock, vlart_engine_lock_engine(out_lock, i));
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
