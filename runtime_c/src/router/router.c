/* A router: places itself in an arena, decides, counts outcomes, keeps the log. */

#include "router/router.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/diag.h"
#include "base/struct_size.h"
#include "base/utf8.h"

#define DEFAULT_LOG 64u
#define MOST_LOG 65536u

static vlart_status_t table_error(vlart_diag_t *diag, const char *path, const char *call) {
  unsigned error = (unsigned)errno;
  vlart_fail(diag, VLART_STATUS_IO, "the routing table cannot be read",
             "give the .bin file that `vlacompile route fit` wrote");
  vlart_where(diag, "%s", path);
  vlart_why(diag, "%s failed with errno %u", call, error);
  return VLART_STATUS_IO;
}

/* Opens the table's file and says how large it is. */
static vlart_status_t open_table(const char *path, vlart_diag_t *diag, int *out_fd,
                                 size_t *out_bytes) {
  struct stat info;
  *out_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would wait for a writer */
  if (*out_fd < 0) {
    return table_error(diag, path, "open");
  }
  if (fstat(*out_fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(*out_fd);
    errno = EINVAL;
    return table_error(diag, path, "fstat");
  }
  if (info.st_size < 0 || info.st_size > (off_t)VLART_MAX_ROUTING_BYTES) {
    close(*out_fd);
    vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "the routing table is too large", NULL);
    vlart_where(diag, "%s", path);
    vlart_why(diag, "it has %llu bytes", (unsigned long long)info.st_size);
    return VLART_STATUS_UNSUPPORTED;
  }
  *out_bytes = (size_t)info.st_size;
  return VLART_STATUS_OK;
}

