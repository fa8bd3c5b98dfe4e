/* Instructions that were compiled in advance. */
#ifndef VLART_INSTRUCTION_H
#define VLART_INSTRUCTION_H

#include "session.h"

/* [open] The plan's records. */
vlart_status_t vlart_plan_check_instructions(const vlart_plan_t *plan, vlart_diag_t *diag);

/* [tick] Index of the instruction with exactly this text for a source, or VLART_NONE. */
uint32_t vlart_instruction_find(const vlart_plan_t *plan, uint32_t source, const char *text,
                                size_t bytes);

/* [tick] Writes its sources, and what was computed of them in advance; those stages need not run. */
vlart_status_t vlart_instruction_apply(vlart_session_t *session, uint32_t instruction,
                                       vlart_diag_t *diag);

/* [tick] The weight that holds a value after an instruction, or VLART_NONE. */
uint32_t vlart_instruction_stored(const vlart_plan_t *plan, uint32_t instruction, uint32_t value);

/* The texts known for a source, quoted, as many as fit. */
void vlart_instruction_names(const vlart_plan_t *plan, uint32_t source, char *out, size_t capacity);

#endif
