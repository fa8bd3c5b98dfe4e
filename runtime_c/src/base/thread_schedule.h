/* How the calling thread is scheduled. Knows nothing of sessions. */
#ifndef VLART_THREAD_SCHEDULE_H
#define VLART_THREAD_SCHEDULE_H

#include <sched.h>

#include "vlart/vlart.h"

/* As a thread was, to be put back. */
typedef struct {
  int policy;
  struct sched_param param;
  cpu_set_t cores;
} vlart_schedule_t;

/* [init] BAD_ARGUMENT where the options name what there cannot be. */
vlart_status_t vlart_schedule_check(const vlart_thread_options_t *given, const char *call,
                                    vlart_diag_t *diag, vlart_thread_options_t *out_options);

/* [init] The calling thread runs as checked options say; `out_before` (NULL: not wanted) is as it was. On a failure it
   runs as before. */
vlart_status_t vlart_schedule_apply(const vlart_thread_options_t *options, const char *call,
                                    vlart_diag_t *diag, vlart_schedule_t *out_before);
/* [init] That the calling thread may use; 1 where the system does not tell. */
uint32_t vlart_schedule_processors(void);
void vlart_schedule_restore(const vlart_schedule_t *before);

#endif
