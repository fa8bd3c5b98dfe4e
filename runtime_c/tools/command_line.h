/* What the three programs do alike at their command line. */
#ifndef VLART_COMMAND_LINE_H
#define VLART_COMMAND_LINE_H

#include <stdbool.h>

#include "vlart/vlart.h"

/* Zeroed memory for `count` elements; ends the program where there is none. */
void *tool_allocate(size_t count, size_t bytes);

/* A whole number of at most `most`; false if the text, which may be NULL, is none. */
bool tool_read_count(const char *text, uint32_t most, uint32_t *out_count);

bool tool_wants_help(int argc, char **argv);

/* One of a program's options. Where its value goes: a flag has none, and of `text` and `count` one is set. least, most: of a
   count. */
typedef struct {
  const char *name;
  bool *flag;
  const char **text;
  uint32_t *count;
  uint32_t least, most;
} tool_option_t;

/* Reads options, and the one word beside them that names a bundle. Returns the argument that is wrong, or NULL. */
const char *tool_read_options(int argc, char **argv, const tool_option_t *options, size_t count,
                              const char **bundle);

/* Of the rows of a file, what stands behind a key and its colon, without the line end. False: not there. */
bool tool_find_row(const char *path, const char *key, char *out, size_t bytes);

/* The four lines of a failure, on stderr. Returns the exit status. */
int tool_print_failure(vlart_status_t status, const vlart_diag_t *diag);

/* Wrong usage: says at which argument, which may be any bytes. Returns the exit status. */
int tool_wrong_usage(const char *program, const char *argument, const char *usage);

/* First of all: what the shell closed of stdin, stdout and stderr leads nowhere, and no file that is opened later is
   written to in its place. */
void tool_begin(void);

/* Last of all: sends what was printed. Returns `exit_status`, or what tool_print_failure says if stdout did not take all
   of it. */
int tool_end(int exit_status);

/* Whether a child that a signal ended wrote to a stdout that nobody reads any more: ends this process alike, as shells
   expect of whoever writes to a closed pipe. `status`: as waitpid says it. */
void tool_end_as_child(int status);

#endif
