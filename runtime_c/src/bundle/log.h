/* The inside of a recording that is read: which blocks are good, and where the stream of events is at. */
#ifndef VLART_LOG_H
#define VLART_LOG_H

#include "plan/plan.h"

/* A place in the stream. */
typedef struct {
  uint64_t block; /* number of the block */
  uint32_t at;    /* in its bytes of the stream */
} vlart_log_place_t;

struct vlart_log {
  const uint8_t *data;
  const char *name; /* the caller's, while it is opened */
  vlart_log_record_t head;
  vlart_plan_t plan;
  uint64_t count; /* blocks of the ring of which the file has all bytes */
  uint8_t *good;  /* [count] 1: the checksum is right, and it is where it should be */
  uint8_t *event; /* [largest] one whole event */
  size_t largest; /* bytes that an event of this plan can have */
  vlart_log_place_t next;
  vlart_log_info_t info;
};

/* [open] NULL if the event is one of this plan's; else what is wrong with it. The record is 8-byte aligned. */
const char *vlart_log_event_fault(const vlart_plan_t *plan, const vlart_event_record_t *event,
                                  const void *record);

/* [open] The largest payload that an event of this plan has. */
size_t vlart_log_largest(const vlart_plan_t *plan);

#endif
