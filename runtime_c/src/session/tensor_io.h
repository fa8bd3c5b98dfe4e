/* What goes into a session. */
#ifndef VLART_TENSOR_IO_H
#define VLART_TENSOR_IO_H

#include "plan/plan.h"

/* [tick] Whether a tensor has the type and the shape that the plan says of a source. The pointers are not NULL
   and the source exists. What it holds is checked by vlart_sensors_check. */
vlart_status_t vlart_check_shape(const vlart_plan_t *plan, uint32_t source, size_t bytes,
                                 uint32_t dtype, uint32_t rank, const uint64_t *dims,
                                 vlart_diag_t *diag);

#endif
