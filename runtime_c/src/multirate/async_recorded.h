/* What the control thread of asynchronous control tells a recorder. Every function does nothing where nothing records. */
#ifndef VLART_ASYNC_RECORDED_H
#define VLART_ASYNC_RECORDED_H

#include "multirate/async.h"

/* [tick] `o`: NULL where nothing was handed over. */
void vlart_async_recorded_request(const vlart_async_t *async, const vlart_observation_t *o,
                                  vlart_status_t status);
void vlart_async_recorded_cancel(const vlart_async_t *async, uint32_t how);
void vlart_async_recorded_select(const vlart_async_t *async, uint32_t backbone);
void vlart_async_recorded_result(const vlart_async_t *async, const vlart_result_t *r);
void vlart_async_recorded_pop(const vlart_async_t *async, const float *action,
                              vlart_status_t status);

/* [tick] The worker's thread, into the session's track. */
void vlart_async_recorded_take(vlart_async_t *async, const vlart_observation_t *o);

#endif
