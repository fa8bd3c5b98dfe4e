"""Records of plan.bin; see layout.py."""

from __future__ import annotations

from vlacompile.bundle.format.record import record, span

POLICY = record(
    "policy",
    "Exactly one: what the bundle is and how its actions are handed out.",
    ("name", "u32", "string"),
    ("target", "u32", "string: target that it was built for"),
    ("recipe", "u32", "string: recipe that it was built with"),
    ("action_value", "u32", "value [1, chunk_steps, action_dim] f32 that feeds the action queue, or NONE"),
    ("chunk_steps", "u32", "H: actions predicted per replan"),
    ("execute_steps", "u32", "h <= H: actions handed out before a replan is due"),
    ("action_dim", "u32", "numbers per action"),
    ("reserved", "u32", "zero"),
    *span("low", "floats: lower bound per action dimension (count 0 or action_dim)"),
    *span("high", "floats: upper bound per action dimension (count 0 or action_dim)"),
    ("deadline_us", "u64", "time that one step may take, microseconds; 0 = none"),
    ("arena_bytes", "u64", "size of the arena that holds every ARENA value"),
)

FILE = record(
    "file",
    "One other file of the bundle.",
    ("path", "u32", "string: relative, '/'-separated, no '..'"),
    ("kind", "u32", "file_kind"),
    ("crc32", "u32", "CRC-32 of the file"),
    ("reserved", "u32", "zero"),
    ("bytes", "u64", "size of the file"),
)

VALUE = record(
    "value",
    "A tensor that crosses a stage boundary. Dense, row-major.",
    ("name", "u32", "string, unique"),
    ("dtype", "u32", "dtype"),
    ("rank", "u32", "0..MAX_RANK"),
    ("storage", "u32", "storage: ARENA or WEIGHT"),
    ("dims", "u64[8]", "dims[0..rank); the rest is 1"),
    ("bytes", "u64", "size of the tensor"),
    ("offset", "u64", "ARENA: byte offset in the arena, a multiple of ALIGN; WEIGHT: 0"),
    ("weight", "u32", "WEIGHT: index of the weight record; ARENA: NONE"),
    ("reserved", "u32", "zero"),
)

SOURCE = record(
    "source",
    "A value that the caller writes.",
    ("value", "u32", "value"),
    ("update", "u32", "update class: how often it is expected to change"),
    ("clock_hz", "f32", "nominal rate; 0 = not stated"),
    ("reserved", "u32", "zero"),
)

WEIGHT = record(
    "weight",
    "A constant tensor; each distinct content is stored once.",
    ("name", "u32", "string, unique"),
    ("file", "u32", "file that holds it"),
    ("dtype", "u32", "dtype"),
    ("rank", "u32", "0..MAX_RANK"),
    ("dims", "u64[8]", "dims[0..rank); the rest is 1"),
    ("offset", "u64", "byte offset in the file, a multiple of ALIGN"),
    ("bytes", "u64", "size of the tensor"),
)

STAGE = record(
    "stage",
    "Values with one dependency set, computed by one engine. Records are in execution order.",
    ("name", "u32", "string, unique"),
    ("backend", "u32", "backend"),
    ("artefact", "u32", "file that the backend loads"),
    ("iterations", "u32", "1, or K for a loop body"),
    *span("dep", "indices: source records that this stage depends on"),
    *span("input", "bindings"),
    *span("output", "bindings"),
    *span("initializer", "initializers"),
    *span("carry", "carries; empty unless a loop body"),
    ("flops", "u64", "floating-point operations per iteration (matmul, convolution, attention; 2 per MAC)"),
    ("weight_bytes", "u64", "bytes of weights that one iteration reads"),
)

BINDING = record(
    "binding",
    "A port of a stage's engine and the value behind it.",
    ("port", "u32", "string: name of the engine's input or output"),
    ("value", "u32", "value"),
    ("mode", "u32", "binding_mode"),
    ("reserved", "u32", "zero"),
)

INITIALIZER = record(
    "initializer",
    "A weight handed to a stage's engine under the name that its artefact uses.",
    ("port", "u32", "string: name of the initializer in the artefact"),
    ("weight", "u32", "weight"),
)

