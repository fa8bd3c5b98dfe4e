/* libvlart: runs a compiled policy bundle (NAME.vlab). This header, with the parts that it includes
   at its end (asynchronous control, backbones, lanes, observations, the reader, the recorder, the
   router, sensors, texts, threads), is the whole public ABI.

   A bundle is the validated, memory-mapped plan and its weights; a session is one running copy of
   the policy. The life of both has three phases, named at every function:
     [open]  validates every byte of the plan once; nothing is re-checked afterwards
     [init]  places all of our memory in an arena that the caller gives, and builds the engines
     [tick]  never allocates, locks, prints or opens a file (an engine may allocate inside itself;
             threads that call write_all wait for each other)

   Ownership: the caller owns every arena, option, diagnostic and output struct. A bundle must
   outlive its sessions; an arena must outlive what was placed in it. Names and arrays handed out
   by a bundle stay valid until it is closed.

   Threads: a bundle never changes after [open], so any number of threads may use it. A session
   belongs to one thread at a time; two sessions share nothing that is written. A process that was
   forked has no threads of its parent's sessions, engines, workers and lanes: it opens its own, does
   not even close those, and ends by _exit, since libraries of engines wait for threads in exit.

   Structs: `struct_size` comes first and is set by the caller to sizeof(the struct). Fields are
   only added at the tail. Zero means the default in every option. */
#ifndef VLART_VLART_H
#define VLART_VLART_H

#include <stddef.h>
#include <stdint.h>

#include "vlart/vlart_layout.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define VLART_API __attribute__((visibility("default")))
#else
#define VLART_API
#endif

#define VLART_ABI_MAJOR 1u
#define VLART_ABI_MINOR 10u

/* Limits of this reader; a plan beyond them is refused as UNSUPPORTED. */
#define VLART_MAX_SOURCES 64u           /* a dependency set is one 64-bit word */
#define VLART_MAX_ITERATIONS 65536u     /* of one loop stage */
#define VLART_MAX_STRING 1023u          /* bytes of one string, without its NUL */
#define VLART_MAX_PLAN_BYTES (1u << 28) /* of plan.bin */
#define VLART_MAX_THREADS 1024u         /* of one engine */
#define VLART_MAX_PARALLEL 64u          /* stages at a time */
#define VLART_MAX_CHUNK 1048576u /* numbers of a chunk that is decoded, averaged or handed over */
#define VLART_MAX_BACKBONES 4u   /* of a bundle, and of a router's table */
#define VLART_MAX_LANES 8u
#define VLART_MAX_CARRIED 256u /* values that a step takes from the one before */

