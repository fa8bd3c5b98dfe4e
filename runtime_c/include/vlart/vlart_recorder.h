/* Part of vlart.h: a flight recorder: what a policy saw, computed and handed out, in a file of bounded size.

   A recorder has a thread of its own, the only one that touches the file. What is recorded (sessions, asynchronous
   control, routers) hands it events through memory that was placed at [init]: a tick copies its event there and never
   waits, allocates or calls the system. Where that memory is full the event is dropped, counted, and the count is
   recorded as soon as there is room; the same holds for blocks that the disk does not take.

   The file (vlart_layout.h: vlart_log_record_t) is the plan.bin of the bundle and a ring of blocks, each with its
   checksum and number and written once; the oldest are overwritten. Power may fail at any byte: what the disk has of
   whole blocks is readable, and what is missing is told by the reader. A recording in which the content of the sources
   is in full can be replayed bit for bit (`vlacompile replay`).

     vlart_bundle_plan(bundle, &plan, &plan_bytes);
     vlart_recorder_required_bytes(plan, plan_bytes, &options, &diag, &bytes);
     vlart_recorder_init(plan, plan_bytes, &options, arena, bytes, &diag, &recorder);
     vlart_session_record(session, recorder, &diag);     // before its first step
     ...
     vlart_recorder_close(recorder);                     // after the last tick of what it records

   Phases, ownership and structs are as in vlart.h. */
#ifndef VLART_RECORDER_H
#define VLART_RECORDER_H

#include "vlart/vlart.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VLART_MAX_TRACKS 64u             /* of one recorder */
#define VLART_RECORDING_BLOCK 4096u      /* bytes of one block of the file */
#define VLART_MAX_RECORDING (1ull << 40) /* bytes of the ring */
#define VLART_MIN_RECORDING (1ull << 16) /* the same */
#define VLART_RECORD_NEVER 0xFFFFFFFFu   /* of sync_ms */
#define VLART_MAX_RECORDED_TEXT 65536u   /* bytes of an instruction; the rest is cut */

typedef struct vlart_recorder vlart_recorder_t; /* opaque, lives in a caller's arena */
typedef struct vlart_log vlart_log_t;           /* opaque, lives in a caller's arena */

typedef struct {
  size_t struct_size;
  const char *path; /* of the file, which must not exist */
  uint64_t
      file_bytes; /* of the ring; 0: 64 MiB. Reserved on the disk where the file system can do that */
  uint64_t
      track_bytes;   /* memory of one track; 0: eight times the content of all sources, and 1 MiB */
  uint32_t tracks;   /* sessions, asynchronous controls and routers that it records; 0: 4 */
  uint32_t full;     /* 1: the content of sources too; 0: its size and CRC-32 */
  uint32_t flush_ms; /* an event is handed to the system after so long at most; 0: 100 */
  uint32_t sync_ms;  /* and the disk is asked to keep it (fdatasync) after so long; 0: 1000 */
} vlart_recorder_options_t;

typedef struct {
  size_t struct_size;
  uint64_t events;      /* that were taken */
  uint64_t bytes;       /* of them */
  uint64_t lost_events; /* for which a track had no room */
  uint64_t lost_bytes;
  uint64_t blocks;      /* that were written */
  uint64_t lost_blocks; /* that the disk did not take */
  uint64_t syncs;
  uint64_t laps;   /* how often the ring was begun anew */
  uint32_t error;  /* errno of the last write or sync that failed; 0: none did */
  uint32_t tracks; /* in use */
} vlart_recorder_info_t;

/* [init] Bytes of arena that vlart_recorder_init needs. `plan`: as vlart_bundle_plan gives it. */
VLART_API vlart_status_t vlart_recorder_required_bytes(const void *plan, size_t plan_bytes,
                                                       const vlart_recorder_options_t *options,
                                                       vlart_diag_t *diag, size_t *out_bytes);

/* [init] Makes the file and starts the thread. IO: the file is there, or the disk does not have the room. */
VLART_API vlart_status_t vlart_recorder_init(const void *plan, size_t plan_bytes,
                                             const vlart_recorder_options_t *options, void *arena,
                                             size_t arena_bytes, vlart_diag_t *diag,
                                             vlart_recorder_t **out_recorder);

/* Writes what is left and ends the thread, after the last call of what is recorded. NULL is allowed. */
VLART_API void vlart_recorder_close(vlart_recorder_t *recorder);

/* [tick] Counters; any thread. */
VLART_API vlart_status_t vlart_recorder_info(const vlart_recorder_t *recorder,
                                             vlart_recorder_info_t *out_info);

