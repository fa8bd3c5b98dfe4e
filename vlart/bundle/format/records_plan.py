"""Records of plan.bin, and the text of each in plan.txt; see layout.py. What the stages are: records_stage.py."""

from __future__ import annotations

from vlart.bundle.format.record import (
    checksum,
    dims,
    enum,
    flag,
    index,
    number,
    rank,
    real,
    record,
    reserved,
    span,
    string,
)

POLICY = record(
    "policy",
    "Exactly one: what the bundle is and how its actions are handed out.",
    string("name"),
    string("target", "target that it was built for"),
    string("recipe", "recipe that it was built with"),
    index("action_value", "values", "[1, chunk_steps, action_dim] f32 that feeds the action queue", optional=True,
          attribute="action.value"),
    number("chunk_steps", "u32", "H: actions predicted per replan", attribute="action.chunk_steps"),
    number("execute_steps", "u32", "h <= H: actions handed out before a replan is due",
           attribute="action.execute_steps"),
    number("action_dim", "u32", "numbers per action", attribute="action.action_dim"),
    reserved(),
    span("low", "floats", "lower bound per action dimension (count 0 or action_dim)", attribute="action.low"),
    span("high", "floats", "upper bound per action dimension (count 0 or action_dim)", attribute="action.high"),
    number("deadline_us", "u64", "time that one step may take, microseconds; 0 = none", attribute="action.deadline_us"),
    number("arena_bytes", "u64", "size of the arena that holds every ARENA value"),
)

FILE = record(
    "file",
    "One other file of the bundle.",
    string("path", "relative, '/'-separated, no '..'"),
    enum("kind", "file_kind"),
    checksum("crc32", "CRC-32 of the file"),
    reserved(),
    number("bytes", "u64", "size of the file"),
    text="file {#} {path} {kind} bytes={bytes} crc32={crc32}",
)

VALUE = record(
    "value",
    "A tensor that crosses a stage boundary. Dense, row-major.",
    string("name", "unique"),
    enum("dtype", "dtype", attribute="type.dtype"),
    rank(),
    enum("storage", "storage"),
    dims(),
    number("bytes", "u64", "size of the tensor", attribute="type.bytes"),
    number("offset", "u64", "ARENA: byte offset in the arena, a multiple of ALIGN; WEIGHT: 0"),
    index("weight", "weights", "WEIGHT: its content; ARENA: NONE", optional=True),
    reserved(),
    by="storage",
    text={"arena": "value %{#} {name} {dtype}[{dims}] arena+{offset}",
          "weight": "value %{#} {name} {dtype}[{dims}] weight={weight}"},
)

SOURCE = record(
    "source",
    "A value that the caller writes.",
    index("value", "values"),
    enum("update", "update", "how often it is expected to change"),
    real("clock_hz", "f32", "nominal rate; 0 = not stated"),
    reserved(),
    text="source {value} {update} clock={clock_hz}",
)

WEIGHT = record(
    "weight",
    "A constant tensor; each distinct content is stored once.",
    string("name", "unique"),
    index("file", "files", "that holds it", optional=True),
    enum("dtype", "dtype", attribute="type.dtype"),
    rank(),
    dims(),
    number("offset", "u64", "byte offset in the file, a multiple of ALIGN"),
    number("bytes", "u64", "size of the tensor", attribute="type.bytes"),
    text="weight @{#} {name} {dtype}[{dims}] file={file} offset={offset} bytes={bytes}",
)

BOARD = record(
    "board",
    "At most one: where the engines of TENSORRT stages are built and run.",
    string("name", "target without mode and software"),
    number("compute_capability", "u32", "87 is sm_87"),
    string("jetpack", "version of JetPack"),
    string("l4t", "version of the Linux that comes with it"),
    string("tensorrt", "version of TensorRT, major.minor"),
    string("timing_cache", "file name without a directory"),
    text="board {name} sm={compute_capability} jetpack={jetpack} l4t={l4t} tensorrt={tensorrt} "
         "timing_cache={timing_cache}",
)

CONCURRENCY = record(
    "concurrency",
    "At most one: how many threads the stages were timed with, which a session uses that says nothing of it.",
    number("threads", "u32", "of each engine"),
    number("parallel", "u32", "stages at the same time"),
    text="concurrency threads={threads} parallel={parallel}",
)

DELAY = record(
    "delay",
    "A value of the observation before. When the history advances, `output` takes what `input` holds; the first "
    "observation fills it. Chains: `input` may be the output of an earlier record.",
    index("input", "values", "a history source, what a stage computes from history sources alone, or a delay's output"),
    index("output", "values", "of the same shape and dtype, that nothing else writes"),
    text="delay {input} -> {output}",
)