/* The closed list of statuses: name, number (never reused), and what to make of it. */
#define VLART_STATUS_LIST(X)                                                                      \
  X(OK, 0, "The call did what it says.")                                                          \
  X(BAD_ARGUMENT, 1, "A pointer, index, size or option of this call is wrong; the caller's bug.") \
  X(IO, 2, "A file could not be opened, mapped or sized; look at the path and at the rights.")    \
  X(NOT_A_BUNDLE, 3, "plan.bin does not start as a plan does; the directory is another thing.")   \
  X(VERSION, 4, "The file has another major format version; rebuild it or update the runtime.")   \
  X(CORRUPT, 5, "A checksum, size, index or range is wrong; copy or build the bundle again.")     \
  X(UNSUPPORTED, 6, "Well formed, but beyond what this build of the runtime can do.")             \
  X(OUT_OF_MEMORY, 7, "The arena is too small; ask ..._required_bytes how much is needed.")       \
  X(NO_BACKEND, 8, "The engine's library is missing; install it or give its path.")               \
  X(BACKEND_FAILED, 9, "The engine refused the stage or failed while running it.")                \
  X(WRONG_DTYPE, 10, "The tensor has another element type than the plan, or a bool is not 0/1.")  \
  X(WRONG_SHAPE, 11, "The tensor has another shape or size than the plan.")                       \
  X(NOT_FINITE, 12, "The input holds a NaN or an infinity; the source keeps its old content.")    \
  X(SOURCE_UNSET, 13, "A source that a stage needs has never been written; write it, then step.") \
  X(VALUE_UNSET, 14, "The value has not been computed yet; step first.")                          \
  X(ACTION_NOT_FINITE, 15, "The new chunk holds a NaN or an infinity; the last safe one stays.")  \
  X(ACTION_OUT_OF_RANGE, 16, "The new chunk leaves its bounds; the last safe chunk stays.")       \
  X(DEADLINE_MISSED, 17, "Out of time before every stage ran; the last safe chunk stays.")        \
  X(QUEUE_EMPTY, 18, "Every action to be executed was handed out; write, step, then pop.")        \
  X(NOT_FOUND, 19, "The bundle has nothing of that name.")                                        \
  X(SELF_TEST_FAILED, 20, "The bundle runs here but does not give the recorded outputs.")         \
  X(ACTION_NOT_DECODED, 21, "The tokens are no action chunk; the last safe chunk stays.")         \
  X(CHUNK_TOO_LATE, 22, "More actions were popped since the observation than a chunk has.")       \
  X(SAFE_ACTION, 23, "No chunk is left for this tick; the declared safe action was handed out.")  \
  X(CANCELLED, 24, "Another instruction came; what was being computed for the last one is gone.") \
  X(TEXT_REFUSED, 25, "The text is not UTF-8 or too long; the sources keep their old content.")   \
  X(LANE_STALE, 26, "What a slower clock handed over is too old.")                                \
  X(STALE_INPUT, 30,                                                                              \
    "A source is older than it may be; write it anew. The last safe chunk stays.")                \
  X(INPUT_OUT_OF_RANGE, 31,                                                                       \
    "A number leaves its source's range; the source keeps its old content.")                      \
  X(ACTION_TOO_FAR, 32,                                                                           \
    "The action is farther from the last one than a tick may move; its chunk ends.")              \
  X(THREAD_REFUSED, 33, "The system does not let a thread run so; allow it, or ask for less.")    \
  X(LOOP_NOT_ENDED, 34, "A loop that must end ran out of iterations; the last safe chunk stays.") \
  X(UNTRUSTED, 35, "Nobody whom you trust vouches for the bundle, or for its machine code.")

typedef enum {
#define VLART_STATUS_MEMBER(name, number, help) VLART_STATUS_##name = number,
  VLART_STATUS_LIST(VLART_STATUS_MEMBER)
#undef VLART_STATUS_MEMBER
} vlart_status_t;

typedef struct vlart_bundle vlart_bundle_t;       /* opaque, lives in a caller's arena */
typedef struct vlart_session vlart_session_t;     /* opaque, lives in a caller's arena */
typedef struct vlart_async vlart_async_t;         /* opaque, lives in a caller's arena */
typedef struct vlart_tokenizer vlart_tokenizer_t; /* opaque, lives in a caller's arena */
typedef struct vlart_router vlart_router_t;       /* opaque, lives in a caller's arena */
typedef struct vlart_backend vlart_backend_t;     /* an engine, src/bundle/backend.h */

/* Four short lines for a person. A failing call fills it; a call that succeeds leaves it alone.
   Every function takes NULL instead. Lines are NUL-terminated and cut where they are too long. */
typedef struct {
  size_t struct_size;
  vlart_status_t status;
  char what[160];  /* what failed */
  char where[256]; /* file, record, stage, source */
  char why[512];   /* the observed fact, with numbers */
  char fix[256];   /* what to do next */
} vlart_diag_t;

typedef struct {
  size_t struct_size;
  uint32_t skip_file_checksums; /* 1: do not read the other files to compare their CRC-32; for a
                                   bundle that was verified when it was installed */
  uint32_t reserved;
} vlart_open_options_t;

/* How a thread runs (vlart_threads.h); zeros: as the system has it. */
typedef struct {
  size_t struct_size;
  uint32_t priority;     /* 0: the system's; 1 to 99: SCHED_FIFO */
  uint32_t lock_memory;  /* 1: no page of the process, now or later, is paged out (mlockall) */
  const uint32_t *cores; /* [core_count] numbers of the cores that it may run on; copied */
  size_t core_count;     /* 0: any */
} vlart_thread_options_t;