/* [init] From here on what the session, the asynchronous control or the router does is recorded; NULL: no more. A session
   must be of the recorder's plan (BAD_ARGUMENT), and is recorded whichever way it is driven; asynchronous control
   besides its session, which then is recorded too if it was not. The thread that owns it. */
VLART_API vlart_status_t vlart_session_record(vlart_session_t *session, vlart_recorder_t *recorder,
                                              vlart_diag_t *diag);
VLART_API vlart_status_t vlart_async_record(vlart_async_t *async, vlart_recorder_t *recorder,
                                            vlart_diag_t *diag);
VLART_API vlart_status_t vlart_router_record(vlart_router_t *router, vlart_recorder_t *recorder,
                                             vlart_diag_t *diag);

/* ---- reading: any bytes; what passes [open] has no index, size or number that leads outside -------------------- */

typedef struct {
  size_t struct_size;
  const void *plan; /* the plan.bin, as it was validated */
  uint64_t plan_bytes;
  uint64_t recording;
  uint64_t wall_ns;        /* CLOCK_REALTIME when it began */
  uint64_t clock_ns;       /* CLOCK_MONOTONIC at the same moment */
  uint64_t block_count;    /* of the ring */
  uint64_t blocks;         /* readable ones */
  uint64_t first_block;    /* number of the oldest that may be there */
  uint64_t last_block;     /* number of the newest */
  uint64_t missing_blocks; /* between the two */
  uint64_t torn_events;    /* whose rest is in a missing block, or was not written */
  uint64_t events;         /* whole ones */
  uint32_t full;
  uint32_t version_minor; /* of its format */
  uint64_t last_wall_ns;  /* CLOCK_REALTIME as it was read last: it may have been set meanwhile */
  uint64_t last_clock_ns; /* CLOCK_MONOTONIC at the same moment */
  uint64_t clock_changes; /* how often it was set, by more than 10 ms, while this was recorded */
} vlart_log_info_t;

/* One event. `record`: its record of vlart_layout.h, and the arrays behind it; 8-byte aligned, valid until the next
   call. */
typedef struct {
  size_t struct_size;
  uint32_t kind; /* VLART_EVENT_KIND_... */
  uint32_t role; /* VLART_EVENT_ROLE_... */
  uint32_t track;
  uint32_t lane;
  uint64_t sequence;
  uint64_t time_ns;
  const void *record;
  uint64_t bytes;
} vlart_log_event_t;

/* [open] Bytes of arena that vlart_log_open needs for the content of a file; 8-byte aligned. Any thread. */
VLART_API vlart_status_t vlart_log_required_bytes(const void *data, size_t bytes, const char *name,
                                                  vlart_diag_t *diag, size_t *out_bytes);

/* [open] Validates the head, the plan and every event of the blocks whose checksums are right. The data must outlive
   the log. Any thread; one at a time may use the log. */
VLART_API vlart_status_t vlart_log_open(const void *data, size_t bytes, const char *name,
                                        void *arena, size_t arena_bytes, vlart_diag_t *diag,
                                        vlart_log_t **out_log);

VLART_API vlart_status_t vlart_log_info(const vlart_log_t *log, vlart_log_info_t *out_info);

/* The next event in the order of the file; NOT_FOUND without a diagnostic behind the last one, and then the first
   again. Events of one track come in the order in which they happened. */
VLART_API vlart_status_t vlart_log_next(vlart_log_t *log, vlart_log_event_t *out_event);

/* ---- replaying --------------------------------------------------------------------------------- */

/* [tick] Copies the newest good chunk as the queue took it, decoded and checked, `count` = chunk_steps * action_dim
   numbers; QUEUE_EMPTY before the first. The session's thread. */
VLART_API vlart_status_t vlart_session_chunk(const vlart_session_t *session, float *chunk,
                                             size_t count, vlart_diag_t *diag);

/* [tick] The next step or observe is a recorded one, which no time limit, age of a lane or cancellation ends: it ends
   before this stage, with `status`, as the recorded one did whose deadline passed there. VLART_NONE: before none; with
   SOURCE_UNSET, STALE_INPUT or LANE_STALE it is refused as the recorded one was, before a stage runs. The session's
   thread. */
VLART_API vlart_status_t vlart_session_stop_before(vlart_session_t *session, uint32_t stage,
                                                   vlart_status_t status);

/* [tick] vlart_async_answer in two parts, for simulations in which a chunk comes later than it is computed: its chunk is
   seen by the control thread after vlart_async_deliver only, and info.busy says so until then. One is computed at a
   time: a second compute before deliver replaces the first; without one, deliver does nothing. */
VLART_API vlart_status_t vlart_async_compute(vlart_async_t *async);
VLART_API vlart_status_t vlart_async_deliver(vlart_async_t *async);

#ifdef __cplusplus
}
#endif

#endif
