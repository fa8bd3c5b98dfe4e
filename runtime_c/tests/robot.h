/* What most C tests begin with: a bundle and a session of it, on the null engine unless the test brings another, and
   asynchronous control where it asks for it. Every arena is tried 64 bytes too small before it is given. */
#ifndef VLART_TESTS_ROBOT_H
#define VLART_TESTS_ROBOT_H

#include <pthread.h>
#include <stdbool.h>

#include "check.h"
#include "count_allocations.h"
#include "vlart/vlart.h"

typedef struct {
  vlart_bundle_t *bundle;
  vlart_session_t *session;
  vlart_async_t *async; /* NULL: the session alone */
  void *arenas[3];
  pthread_t worker;
  bool started;
} robot_t;

extern _Thread_local vlart_diag_t diag;

/* "SAMPLES/NAME", until the next call. */
const char *sample_path(const char *samples, const char *name);

vlart_bundle_t *open_bundle(const char *dir, void **out_arena);
vlart_session_t *open_session(const vlart_bundle_t *bundle, const vlart_session_options_t *options,
                              void **out_arena);

/* options: NULL: the null engine's, and its control as at the beginning. */
robot_t open_robot(const char *dir, const vlart_session_options_t *options);

/* options: NULL: the defaults. */
void make_async(robot_t *r, const vlart_async_options_t *options);

/* Serves in a thread of its own, until close_robot. */
void start_worker(robot_t *r);
void close_robot(robot_t *r);

vlart_value_info_t source_value(const vlart_bundle_t *bundle, uint32_t source);

/* Writes a whole source, through asynchronous control where there is. */
vlart_status_t write_source(const robot_t *r, uint32_t source, const void *data);

vlart_queue_info_t queue_of(const robot_t *r);
vlart_session_totals_t totals_of(const robot_t *r);
uint64_t runs_of(const vlart_session_t *session, uint32_t stage);

#endif
