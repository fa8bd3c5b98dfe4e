/* What a session tells a recorder, and how a replay makes it end where the recorded one did. Every function does nothing
   where nothing records. */
#ifndef VLART_RECORDED_H
#define VLART_RECORDED_H

#include "base/arena.h"
#include "plan/plan.h"
#include "record/track.h"

#define VLART_KEPT_TEXT 512u /* bytes of an instruction that is repeated with the sources */

typedef struct {
  vlart_track_t *track;             /* NULL: nothing records */
  uint64_t *runs;                   /* [stage_count] at the last step that was recorded */
  vlart_stage_time_record_t *times; /* [stage_count] room for an event */
  uint64_t chunks;                  /* good ones then */
  uint64_t request;                 /* of asynchronous control: which one is answered */
  uint64_t pops;
  char text[VLART_KEPT_TEXT]; /* the last instruction */
  uint32_t text_bytes;        /* 0: none, or it is longer */
  uint32_t text_source;
  bool replays;        /* the next step is a recorded one: no clock and no other thread ends it */
  uint32_t stop_stage; /* it ends before this stage; VLART_NONE: before none */
  vlart_status_t stop_status;
} vlart_recorded_t;

/* [init] */
void vlart_recorded_take(vlart_recorded_t *recorded, const vlart_plan_t *plan,
                         vlart_arena_t *arena);

/* [tick] Content that a source was given; `same`: it had it. */
void vlart_recorded_source(vlart_session_t *session, uint32_t source, bool same);
void vlart_recorded_refusal(vlart_track_t *track, uint32_t source, vlart_status_t status);

/* [tick] An instruction, before it is written; and after it was, so that it is repeated with the sources. */
void vlart_recorded_text(const vlart_session_t *session, uint32_t source, const char *text,
                         size_t bytes);
void vlart_recorded_keep_text(vlart_session_t *session, uint32_t source, const char *text,
                              size_t bytes);

/* [tick] */
void vlart_recorded_step(vlart_session_t *session, uint64_t deadline_us, vlart_status_t status);
void vlart_recorded_observe(vlart_session_t *session, vlart_status_t status);
void vlart_recorded_call(vlart_session_t *session, uint32_t kind, uint32_t index);

/* [tick] `actions`: [rows, dim] that were handed out. */
void vlart_recorded_pop(vlart_session_t *session, const float *actions, size_t rows,
                        vlart_status_t status);

/* [tick] An episode begins: what is in the sources, once more. */
void vlart_recorded_reset(vlart_session_t *session);

/* [tick] Whether a replayed step ends before this stage. */
static inline bool vlart_recorded_stops(const vlart_recorded_t *recorded, uint32_t stage) {
  return recorded->stop_stage == stage;
}

/* [tick] How a recorded step was refused before a stage ran: SOURCE_UNSET, STALE_INPUT, LANE_STALE; OK: it was not. */
vlart_status_t vlart_recorded_refusal_of(const vlart_session_t *session, vlart_diag_t *diag);

/* [tick] The recorded step is over. */
static inline void vlart_recorded_replayed(vlart_recorded_t *recorded) {
  recorded->replays = false;
  recorded->stop_stage = VLART_NONE;
}

/* [tick] Says so. */
vlart_status_t vlart_recorded_stop(const vlart_session_t *session, uint32_t stage,
                                   vlart_diag_t *diag);

#endif
