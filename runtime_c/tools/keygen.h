/* ssh-keygen as a child process. How much it says and how long it takes are bounded. */
#ifndef VLART_KEYGEN_H
#define VLART_KEYGEN_H

#include <stddef.h>
#include <stdio.h>

typedef struct {
  int status; /* its exit status; -1: it was not run to its end, and `said` has why */
  char *out;  /* its standard output, up to a NUL */
  char *said; /* its standard error, up to a NUL */
} keygen_answer_t;

/* A private file with this content, which has no name; NULL with errno. Children inherit it. */
FILE *keygen_file(const void *data, size_t bytes);

/* Runs `arguments`, which end with NULL, with `input` as a file on its standard input. `answer` is zero, or that of
   another question, which it replaces. */
void keygen_ask(char *const *arguments, const void *input, size_t bytes, keygen_answer_t *answer);

void keygen_forget(keygen_answer_t *answer);

#endif
