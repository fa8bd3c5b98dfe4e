/* Where the values of a stage lie in each of its iterations. */
#ifndef VLART_BIND_ADDRESSES_H
#define VLART_BIND_ADDRESSES_H

#include "vlart/vlart.h"

/* The value that a carry writes in an iteration of a loop of so many. */
uint32_t vlart_carried_output(const vlart_carry_record_t *carry, uint32_t iteration,
                              uint32_t iterations);

/* [init] Tells the engine of stage `index` the addresses of the values in every iteration. */
vlart_status_t vlart_session_bind(vlart_session_t *session, uint32_t index, vlart_diag_t *diag);

#endif