CARRY = record(
    "carry",
    "A loop-carried value. Iteration 0 reads `initial`; iteration k > 0 reads what k-1 wrote; the last "
    "iteration writes `result`; the others alternate between `scratch` and `result`.",
    ("initial", "u32", "value"),
    ("result", "u32", "value of the same shape and dtype"),
    ("scratch", "u32", "value of the same shape and dtype"),
    ("input", "u32", "binding (mode CARRY) that reads it"),
    ("output", "u32", "binding (mode CARRY) that writes it"),
    ("reserved", "u32", "zero"),
)

SAMPLING = record(
    "sampling",
    "How the loop of one stage is run, and what was given up for it. At most one per stage; nothing is executed by it.",
    ("stage", "u32", "stage"),
    ("form", "u32", "loop_form"),
    ("iterations", "u32", "how often the loop's body is evaluated"),
    ("written", "u32", "the same, in the policy as it was given"),
    ("solver", "u32", "string: what integrates, or as-written"),
    ("error", "f32", "of the action chunk, in units of each action dimension's spread; the worst dimension's"),
    ("budget", "f32", "what the recipe allows"),
    ("reserved", "u32", "zero"),
)

PRECISION = record(
    "precision",
    "What the layers of one block of a stage are stored as and computed in, and what that costs. Records are in the order "
    "of stages; nothing is executed by them.",
    ("stage", "u32", "stage"),
    ("group", "u32", "string: <stage>/<path of the block>"),
    ("scheme", "u32", "scheme"),
    ("decider", "u32", "decider: what chose it"),
    ("layers", "u32", "number of layers, at least 1"),
    ("error", "f32", "of the action chunk by this alone, in units of each action dimension's spread, the worst "
     "dimension's; 0 = fp32, or not measured"),
    ("time_us", "f32", "of all iterations of a run of the stage, by the target's rates; 0 = the target has none"),
    ("reserved", "u32", "zero"),
    ("bytes", "u64", "of the stored weights; what an earlier record stores counts there"),
)

BUILD = record(
    "build",
    "How the engine of a stage is built where it will run, and what it must come out as. At most one per stage, in the order "
    "of stages, of those of TENSORRT. Layers' precisions are in the artefact's own types.",
    ("stage", "u32", "stage"),
    ("flags", "u32", "bits of build_flag"),
    ("level", "u32", "builder optimisation level, 0..5"),
    ("aux_streams", "u32", "streams beside the main one that the engine may use"),
    ("int8_gemms", "u32", "matrix products and convolutions in INT8"),
    ("int4_dequants", "u32", "INT4 weights whose dequantisation is part of their product"),
    ("attentions", "u32", "attentions that are one kernel each"),
    ("reserved", "u32", "zero"),
    ("workspace_bytes", "u64", "limit of the builder's workspace"),
    ("weight_bytes", "u64", "packed weights that the engine holds"),
    ("engine_bytes_min", "u64", "a plan file below this has lost weights"),
    ("engine_bytes_max", "u64", "a plan file above this has weights in a wider type than was asked for"),
    ("activation_bytes", "u64", "bound of the engine's activation memory"),
)

BOARD = record(
    "board",
    "At most one: where the engines of TENSORRT stages are built and run.",
    ("name", "u32", "string: target without mode and software"),
    ("compute_capability", "u32", "87 is sm_87"),
    ("jetpack", "u32", "string: version of JetPack"),
    ("l4t", "u32", "string: version of the Linux that comes with it"),
    ("tensorrt", "u32", "string: version of TensorRT, major.minor"),
    ("timing_cache", "u32", "string: file name without a directory"),
)

DECODE = record(
    "decode",
    "One step from the action value to actions, in order. The action value is f32[1,H,D], or integers where the first "
    "step reads tokens (LOOKUP or PIECES). index(token) = direction * (token - first).",
    ("kind", "u32", "decode_kind"),
    ("outside", "u32", "LOOKUP, PIECES: outside, what an index beyond the table gives"),
    ("symbols", "u32", "PIECES: symbols, what a row of the table holds"),
    ("length", "u32", "PIECES: length, what another number of symbols than H * D does"),
    ("table", "u32", "LOOKUP: weight f32[D,V]; PIECES: weight i32[V,L], rows end at a negative number; BASIS: weight "
     "f32[H,H]; else NONE"),
    ("value", "u32", "DELTA: value of an f32 source; else NONE"),
    *span("float", "floats: AFFINE: scale[D], then offset[D]"),
    *span("index", "indices: LOOKUP: first[D], then rows in use[D]; PIECES: first; DELTA: element of the source per "
            "dimension, or NONE"),
    ("direction", "i64", "LOOKUP, PIECES: 1 or -1"),
    ("offset", "i64", "PIECES: added to every symbol"),
    ("stop", "i64", "PIECES: token that ends the sequence; negative: none"),
)

