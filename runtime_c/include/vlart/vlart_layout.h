/* Generated from vlart/bundle/format by `python -m vlart.bundle.format.generate`. */
#ifndef VLART_LAYOUT_H
#define VLART_LAYOUT_H

#include <assert.h>
#include <stdint.h>

/* Little-endian records of every binary file of a bundle. String fields are byte offsets into the
   strings section; X_begin and X_count are a range of records in the section named beside them. */

#define VLART_FORMAT_MAJOR 1u
#define VLART_FORMAT_MINOR 13u
#define VLART_RECORDING_MAJOR 1u
#define VLART_RECORDING_MINOR 2u
#define VLART_PLAN_MAGIC "VLABPLAN"
#define VLART_FRAMES_MAGIC "VLABFRAM"
#define VLART_ROUTING_MAGIC "VLABROUT"
#define VLART_TOKENIZER_MAGIC "VLABTOKN"
#define VLART_LOCK_MAGIC "VLABLOCK"
#define VLART_RECORDING_MAGIC "VLABRECD"
#define VLART_ALIGN 64u
#define VLART_MAX_RANK 8u
#define VLART_NONE 0xFFFFFFFFu

enum { VLART_DTYPE_F32 = 1, VLART_DTYPE_U8 = 2, VLART_DTYPE_I8 = 3, VLART_DTYPE_I32 = 6, VLART_DTYPE_I64 = 7, VLART_DTYPE_BOOL = 9, VLART_DTYPE_F16 = 10, VLART_DTYPE_F64 = 11, VLART_DTYPE_BF16 = 16 };
enum { VLART_UPDATE_STATIC = 0, VLART_UPDATE_TASK = 1, VLART_UPDATE_OBSERVATION = 2, VLART_UPDATE_STEP = 3, VLART_UPDATE_TICK = 4 };
enum { VLART_BACKEND_ONNXRUNTIME = 1, VLART_BACKEND_TENSORRT = 2, VLART_BACKEND_TVM = 3, VLART_BACKEND_LIBRARY = 4, VLART_BACKEND_TVM_CUDA = 5, VLART_BACKEND_OPENVINO = 6 };
enum { VLART_STORAGE_ARENA = 0, VLART_STORAGE_WEIGHT = 1 };
enum { VLART_BINDING_MODE_WHOLE = 0, VLART_BINDING_MODE_ROW = 1, VLART_BINDING_MODE_CARRY = 2 };
enum { VLART_LIFETIME_EPISODE = 0, VLART_LIFETIME_TASK = 1 };
enum { VLART_LOOP_FORM_STEPS = 1, VLART_LOOP_FORM_FUSED = 2 };
enum { VLART_SCHEME_FP32 = 1, VLART_SCHEME_FP16 = 2, VLART_SCHEME_INT8 = 3, VLART_SCHEME_INT4 = 4 };
enum { VLART_DECIDER_DEFAULT = 1, VLART_DECIDER_RULE = 2, VLART_DECIDER_OPTIMISER = 3 };
enum { VLART_BUILD_FLAG_STRONGLY_TYPED = 1, VLART_BUILD_FLAG_NO_TF32 = 2 };
enum { VLART_FILE_KIND_STAGE = 1, VLART_FILE_KIND_WEIGHTS = 2, VLART_FILE_KIND_GOLDEN = 3, VLART_FILE_KIND_TOKENIZER = 4 };
enum { VLART_DECODE_KIND_LOOKUP = 1, VLART_DECODE_KIND_PIECES = 2, VLART_DECODE_KIND_BASIS = 3, VLART_DECODE_KIND_AFFINE = 4, VLART_DECODE_KIND_DELTA = 5 };
enum { VLART_OUTSIDE_CLIP = 0, VLART_OUTSIDE_ZERO = 1, VLART_OUTSIDE_REFUSE = 2, VLART_OUTSIDE_SKIP = 3 };
enum { VLART_SYMBOLS_INTEGERS = 0, VLART_SYMBOLS_UTF8 = 1 };
enum { VLART_LENGTH_EXACT = 0, VLART_LENGTH_FIT = 1 };
enum { VLART_CONSUME_QUEUE = 0, VLART_CONSUME_ENSEMBLE = 1, VLART_CONSUME_REALTIME = 2 };
enum { VLART_SCHEDULE_ZEROS = 0, VLART_SCHEDULE_ONES = 1, VLART_SCHEDULE_LINEAR = 2, VLART_SCHEDULE_EXP = 3 };
enum { VLART_TOKEN_MODEL_WORDPIECE = 1, VLART_TOKEN_MODEL_BPE = 2 };
enum { VLART_TEXT_STEP_MAP = 1, VLART_TEXT_STEP_ORDER = 2, VLART_TEXT_STEP_COMPOSE = 3, VLART_TEXT_STEP_REPLACE = 4, VLART_TEXT_STEP_PREPEND = 5, VLART_TEXT_STEP_CUT = 10, VLART_TEXT_STEP_CUT_BERT = 11, VLART_TEXT_STEP_CUT_DIGITS = 12, VLART_TEXT_STEP_CUT_WORDS = 13 };
enum { VLART_SPAN_ACTION_DELETE = 1, VLART_SPAN_ACTION_SHIFT = 2, VLART_SPAN_ACTION_SEQUENCE = 3, VLART_SPAN_ACTION_SPACE = 4, VLART_SPAN_ACTION_HANGUL = 5 };
enum { VLART_PREPEND_RULE_ALWAYS = 0, VLART_PREPEND_RULE_MISSING = 1, VLART_PREPEND_RULE_MISSING_FIRST = 2 };
enum { VLART_CUT_RULE_REMOVED = 0, VLART_CUT_RULE_ALONE = 1, VLART_CUT_RULE_PREVIOUS = 2, VLART_CUT_RULE_NEXT = 3 };
enum { VLART_WORD_RULE_GPT2 = 1, VLART_WORD_RULE_QWEN2 = 2, VLART_WORD_RULE_LLAMA3 = 3 };
enum { VLART_CHAR_CLASS_SPACE = 1, VLART_CHAR_CLASS_LETTER = 2, VLART_CHAR_CLASS_NUMBER = 4, VLART_CHAR_CLASS_PUNCTUATION = 8 };
enum { VLART_TEXT_SIDE_RIGHT = 0, VLART_TEXT_SIDE_LEFT = 1 };
enum { VLART_GUARD_RULE_COUNT = 0, VLART_GUARD_RULE_REFUSE = 1 };
enum { VLART_PROOF_NONE = 0, VLART_PROOF_PENDING = 1, VLART_PROOF_PASSED = 2, VLART_PROOF_FAILED = 3, VLART_PROOF_UNSUPPORTED = 4 };
enum { VLART_RATE_RULE_CLIP = 0, VLART_RATE_RULE_REFUSE = 1 };
enum { VLART_EVENT_KIND_SOURCE = 1, VLART_EVENT_KIND_STEP = 2, VLART_EVENT_KIND_POP = 3, VLART_EVENT_KIND_SELECT = 4, VLART_EVENT_KIND_RESET = 5, VLART_EVENT_KIND_INVALIDATE = 6, VLART_EVENT_KIND_OBSERVE = 7, VLART_EVENT_KIND_TEXT = 8, VLART_EVENT_KIND_REFUSED = 9, VLART_EVENT_KIND_KEYFRAME = 10, VLART_EVENT_KIND_REQUEST = 11, VLART_EVENT_KIND_TAKE = 12, VLART_EVENT_KIND_RESULT = 13, VLART_EVENT_KIND_CANCEL = 14, VLART_EVENT_KIND_HANDOVER = 15, VLART_EVENT_KIND_DECISION = 16, VLART_EVENT_KIND_OUTCOME = 17, VLART_EVENT_KIND_CONTROL = 18, VLART_EVENT_KIND_LOSS = 19, VLART_EVENT_KIND_CLOCK = 20 };
enum { VLART_EVENT_ROLE_SESSION = 1, VLART_EVENT_ROLE_CONTROL = 2, VLART_EVENT_ROLE_ROUTER = 3, VLART_EVENT_ROLE_WRITER = 4 };
enum { VLART_SOURCE_FLAG_FULL = 1, VLART_SOURCE_FLAG_SAME = 2, VLART_SOURCE_FLAG_KEYFRAME = 4 };
enum { VLART_SECTION_STRINGS = 1, VLART_SECTION_INDICES = 2, VLART_SECTION_FLOATS = 3, VLART_SECTION_POLICY = 4, VLART_SECTION_FILES = 5, VLART_SECTION_VALUES = 6, VLART_SECTION_SOURCES = 7, VLART_SECTION_WEIGHTS = 8, VLART_SECTION_STAGES = 9, VLART_SECTION_BINDINGS = 10, VLART_SECTION_INITIALIZERS = 11, VLART_SECTION_CARRIES = 12, VLART_SECTION_DELAYS = 13, VLART_SECTION_HISTORIES = 14, VLART_SECTION_LANES = 15, VLART_SECTION_SAMPLINGS = 16, VLART_SECTION_PRECISIONS = 17, VLART_SECTION_BUILDS = 18, VLART_SECTION_BOARD = 19, VLART_SECTION_FRAMES = 20, VLART_SECTION_TENSORS = 21, VLART_SECTION_BLOB = 22, VLART_SECTION_REFERENCES = 23, VLART_SECTION_LIMITS = 24, VLART_SECTION_DECODES = 30, VLART_SECTION_CONSUMPTION = 31, VLART_SECTION_ROUTER = 34, VLART_SECTION_BACKBONES = 35, VLART_SECTION_ROUTES = 36, VLART_SECTION_EVIDENCE = 37, VLART_SECTION_TOKENIZER = 40, VLART_SECTION_STEPS = 41, VLART_SECTION_SPANS = 42, VLART_SECTION_ADDED = 43, VLART_SECTION_COMPOSITIONS = 44, VLART_SECTION_ENTRY_BEGINS = 45, VLART_SECTION_ENTRY_IDS = 46, VLART_SECTION_MERGE_ROWS = 47, VLART_SECTION_MERGE_RIGHTS = 48, VLART_SECTION_MERGE_RANKS = 49, VLART_SECTION_MERGE_IDS = 50, VLART_SECTION_TEXTS = 51, VLART_SECTION_INSTRUCTIONS = 52, VLART_SECTION_STORED = 53, VLART_SECTION_RATE_LIMITS = 54, VLART_SECTION_TOKEN_RANGES = 55, VLART_SECTION_LOOP_ENDS = 56, VLART_SECTION_CONCURRENCY = 57, VLART_SECTION_CARRIED = 58, VLART_SECTION_BUCKETS = 59, VLART_SECTION_GUARDS = 60, VLART_SECTION_CHUNKS = 61, VLART_SECTION_LOCK = 62, VLART_SECTION_ENGINES = 63 };

