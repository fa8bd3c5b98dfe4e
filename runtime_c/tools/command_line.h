/* What the three programs do alike at their command line. */
#ifndef VLART_COMMAND_LINE_H
#define VLART_COMMAND_LINE_H

#include <stdbool.h>

#include "vlart/vlart.h"

/* Zeroed memory for `count` elements; ends the program where there is none. */
void *tool_allocate(size_t count, size_t bytes);

/* A whole number of at most `most`; false if the text, which may be NULL, is none. */
bool tool_read_count(const char *text, uint32_t most, uint32_t *out_count);

/* The four lines of a failure, on stderr. Returns the exit status. */
int tool_print_failure(vlart_status_t status, const vlart_diag_t *diag);

#endif
