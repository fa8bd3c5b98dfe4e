/* Prints a plan as the compiler's plan.txt has it, byte for byte. */
#ifndef VLART_PLAN_TEXT_H
#define VLART_PLAN_TEXT_H

#include <stdio.h>

#include "plan/plan.h"

void vlart_plan_print(FILE *out, const vlart_plan_t *plan);

/* A string in quotes, with a backslash before quotes and backslashes. */
void vlart_print_quoted(FILE *out, const char *string);

#endif