/* First record of every binary file of a bundle. */
typedef struct {
  uint32_t magic[2]; /* what kind of file it is, PLAN_MAGIC say */
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
  uint32_t target; /* string; target that it was built for */
  uint32_t recipe; /* string; recipe that it was built with */
  uint32_t action_value; /* index into values, or NONE; [1, chunk_steps, action_dim] f32 that feeds the action queue */
  uint32_t chunk_steps; /* H: actions predicted per replan */
  uint32_t execute_steps; /* h <= H: actions handed out before a replan is due */
  uint32_t action_dim; /* numbers per action */
  uint32_t reserved; /* zero */
  uint32_t low_begin; /* first in floats; lower bound per action dimension (count 0 or action_dim) */
  uint32_t low_count; /* number of low records */
  uint32_t high_begin; /* first in floats; upper bound per action dimension (count 0 or action_dim) */
  uint32_t high_count; /* number of high records */
  uint64_t deadline_us; /* time that one step may take, microseconds; 0 = none */
  uint64_t arena_bytes; /* size of the arena that holds every ARENA value */
} vlart_policy_record_t;
static_assert(sizeof(vlart_policy_record_t) == 64, "layout of policy");

/* One other file of the bundle. */
typedef struct {
  uint32_t path; /* string; relative, '/'-separated, no '..' */
  uint32_t kind; /* file_kind */
  uint32_t crc32; /* CRC-32 of the file */
  uint32_t reserved; /* zero */
  uint64_t bytes; /* size of the file */
} vlart_file_record_t;
static_assert(sizeof(vlart_file_record_t) == 24, "layout of file");