/* Where ONNX Runtime's packed weights are kept from one start to the next, which maps them instead of packing again.
   What lies there is derived from a bundle and no signature binds it: name no cache for a bundle that must be signed
   (docs/security.md). Packing again is all that a folder costs that is absent, damaged or another user's. */
typedef struct {
  size_t struct_size;
  const char *folder; /* of this user alone (0700); made if need be, not what it is in */
  /* What became of it, written by vlart_session_init: */
  uint32_t mapped;  /* stages whose packed weights were there */
  uint32_t written; /* stages that were packed, and are there from now on */
  uint32_t refused; /* stages that were packed, and are not: `why` */
  uint32_t reserved;
  char why[128]; /* of the last refusal, or of a damaged entry that was replaced; or empty */
} vlart_weight_cache_t;

typedef struct {
  size_t struct_size;
  const char *ort_library; /* path of libonnxruntime.so; NULL: the loader's libonnxruntime.so.1 */
  uint32_t threads;        /* of one engine; 0: as the plan was timed, or the engine's own choice */
  uint32_t reserved;
  const vlart_backend_t *const *backends; /* engines besides the built-in ones, tried first */
  size_t backend_count;
  const char *tvm_ffi_library; /* paths of libtvm_ffi.so and libtvm_runtime.so, for stages that */
  const char *tvm_library;     /* TVM compiled; NULL: the loader's */
  /* 1: ONNX Runtime runs the stages of TENSORRT and OPENVINO from their ONNX files, so that a bundle can be
     tried where these are not; its times say nothing of theirs */
  uint32_t stand_in;
  uint32_t reserved2;
  const char *tensorrt_library; /* path of libvlart_tensorrt.so; NULL: the loader's */
  uint32_t tensorrt_trial; /* 1: also run engines that no golden frame proved yet (vlart-build) */
  /* 1: the stages that every tick runs are one launch, where they are all due; then a step looks at its
     time limit before them only, and their stats.last_ns is 0. UNSUPPORTED where the plan does not
     allow it. */
  uint32_t whole_tick;
  /* 0: all stages; k: those of the k-th lane, from 1; VLART_LANE_CONTROL: those of none (vlart_lanes.h) */
  uint32_t lane;
  uint32_t reserved3;
  /* path of libtvm_runtime_cuda.so, for stages that TVM compiled for the GPU; NULL: the loader's */
  const char *tvm_cuda_library;
  /* how the threads run that the engines start while the session is made (their pools); NULL: as the calling thread.
     It runs so meanwhile, and as before afterwards. With cores `threads` must be said: a pool of its own size
     chooses cores for itself. */
  const vlart_thread_options_t *pool;
  /* 1: stages that are machine code (TVM) may be loaded, since the caller made the bundle or verified its signature;
     0: they are refused (UNTRUSTED) */
  uint32_t native_code;
  uint32_t reserved4;
  /* path of libopenvino_c.so, for stages of OPENVINO; NULL: the loader's */
  const char *openvino_library;
  const char *openvino_device; /* what OpenVINO runs them on, "CPU", "GPU" or "NPU"; NULL: "CPU" */
  /* stages that may run at the same time, each in `threads` threads of its engine, where none reads what another
     writes: in the calling thread and in threads of the session's own, which wait between steps; 0 and 1: one
     after the other, but for a plan that was timed and `threads` 0 as it was timed, in
     no more threads than there are processors for this process */
  uint32_t parallel;
  uint32_t reserved5;
  vlart_weight_cache_t *weight_cache; /* NULL: none; read and written while the session is made */
} vlart_session_options_t;

typedef struct {
  size_t struct_size;
  const char *name;
  const char *target;
  const char *recipe;
  uint32_t format_major;
  uint32_t format_minor;
  uint32_t source_count;
  uint32_t value_count;
  uint32_t stage_count;
  uint32_t action_value;   /* value index or VLART_NONE; without it the next five are 0 or NULL */
  uint32_t chunk_steps;    /* H: actions predicted per replan */
  uint32_t execute_steps;  /* h: actions handed out before a replan is due */
  uint32_t action_dim;     /* numbers per action */
  uint32_t consume;        /* VLART_CONSUME_... */
  const float *low;        /* [action_dim] or NULL */
  const float *high;       /* [action_dim] or NULL */
  uint64_t deadline_us;    /* time that one step may take, microseconds; 0 = none */
  uint64_t arena_bytes;    /* of all values that stages exchange */
  uint32_t backbone_count; /* policies that a session can choose from; 0: it is one policy */
  uint32_t reserved;
} vlart_bundle_info_t;

