/* What goes into a session. */
#ifndef VLART_TENSOR_IO_H
#define VLART_TENSOR_IO_H

#include <stdatomic.h>

#include "plan/plan.h"

/* [tick] Whether a tensor has the type and the shape that the plan says of a source. The pointers are not NULL
   and the source exists. What it holds is checked by vlart_sensors_check. */
vlart_status_t vlart_check_shape(const vlart_plan_t *plan, uint32_t source, size_t bytes,
                                 uint32_t dtype, uint32_t rank, const uint64_t *dims,
                                 vlart_diag_t *diag);

/* [init] Before the first write. */
void vlart_written_init(vlart_session_t *session);

/* [tick] What came as a set since the last time goes into the sources. */
void vlart_written_take(vlart_session_t *session);

/* [tick] BAD_ARGUMENT where another thread has written a source of this observation; the first one to write one is the
   one that may, until vlart_written_end. */
vlart_status_t vlart_written_by_one(atomic_uintptr_t *writer, const char *call, vlart_diag_t *diag);
void vlart_written_end(atomic_uintptr_t *writer);

/* [tick] What was observed until now is of the last episode. */
void vlart_written_end_episode(vlart_session_t *session);

#endif
