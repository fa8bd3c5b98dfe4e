/* Generated from vlacompile/bundle/layout.py by `python -m vlacompile.bundle.header`. Do not edit. */
#ifndef VLART_LAYOUT_H
#define VLART_LAYOUT_H

#include <assert.h>
#include <stdint.h>

/* Little-endian records of plan.bin and of frames files. String fields are byte offsets into the
   strings section; X_begin and X_count are a range of records in the section named beside them. */

#define VLART_FORMAT_MAJOR 1u
#define VLART_FORMAT_MINOR 1u
#define VLART_PLAN_MAGIC "VLABPLAN"
#define VLART_FRAMES_MAGIC "VLABFRAM"
#define VLART_ALIGN 64u
#define VLART_MAX_RANK 8u
#define VLART_NONE 0xFFFFFFFFu

enum { VLART_DTYPE_F32 = 1, VLART_DTYPE_U8 = 2, VLART_DTYPE_I8 = 3, VLART_DTYPE_I32 = 6, VLART_DTYPE_I64 = 7, VLART_DTYPE_BOOL = 9, VLART_DTYPE_F16 = 10, VLART_DTYPE_F64 = 11, VLART_DTYPE_BF16 = 16 };
enum { VLART_UPDATE_STATIC = 0, VLART_UPDATE_TASK = 1, VLART_UPDATE_OBSERVATION = 2, VLART_UPDATE_STEP = 3, VLART_UPDATE_TICK = 4 };
enum { VLART_BACKEND_ONNXRUNTIME = 1, VLART_BACKEND_TENSORRT = 2, VLART_BACKEND_TVM = 3 };
enum { VLART_STORAGE_ARENA = 0, VLART_STORAGE_WEIGHT = 1 };
enum { VLART_BINDING_MODE_WHOLE = 0, VLART_BINDING_MODE_ROW = 1, VLART_BINDING_MODE_CARRY = 2 };
enum { VLART_LOOP_FORM_STEPS = 1, VLART_LOOP_FORM_FUSED = 2 };
enum { VLART_FILE_KIND_STAGE = 1, VLART_FILE_KIND_WEIGHTS = 2, VLART_FILE_KIND_GOLDEN = 3 };
enum { VLART_DECODE_KIND_LOOKUP = 1, VLART_DECODE_KIND_PIECES = 2, VLART_DECODE_KIND_BASIS = 3, VLART_DECODE_KIND_AFFINE = 4, VLART_DECODE_KIND_DELTA = 5 };
enum { VLART_OUTSIDE_CLIP = 0, VLART_OUTSIDE_ZERO = 1, VLART_OUTSIDE_REFUSE = 2, VLART_OUTSIDE_SKIP = 3 };
enum { VLART_SYMBOLS_INTEGERS = 0, VLART_SYMBOLS_UTF8 = 1 };
enum { VLART_LENGTH_EXACT = 0, VLART_LENGTH_FIT = 1 };
enum { VLART_CONSUME_QUEUE = 0, VLART_CONSUME_ENSEMBLE = 1, VLART_CONSUME_REALTIME = 2 };
enum { VLART_SCHEDULE_ZEROS = 0, VLART_SCHEDULE_ONES = 1, VLART_SCHEDULE_LINEAR = 2, VLART_SCHEDULE_EXP = 3 };
enum { VLART_SECTION_STRINGS = 1, VLART_SECTION_INDICES = 2, VLART_SECTION_FLOATS = 3, VLART_SECTION_POLICY = 4, VLART_SECTION_FILES = 5, VLART_SECTION_VALUES = 6, VLART_SECTION_SOURCES = 7, VLART_SECTION_WEIGHTS = 8, VLART_SECTION_STAGES = 9, VLART_SECTION_BINDINGS = 10, VLART_SECTION_INITIALIZERS = 11, VLART_SECTION_CARRIES = 12, VLART_SECTION_DELAYS = 13, VLART_SECTION_HISTORIES = 14, VLART_SECTION_SAMPLINGS = 16, VLART_SECTION_FRAMES = 20, VLART_SECTION_TENSORS = 21, VLART_SECTION_BLOB = 22, VLART_SECTION_DECODES = 30, VLART_SECTION_CONSUMPTION = 31 };