typedef struct {
  size_t struct_size;
  const char *name;
  uint32_t dtype;                /* VLART_DTYPE_... */
  uint32_t rank;                 /* 0..VLART_MAX_RANK */
  uint64_t dims[VLART_MAX_RANK]; /* dims[0..rank); the rest is 1 */
  uint64_t bytes;
} vlart_value_info_t;

typedef struct {
  size_t struct_size;
  uint32_t value;  /* value index: name, dtype and shape are there */
  uint32_t update; /* VLART_UPDATE_... */
  float clock_hz;  /* nominal rate; 0 = not stated */
  uint32_t frames; /* observations that the policy sees of it; 0 and 1: the one that is written */
} vlart_source_info_t;

typedef struct {
  size_t struct_size;
  const char *name;
  const char *artefact;  /* path in the bundle, or NULL */
  uint32_t backend;      /* VLART_BACKEND_... */
  uint32_t iterations;   /* 1, or K for a loop body; the largest number where `end` says so */
  uint64_t depends;      /* bit i: the stage depends on source i */
  uint64_t flops;        /* per iteration */
  uint64_t weight_bytes; /* read per iteration */
  uint64_t backbones;    /* bit i: the stage serves backbone i; all bits where it is one policy */
  uint32_t end;          /* 0: it always runs `iterations`; 1: the data decides; 2: and it must */
} vlart_stage_info_t;

typedef struct {
  size_t struct_size;
  uint32_t remaining; /* actions that pop will still hand out */
  uint32_t position;  /* index in the chunk of the next action */
  uint32_t stale;     /* 1: a later step failed, so the chunk is older than the sources */
  uint32_t due;       /* 1: execute_steps actions of the chunk were handed out: replan */
  uint64_t chunks;    /* good chunks so far; 0: pop has nothing to hand out yet */
} vlart_queue_info_t;

typedef struct {
  size_t struct_size;
  uint64_t runs;       /* completed */
  uint64_t iterations; /* completed, also those of a run that was cut by the deadline */
  uint64_t last_ns;    /* of one completed run (all its iterations); 0 before the first */
  uint64_t total_ns;
  uint64_t min_ns;
  uint64_t max_ns;
  uint64_t last_iterations; /* of one completed run; iterations / runs is their mean */
} vlart_stage_stats_t;

typedef struct {
  size_t struct_size;
  uint64_t steps;             /* calls of step that found every source set */
  uint64_t stages_run;        /* completed runs, over all stages */
  uint64_t stages_skipped;    /* stages that were up to date */
  uint64_t deadline_misses;   /* steps that gave DEADLINE_MISSED */
  uint64_t deadline_overruns; /* steps whose last stage began in time and ended late */
  uint64_t chunks_rejected;   /* not finite or out of range */
  uint64_t backend_failures;
  uint64_t last_step_ns;
} vlart_session_totals_t;

/* ---- statuses and versions; any thread, any phase ------------------------------------------- */

/* (major << 16) | minor of the library that is loaded. The majors must be equal. */
VLART_API uint32_t vlart_abi_version(void);
VLART_API const char *vlart_status_name(vlart_status_t status); /* "CORRUPT"; never NULL */
VLART_API const char *vlart_status_help(vlart_status_t status); /* one sentence; never NULL */
VLART_API const char *vlart_dtype_name(uint32_t dtype);         /* "f32"; NULL if unknown */
VLART_API uint32_t vlart_dtype_bytes(uint32_t dtype);           /* of one element; 0 if unknown */

/* ---- bundle --------------------------------------------------------------------------------- */

/* [open] Bytes of arena that vlart_bundle_open needs for the bundle in `dir`. Any thread. */
VLART_API vlart_status_t vlart_bundle_required_bytes(const char *dir, vlart_diag_t *diag,
                                                     size_t *out_bytes);