/* A tensor that crosses a stage boundary. Dense, row-major. */
typedef struct {
  uint32_t name; /* string; unique */
  uint32_t dtype; /* dtype */
  uint32_t rank; /* 0..MAX_RANK */
  uint32_t storage; /* storage */
  uint64_t dims[8]; /* dims[0..rank); the rest is 1 */
  uint64_t bytes; /* size of the tensor */
  uint64_t offset; /* ARENA: byte offset in the arena, a multiple of ALIGN; WEIGHT: 0 */
  uint32_t weight; /* index into weights, or NONE; WEIGHT: its content; ARENA: NONE */
  uint32_t reserved; /* zero */
} vlart_value_record_t;
static_assert(sizeof(vlart_value_record_t) == 104, "layout of value");

/* A value that the caller writes. */
typedef struct {
  uint32_t value; /* index into values */
  uint32_t update; /* update; how often it is expected to change */
  float clock_hz; /* nominal rate; 0 = not stated */
  uint32_t reserved; /* zero */
} vlart_source_record_t;
static_assert(sizeof(vlart_source_record_t) == 16, "layout of source");

/* A constant tensor; each distinct content is stored once. */
typedef struct {
  uint32_t name; /* string; unique */
  uint32_t file; /* index into files, or NONE; that holds it */
  uint32_t dtype; /* dtype */
  uint32_t rank; /* 0..MAX_RANK */
  uint64_t dims[8]; /* dims[0..rank); the rest is 1 */
  uint64_t offset; /* byte offset in the file, a multiple of ALIGN */
  uint64_t bytes; /* size of the tensor */
} vlart_weight_record_t;
static_assert(sizeof(vlart_weight_record_t) == 96, "layout of weight");

/* Values with one dependency set, computed by one engine. Records are in execution order. */
typedef struct {
  uint32_t name; /* string; unique */
  uint32_t backend; /* backend */
  uint32_t artefact; /* index into files, or NONE; that the backend loads */
  uint32_t iterations; /* 1, or K for a loop body */
  uint32_t dep_begin; /* first in indices: records of sources; that this stage depends on */
  uint32_t dep_count; /* number of dep records */
  uint32_t input_begin; /* first in bindings */
  uint32_t input_count; /* number of input records */
  uint32_t output_begin; /* first in bindings */
  uint32_t output_count; /* number of output records */
  uint32_t initializer_begin; /* first in initializers */
  uint32_t initializer_count; /* number of initializer records */
  uint32_t carry_begin; /* first in carries; empty unless a loop body */
  uint32_t carry_count; /* number of carry records */
  uint64_t flops; /* floating-point operations per iteration (matmul, convolution, attention; 2 per MAC) */
  uint64_t weight_bytes; /* bytes of weights that one iteration reads */
} vlart_stage_record_t;
static_assert(sizeof(vlart_stage_record_t) == 72, "layout of stage");

/* A port of a stage's engine and the value behind it. */
typedef struct {
  uint32_t port; /* string; name of the engine's input or output */
  uint32_t value; /* index into values */
  uint32_t mode; /* binding_mode */
  uint32_t reserved; /* zero */
} vlart_binding_record_t;
static_assert(sizeof(vlart_binding_record_t) == 16, "layout of binding");

/* A weight handed to a stage's engine under the name that its artefact uses. */
typedef struct {
  uint32_t port; /* string; name of the initializer in the artefact */
  uint32_t weight; /* index into weights */
} vlart_initializer_record_t;
static_assert(sizeof(vlart_initializer_record_t) == 8, "layout of initializer");

/* A loop-carried value. Iteration 0 reads `initial`; iteration k > 0 reads what k-1 wrote; the last iteration writes `result`; the others alternate between `scratch` and `result`. */
typedef struct {
  uint32_t initial; /* index into values */
  uint32_t result; /* index into values; of the same shape and dtype */
  uint32_t scratch; /* index into values; of the same shape and dtype */
  uint32_t input; /* index into bindings; (mode CARRY) that reads it */
  uint32_t output; /* index into bindings; (mode CARRY) that writes it */
  uint32_t reserved; /* zero */
} vlart_carry_record_t;
static_assert(sizeof(vlart_carry_record_t) == 24, "layout of carry");

/* A value of the observation before. When the history advances, `output` takes what `input` holds; the first observation fills it. Chains: `input` may be the output of an earlier record. */
typedef struct {
  uint32_t input; /* index into values; a history source, what a stage computes from history sources alone, or a delay's output */
  uint32_t output; /* index into values; of the same shape and dtype, that nothing else writes */
} vlart_delay_record_t;
static_assert(sizeof(vlart_delay_record_t) == 8, "layout of delay");

/* A source of which the policy sees several observations. The caller writes the newest alone. */
typedef struct {
  uint32_t source; /* index into sources */
  uint32_t frames; /* observations that the policy sees, the newest among them; at least 2 */
} vlart_history_record_t;
static_assert(sizeof(vlart_history_record_t) == 8, "layout of history");

/* How the loop of one stage is run, and what was given up for it. At most one per stage; nothing is executed by it. */
typedef struct {
  uint32_t stage; /* index into stages */
  uint32_t form; /* loop_form */
  uint32_t iterations; /* how often the loop's body is evaluated */
  uint32_t written; /* the same, in the policy as it was given */
  uint32_t solver; /* string; what integrates, or as-written */
  float error; /* of the action chunk, in units of each action dimension's spread; the worst dimension's */
  float budget; /* what the recipe allows */
  uint32_t reserved; /* zero */
} vlart_sampling_record_t;
static_assert(sizeof(vlart_sampling_record_t) == 32, "layout of sampling");

/* What the layers of one block of a stage are stored as and computed in, and what that costs. Records are in the order of stages; nothing is executed by them. */
typedef struct {
  uint32_t stage; /* index into stages */
  uint32_t group; /* string; <stage>/<path of the block> */
  uint32_t scheme; /* scheme */
  uint32_t decider; /* decider; what chose it */
  uint32_t layers; /* number of layers, at least 1 */
  float error; /* of the action chunk by this alone, in units of each action dimension's spread, the worst dimension's; 0 = fp32, or not measured */
  float time_us; /* of all iterations of a run of the stage, by the target's rates; 0 = the target has none */
  uint32_t reserved; /* zero */
  uint64_t bytes; /* of the stored weights; what an earlier record stores counts there */
} vlart_precision_record_t;
static_assert(sizeof(vlart_precision_record_t) == 40, "layout of precision");

