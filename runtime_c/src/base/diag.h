/* Fills the caller's diagnostic. Knows nothing of bundles or sessions. Never allocates. */
#ifndef VLART_DIAG_H
#define VLART_DIAG_H

#include "vlart/vlart.h"

#if defined(__GNUC__)
#define VLART_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define VLART_PRINTF(text, first)
#endif

/* Starts a diagnostic and returns `status`, so that a failure reads `return vlart_fail(...)`.
   `fix` NULL means the help sentence of the status. */
vlart_status_t vlart_fail(vlart_diag_t *diag, vlart_status_t status, const char *what,
                          const char *fix);

/* Fill the two lines with numbers in them, after vlart_fail. The formatter knows %s, %u, %llu,
   %zu, %08x and %g only. */
void vlart_where(vlart_diag_t *diag, const char *format, ...) VLART_PRINTF(2, 3);
void vlart_why(vlart_diag_t *diag, const char *format, ...) VLART_PRINTF(2, 3);

/* Any bytes as a line in UTF-8 that a terminal shows and does not act on; cut to `capacity`, with its NUL. */
void vlart_show(char *out, size_t capacity, const char *line);

/* Another cure than the one that vlart_fail was given. */
void vlart_fix(vlart_diag_t *diag, const char *fix);

/* A record of a file is wrong: CORRUPT, "FILE, SECTION[INDEX]", why. */
vlart_status_t vlart_corrupt(vlart_diag_t *diag, const char *file, const char *section,
                             uint32_t index, const char *why_format, ...) VLART_PRINTF(5, 6);

/* The arena holds too little: OUT_OF_MEMORY. */
vlart_status_t vlart_arena_too_small(vlart_diag_t *diag, const char *call, size_t needed,
                                     size_t given);

/* A pointer, index or struct_size is wrong: BAD_ARGUMENT. */
vlart_status_t vlart_bad_argument(vlart_diag_t *diag, const char *call, const char *why);

#endif