HISTORY = record(
    "history",
    "A source of which the policy sees several observations. The caller writes the newest alone.",
    index("source", "sources"),
    number("frames", "u32", "observations that the policy sees, the newest among them; at least 2"),
    text="history {source} frames={frames}",
)

CARRIED = record(
    "carried",
    "A value that a step takes from the one before. `value` is what `next` was when the last step ended well, and "
    "before the first step of its lifetime what `initial` holds. A step that fails leaves it as it was.",
    index("value", "values", "ARENA, that nothing else writes"),
    index("next", "values", "of the same shape and dtype, of a stage that depends on a carried value"),
    index("initial", "weights", "of the same shape and dtype, or none: zeros", optional=True),
    enum("until", "lifetime", "what ends it"),
    text="carried {value} <- {next} initial={initial} until={until}",
)

LANE = record(
    "lane",
    "Sources that are written at a slower clock than the control loop's. The stages that depend on such sources alone "
    "run in a session of their own; those of several lanes run in the last of them, and the rest in the control "
    "loop's. Records go from slow to fast.",
    string("name"),
    real("clock_hz", "f32", "nominal rate; 0 = not stated"),
    number("max_age_ms", "u32", "what a faster session reads of it may be so old; 0 = any age"),
    reserved(),
    span("index", "indices", "of the lane; without a history", items="sources", attribute="sources"),
    text="lane {name} clock={clock_hz} max_age_ms={max_age_ms}{*index}",
)

CHUNK = record(
    "chunk",
    "The action chunk of one backbone, of the action value's type. Either none, or two and more, the action value "
    "first; a session runs one of them at a time.",
    string("backbone", "unique: its name", attribute="name"),
    index("value", "values", "unique: a stage's"),
    text="backbone {backbone} {value}",
)

BUCKET = record(
    "bucket",
    "How many tokens of text a backbone is compiled for. None, or one for each backbone, in their order: then they are "
    "one policy, whose text decides which is run: the first that reads all of its tokens.",
    index("mask", "sources", "bool [1,L]: 1 where there is a token; the same for all"),
    enum("side", "text_side", "where padding is; the same for all"),
    number("length", "u32", "of the text, without the padding that it does not read; ascending, the last is L"),
    reserved(),
    text="bucket {mask} {side} length={length}",
)

TEXT = record(
    "text",
    "A source that holds the token ids of a text, and the tokenizer that gives them.",
    index("tokenizer", "files", "of kind TOKENIZER", optional=True),
    index("tokens", "sources", "i64 or i32 [1,L]"),
    index("mask", "sources", "bool [1,L]: 1 where there is a token", optional=True),
    number("max_bytes", "u32", "longest text, at least 1"),
    text="text {tokens} mask={mask} tokenizer={tokenizer} max_bytes={max_bytes}",
)

STORED = record(
    "stored",
    "What a source or an output of a stage holds after an instruction. All outputs of a stage are stored, or none.",
    index("value", "values", "of a source or of a stage"),
    index("weight", "weights", "of the same shape and dtype"),
    text="{value}={weight}",
)

INSTRUCTION = record(
    "instruction",
    "A text whose token ids, and what the stages make of them that depend on nothing else, are stored.",
    string("text"),
    index("source", "sources", "of the token ids; it is among the stored values"),
    span("stored", "stored"),
    text="instruction {source} {text}{*stored}",
)

TOKEN_RANGE = record(
    "token_range",
    "A source whose numbers are rows of a table: 0 to rows - 1, whatever else is accepted. In the order of sources.",
    index("source", "sources", "of i32 or i64"),
    number("rows", "u32", "of the table"),
    text="token_range {source} rows={rows}",
)

GUARD = record(
    "guard",
    "What the content of a source must be like, besides finite. At most one per source, in their order.",
    index("source", "sources"),
    enum("outside", "guard_rule", "what a number outside the range does"),
    span("low", "floats", "lower bound of an f32 source: count 0, 1 (of all), or the size of its last axis"),
    span("high", "floats", "upper bound; as many as lower ones"),
    flag("not_finite", "1: it may hold NaN and infinity"),
    reserved(),
    number("max_age_us", "u64", "older content is refused, microseconds; 0 = any age"),
    text="guard {source} {outside} low={low} high={high} not_finite={not_finite} max_age_us={max_age_us}",
)