/* [open] Maps and validates a bundle. `options` may be NULL. The files must not be changed or
   truncated while the bundle is open: the weights are used where they are mapped. Any thread. */
VLART_API vlart_status_t vlart_bundle_open(const char *dir, const vlart_open_options_t *options,
                                           void *arena, size_t arena_bytes, vlart_diag_t *diag,
                                           vlart_bundle_t **out_bundle);

/* Unmaps the bundle, after its last session was closed. NULL is allowed. */
VLART_API void vlart_bundle_close(vlart_bundle_t *bundle);

/* Descriptions; any thread, any phase. An index out of range gives BAD_ARGUMENT. */
VLART_API vlart_status_t vlart_bundle_info(const vlart_bundle_t *bundle,
                                           vlart_bundle_info_t *out_info);
VLART_API vlart_status_t vlart_bundle_source(const vlart_bundle_t *bundle, uint32_t source,
                                             vlart_source_info_t *out_info);
VLART_API vlart_status_t vlart_bundle_value(const vlart_bundle_t *bundle, uint32_t value,
                                            vlart_value_info_t *out_info);
VLART_API vlart_status_t vlart_bundle_stage(const vlart_bundle_t *bundle, uint32_t stage,
                                            vlart_stage_info_t *out_info);

/* Index by name; NOT_FOUND without a diagnostic. A source has the name of its value. */
VLART_API vlart_status_t vlart_bundle_find_source(const vlart_bundle_t *bundle, const char *name,
                                                  uint32_t *out_source);
VLART_API vlart_status_t vlart_bundle_find_value(const vlart_bundle_t *bundle, const char *name,
                                                 uint32_t *out_value);
VLART_API vlart_status_t vlart_bundle_find_stage(const vlart_bundle_t *bundle, const char *name,
                                                 uint32_t *out_stage);

/* ---- session -------------------------------------------------------------------------------- */

/* [init] Bytes of arena that vlart_session_init needs with these options (NULL: the defaults). */
VLART_API vlart_status_t vlart_session_required_bytes(const vlart_bundle_t *bundle,
                                                      const vlart_session_options_t *options,
                                                      vlart_diag_t *diag, size_t *out_bytes);

/* [init] Places a session in the arena (any alignment) and builds one engine per stage. */
VLART_API vlart_status_t vlart_session_init(const vlart_bundle_t *bundle,
                                            const vlart_session_options_t *options, void *arena,
                                            size_t arena_bytes, vlart_diag_t *diag,
                                            vlart_session_t **out_session);

/* Releases the engines. NULL is allowed. */
VLART_API void vlart_session_close(vlart_session_t *session);

/* [tick] Gives a source its content: `rank` dims and exactly `bytes` bytes, dense, row-major.
   Bytes equal to the present ones are accepted and mark nothing dirty. On any error the source
   keeps what it had. The session's thread. */
VLART_API vlart_status_t vlart_session_write(vlart_session_t *session, uint32_t source,
                                             const void *data, size_t bytes, uint32_t dtype,
                                             uint32_t rank, const uint64_t *dims,
                                             vlart_diag_t *diag);

/* [tick] Runs, in the plan's order, exactly the stages one of whose sources changed since they
   last ran. The time limit is the plan's deadline_us. It is looked at before each stage and each
   iteration; on DEADLINE_MISSED the stages that completed count and the others stay dirty.
   A new action value is decoded as the plan says, and the chunk is checked (finite, within bounds)
   before the queue takes it. On any failure the last safe chunk stays in the queue, marked stale.
   If nothing had to run and the queue is used up, the chunk is handed out again: it is what the
   sources still ask for. What the queue does with a chunk is info.consume:
     QUEUE     the chunk replaces the queue; pop hands out its first execute_steps actions.
     ENSEMBLE  pop hands out the weighted mean of all predictions of this tick. Step once per pop;
               a second chunk for the same tick replaces the first. After a failed step one pop is
               answered by the earlier chunks.
     REALTIME  the chunk begins at the tick of its observation: as many of its first actions are
               dropped as were popped since a source of class observation or tick was last written
               (they are committed: pop what will be executed during step, then step). Pop goes on
               to the end of the chunk; queue_info.due says when to replan. Sources that the plan
               names as previous chunk and prefix weights are filled here; write them only to
               replan from another chunk.
   The session's thread. */