/* First record of plan.bin and of a frames file. */
typedef struct {
  uint32_t magic[2]; /* PLAN_MAGIC or FRAMES_MAGIC */
  uint32_t version_major; /* a reader refuses another major version */
  uint32_t version_minor; /* a reader accepts any minor version */
  uint64_t file_bytes; /* size of the whole file */
  uint32_t section_count; /* section records follow the header directly */
  uint32_t payload_crc32; /* CRC-32 (IEEE 802.3) of every byte after the header */
  uint32_t reserved[7]; /* zero */
  uint32_t header_crc32; /* CRC-32 of the bytes of the header before this field */
} vlart_header_record_t;
static_assert(sizeof(vlart_header_record_t) == 64, "layout of header");

/* Where the records of one kind are. */
typedef struct {
  uint32_t id; /* a section id */
  uint32_t stride; /* bytes from one record to the next; at least the size known to the reader */
  uint32_t count; /* number of records (bytes for stride 1) */
  uint32_t reserved; /* zero */
  uint64_t offset; /* from the start of the file, a multiple of ALIGN */
  uint64_t bytes; /* stride * count */
} vlart_section_record_t;
static_assert(sizeof(vlart_section_record_t) == 32, "layout of section");

/* Exactly one: what the bundle is and how its actions are handed out. */
typedef struct {
  uint32_t name; /* string */
  uint32_t target; /* string: target that it was built for */
  uint32_t recipe; /* string: recipe that it was built with */
  uint32_t action_value; /* value [1, chunk_steps, action_dim] f32 that feeds the action queue, or NONE */
  uint32_t chunk_steps; /* H: actions predicted per replan */
  uint32_t execute_steps; /* h <= H: actions handed out before a replan is due */
  uint32_t action_dim; /* numbers per action */
  uint32_t reserved; /* zero */
  uint32_t low_begin; /* first low record in floats: lower bound per action dimension (count 0 or action_dim) */
  uint32_t low_count; /* number of low records */
  uint32_t high_begin; /* first high record in floats: upper bound per action dimension (count 0 or action_dim) */
  uint32_t high_count; /* number of high records */
  uint64_t deadline_us; /* time that one step may take, microseconds; 0 = none */
  uint64_t arena_bytes; /* size of the arena that holds every ARENA value */
} vlart_policy_record_t;
static_assert(sizeof(vlart_policy_record_t) == 64, "layout of policy");

/* One other file of the bundle. */
typedef struct {
  uint32_t path; /* string: relative, '/'-separated, no '..' */
  uint32_t kind; /* file_kind */
  uint32_t crc32; /* CRC-32 of the file */
  uint32_t reserved; /* zero */
  uint64_t bytes; /* size of the file */
} vlart_file_record_t;
static_assert(sizeof(vlart_file_record_t) == 24, "layout of file");

/* A tensor that crosses a stage boundary. Dense, row-major. */
typedef struct {
  uint32_t name; /* string, unique */
  uint32_t dtype; /* dtype */
  uint32_t rank; /* 0..MAX_RANK */
  uint32_t storage; /* storage: ARENA or WEIGHT */
  uint64_t dims[8]; /* dims[0..rank); the rest is 1 */
  uint64_t bytes; /* size of the tensor */
  uint64_t offset; /* ARENA: byte offset in the arena, a multiple of ALIGN; WEIGHT: 0 */
  uint32_t weight; /* WEIGHT: index of the weight record; ARENA: NONE */
  uint32_t reserved; /* zero */
} vlart_value_record_t;
static_assert(sizeof(vlart_value_record_t) == 104, "layout of value");

/* A value that the caller writes. */
typedef struct {
  uint32_t value; /* value */
  uint32_t update; /* update class: how often it is expected to change */
  float clock_hz; /* nominal rate; 0 = not stated */
  uint32_t reserved; /* zero */
} vlart_source_record_t;
static_assert(sizeof(vlart_source_record_t) == 16, "layout of source");

