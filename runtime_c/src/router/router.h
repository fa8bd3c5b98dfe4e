/* The inside of a router. One thread at a time. */
#ifndef VLART_ROUTER_INSIDE_H
#define VLART_ROUTER_INSIDE_H

#include "container/container.h"
#include "record/track.h"
#include "vlart/vlart_router.h"

#define VLART_OUTCOMES_KEPT 4096.0 /* per route and backbone; beyond, the older ones count half */
#define VLART_MAX_STATE_PATH 1000u

typedef struct {
  double successes;
  double failures;
} vlart_outcomes_t;

struct vlart_router {
  vlart_container_t table;
  const vlart_router_record_t *rule;
  uint32_t table_crc;
  uint32_t backbone_count;
  uint32_t route_count;
  uint32_t first_cluster; /* route of the others of cluster 0; the last one is of no cluster */
  double *words;          /* [text_dim] */
  double *vector;         /* [embedding_dim] */
  vlart_outcomes_t *seen; /* [route_count * backbone_count] since the table was fitted */
  uint8_t *file;          /* room for a state file */
  char path[VLART_MAX_STATE_PATH + 1]; /* empty: nothing is kept */
  uint64_t generation;
  uint32_t slot; /* where `generation` lies */
  bool recovered;
  uint64_t decisions;
  vlart_decision_t last; /* struct_size 0: none, or its outcome was reported */
  vlart_decision_t *log; /* [log_capacity] a ring */
  uint32_t log_capacity;
  uint32_t log_begin;
  uint32_t log_count;
  uint64_t log_dropped;
  vlart_track_t *track; /* NULL: nothing records */
};

static inline const vlart_route_record_t *vlart_router_route(const vlart_router_t *router,
                                                             uint32_t route) {
  return vlart_record(&router->table.tables[VLART_SECTION_ROUTES], route);
}

static inline const vlart_evidence_record_t *vlart_router_evidence(const vlart_router_t *router,
                                                                   uint32_t route,
                                                                   uint32_t backbone) {
  return vlart_record(&router->table.tables[VLART_SECTION_EVIDENCE],
                      route * router->backbone_count + backbone);
}

/* [init] router_table.c: every rule that a table must obey; fills what the router knows of it. */
vlart_status_t vlart_router_read_table(vlart_router_t *router, const uint8_t *data, size_t bytes,
                                       const char *name, vlart_diag_t *diag);

/* [task] router_ngrams.c. Normalised text, NUL-terminated, of at most as many bytes; its length. */
size_t vlart_router_normalise(const char *text, char *out);
/* How often each run of letters occurs, weighted, into router->words. */
void vlart_router_count_ngrams(vlart_router_t *router, const char *normalised);
/* The cluster with the largest cosine, or VLART_NONE where that is below `nearest`. */
uint32_t vlart_router_nearest(const vlart_router_t *router, const double *vector, uint32_t dim,
                              uint32_t centroid_begin, double nearest, double *out_similarity);

/* [task] router_belief.c: fills level, backbone and beliefs of a decision whose route is known. */
void vlart_router_believe(const vlart_router_t *router, vlart_decision_t *decision);

/* [task] router_recorded.c. */
void vlart_router_recorded(vlart_router_t *router, const vlart_decision_t *decision);
void vlart_router_recorded_outcome(vlart_router_t *router, uint32_t success);

/* router_state.c. [init] size of the file; loads it. [task] saves it. */
size_t vlart_router_state_bytes(const vlart_router_t *router);
typedef enum {
  VLART_STATE_MISSING,
  VLART_STATE_GOOD,
  VLART_STATE_DAMAGED,
  VLART_STATE_FOREIGN, /* of another table or version */
  VLART_STATE_UNREADABLE
} vlart_state_kind_t;
/* What the bytes of a state file are: GOOD, DAMAGED or FOREIGN. The counts follow its head. */
vlart_state_kind_t vlart_router_read_state(const vlart_router_t *router, const uint8_t *data,
                                           size_t bytes, uint64_t *out_generation);
vlart_status_t vlart_router_load(vlart_router_t *router, vlart_diag_t *diag);
vlart_status_t vlart_router_save(vlart_router_t *router, vlart_diag_t *diag);

#endif
