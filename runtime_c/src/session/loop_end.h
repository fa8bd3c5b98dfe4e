/* Loops whose end the data decides: a condition that the stage carries is 1 after the last iteration. */
#ifndef VLART_LOOP_END_H
#define VLART_LOOP_END_H

#include <stdbool.h>

#include "vlart/vlart.h"

/* [tick] Whether a stage's run is over after an iteration. */
bool vlart_loop_is_over(const vlart_session_t *session, uint32_t stage, uint32_t iteration);

/* [tick] After the last iteration that ran: the carried values are where their results are. LOOP_NOT_ENDED if the loop
   had to end and did not. */
vlart_status_t vlart_loop_finish(vlart_session_t *session, uint32_t stage, uint32_t iteration,
                                 vlart_diag_t *diag);

#endif
