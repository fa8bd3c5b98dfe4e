/* Writing an instruction that was compiled in advance. */
#ifndef VLART_KNOWN_INSTRUCTIONS_H
#define VLART_KNOWN_INSTRUCTIONS_H

#include "vlart/vlart.h"

/* [tick] Writes its sources, and what was computed of them in advance; those stages need not run. */
vlart_status_t vlart_instruction_apply(vlart_session_t *session, uint32_t instruction,
                                       vlart_diag_t *diag);

#endif
