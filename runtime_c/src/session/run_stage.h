/* [tick] One stage, run to its end. Touches what belongs to the stage alone, so that stages that do not depend on each
   other may be run by several threads. */
#ifndef VLART_RUN_STAGE_H
#define VLART_RUN_STAGE_H

#include <stdbool.h>

#include "vlart/vlart.h"

typedef struct {
  uint64_t began_ns;
  uint64_t limit_ns; /* from began_ns; UINT64_MAX: none */
} vlart_clock_limit_t;

/* deadline_us: 0: none. */
vlart_clock_limit_t vlart_clock_start(uint64_t deadline_us);

bool vlart_clock_is_late(const vlart_clock_limit_t *clock);

/* DEADLINE_MISSED, before an iteration of a stage. */
vlart_status_t vlart_clock_missed(const vlart_session_t *session, uint32_t stage,
                                  uint32_t iteration, const vlart_clock_limit_t *clock,
                                  vlart_diag_t *diag);

/* out_refused: whether it was the engine that failed. */
vlart_status_t vlart_stage_run(vlart_session_t *session, uint32_t index,
                               const vlart_clock_limit_t *clock, bool *out_refused,
                               vlart_diag_t *diag);

/* The stage's outputs are those of a whole run. */
void vlart_stage_mark_run(vlart_session_t *session, uint32_t index);

#endif
