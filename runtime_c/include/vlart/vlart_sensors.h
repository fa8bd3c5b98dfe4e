/* Part of vlart.h: what the content of a source must be like, and how old it may be.

   A plan may say of a source (recipe, [safety]) in which range its numbers lie and how old its
   content may be; without that, content is checked for NaN and infinity alone. Checks are made
   where content is written, ages where a step or a request would use it:
     NOT_FINITE          a NaN or an infinity, named by source and element; the source keeps what it had
     INPUT_OUT_OF_RANGE  the same of a number outside the range, where the plan says "refuse"; where
                         it says "count", the content is taken and counted
     STALE_INPUT         of a step, an observe or a request: a source is older than it may be. Nothing
                         runs; the last safe chunk stays (asynchronously: until its end, and then
                         the safe action)
   A number of f32 or f64 that is too small to be normal (below 1.2e-38, 2.3e-308) is stored as a
   zero of its sign: many processors compute with such numbers several times more slowly. A source that is
   read gives the zero.

   Ages are counted from the write, by CLOCK_MONOTONIC, also where the bytes are equal. A caller
   with a clock of its own says what time it is (vlart_session_time), and one that knows when and as
   what number a sensor captured something says that before it writes it (vlart_session_stamp).
   Times are microseconds from any origin and may wrap around; so may numbers, at 32 bits.

   Phases, ownership, threads and structs are as in vlart.h. */
#ifndef VLART_SENSORS_H
#define VLART_SENSORS_H

#include "vlart/vlart.h"

#ifdef __cplusplus
extern "C" {
#endif

/* For recordings, which are of any age and may be of anything: what replays and proofs accept. */
#define VLART_ACCEPT_RECORDED (VLART_ACCEPT_OUT_OF_RANGE | VLART_ACCEPT_STALE)

/* What a session takes as it comes, whatever the plan says: bits. */
#define VLART_ACCEPT_NOT_FINITE 1u   /* NaN and infinity */
#define VLART_ACCEPT_OUT_OF_RANGE 2u /* numbers outside their range; they are not counted either */
#define VLART_ACCEPT_STALE 4u        /* content of any age */
#define VLART_ACCEPT_DENORMAL 8u     /* numbers too small to be normal are stored as they are */

typedef struct {
  size_t struct_size;
  uint32_t accept; /* bits of VLART_ACCEPT_... */
  uint32_t reserved;
  uint64_t max_age_us; /* of sources of class observation, step and tick of which the plan says
                          nothing, apart from those that the runtime fills; 0: any age */
} vlart_sensor_options_t;

typedef struct {
  size_t struct_size;
  uint64_t writes;       /* that were accepted */
  uint64_t not_finite;   /* writes that were refused for a NaN or an infinity */
  uint64_t out_of_range; /* writes with a number outside the range, refused or not */
  uint64_t denormal;     /* writes in which a number was stored as zero */
  uint64_t stale;        /* steps, observes or requests that were refused for this source's age */
  uint64_t reordered;    /* stamps that were not after the last one */
  uint64_t lost;         /* numbers between two stamps that never came */
  uint64_t age_us;       /* when it was last looked at; 0 where no age is stated */
  uint64_t max_age_us;   /* 0: any age */
  uint32_t element;      /* of the last number outside the range */
  float number;          /* that number */
} vlart_sensor_info_t;

/* [init] Before the first write, and before vlart_async_init, which takes it over. NULL: the defaults. */
VLART_API vlart_status_t vlart_session_sensors(vlart_session_t *session,
                                               const vlart_sensor_options_t *options,
                                               vlart_diag_t *diag);

/* [tick] What time it is on the caller's clock; before the writes, steps and observes that are to know it.
   From the first call on CLOCK_MONOTONIC is not asked any more, and what was written before it has
   no age: it must be written again where one is asked for. The session's thread. */
VLART_API vlart_status_t vlart_session_time(vlart_session_t *session, uint64_t now_us);

/* [tick] The next write of this source was captured at `time_us`, as number `sequence`. STALE_INPUT:
   that is not after the last number (compared modulo 2^32); do not write it. Without a clock of the
   caller's, `time_us` is of CLOCK_MONOTONIC. The session's thread. */
VLART_API vlart_status_t vlart_session_stamp(vlart_session_t *session, uint32_t source,
                                             uint32_t sequence, uint64_t time_us,
                                             vlart_diag_t *diag);

/* [tick] Counters since init. The session's thread. */
VLART_API vlart_status_t vlart_session_sensor(const vlart_session_t *session, uint32_t source,
                                              vlart_sensor_info_t *out_info);

/* [tick] The same of asynchronous control, where ages are looked at by vlart_async_request: STALE_INPUT
   hands nothing over, and what pop says of it is in the diagnostic. The control thread. */
VLART_API vlart_status_t vlart_async_time(vlart_async_t *async, uint64_t now_us);
VLART_API vlart_status_t vlart_async_stamp(vlart_async_t *async, uint32_t source, uint32_t sequence,
                                           uint64_t time_us, vlart_diag_t *diag);
VLART_API vlart_status_t vlart_async_sensor(const vlart_async_t *async, uint32_t source,
                                            vlart_sensor_info_t *out_info);

#ifdef __cplusplus
}
#endif

#endif
