/* Work that may have no end, take all memory or crash, in a child process: what an engine makes of a bundle. */
#ifndef VLART_WATCHED_CHILD_H
#define VLART_WATCHED_CHILD_H

#include <stdatomic.h>

#include "run.h"

enum {
  WATCHED_SECONDS = 300
}; /* without progress, after which a child is ended, unless the options say it */

/* What the child has done so far, in memory that both share. */
struct run_progress {
  _Atomic uint64_t parts; /* a session was opened, a frame was replayed */
};

/* How the child ended. */
typedef struct {
  unsigned error; /* errno, where the system gives no process */
  bool stuck;     /* nothing was done for the time that it has */
  int status;     /* as waitpid says it */
} watched_end_t;

/* Runs `work` in a child, whose exit status is what it returns. A child in which nothing was done for `seconds` (0: any
   time) is ended, and so is all that it would have said. */
watched_end_t watched_run(int (*work)(void *user, run_progress_t *progress), void *user,
                          uint32_t seconds);

/* Whether the child ended by itself; if not, `diag` says what happened to `what`, such as "the run". */
bool watched_ended(const watched_end_t *end, const char *what, const char *bundle, uint32_t seconds,
                   vlart_diag_t *diag);

/* In the child, once the bundle is open: memory of its own that it may take from now on, options.memory_mib. 0: any.
   RUN_UNSAID: three times what the bundle holds, and WATCHED_SPARE_BYTES. */
void watched_limit_memory(const run_t *run);

#endif