/* How the engine of a stage is built where it will run, and what it must come out as. At most one per stage, in the order of stages, of those of TENSORRT. Layers' precisions are in the artefact's own types. */
typedef struct {
  uint32_t stage; /* index into stages */
  uint32_t flags; /* bits of build_flag */
  uint32_t level; /* builder optimisation level, 0..5 */
  uint32_t aux_streams; /* streams beside the main one that the engine may use */
  uint32_t int8_gemms; /* matrix products and convolutions in INT8 */
  uint32_t int4_dequants; /* INT4 weights whose dequantisation is part of their product */
  uint32_t attentions; /* attentions that are one kernel each */
  uint32_t reserved; /* zero */
  uint64_t workspace_bytes; /* limit of the builder's workspace */
  uint64_t weight_bytes; /* packed weights that the engine holds */
  uint64_t engine_bytes_min; /* a plan file below this has lost weights */
  uint64_t engine_bytes_max; /* a plan file above this has weights in a wider type than was asked for */
  uint64_t activation_bytes; /* bound of the engine's activation memory */
} vlart_build_record_t;
static_assert(sizeof(vlart_build_record_t) == 72, "layout of build");

/* At most one: where the engines of TENSORRT stages are built and run. */
typedef struct {
  uint32_t name; /* string; target without mode and software */
  uint32_t compute_capability; /* 87 is sm_87 */
  uint32_t jetpack; /* string; version of JetPack */
  uint32_t l4t; /* string; version of the Linux that comes with it */
  uint32_t tensorrt; /* string; version of TensorRT, major.minor */
  uint32_t timing_cache; /* string; file name without a directory */
} vlart_board_record_t;
static_assert(sizeof(vlart_board_record_t) == 24, "layout of board");

