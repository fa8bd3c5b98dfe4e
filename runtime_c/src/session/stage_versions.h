/* What a session knows of its stages: which of them are up to date, and what they cost. */
#ifndef VLART_STAGE_VERSIONS_H
#define VLART_STAGE_VERSIONS_H

#include "bundle/backend.h"

/* One stage of a running session. */
typedef struct {
  const vlart_backend_t *backend;
  void *engine;
  uint64_t *seen;         /* [dep_count] version of each source when the stage last ran */
  uint64_t seen_advances; /* of the histories, when the stage last ran */
  uint64_t seen_moves;    /* of the carried values, when the stage last ran */
  bool current;  /* the last run ended well; with `seen`, whether the stage may be skipped */
  bool readable; /* the outputs are those of a whole run */
  uint64_t runs;
  uint64_t iterations;
  uint32_t last_iterations; /* of the last completed run */
  uint64_t last_ns;
  uint64_t total_ns;
  uint64_t min_ns;
  uint64_t max_ns;
} vlart_stage_state_t;

/* [tick] Whether a stage need not run. */
bool vlart_stage_is_current(const vlart_session_t *session, uint32_t index);

/* [tick] The outputs of a stage are those of its sources as they are now. */
void vlart_stage_made_current(vlart_session_t *session, uint32_t index);

#endif