VLART_API vlart_status_t vlart_session_step(vlart_session_t *session, vlart_diag_t *diag);

/* [tick] The same with another time limit in microseconds from now; 0 = none. */
VLART_API vlart_status_t vlart_session_step_deadline(vlart_session_t *session, uint64_t deadline_us,
                                                     vlart_diag_t *diag);

/* [tick] Takes the newest observation into the histories without replanning: runs the stages that
   encode it, where they are not up to date, and no other. For a host that executes several
   actions per step: of the ticks between, those whose frames the next step still sees must be observed (all,
   or, where a step sees n observations, the last n - 1 before it).
   The first write to a history source after a step or observe begins another observation, also with
   equal bytes; all histories advance together, and a history source that is not written keeps its
   content as its newest frame. An observation that was not encoded (DEADLINE_MISSED, a failing
   engine) is replaced by the next write. The plan's deadline applies. Without histories nothing
   happens. The session's thread. */
VLART_API vlart_status_t vlart_session_observe(vlart_session_t *session, vlart_diag_t *diag);

/* [tick] The start of an episode. Ends all that belongs to the last one: the queue, the predictions that are
   averaged, the chunk that a real-time one continues and a prefix that was given for it, the histories, the last
   action, and what slower clocks made of observations. What was observed is the last episode's: a source of class
   observation or tick is SOURCE_UNSET until it is written again, with other bytes or the same. The next observation
   fills the histories, and the next step is the first one that carries values on. What does not look back stays up to
   date. The session's thread. */
VLART_API vlart_status_t vlart_session_reset(vlart_session_t *session);

/* [tick] Copies a value: a source, a weight, or what a stage wrote in its last completed run.
   `bytes` must be the value's size. The session's thread. */
VLART_API vlart_status_t vlart_session_read(vlart_session_t *session, uint32_t value, void *out,
                                            size_t bytes, vlart_diag_t *diag);

/* [tick] Copies the next action, `dim` numbers; QUEUE_EMPTY after execute_steps of them. Where the plan limits how far
   an action may be from the one that was handed out before it in this episode, it is brought within that limit, or,
   where the plan says "refuse", ACTION_TOO_FAR hands nothing out and ends the chunk. The session's thread. */
VLART_API vlart_status_t vlart_session_pop(vlart_session_t *session, float *action, size_t dim,
                                           vlart_diag_t *diag);

/* [tick] The next `rows` actions, [rows, dim], for a host that sends them in one message: all of them, or on any status
   but OK none, so that a rate limit counts from what was sent. The session's thread. */
VLART_API vlart_status_t vlart_session_pop_rows(vlart_session_t *session, float *actions,
                                                size_t rows, size_t dim, vlart_diag_t *diag);

/* [tick] How much the queue still holds and whether it is stale. The session's thread. */
VLART_API vlart_status_t vlart_session_queue(const vlart_session_t *session,
                                             vlart_queue_info_t *out_info);

/* [tick] Makes every stage dirty, empties the queue and forgets all chunks; sources and histories keep
   their content. For measurements; an episode begins with vlart_session_reset. The session's thread. */
VLART_API vlart_status_t vlart_session_invalidate(vlart_session_t *session);

/* [tick] Counters since init. The session's thread. */
VLART_API vlart_status_t vlart_session_stats(const vlart_session_t *session, uint32_t stage,
                                             vlart_stage_stats_t *out_stats);
VLART_API vlart_status_t vlart_session_totals(const vlart_session_t *session,
                                              vlart_session_totals_t *out_totals);

#ifdef __cplusplus
}
#endif

#include "vlart/vlart_async.h"
#include "vlart/vlart_backbones.h"
#include "vlart/vlart_lanes.h"
#include "vlart/vlart_observations.h"
#include "vlart/vlart_reader.h"
#include "vlart/vlart_recorder.h"
#include "vlart/vlart_router.h"
#include "vlart/vlart_sensors.h"
#include "vlart/vlart_text.h"
#include "vlart/vlart_threads.h"

#endif
