/* Instructions that were compiled in advance, as records of the plan. */
#ifndef VLART_PLAN_INSTRUCTIONS_H
#define VLART_PLAN_INSTRUCTIONS_H

#include "plan/plan.h"

/* Index of the instruction with exactly this text for a source, or VLART_NONE. */
uint32_t vlart_instruction_find(const vlart_plan_t *plan, uint32_t source, const char *text,
                                size_t bytes);

/* The i-th value that is stored with an instruction. */
const vlart_stored_record_t *vlart_instruction_value(const vlart_plan_t *plan,
                                                     const vlart_instruction_record_t *row,
                                                     uint32_t i);

/* Bit i: source i is stored with an instruction. */
uint64_t vlart_instruction_sources(const vlart_plan_t *plan, const vlart_instruction_record_t *row);

/* Whether a stage depends on some of these sources and on nothing else. */
bool vlart_instruction_covers(const vlart_plan_t *plan, uint32_t stage, uint64_t own);

/* The weight that holds a value after an instruction, or VLART_NONE. */
uint32_t vlart_instruction_weight(const vlart_plan_t *plan, uint32_t instruction, uint32_t value);

/* The texts known for a source, quoted, as many as fit. */
void vlart_instruction_names(const vlart_plan_t *plan, uint32_t source, char *out, size_t capacity);

#endif