/* A constant tensor; each distinct content is stored once. */
typedef struct {
  uint32_t name; /* string, unique */
  uint32_t file; /* file that holds it */
  uint32_t dtype; /* dtype */
  uint32_t rank; /* 0..MAX_RANK */
  uint64_t dims[8]; /* dims[0..rank); the rest is 1 */
  uint64_t offset; /* byte offset in the file, a multiple of ALIGN */
  uint64_t bytes; /* size of the tensor */
} vlart_weight_record_t;
static_assert(sizeof(vlart_weight_record_t) == 96, "layout of weight");

/* Values with one dependency set, computed by one engine. Records are in execution order. */
typedef struct {
  uint32_t name; /* string, unique */
  uint32_t backend; /* backend */
  uint32_t artefact; /* file that the backend loads */
  uint32_t iterations; /* 1, or K for a loop body */
  uint32_t dep_begin; /* first dep record in indices: source records that this stage depends on */
  uint32_t dep_count; /* number of dep records */
  uint32_t input_begin; /* first input record in bindings */
  uint32_t input_count; /* number of input records */
  uint32_t output_begin; /* first output record in bindings */
  uint32_t output_count; /* number of output records */
  uint32_t initializer_begin; /* first initializer record in initializers */
  uint32_t initializer_count; /* number of initializer records */
  uint32_t carry_begin; /* first carry record in carries; empty unless a loop body */
  uint32_t carry_count; /* number of carry records */
  uint64_t flops; /* floating-point operations per iteration (matmul, convolution, attention; 2 per MAC) */
  uint64_t weight_bytes; /* bytes of weights that one iteration reads */
} vlart_stage_record_t;
static_assert(sizeof(vlart_stage_record_t) == 72, "layout of stage");

/* A port of a stage's engine and the value behind it. */
typedef struct {
  uint32_t port; /* string: name of the engine's input or output */
  uint32_t value; /* value */
  uint32_t mode; /* binding_mode */
  uint32_t reserved; /* zero */
} vlart_binding_record_t;
static_assert(sizeof(vlart_binding_record_t) == 16, "layout of binding");

/* A weight handed to a stage's engine under the name that its artefact uses. */
typedef struct {
  uint32_t port; /* string: name of the initializer in the artefact */
  uint32_t weight; /* weight */
} vlart_initializer_record_t;
static_assert(sizeof(vlart_initializer_record_t) == 8, "layout of initializer");

/* A loop-carried value. Iteration 0 reads `initial`; iteration k > 0 reads what k-1 wrote; the last iteration writes `result`; the others alternate between `scratch` and `result`. */
typedef struct {
  uint32_t initial; /* value */
  uint32_t result; /* value of the same shape and dtype */
  uint32_t scratch; /* value of the same shape and dtype */
  uint32_t input; /* binding (mode CARRY) that reads it */
  uint32_t output; /* binding (mode CARRY) that writes it */
  uint32_t reserved; /* zero */
} vlart_carry_record_t;
static_assert(sizeof(vlart_carry_record_t) == 24, "layout of carry");

/* A value of the observation before. When the history advances, `output` takes what `input` holds; the first observation fills it. Chains: `input` may be the output of an earlier record. */
typedef struct {
  uint32_t input; /* value: a history source, what a stage computes from history sources alone, or a delay's output */
  uint32_t output; /* value of the same shape and dtype that nothing else writes */
} vlart_delay_record_t;
static_assert(sizeof(vlart_delay_record_t) == 8, "layout of delay");

/* A source of which the policy sees several observations. The caller writes the newest alone. */
typedef struct {
  uint32_t source; /* source */
  uint32_t frames; /* observations that the policy sees, the newest among them; at least 2 */
} vlart_history_record_t;
static_assert(sizeof(vlart_history_record_t) == 8, "layout of history");

/* How the loop of one stage is run, and what was given up for it. At most one per stage; nothing is executed by it. */
typedef struct {
  uint32_t stage; /* stage */
  uint32_t form; /* loop_form */
  uint32_t iterations; /* how often the loop's body is evaluated */
  uint32_t written; /* the same, in the policy as it was given */
  uint32_t solver; /* string: what integrates, or as-written */
  float error; /* of the action chunk, in units of each action dimension's spread; the worst dimension's */
  float budget; /* what the recipe allows */
  uint32_t reserved; /* zero */
} vlart_sampling_record_t;
static_assert(sizeof(vlart_sampling_record_t) == 32, "layout of sampling");

