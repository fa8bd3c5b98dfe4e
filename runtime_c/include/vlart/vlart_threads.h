/* Part of vlart.h: how a thread runs: its priority, its cores, and whether the process's memory may be paged out.
   Off by default: a program that asks for nothing gets what the system gives it. What a system must allow for it:
   docs/boards.md. Phases, ownership and structs are as in vlart.h. */
#ifndef VLART_THREADS_H
#define VLART_THREADS_H

#include "vlart/vlart.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VLART_MAX_CORES 1024u
#define VLART_MAX_PRIORITY 99u

/* [init] The calling thread runs as `options` say from here on: a worker before it enters vlart_async_serve, a lane's
   thread before its first step, the control thread before its loop. THREAD_REFUSED: the system does not allow it, and
   the thread runs as before. Threads that it starts later inherit its priority and its cores. */
VLART_API vlart_status_t vlart_thread_apply(const vlart_thread_options_t *options,
                                            vlart_diag_t *diag);

#ifdef __cplusplus
}
#endif

#endif
