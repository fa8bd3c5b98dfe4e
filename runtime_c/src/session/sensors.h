/* What is known of the sources as sensors: ranges, ages, counters. One thread at a time. */
#ifndef VLART_SENSORS_INSIDE_H
#define VLART_SENSORS_INSIDE_H

#include "plan/plan.h"
#include "vlart/vlart.h"

typedef struct {
  const vlart_guard_record_t *guard; /* NULL: the plan says nothing */
  uint32_t rows;                     /* of the table that it indexes; 0: none */
  uint64_t max_age_us;
  uint64_t time_us; /* when the content was captured */
  uint64_t next_us; /* of the next write, where `stamped` */
  uint32_t sequence;
  bool numbered; /* `sequence` is one */
  bool stamped;
  bool aged; /* `time_us` is one */
  vlart_sensor_info_t counts;
} vlart_sensor_t;

typedef struct {
  const vlart_plan_t *plan;
  vlart_sensor_t *of; /* [source_count] */
  vlart_sensor_options_t options;
  uint64_t limited; /* bit i: the age of source i is limited */
  uint64_t now_us;  /* of the caller's clock */
  bool told;        /* the caller says what time it is */
  bool trusting;    /* everything was checked by another: an asynchronous session's */
} vlart_sensors_t;

/* [init] Places or measures; then sets them up for `options`. `filled`: sources that the runtime fills. */
void vlart_sensors_take(vlart_sensors_t *sensors, const vlart_plan_t *plan, vlart_arena_t *arena);
void vlart_sensors_init(vlart_sensors_t *sensors, const vlart_sensor_options_t *options,
                        uint64_t filled);

/* [tick] Whether the content may be taken: finite, in range, a bool 0 or 1. Counts what it finds. */
vlart_status_t vlart_sensors_check(vlart_sensors_t *sensors, uint32_t source, const void *data,
                                   size_t bytes, vlart_diag_t *diag);

/* [tick] It was taken and lies at `data` (NULL: equal bytes lie there already). */
void vlart_sensors_taken(vlart_sensors_t *sensors, uint32_t source, void *data, size_t bytes);

/* [tick] STALE_INPUT if one of `needed` is too old. */
vlart_status_t vlart_sensors_fresh(vlart_sensors_t *sensors, uint64_t needed, vlart_diag_t *diag);

/* [tick] When the content that is being written was captured, microseconds. */
uint64_t vlart_sensors_captured(const vlart_sensors_t *sensors, uint32_t source);

/* [tick] The same is said of the next write; 0: nothing is. */
void vlart_sensors_capture(vlart_sensors_t *sensors, uint32_t source, uint64_t time_us);

void vlart_sensors_time(vlart_sensors_t *sensors, uint64_t now_us);
vlart_status_t vlart_sensors_stamp(vlart_sensors_t *sensors, uint32_t source, uint32_t sequence,
                                   uint64_t time_us, const char *call, vlart_diag_t *diag);
vlart_status_t vlart_sensors_info(const vlart_sensors_t *sensors, uint32_t source,
                                  vlart_sensor_info_t *out_info);

#endif
