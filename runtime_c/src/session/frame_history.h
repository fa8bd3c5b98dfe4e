/* Values of earlier observations. */
#ifndef VLART_FRAME_HISTORY_H
#define VLART_FRAME_HISTORY_H

#include "plan/plan.h"

/* [tick] Before a history source is written: begins an observation, if the last one is encoded. */
void vlart_history_advance(vlart_session_t *session);

/* [tick] First observation: fills the delays of sources, or of what stage `index` wrote. */
void vlart_history_fill(vlart_session_t *session, vlart_origin_t origin, uint32_t index);

/* [tick] The first `stages` stages are up to date: the observation may be encoded with that. */
void vlart_history_passed(vlart_session_t *session, uint32_t stages);

#endif
