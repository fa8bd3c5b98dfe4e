/* Part of vlart.h: which of several backbones carries out an instruction.

   A router reads a routing table (`vlacompile route fit`), decides, and learns from what is
   reported. Phases, ownership, threads and structs are as in vlart.h, with one phase more:
     [task]  once per instruction or episode: bounded, allocates nothing;
             vlart_router_report_outcome writes a file
   A router belongs to one thread at a time. */
#ifndef VLART_ROUTER_H
#define VLART_ROUTER_H

#include "vlart/vlart.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Limits of this reader; a table beyond them is refused as UNSUPPORTED. */
#define VLART_MAX_ROUTES 256u
#define VLART_MAX_CLUSTERS 64u
#define VLART_MAX_ROUTE_DIM 4096u        /* of texts and of embeddings */
#define VLART_MAX_INSTRUCTION 512u       /* bytes, without the NUL */
#define VLART_MAX_ROUTING_BYTES 8388608u /* of the table's file */

/* How an instruction found its route, and the finest level with evidence for every backbone. */
enum { VLART_BY_TEXT = 0, VLART_BY_EMBEDDING = 1, VLART_BY_WORDS = 2, VLART_BY_NOTHING = 3 };
enum { VLART_LEVEL_TASK = 0, VLART_LEVEL_CLUSTER = 1, VLART_LEVEL_ALL = 2, VLART_LEVEL_PRIOR = 3 };
enum { VLART_OUTCOME_UNKNOWN = 0, VLART_OUTCOME_SUCCESS = 1, VLART_OUTCOME_FAILURE = 2 };

typedef struct {
  size_t struct_size;
  const char *state; /* path without ending: STATE.0 and STATE.1 are the two generations, STATE.tmp
                        is written first; NULL: nothing is kept over a restart. Copied. */
  uint32_t log_capacity; /* decisions that wait to be drained; 0: 64 */
  uint32_t reserved;
} vlart_router_options_t;

typedef struct {
  size_t struct_size;
  uint64_t sequence;       /* 1, 2, ... since init */
  uint32_t route;          /* record of the table */
  uint32_t cluster;        /* or VLART_NONE */
  uint32_t by;             /* VLART_BY_... */
  uint32_t level;          /* VLART_LEVEL_... */
  uint32_t backbone;       /* the one to run */
  uint32_t backbone_count; /* valid entries of the arrays */
  uint32_t outcome;        /* VLART_OUTCOME_..., as reported before the decision was drained */
  uint32_t reserved;
  double similarity; /* cosine to the nearest cluster; 1 for a listed instruction */
  double delta;
  double tau;
  double alpha[VLART_MAX_BACKBONES]; /* posterior of success: Beta(alpha, beta) */
  double beta[VLART_MAX_BACKBONES];
  double probability[VLART_MAX_BACKBONES]; /* that it is not worse than the last by over delta */
  double cost_ms[VLART_MAX_BACKBONES];     /* expected, of an episode */
  char text[128];                          /* the instruction's beginning */
} vlart_decision_t;

typedef struct {
  size_t struct_size;
  uint32_t backbone_count;
  uint32_t route_count;
  uint32_t cluster_count;
  uint32_t embedding_dim; /* 0: the table was fitted without embeddings */
  uint64_t generation;    /* of the state on disk: how often it was saved; 0: never */
  uint32_t recovered;     /* 1: one generation on disk was unusable and the other one is in use */
  uint32_t log_count;     /* decisions that wait to be drained */
  uint64_t log_dropped;   /* decisions that were overwritten before they were drained */
} vlart_router_info_t;

/* [init] Bytes of arena that vlart_router_init needs. `options` may be NULL. */
VLART_API vlart_status_t vlart_router_required_bytes(const char *table,
                                                     const vlart_router_options_t *options,
                                                     vlart_diag_t *diag, size_t *out_bytes);

/* [init] Reads and validates the table, and the state if there is one. No state is a fresh start.
   A generation that is damaged is passed over for the other one (info.recovered); if none is left,
   CORRUPT. A state of another table is refused as VERSION. */
VLART_API vlart_status_t vlart_router_init(const char *table, const vlart_router_options_t *options,
                                           void *arena, size_t arena_bytes, vlart_diag_t *diag,
                                           vlart_router_t **out_router);

/* [task] Which backbone carries out `text`. embedding: of info.embedding_dim numbers, used where
   the text is not listed; NULL with dim 0: by the words. The decision is logged. */
VLART_API vlart_status_t vlart_router_decide(vlart_router_t *router, const char *text,
                                             const float *embedding, uint32_t dim,
                                             vlart_diag_t *diag, vlart_decision_t *out_decision);

/* [task] success: 1 or 0, of the episode of the last decision; once per decision. The posterior
   counts it, and the state is on disk when this returns OK. On IO the count stays and is saved
   with the next outcome; the state on disk is the one before or the new one, whole. */
VLART_API vlart_status_t vlart_router_report_outcome(vlart_router_t *router, uint32_t success,
                                                     vlart_diag_t *diag);

/* [task] Takes the oldest decision out of the log; NOT_FOUND without a diagnostic when empty. */
VLART_API vlart_status_t vlart_router_drain(vlart_router_t *router, vlart_decision_t *out_decision);

/* Descriptions; the router's thread. A backbone out of range gives NULL. */
VLART_API vlart_status_t vlart_router_info(const vlart_router_t *router,
                                           vlart_router_info_t *out_info);
VLART_API const char *vlart_router_backbone(const vlart_router_t *router, uint32_t backbone);

#ifdef __cplusplus
}
#endif

#endif
