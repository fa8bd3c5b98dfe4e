
#include <stdlib.h>
#include <string.h>

#include "base/crc32.h"
#include "container/engine_lock.h"
#include "fuzz_router.h"
#include "router/router.h"

/* Decides by text, by words and by an embedding, and learns from it. */
static void use_router(vlart_router_t *router, uint64_t *stepped) {
  float embedding[VLART_MAX_ROUTE_DIM] = {1.0f, -2.0f, 0.5f};
  vlart_decision_t decision = {.struct_size = sizeof decision};
  const char *texts[] = {"Turn on the stove", "lift the bowl off the plate", "?"};
  for (size_t i = 0; i < 6; i++) {
    uint32_t dim = i < 3 ? 0 : router->rule->embedding_dim;
    vlart_status_t status =
        vlart_router_decide(router, texts[i % 3], dim > 0 ? embedding : NULL, dim, NULL, &decision);
    if (status != (i % 3 == 2 ? VLART_STATUS_BAD_ARGUMENT : VLART_STATUS_OK)) {
      abort();
    }
    if (i % 3 != 2 && (vlart_router_report_outcome(router, i == 0, NULL) != VLART_STATUS_OK ||
                       vlart_router_drain(router, &decision) != VLART_STATUS_OK ||
                       decision.backbone >= router->backbone_count ||
                       !(decision.probability[0] >= 0.0 && decision.probability[0] <= 1.0))) {
      abort();
    }
  }
  (*stepped)++;
}

static void take_rooms(vlart_router_t *router) {
  router->words = calloc(router->rule->text_dim, sizeof *router->words);
  router->vector = calloc(router->rule->embedding_dim + 1, sizeof *router->vector);
  router->seen = calloc((size_t)router->route_count * router->backbone_count, sizeof *router->seen);
  router->log_capacity = 2;
  router->log = calloc(router->log_capacity, sizeof *router->log);
}

static void give_rooms(vlart_router_t *router) {
  free(router->words);
  free(router->vector);
  free(router->seen);
  free(router->log);
}

bool fuzz_router(const uint8_t *data, size_t bytes, uint64_t *stepped) {
  vlart_router_t router = {0};
  if (vlart_router_read_table(&router, data, bytes, "table", NULL) != VLART_STATUS_OK) {
    return false;
  }
  take_rooms(&router);
  use_router(&router, stepped);
  give_rooms(&router);
  return true;
}

/* ---- the state: magic, version, CRC of the table, ..., CRC-32 of all before in the last 8 bytes ---- */

enum { HEAD_BYTES = 32 };
static vlart_router_t of_states;

void fuzz_state_table(const uint8_t *table, size_t bytes) {
  if (vlart_router_read_table(&of_states, table, bytes, "table", NULL) != VLART_STATUS_OK) {
    abort();
  }
}

bool fuzz_state(const uint8_t *data, size_t bytes, uint64_t *stepped) {
  uint64_t generation;
  vlart_router_t router = of_states;
  if (router.rule == NULL ||
      vlart_router_read_state(&router, data, bytes, &generation) != VLART_STATE_GOOD) {
    return false;
  }
  take_rooms(&router);
  memcpy(router.seen, data + HEAD_BYTES,
         (size_t)router.route_count * router.backbone_count * sizeof *router.seen);
  use_router(&router, stepped);
  give_rooms(&router);
  return true;
}

void fuzz_seal_state(uint8_t *data, size_t bytes) {
  static vlart_crc32_table_t table;
  if (bytes < HEAD_BYTES + 8 || memcmp(data, "VLABRSTA", 8) != 0) {
    return;
  }
  if (table.byte[0][1] == 0) {
    vlart_crc32_init(&table);
  }
  memcpy(data + 12, &of_states.table_crc, 4);
  uint64_t crc = vlart_crc32(&table, 0, data, bytes - 8);
  memcpy(data + bytes - 8, &crc, 8);
}

/* ---- what vlart-build writes ------------------------------------------------------------------ */

bool fuzz_lock(const uint8_t *data, size_t bytes, uint64_t *bytes_used) {
  vlart_engine_lock_t lock;
  if (vlart_engine_lock_read(data, bytes, "lock", NULL, &lock) != VLART_STATUS_OK) {
    return false;
  }
  *bytes_used += strlen(vlart_proof_name(lock.record->golden)) +
                 strlen(vlart_engine_lock_string(&lock, lock.record->model));
  for (uint32_t i = 0; i < lock.engine_count; i++) {
    const vlart_engine_record_t *engine = vlart_engine_lock_engine(&lock, i);
    *bytes_used += strlen(vlart_engine_lock_string(&lock, engine->file)) + engine->sha256[7];
  }
  *bytes_used += vlart_engine_lock_find(&lock, "none of them") != NULL;
  return true;
}