/* One replay step: write these tensors, step, then compare those. */
typedef struct {
  uint32_t label; /* string for a person */
  uint32_t reserved; /* zero */
  uint32_t write_begin; /* first write record in tensors */
  uint32_t write_count; /* number of write records */
  uint32_t expect_begin; /* first expect record in tensors */
  uint32_t expect_count; /* number of expect records */
} vlart_frame_record_t;
static_assert(sizeof(vlart_frame_record_t) == 24, "layout of frame");

/* A named tensor of a frames file; it binds to a plan's source or value by name. */
typedef struct {
  uint32_t name; /* string */
  uint32_t dtype; /* dtype */
  uint32_t rank; /* 0..MAX_RANK */
  uint32_t reserved; /* zero */
  uint64_t dims[8]; /* dims[0..rank); the rest is 1 */
  uint64_t offset; /* byte offset in the blob section, a multiple of ALIGN */
  uint64_t bytes; /* size of the tensor */
  float max_abs; /* expect: largest allowed absolute difference */
  float rel_l2; /* expect: largest allowed ||got - want|| / ||want|| */
  float cosine; /* expect: smallest allowed cosine */
  float reserved2; /* zero */
} vlart_tensor_record_t;
static_assert(sizeof(vlart_tensor_record_t) == 112, "layout of tensor");

/* One step from the action value to actions, in order. The action value is f32[1,H,D], or integers where the first step reads tokens (LOOKUP or PIECES). index(token) = direction * (token - first). */
typedef struct {
  uint32_t kind; /* decode_kind */
  uint32_t outside; /* LOOKUP, PIECES: outside, what an index beyond the table gives */
  uint32_t symbols; /* PIECES: symbols, what a row of the table holds */
  uint32_t length; /* PIECES: length, what another number of symbols than H * D does */
  uint32_t table; /* LOOKUP: weight f32[D,V]; PIECES: weight i32[V,L], rows end at a negative number; BASIS: weight f32[H,H]; else NONE */
  uint32_t value; /* DELTA: value of an f32 source; else NONE */
  uint32_t float_begin; /* first float record in floats: AFFINE: scale[D], then offset[D] */
  uint32_t float_count; /* number of float records */
  uint32_t index_begin; /* first index record in indices: LOOKUP: first[D], then rows in use[D]; PIECES: first; DELTA: element of the source per dimension, or NONE */
  uint32_t index_count; /* number of index records */
  int64_t direction; /* LOOKUP, PIECES: 1 or -1 */
  int64_t offset; /* PIECES: added to every symbol */
  int64_t stop; /* PIECES: token that ends the sequence; negative: none */
} vlart_decode_record_t;
static_assert(sizeof(vlart_decode_record_t) == 64, "layout of decode");

/* At most one: how chunks become the actions of successive ticks; without it, a queue. */
typedef struct {
  uint32_t consume; /* consume */
  float decay; /* ENSEMBLE: m; prediction i of a tick has the weight exp(-m * i), i = 0 the oldest */
  uint32_t delay; /* REALTIME: d, ticks that a replan is expected to take; d <= execute_steps <= H - d */
  uint32_t schedule; /* REALTIME: schedule of the prefix weights */
  uint32_t horizon; /* REALTIME: prefix weights are 0 from here on, 1..H */
  uint32_t previous; /* REALTIME: value f32[1,H,N] of a source that the runtime fills with the rest of the last `chunk`, or NONE */
  uint32_t weights; /* REALTIME: value of H f32 of a source that the runtime fills with prefix weights, or NONE */
  uint32_t chunk; /* REALTIME: value of a stage that `previous` continues, of the same shape, or NONE */
} vlart_consumption_record_t;
static_assert(sizeof(vlart_consumption_record_t) == 32, "layout of consumption");

#endif