static vlart_status_t read_options(const vlart_router_options_t *given, const char *call,
                                   vlart_diag_t *diag, vlart_router_options_t *out_options) {
  vlart_status_t status =
      vlart_copy_in(out_options, sizeof *out_options, sizeof *out_options, given, call, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  out_options->log_capacity =
      out_options->log_capacity == 0 ? DEFAULT_LOG : out_options->log_capacity;
  if (out_options->log_capacity > MOST_LOG) {
    return vlart_bad_argument(diag, call, "log_capacity is above 65536");
  }
  size_t length = out_options->state == NULL ? 0 : strlen(out_options->state);
  if (length > VLART_MAX_STATE_PATH || (out_options->state != NULL && length == 0)) {
    return vlart_bad_argument(diag, call, "the path of the state is empty or over 1000 bytes");
  }
  return VLART_STATUS_OK;
}

/* The parts whose size is known before the table is read: sizes are those of the limits. */
static vlart_router_t *take_router(const vlart_router_options_t *options, size_t table_bytes,
                                   vlart_arena_t *arena, uint8_t **out_table) {
  size_t counts = (size_t)VLART_MAX_ROUTES * VLART_MAX_BACKBONES;
  vlart_router_t *router = vlart_arena_take(arena, 1, sizeof *router);
  uint8_t *table = vlart_arena_take(arena, table_bytes, 1);
  double *words = vlart_arena_take(arena, VLART_MAX_ROUTE_DIM, sizeof *words);
  double *vector = vlart_arena_take(arena, VLART_MAX_ROUTE_DIM, sizeof *vector);
  vlart_outcomes_t *seen = vlart_arena_take(arena, counts, sizeof *seen);
  uint8_t *file = vlart_arena_take(arena, counts * sizeof *seen + 64, 1);
  vlart_decision_t *log = vlart_arena_take(arena, options->log_capacity, sizeof *log);
  if (arena->base != NULL && !arena->full) {
    *router = (vlart_router_t){.words = words,
                               .vector = vector,
                               .seen = seen,
                               .file = file,
                               .slot = 1,
                               .log = log,
                               .log_capacity = options->log_capacity};
    *out_table = table;
  }
  return router;
}

vlart_status_t vlart_router_required_bytes(const char *table, const vlart_router_options_t *options,
                                           vlart_diag_t *diag, size_t *out_bytes) {
  const char *call = "vlart_router_required_bytes";
  if (table == NULL || out_bytes == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  vlart_router_options_t chosen;
  int fd;
  size_t bytes;
  vlart_status_t status = read_options(options, call, diag, &chosen);
  if (status == VLART_STATUS_OK) {
    status = open_table(table, diag, &fd, &bytes);
  }
  if (status == VLART_STATUS_OK) {
    close(fd);
    vlart_arena_t arena;
    uint8_t *unused;
    vlart_arena_measure(&arena);
    take_router(&chosen, bytes, &arena, &unused);
    *out_bytes = vlart_arena_required(&arena);
  }
  return status;
}

static vlart_status_t read_file(int fd, uint8_t *out, size_t bytes, const char *path,
                                vlart_diag_t *diag) {
  for (size_t used = 0; used < bytes;) {
    ssize_t got = read(fd, out + used, bytes - used);
    if (got == 0 || (got < 0 && errno != EINTR)) {
      errno = got == 0 ? EIO : errno;
      return table_error(diag, path, "read");
    }
    used += got > 0 ? (size_t)got : 0;
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_router_init(const char *table, const vlart_router_options_t *options,
                                 void *arena_base, size_t arena_bytes, vlart_diag_t *diag,
                                 vlart_router_t **out_router) {
  const char *call = "vlart_router_init";
  if (table == NULL || out_router == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  *out_router = NULL;
  vlart_router_options_t chosen;
  vlart_status_t status = read_options(options, call, diag, &chosen);
  int fd = -1;
  size_t bytes = 0;
  if (status == VLART_STATUS_OK) {
    status = open_table(table, diag, &fd, &bytes);
  }
  if (status != VLART_STATUS_OK) {
    return status;
  }
  vlart_arena_t arena;
  uint8_t *data = NULL;
  vlart_arena_place(&arena, arena_base, arena_bytes);
  vlart_router_t *router = take_router(&chosen, bytes, &arena, &data);
  if (data == NULL) {
    close(fd);
    vlart_arena_measure(&arena);
    take_router(&chosen, bytes, &arena, &data);
    return vlart_arena_too_small(diag, call, vlart_arena_required(&arena), arena_bytes);
  }
  status = read_file(fd, data, bytes, table, diag);
  close(fd);
  if (status == VLART_STATUS_OK) {
    status = vlart_router_read_table(router, data, bytes, "routing table", diag);
  }
  if (status == VLART_STATUS_OK && chosen.state != NULL) {
    memcpy(router->path, chosen.state, strlen(chosen.state) + 1);
    status = vlart_router_load(router, diag);
  }
  *out_router = status == VLART_STATUS_OK ? router : NULL;
  return status;
}

/* Route, cluster, by, similarity. */
static vlart_status_t locate(vlart_router_t *router, const char *text, const float *embedding,
                             vlart_decision_t *decision, vlart_diag_t *diag) {
  const char *call = "vlart_router_decide";
  const vlart_router_record_t *rule = router->rule;
  char normalised[VLART_MAX_INSTRUCTION + 1];
  size_t length = strnlen(text, VLART_MAX_INSTRUCTION + 1);
  if (length > VLART_MAX_INSTRUCTION) {
    return vlart_bad_argument(diag, call, "the instruction is longer than 512 bytes");
  }
  if (vlart_text_fault((const uint8_t *)text, length) != length) {
    return vlart_bad_argument(diag, call, "the instruction is not UTF-8");
  }
  if (vlart_router_normalise(text, normalised) == 0) {
    return vlart_bad_argument(diag, call, "the instruction has no letter or digit");
  }
  for (uint32_t i = 0; i < router->first_cluster; i++) {
    const vlart_route_record_t *route = vlart_router_route(router, i);
    if (strcmp(vlart_string(&router->table, route->text), normalised) == 0) {
      decision->route = i;
      decision->cluster = route->cluster;
      decision->by = VLART_BY_TEXT;
      decision->similarity = 1.0;
      return VLART_STATUS_OK;
    }
  }
  if (embedding != NULL && rule->embedding_dim > 0) {
    for (uint32_t i = 0; i < rule->embedding_dim; i++) {
      router->vector[i] = (double)embedding[i];
    }
    decision->by = VLART_BY_EMBEDDING;
    decision->cluster = vlart_router_nearest(router, router->vector, rule->embedding_dim,
                                             rule->embedding_centroid_begin,
                                             rule->nearest_embedding, &decision->similarity);
  } else {
    vlart_router_count_ngrams(router, normalised);
    decision->by = VLART_BY_WORDS;
    decision->cluster =
        vlart_router_nearest(router, router->words, rule->text_dim, rule->text_centroid_begin,
                             rule->nearest_text, &decision->similarity);
  }
  bool found = decision->cluster != VLART_NONE;
  decision->by = found ? decision->by : VLART_BY_NOTHING;
  decision->route = router->first_cluster + (found ? decision->cluster : rule->cluster_count);
  return VLART_STATUS_OK;
}

static vlart_status_t check_embedding(const vlart_router_t *router, const float *embedding,
                                      uint32_t dim, vlart_diag_t *diag) {
  if ((embedding == NULL) != (dim == 0)) {
    return vlart_bad_argument(diag, "vlart_router_decide",
                              "an embedding without size, or a size without it");
  }
  if (embedding != NULL && router->rule->embedding_dim > 0 && dim != router->rule->embedding_dim) {
    return vlart_bad_argument(diag, "vlart_router_decide",
                              "the embedding has another size than the table's");
  }
  for (uint32_t i = 0; i < dim; i++) {
    if (!isfinite(embedding[i])) {
      vlart_fail(diag, VLART_STATUS_NOT_FINITE, "the embedding is not finite",
                 "route without it, and look at the encoder");
      vlart_where(diag, "number %u", i);
      vlart_why(diag, "it is %g", (double)embedding[i]);
      return VLART_STATUS_NOT_FINITE;
    }
  }
  return VLART_STATUS_OK;
}

static void append_log(vlart_router_t *router, const vlart_decision_t *decision) {
  uint32_t slot = (router->log_begin + router->log_count) % router->log_capacity;
  if (router->log_count == router->log_capacity) {
    router->log_begin = (router->log_begin + 1) % router->log_capacity;
    router->log_dropped++;
  } else {
    router->log_count++;
  }
  router->log[slot] = *decision;
}

vlart_status_t vlart_router_decide(vlart_router_t *router, const char *text, const float *embedding,
                                   uint32_t dim, vlart_diag_t *diag,
                                   vlart_decision_t *out_decision) {
  if (router == NULL || text == NULL || out_decision == NULL) {
    return vlart_bad_argument(diag, "vlart_router_decide", "a pointer is NULL");
  }
  if (out_decision->struct_size < sizeof *out_decision) {
    return vlart_bad_argument(diag, "vlart_router_decide", "struct_size is too small or not set");
  }
  vlart_decision_t decision = {
      .struct_size = sizeof decision, .delta = router->rule->delta, .tau = router->rule->tau};
  vlart_status_t status = check_embedding(router, embedding, dim, diag);
  if (status == VLART_STATUS_OK) {
    status = locate(router, text, embedding, &decision, diag);
  }
  if (status != VLART_STATUS_OK) {
    return status;
  }
  vlart_router_believe(router, &decision);
  decision.sequence = ++router->decisions;
  memcpy(decision.text, text, strnlen(text, sizeof decision.text - 1));
  router->last = decision;
  append_log(router, &decision);
  vlart_router_recorded(router, &decision);
  return vlart_copy_out(out_decision, &decision, sizeof decision);
}

/* The log's entry of the last decision, if it still waits there, gets its outcome. */
static void log_outcome(vlart_router_t *router, uint32_t outcome) {
  if (router->log_count > 0) {
    uint32_t newest = (router->log_begin + router->log_count - 1) % router->log_capacity;
    if (router->log[newest].sequence == router->last.sequence) {
      router->log[newest].outcome = outcome;
    }
  }
}

vlart_status_t vlart_router_report_outcome(vlart_router_t *router, uint32_t success,
                                           vlart_diag_t *diag) {
  const char *call = "vlart_router_report_outcome";
  if (router == NULL || success > 1) {
    return vlart_bad_argument(diag, call, "the router is NULL, or success is neither 0 nor 1");
  }
  if (router->last.struct_size == 0) {
    return vlart_bad_argument(diag, call, "no decision waits for an outcome");
  }
  vlart_outcomes_t *seen =
      &router->seen[router->last.route * router->backbone_count + router->last.backbone];
  seen->successes += success;
  seen->failures += 1 - success;
  if (seen->successes + seen->failures > VLART_OUTCOMES_KEPT) {
    seen->successes /= 2.0;
    seen->failures /= 2.0;
  }
  log_outcome(router, success == 1 ? VLART_OUTCOME_SUCCESS : VLART_OUTCOME_FAILURE);
  vlart_router_recorded_outcome(router, success);
  router->last.struct_size = 0;
  return router->path[0] == '\0' ? VLART_STATUS_OK : vlart_router_save(router, diag);
}

vlart_status_t vlart_router_drain(vlart_router_t *router, vlart_decision_t *out_decision) {
  if (router == NULL || out_decision == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  if (router->log_count == 0) {
    return VLART_STATUS_NOT_FOUND;
  }
  vlart_status_t status =
      vlart_copy_out(out_decision, &router->log[router->log_begin], sizeof *out_decision);
  if (status == VLART_STATUS_OK) {
    router->log_begin = (router->log_begin + 1) % router->log_capacity;
    router->log_count--;
  }
  return status;
}

vlart_status_t vlart_router_info(const vlart_router_t *router, vlart_router_info_t *out_info) {
  if (router == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  vlart_router_info_t info = {.backbone_count = router->backbone_count,
                              .route_count = router->route_count,
                              .cluster_count = router->rule->cluster_count,
                              .embedding_dim = router->rule->embedding_dim,
                              .generation = router->generation,
                              .recovered = router->recovered,
                              .log_count = router->log_count,
                              .log_dropped = router->log_dropped};
  return vlart_copy_out(out_info, &info, sizeof info);
}

const char *vlart_router_backbone(const vlart_router_t *router, uint32_t backbone) {
  if (router == NULL || backbone >= router->backbone_count) {
    return NULL;
  }
  const vlart_backbone_record_t *b =
      vlart_record(&router->table.tables[VLART_SECTION_BACKBONES], backbone);
  return vlart_string(&router->table, b->name);
}