/* One replay step: write these tensors, step, then compare those. */
typedef struct {
  uint32_t label; /* string; for a person */
  uint32_t begins; /* 0 or 1; 1: an episode begins with it */
  uint32_t write_begin; /* first in tensors */
  uint32_t write_count; /* number of write records */
  uint32_t expect_begin; /* first in tensors */
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

/* What the policy gives in full precision for a frame, where the stages compute with less. Nothing is executed by it. */
typedef struct {
  uint32_t frame; /* index into frames */
  uint32_t tensor; /* index into tensors; its limits say how far the stages were when they were built */
} vlart_reference_record_t;
static_assert(sizeof(vlart_reference_record_t) == 8, "layout of reference");

/* Limits of a tensor whose columns have units of their own; they take the place of its max_abs. */
typedef struct {
  uint32_t tensor; /* index into tensors */
  uint32_t column_begin; /* first in floats; largest allowed absolute difference, per index of the last dimension */
  uint32_t column_count; /* number of column records */
  uint32_t reserved; /* zero */
} vlart_limit_record_t;
static_assert(sizeof(vlart_limit_record_t) == 16, "layout of limit");

/* One step from the action value to actions, in order. The action value is f32[1,H,D], or integers where the first step reads tokens (LOOKUP or PIECES). index(token) = direction * (token - first). */
typedef struct {
  uint32_t kind; /* decode_kind */
  uint32_t outside; /* outside; LOOKUP, PIECES: what an index beyond the table gives */
  uint32_t symbols; /* symbols; PIECES: what a row of the table holds */
  uint32_t length; /* length; PIECES: what another number of symbols than H * D does */
  uint32_t table; /* index into weights, or NONE; LOOKUP: f32[D,V]; PIECES: i32[V,L], rows end at a negative number; BASIS: f32[H,H] */
  uint32_t value; /* index into values, or NONE; DELTA: of an f32 source */
  uint32_t float_begin; /* first in floats; AFFINE: scale[D], then offset[D] */
  uint32_t float_count; /* number of float records */
  uint32_t index_begin; /* first in indices; LOOKUP: first[D], then rows in use[D]; PIECES: first; DELTA: element of the source per dimension, or NONE */
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
  uint32_t schedule; /* schedule; REALTIME: of the prefix weights */
  uint32_t horizon; /* REALTIME: prefix weights are 0 from here on, 1..H */
  uint32_t previous; /* index into values, or NONE; REALTIME: f32[1,H,N] of a source that the runtime fills with the rest of the last `chunk` */
  uint32_t weights; /* index into values, or NONE; REALTIME: H f32 of a source that the runtime fills with prefix weights */
  uint32_t chunk; /* index into values, or NONE; REALTIME: of a stage; what `previous` continues, of the same shape */
} vlart_consumption_record_t;
static_assert(sizeof(vlart_consumption_record_t) == 32, "layout of consumption");

/* Of a routing table, exactly one: how its decisions are made (vlacompile/routing). */
typedef struct {
  double prior_success; /* Beta(success, failure) of a backbone of which nothing is known */
  double prior_failure; /* the same */
  double strength; /* episodes that the mean of one level counts as at the level below */
  double delta; /* margin of success */
  double tau; /* least probability of being not worse by more than delta */
  double nearest_text; /* smallest cosine to a cluster's centroid, of texts */
  double nearest_embedding; /* the same of embeddings */
  uint32_t cluster_count; /* C */
  uint32_t text_dim; /* B: buckets of runs of letters */
  uint32_t embedding_dim; /* D; 0: no embeddings */
  uint32_t reserved; /* zero */
  uint32_t text_weight_begin; /* first in floats; B */
  uint32_t text_weight_count; /* number of text_weight records */
  uint32_t text_centroid_begin; /* first in floats; C * B */
  uint32_t text_centroid_count; /* number of text_centroid records */
  uint32_t embedding_centroid_begin; /* first in floats; C * D */
  uint32_t embedding_centroid_count; /* number of embedding_centroid records */
} vlart_router_record_t;
static_assert(sizeof(vlart_router_record_t) == 96, "layout of router");

/* One of those that a routing table chooses from, from the lightest to the one that is escalated to. */
typedef struct {
  uint32_t name; /* string; unique */
  uint32_t reserved; /* zero */
  double task_ms; /* computed once per instruction */
  double replan_ms; /* computed per replan */
  double replans_failed; /* of an episode that fails */
} vlart_backbone_record_t;
static_assert(sizeof(vlart_backbone_record_t) == 32, "layout of backbone");

/* An instruction; after those, one for the others of each cluster, and one for what no cluster is near. */
typedef struct {
  uint32_t text; /* string, or NONE; normalised; NONE: of instructions that are not listed */
  uint32_t cluster; /* cluster, or NONE */
} vlart_route_record_t;
static_assert(sizeof(vlart_route_record_t) == 8, "layout of route");

/* Of one route and backbone; in the order of routes, and for each of backbones. */
typedef struct {
  double successes; /* initial states that were solved; one that was played several times counts once */
  double failures; /* initial states that were not */
  double replans; /* of an episode that succeeds, in the mean */
} vlart_evidence_record_t;
static_assert(sizeof(vlart_evidence_record_t) == 24, "layout of evidence");

/* Exactly one in a tokenizer's file: how text becomes token ids. Text is cut at the `raw` tokens; every piece goes through the first `normalise` steps, is cut at the `normalised` tokens, goes through the next `transform` steps, is cut into words by the last `split` steps, and every word goes through the model. */
typedef struct {
  uint32_t model; /* token_model */
  uint32_t token_count; /* ids are below this */
  uint32_t unknown; /* id of what has no token, or NONE: it is left out */
  uint32_t fuse_unknown; /* 0 or 1; BPE: 1: unknown characters side by side are one token */
  uint32_t longest_word; /* WORDPIECE: characters; a longer word is unknown */
  uint32_t normalise; /* number of steps */
  uint32_t transform; /* number of steps */
  uint32_t split; /* number of steps */
  uint32_t prefix_begin; /* first in indices; ids before those of the text */
  uint32_t prefix_count; /* number of prefix records */
  uint32_t suffix_begin; /* first in indices; ids after those of the text */
  uint32_t suffix_count; /* number of suffix records */
  uint32_t byte_begin; /* first in indices; BPE: 256 ids, one per byte, or NONE; or no index */
  uint32_t byte_count; /* number of byte records */
  uint32_t word_begin; /* first in entry_ids; WORDPIECE: words and their beginnings; BPE: whole words that are not merged */
  uint32_t word_count; /* number of word records */
  uint32_t rest_begin; /* first in entry_ids; WORDPIECE: what follows the beginning of a word */
  uint32_t rest_count; /* number of rest records */
  uint32_t letter_begin; /* first in entry_ids; BPE: single characters; none: bytes are what is merged */
  uint32_t letter_count; /* number of letter records */
  uint32_t raw_begin; /* first in entry_ids; tokens cut out before the text is normalised; their ids are indices of added records */
  uint32_t raw_count; /* number of raw records */
  uint32_t normalised_begin; /* first in entry_ids; the same, after */
  uint32_t normalised_count; /* number of normalised records */
  uint32_t pad; /* id that fills a sequence up */
  uint32_t pad_side; /* text_side */
  uint32_t truncate; /* text_side, or NONE; that is cut off where there are too many ids; NONE: they are refused */
  uint32_t ending; /* byte offset in the blob section: put behind a text that does not end with it */
  uint32_t ending_bytes; /* 0: nothing is */
  uint32_t reserved; /* zero */
} vlart_tokenizer_record_t;
static_assert(sizeof(vlart_tokenizer_record_t) == 120, "layout of tokenizer");

/* One step of a tokenizer; which fields are in use follows from the kind. */
typedef struct {
  uint32_t kind; /* text_step */
  uint32_t option; /* PREPEND: prepend_rule; CUT: cut_rule; DIGITS: 1: each alone; WORDS: word_rule */
  uint32_t span_begin; /* first in spans; MAP; ORDER: combining classes; CUT_...: char_class bits */
  uint32_t span_count; /* number of span records */
  uint32_t find; /* byte offset in the blob section: REPLACE, CUT */
  uint32_t find_bytes; /* at least 1 where it is in use */
  uint32_t put; /* byte offset in the blob section: REPLACE, PREPEND */
  uint32_t put_bytes; /*  */
} vlart_step_record_t;
static_assert(sizeof(vlart_step_record_t) == 32, "layout of step");

/* Code points first..last. The spans of a step are in ascending order. */
typedef struct {
  uint32_t first; /* code point */
  uint32_t last; /* code point */
  uint32_t action; /* MAP: span_action; ORDER: combining class 1..255; else char_class bits */
  uint32_t argument; /* SHIFT: added, modulo 2^32; SEQUENCE: indices: count, then code points */
} vlart_span_record_t;
static_assert(sizeof(vlart_span_record_t) == 16, "layout of span");

/* A token that is looked for in the text itself. */
typedef struct {
  uint32_t id; /* token id */
  uint32_t strip_left; /* 0 or 1; 1: the white space before it belongs to it */
  uint32_t strip_right; /* 0 or 1; 1: the white space after it belongs to it */
  uint32_t reserved; /* zero */
} vlart_added_record_t;
static_assert(sizeof(vlart_added_record_t) == 16, "layout of added");

/* Two code points that become one, in ascending order of (first, second). Hangul syllables are computed. */
typedef struct {
  uint32_t first; /* code point */
  uint32_t second; /* code point */
  uint32_t composed; /* code point */
  uint32_t reserved; /* zero */
} vlart_composition_record_t;
static_assert(sizeof(vlart_composition_record_t) == 16, "layout of composition");

/* A source that holds the token ids of a text, and the tokenizer that gives them. */
typedef struct {
  uint32_t tokenizer; /* index into files, or NONE; of kind TOKENIZER */
  uint32_t tokens; /* index into sources; i64 or i32 [1,L] */
  uint32_t mask; /* index into sources, or NONE; bool [1,L]: 1 where there is a token */
  uint32_t max_bytes; /* longest text, at least 1 */
} vlart_text_record_t;
static_assert(sizeof(vlart_text_record_t) == 16, "layout of text");

/* A text whose token ids, and what the stages make of them that depend on nothing else, are stored. */
typedef struct {
  uint32_t text; /* string */
  uint32_t source; /* index into sources; of the token ids; it is among the stored values */
  uint32_t stored_begin; /* first in stored */
  uint32_t stored_count; /* number of stored records */
} vlart_instruction_record_t;
static_assert(sizeof(vlart_instruction_record_t) == 16, "layout of instruction");

/* What a source or an output of a stage holds after an instruction. All outputs of a stage are stored, or none. */
typedef struct {
  uint32_t value; /* index into values; of a source or of a stage */
  uint32_t weight; /* index into weights; of the same shape and dtype */
} vlart_stored_record_t;
static_assert(sizeof(vlart_stored_record_t) == 8, "layout of stored");

/* Sources that are written at a slower clock than the control loop's. The stages that depend on such sources alone run in a session of their own; those of several lanes run in the last of them, and the rest in the control loop's. Records go from slow to fast. */
typedef struct {
  uint32_t name; /* string */
  float clock_hz; /* nominal rate; 0 = not stated */
  uint32_t max_age_ms; /* what a faster session reads of it may be so old; 0 = any age */
  uint32_t reserved; /* zero */
  uint32_t index_begin; /* first in indices: records of sources; of the lane; without a history */
  uint32_t index_count; /* number of index records */
} vlart_lane_record_t;
static_assert(sizeof(vlart_lane_record_t) == 24, "layout of lane");

/* What the content of a source must be like, besides finite. At most one per source, in their order. */
typedef struct {
  uint32_t source; /* index into sources */
  uint32_t outside; /* guard_rule; what a number outside the range does */
  uint32_t low_begin; /* first in floats; lower bound of an f32 source: count 0, 1 (of all), or the size of its last axis */
  uint32_t low_count; /* number of low records */
  uint32_t high_begin; /* first in floats; upper bound; as many as lower ones */
  uint32_t high_count; /* number of high records */
  uint32_t not_finite; /* 0 or 1; 1: it may hold NaN and infinity */
  uint32_t reserved; /* zero */
  uint64_t max_age_us; /* older content is refused, microseconds; 0 = any age */
} vlart_guard_record_t;
static_assert(sizeof(vlart_guard_record_t) == 40, "layout of guard");

/* The action chunk of one backbone, of the action value's type. Either none, or two and more, the action value first; a session runs one of them at a time. */
typedef struct {
  uint32_t backbone; /* string; unique: its name */
  uint32_t value; /* index into values; unique: a stage's */
} vlart_chunk_record_t;
static_assert(sizeof(vlart_chunk_record_t) == 8, "layout of chunk");

/* Of engines/lock.bin, exactly one: the machine that the engines were built on, and what proved them. */
typedef struct {
  uint64_t memory_bytes; /* of the board */
  uint32_t plan_crc32; /* CRC-32 of plan.bin */
  uint32_t golden; /* proof; the golden frames, stage by stage */
  uint32_t whole_tick; /* proof; the golden frames, a whole tick as one launch */
  uint32_t compute_capability; /* of the GPU, 87: 8.7 */
  uint32_t multiprocessors; /* of the GPU, in its power mode */
  uint32_t model; /* string; of the device tree; unknown where the machine does not say it, as the next two */
  uint32_t jetpack; /* string */
  uint32_t l4t; /* string */
  uint32_t tensorrt; /* string */
  uint32_t cuda; /* string */
  uint32_t gpu; /* string */
  uint32_t power_mode; /* of nvpmodel; NONE: not known, as the clocks */
  uint32_t gpu_mhz; /* when the engines were proved */
  uint32_t gpu_max_mhz; /* in its power mode */
  uint32_t emc_mhz; /* of the memory */
  uint32_t cpu_mhz; /* when the engines were proved */
  uint32_t cpu_max_mhz; /* in its power mode */
  uint32_t reserved; /* zero */
} vlart_lock_record_t;
static_assert(sizeof(vlart_lock_record_t) == 80, "layout of lock");

/* An engine that was built for a stage. */
typedef struct {
  uint64_t bytes; /* size of its file */
  uint64_t scratch_bytes; /* of the GPU's memory, while it runs */
  uint64_t build_peak_bytes; /* of the process that built it */
  double build_s; /* seconds */
  uint64_t runs; /* that were timed; 0: none */
  double median_ms; /* of a run, all iterations */
  double p95_ms; /* the same */
  uint32_t stage; /* string; name of the stage */
  uint32_t file; /* string; its path in the bundle */
  uint32_t crc32; /* of the file */
  uint32_t stage_crc32; /* of the stage's ONNX file */
  uint32_t weights_crc32; /* of all weights files */
  uint32_t recipe_crc32; /* of how it was to be built */
  uint32_t sha256[8]; /* of the file, byte after byte */
} vlart_engine_record_t;
static_assert(sizeof(vlart_engine_record_t) == 112, "layout of engine");

/* At most one: how far an action may be from the one that was handed out the tick before, in the same episode. */
typedef struct {
  uint32_t rule; /* rate_rule; what an action that is farther does */
  uint32_t step_begin; /* first in floats; per action dimension; 0: any */
  uint32_t step_count; /* number of step records */
  uint32_t reserved; /* zero */
} vlart_rate_limit_record_t;
static_assert(sizeof(vlart_rate_limit_record_t) == 16, "layout of rate_limit");

/* A source whose numbers are rows of a table: 0 to rows - 1, whatever else is accepted. In the order of sources. */
typedef struct {
  uint32_t source; /* index into sources; of i32 or i64 */
  uint32_t rows; /* of the table */
} vlart_token_range_record_t;
static_assert(sizeof(vlart_token_range_record_t) == 8, "layout of token_range");

/* Of a loop stage: its iterations are the largest number, and the data decides which is the last. At most one per stage, in the order of stages. Iterations behind the end, where any run, leave every carried value as it is. */
typedef struct {
  uint32_t stage; /* index into stages */
  uint32_t condition; /* index into values; bool of one element, the result of one of its carries: 1 after the last iteration */
  uint32_t must_end; /* 0 or 1; 1: a run that reaches the largest number without its end fails */
  uint32_t reserved; /* zero */
} vlart_loop_end_record_t;
static_assert(sizeof(vlart_loop_end_record_t) == 16, "layout of loop_end");

/* At most one: how many threads the stages were timed with, which a session uses that says nothing of it. */
typedef struct {
  uint32_t threads; /* of each engine */
  uint32_t parallel; /* stages at the same time */
} vlart_concurrency_record_t;
static_assert(sizeof(vlart_concurrency_record_t) == 8, "layout of concurrency");

/* A value that a step takes from the one before. `value` is what `next` was when the last step ended well, and before the first step of its lifetime what `initial` holds. A step that fails leaves it as it was. */
typedef struct {
  uint32_t value; /* index into values; ARENA, that nothing else writes */
  uint32_t next; /* index into values; of the same shape and dtype, of a stage that depends on a carried value */
  uint32_t initial; /* index into weights, or NONE; of the same shape and dtype, or none: zeros */
  uint32_t until; /* lifetime; what ends it */
} vlart_carried_record_t;
static_assert(sizeof(vlart_carried_record_t) == 16, "layout of carried");

/* How many tokens of text a backbone is compiled for. None, or one for each backbone, in their order: then they are one policy, whose text decides which is run: the first that reads all of its tokens. */
typedef struct {
  uint32_t mask; /* index into sources; bool [1,L]: 1 where there is a token; the same for all */
  uint32_t side; /* text_side; where padding is; the same for all */
  uint32_t length; /* of the text, without the padding that it does not read; ascending, the last is L */
  uint32_t reserved; /* zero */
} vlart_bucket_record_t;
static_assert(sizeof(vlart_bucket_record_t) == 16, "layout of bucket");

/* First record of a recording. */
typedef struct {
  uint32_t magic[2]; /* RECORDING_MAGIC */
  uint32_t version_major; /* a reader refuses another major version */
  uint32_t version_minor; /* a reader accepts any minor version */
  uint64_t head_bytes; /* where the blocks begin, a multiple of block_bytes */
  uint64_t plan_bytes; /* size of the plan.bin that follows this record */
  uint64_t block_count; /* blocks of the ring */
  uint32_t block_bytes; /* of one block, its record included */
  uint32_t full; /* 1: content of sources is recorded; 0: its size and CRC-32 */
  uint64_t recording; /* which blocks belong to it */
  uint64_t wall_ns; /* CLOCK_REALTIME when it began */
  uint64_t clock_ns; /* CLOCK_MONOTONIC at the same moment, which the events' times are of */
  uint32_t plan_crc32; /* CRC-32 of the plan.bin */
  uint32_t head_crc32; /* CRC-32 of the bytes of this record before this field */
} vlart_log_record_t;
static_assert(sizeof(vlart_log_record_t) == 80, "layout of log");

/* First record of a block. */
typedef struct {
  uint32_t crc32; /* CRC-32 of the rest of this record and of the `used` bytes behind it */
  uint32_t used; /* bytes of the stream in this block */
  uint64_t recording; /* as in the log record */
  uint64_t sequence; /* 0, 1, ... */
  uint32_t first; /* where in these bytes the first event begins */
  uint32_t reserved; /* zero */
} vlart_block_record_t;
static_assert(sizeof(vlart_block_record_t) == 32, "layout of block");

/* What comes before every event's own record. */
typedef struct {
  uint32_t bytes; /* of what follows, without the padding */
  uint32_t kind; /* event_kind */
  uint32_t track; /* who recorded it: one thread at a time */
  uint32_t role; /* event_role; what that is */
  uint32_t lane; /* of a session: option `lane`; of asynchronous control: its session's track, plus 1 (since 1.1) */
  uint32_t reserved; /* zero */
  uint64_t sequence; /* 1, 2, ... in its track; a number that is missing was lost */
  uint64_t time_ns; /* CLOCK_MONOTONIC */
} vlart_event_record_t;
static_assert(sizeof(vlart_event_record_t) == 40, "layout of event");

/* source: what was written into a source of the session, and its content where the recording is full. */
typedef struct {
  uint32_t source; /* index of the source */
  uint32_t flags; /* bits of source_flag */
  uint32_t crc32; /* of the content */
  uint32_t reserved; /* zero */
  uint64_t bytes; /* size of the content */
  uint64_t version; /* changes of this source since the session began */
  uint64_t observation; /* name of the observation that it is part of */
} vlart_source_event_record_t;
static_assert(sizeof(vlart_source_event_record_t) == 40, "layout of source_event");

/* step: one replan; followed by a stage_time record per stage and by the chunk. */
typedef struct {
  uint32_t status; /* how it ended */
  uint32_t stop_stage; /* the first stage that was not up to date then */
  uint32_t stage_count; /* stage_time records */
  uint32_t chunk_count; /* f32 of the chunk, [chunk_steps, action_dim]; 0: no new one */
  uint32_t backbone; /* which one was selected */
  uint32_t remaining; /* actions that the queue held afterwards */
  uint64_t chunk; /* good chunks so far */
  uint64_t observation; /* name of the newest observation */
  uint64_t request; /* of asynchronous control: which request it answers; 0: none */
  uint64_t ns; /* how long it took */
  uint64_t deadline_us; /* its time limit; 0: none */
  uint64_t deadline_misses; /* steps so far that ran out of time */
  uint64_t deadline_overruns; /* steps so far whose last stage ended late */
  uint64_t lanes[8]; /* the step of each lane whose set it read */
} vlart_step_event_record_t;
static_assert(sizeof(vlart_step_event_record_t) == 144, "layout of step_event");

/* A stage as a step left it. */
typedef struct {
  uint64_t runs; /* completed runs so far: the version of what it computed */
  uint64_t ns; /* of the run in this step; 0: it was up to date, or nobody measured it */
  uint32_t iterations; /* of its last run */
  uint32_t ran; /* 1: in this step */
} vlart_stage_time_record_t;
static_assert(sizeof(vlart_stage_time_record_t) == 24, "layout of stage_time");

/* pop: actions that were handed out; followed by f32 [rows, dim]. */
typedef struct {
  uint32_t status; /* how it ended; actions are there with OK, DEADLINE_MISSED and SAFE_ACTION */
  uint32_t rows; /* actions */
  uint32_t dim; /* numbers of each */
  uint32_t row; /* of the last action in its chunk */
  uint32_t clipped; /* numbers of it that the rate limit held back */
  uint32_t asked; /* actions that were asked for */
  uint64_t observation; /* name of the newest observation in it; 0: none */
  uint64_t chunk; /* number of its chunk */
  uint64_t tick; /* pops before it */
} vlart_pop_event_record_t;
static_assert(sizeof(vlart_pop_event_record_t) == 48, "layout of pop_event");

/* Every other event of a session or of asynchronous control; what its numbers are follows from the kind. A text's bytes follow it. */
typedef struct {
  uint32_t status; /* how the call ended */
  uint32_t index; /* text, refused: the source; select: the backbone; cancel: how; observe: as stop_stage; keyframe: 1 at the beginning of an episode, 2 of a session that had no content, else 0 */
  uint64_t number; /* request, take, result: the request; handover: the lane's step; keyframe: the backbone; outcome: the decision */
  uint64_t tick; /* request, take: the tick of the observation; result: nanoseconds from taking it; handover: the lane's episode, counted (since 1.1) */
  uint64_t observation; /* its name, where there is one */
} vlart_note_event_record_t;
static_assert(sizeof(vlart_note_event_record_t) == 32, "layout of note_event");

/* decision: as vlart_decision_t; the instruction's bytes follow it. */
typedef struct {
  uint64_t sequence; /* 1, 2, ... of the router */
  uint32_t route; /* record of the table */
  uint32_t cluster; /* of the route */
  uint32_t by; /* VLART_BY_... */
  uint32_t level; /* VLART_LEVEL_... */
  uint32_t backbone; /* the one to run */
  uint32_t backbone_count; /* valid entries of the arrays */
  double similarity; /* cosine to the nearest cluster */
  double delta; /* as in the table */
  double tau; /* as in the table */
  double alpha[4]; /* posterior of success: Beta(alpha, beta) */
  double beta[4]; /* the same */
  double probability[4]; /* that a backbone is not worse than the last by over delta */
  double cost_ms[4]; /* expected, of an episode */
} vlart_decision_event_record_t;
static_assert(sizeof(vlart_decision_event_record_t) == 184, "layout of decision_event");

/* control: the options of asynchronous control, before an episode; followed by f32 [dim] of the safe action. */
typedef struct {
  uint32_t lead_ticks; /* as in vlart_async_options_t */
  uint32_t stale_ticks; /* as it is used: never beyond the chunk */
  uint32_t deadline_ticks; /* from an observation to its chunk; 0: none */
  uint32_t safe; /* VLART_SAFE_... */
  uint32_t expire; /* VLART_EXPIRE_... */
  uint32_t dim; /* numbers of an action */
  uint64_t deadline_us; /* of one step of the worker; 0: the plan's */
} vlart_control_event_record_t;
static_assert(sizeof(vlart_control_event_record_t) == 32, "layout of control_event");

/* loss: what is not in the recording, told as soon as there is room again. */
typedef struct {
  uint64_t events; /* events for which the track had no room */
  uint64_t bytes; /* their size */
  uint64_t first; /* sequence of the first of them */
  uint64_t blocks; /* of the writer's: blocks that the disk did not take, so far */
  uint32_t error; /* errno of the last of these */
  uint32_t reserved; /* zero */
} vlart_loss_event_record_t;
static_assert(sizeof(vlart_loss_event_record_t) == 40, "layout of loss_event");

/* clock (since 1.2): the wall clock was set while this was recorded; the writer's. Told again, with the same `changes`, before the ring overwrites it. */
typedef struct {
  uint64_t wall_ns; /* CLOCK_REALTIME at the event's time */
  int64_t moved_ns; /* by how much it was set, against what the recording said of it before */
  uint64_t changes; /* 1, 2, ...: how often it was set since the recording began */
} vlart_clock_event_record_t;
static_assert(sizeof(vlart_clock_event_record_t) == 24, "layout of clock_event");

/* X(section, bytes of one record) of every section. */
#define VLART_SECTIONS(X) \
  X(STRINGS, 1u) \
  X(INDICES, 4u) \
  X(FLOATS, 4u) \
  X(POLICY, sizeof(vlart_policy_record_t)) \
  X(FILES, sizeof(vlart_file_record_t)) \
  X(VALUES, sizeof(vlart_value_record_t)) \
  X(SOURCES, sizeof(vlart_source_record_t)) \
  X(WEIGHTS, sizeof(vlart_weight_record_t)) \
  X(STAGES, sizeof(vlart_stage_record_t)) \
  X(BINDINGS, sizeof(vlart_binding_record_t)) \
  X(INITIALIZERS, sizeof(vlart_initializer_record_t)) \
  X(CARRIES, sizeof(vlart_carry_record_t)) \
  X(DELAYS, sizeof(vlart_delay_record_t)) \
  X(HISTORIES, sizeof(vlart_history_record_t)) \
  X(LANES, sizeof(vlart_lane_record_t)) \
  X(SAMPLINGS, sizeof(vlart_sampling_record_t)) \
  X(PRECISIONS, sizeof(vlart_precision_record_t)) \
  X(BUILDS, sizeof(vlart_build_record_t)) \
  X(BOARD, sizeof(vlart_board_record_t)) \
  X(FRAMES, sizeof(vlart_frame_record_t)) \
  X(TENSORS, sizeof(vlart_tensor_record_t)) \
  X(BLOB, 1u) \
  X(REFERENCES, sizeof(vlart_reference_record_t)) \
  X(LIMITS, sizeof(vlart_limit_record_t)) \
  X(DECODES, sizeof(vlart_decode_record_t)) \
  X(CONSUMPTION, sizeof(vlart_consumption_record_t)) \
  X(ROUTER, sizeof(vlart_router_record_t)) \
  X(BACKBONES, sizeof(vlart_backbone_record_t)) \
  X(ROUTES, sizeof(vlart_route_record_t)) \
  X(EVIDENCE, sizeof(vlart_evidence_record_t)) \
  X(TOKENIZER, sizeof(vlart_tokenizer_record_t)) \
  X(STEPS, sizeof(vlart_step_record_t)) \
  X(SPANS, sizeof(vlart_span_record_t)) \
  X(ADDED, sizeof(vlart_added_record_t)) \
  X(COMPOSITIONS, sizeof(vlart_composition_record_t)) \
  X(ENTRY_BEGINS, 4u) \
  X(ENTRY_IDS, 4u) \
  X(MERGE_ROWS, 4u) \
  X(MERGE_RIGHTS, 4u) \
  X(MERGE_RANKS, 4u) \
  X(MERGE_IDS, 4u) \
  X(TEXTS, sizeof(vlart_text_record_t)) \
  X(INSTRUCTIONS, sizeof(vlart_instruction_record_t)) \
  X(STORED, sizeof(vlart_stored_record_t)) \
  X(RATE_LIMITS, sizeof(vlart_rate_limit_record_t)) \
  X(TOKEN_RANGES, sizeof(vlart_token_range_record_t)) \
  X(LOOP_ENDS, sizeof(vlart_loop_end_record_t)) \
  X(CONCURRENCY, sizeof(vlart_concurrency_record_t)) \
  X(CARRIED, sizeof(vlart_carried_record_t)) \
  X(BUCKETS, sizeof(vlart_bucket_record_t)) \
  X(GUARDS, sizeof(vlart_guard_record_t)) \
  X(CHUNKS, sizeof(vlart_chunk_record_t)) \
  X(LOCK, sizeof(vlart_lock_record_t)) \
  X(ENGINES, sizeof(vlart_engine_record_t))

#endif