CONSUMPTION = record(
    "consumption",
    "At most one: how chunks become the actions of successive ticks; without it, a queue.",
    ("consume", "u32", "consume"),
    ("decay", "f32", "ENSEMBLE: m; prediction i of a tick has the weight exp(-m * i), i = 0 the oldest"),
    ("delay", "u32", "REALTIME: d, ticks that a replan is expected to take; d <= execute_steps <= H - d"),
    ("schedule", "u32", "REALTIME: schedule of the prefix weights"),
    ("horizon", "u32", "REALTIME: prefix weights are 0 from here on, 1..H"),
    ("previous", "u32", "REALTIME: value f32[1,H,N] of a source that the runtime fills with the rest of the last "
     "`chunk`, or NONE"),
    ("weights", "u32", "REALTIME: value of H f32 of a source that the runtime fills with prefix weights, or NONE"),
    ("chunk", "u32", "REALTIME: value of a stage that `previous` continues, of the same shape, or NONE"),
)

DELAY = record(
    "delay",
    "A value of the observation before. When the history advances, `output` takes what `input` holds; the first "
    "observation fills it. Chains: `input` may be the output of an earlier record.",
    ("input", "u32", "value: a history source, what a stage computes from history sources alone, or a delay's output"),
    ("output", "u32", "value of the same shape and dtype that nothing else writes"),
)

HISTORY = record(
    "history",
    "A source of which the policy sees several observations. The caller writes the newest alone.",
    ("source", "u32", "source"),
    ("frames", "u32", "observations that the policy sees, the newest among them; at least 2"),
)

LANE = record(
    "lane",
    "Sources that are written at a slower clock than the control loop's. The stages that depend on such sources alone run in "
    "a session of their own; those of several lanes run in the last of them, and the rest in the control loop's. Records go "
    "from slow to fast.",
    ("name", "u32", "string"),
    ("clock_hz", "f32", "nominal rate; 0 = not stated"),
    ("max_age_ms", "u32", "what a faster session reads of it may be so old; 0 = any age"),
    ("reserved", "u32", "zero"),
    *span("index", "indices: sources of the lane; without a history"),
)

CHUNK = record(
    "chunk",
    "The action chunk of one backbone, of the action value's type. Either none, or two and more, the action value first; a "
    "session runs one of them at a time.",
    ("backbone", "u32", "string, unique: its name"),
    ("value", "u32", "value, unique: a stage's"),
)

TEXT = record(
    "text",
    "A source that holds the token ids of a text, and the tokenizer that gives them.",
    ("tokenizer", "u32", "file of kind TOKENIZER"),
    ("tokens", "u32", "source, i64 or i32 [1,L]"),
    ("mask", "u32", "source, bool [1,L]: 1 where there is a token; or NONE"),
    ("max_bytes", "u32", "longest text, at least 1"),
)

INSTRUCTION = record(
    "instruction",
    "A text whose token ids, and what the stages make of them that depend on nothing else, are stored.",
    ("text", "u32", "string"),
    ("source", "u32", "source of the token ids; it is among the stored values"),
    *span("stored", "stored"),
)

STORED = record(
    "stored",
    "What a source or an output of a stage holds after an instruction. All outputs of a stage are stored, or none.",
    ("value", "u32", "value of a source or of a stage"),
    ("weight", "u32", "weight of the same shape and dtype"),
)

GUARD = record(
    "guard",
    "What the content of a source must be like, besides finite. At most one per source, in their order.",
    ("source", "u32", "source"),
    ("outside", "u32", "guard_rule: what a number outside the range does"),
    *span("low", "floats: lower bound of an f32 source: count 0, 1 (of all), or the size of its last axis"),
    *span("high", "floats: upper bound; as many as lower ones"),
    ("not_finite", "u32", "1: it may hold NaN and infinity"),
    ("reserved", "u32", "zero"),
    ("max_age_us", "u64", "older content is refused, microseconds; 0 = any age"),
)
