"""Records of a recording (NAME.vlog), which `runtime_c/src/record` writes and reads; see layout.py.

A recording is one LOG record, the plan.bin of its bundle, and from `head_bytes` on a ring of blocks, each written once:
block `sequence` lies at place `sequence % block_count`. The blocks' content, one after the other, is a stream of
events: EVENT, then a record of its kind and the arrays that the record counts, padded to 8 bytes. An event may begin
in one block and end in another.
"""

from __future__ import annotations

from vlart.bundle.format.record import Bits, bits, checksum, enum, number, real, record, reserved

LOG = record(
    "log",
    "First record of a recording.",
    number("magic", "u32[2]", "RECORDING_MAGIC"),
    number("version_major", "u32", "a reader refuses another major version"),
    number("version_minor", "u32", "a reader accepts any minor version"),
    number("head_bytes", "u64", "where the blocks begin, a multiple of block_bytes"),
    number("plan_bytes", "u64", "size of the plan.bin that follows this record"),
    number("block_count", "u64", "blocks of the ring"),
    number("block_bytes", "u32", "of one block, its record included"),
    number("full", "u32", "1: content of sources is recorded; 0: its size and CRC-32"),
    number("recording", "u64", "which blocks belong to it"),
    number("wall_ns", "u64", "CLOCK_REALTIME when it began"),
    number("clock_ns", "u64", "CLOCK_MONOTONIC at the same moment, which the events' times are of"),
    checksum("plan_crc32", "CRC-32 of the plan.bin"),
    checksum("head_crc32", "CRC-32 of the bytes of this record before this field"),
)

BLOCK = record(
    "block",
    "First record of a block.",
    checksum("crc32", "CRC-32 of the rest of this record and of the `used` bytes behind it"),
    number("used", "u32", "bytes of the stream in this block"),
    number("recording", "u64", "as in the log record"),
    number("sequence", "u64", "0, 1, ..."),
    number("first", "u32", "where in these bytes the first event begins", optional=True),
    reserved(),
)

EVENT = record(
    "event",
    "What comes before every event's own record.",
    number("bytes", "u32", "of what follows, without the padding"),
    enum("kind", "event_kind"),
    number("track", "u32", "who recorded it: one thread at a time"),
    enum("role", "event_role", "what that is"),
    number("lane", "u32", "of a session: option `lane`; of asynchronous control: its session's track, plus 1 "
           "(since 1.1)"),
    reserved(),
    number("sequence", "u64", "1, 2, ... in its track; a number that is missing was lost"),
    number("time_ns", "u64", "CLOCK_MONOTONIC"),
)

SOURCE_EVENT = record(
    "source_event",
    "source: what was written into a source of the session, and its content where the recording is full.",
    number("source", "u32", "index of the source"),
    bits("flags", "source_flag"),
    number("crc32", "u32", "of the content"),
    reserved(),
    number("bytes", "u64", "size of the content"),
    number("version", "u64", "changes of this source since the session began"),
    number("observation", "u64", "name of the observation that it is part of"),
)

STEP_EVENT = record(
    "step_event",
    "step: one replan; followed by a stage_time record per stage and by the chunk.",
    number("status", "u32", "how it ended"),
    number("stop_stage", "u32", "the first stage that was not up to date then", optional=True),
    number("stage_count", "u32", "stage_time records"),
    number("chunk_count", "u32", "f32 of the chunk, [chunk_steps, action_dim]; 0: no new one"),
    number("backbone", "u32", "which one was selected"),
    number("remaining", "u32", "actions that the queue held afterwards"),
    number("chunk", "u64", "good chunks so far"),
    number("observation", "u64", "name of the newest observation"),
    number("request", "u64", "of asynchronous control: which request it answers; 0: none"),
    number("ns", "u64", "how long it took"),
    number("deadline_us", "u64", "its time limit; 0: none"),
    number("deadline_misses", "u64", "steps so far that ran out of time"),
    number("deadline_overruns", "u64", "steps so far whose last stage ended late"),
    number("lanes", "u64[8]", "the step of each lane whose set it read"),
)

STAGE_TIME = record(
    "stage_time",
    "A stage as a step left it.",
    number("runs", "u64", "completed runs so far: the version of what it computed"),
    number("ns", "u64", "of the run in this step; 0: it was up to date, or nobody measured it"),
    number("iterations", "u32", "of its last run"),
    number("ran", "u32", "1: in this step"),
)

POP_EVENT = record(
    "pop_event",
    "pop: actions that were handed out; followed by f32 [rows, dim].",
    number("status", "u32", "how it ended; actions are there with OK, DEADLINE_MISSED and SAFE_ACTION"),
    number("rows", "u32", "actions"),
    number("dim", "u32", "numbers of each"),
    number("row", "u32", "of the last action in its chunk"),
    number("clipped", "u32", "numbers of it that the rate limit held back"),
    number("asked", "u32", "actions that were asked for"),
    number("observation", "u64", "name of the newest observation in it; 0: none"),
    number("chunk", "u64", "number of its chunk"),
    number("tick", "u64", "pops before it"),
)

NOTE_EVENT = record(
    "note_event",
    "Every other event of a session or of asynchronous control; what its numbers are follows from the kind. A text's "
    "bytes follow it.",
    number("status", "u32", "how the call ended"),
    number("index", "u32", "text, refused: the source; select: the backbone; cancel: how; observe: as stop_stage; "
           "keyframe: 1 at the beginning of an episode, 2 of a session that had no content, else 0"),
    number("number", "u64", "request, take, result: the request; handover: the lane's step; keyframe: the backbone; "
           "outcome: the decision"),
    number("tick", "u64", "request, take: the tick of the observation; result: nanoseconds from taking it; handover: "
           "the lane's episode, counted (since 1.1)"),
    number("observation", "u64", "its name, where there is one"),
)

DECISION_EVENT = record(
    "decision_event",
    "decision: as vlart_decision_t; the instruction's bytes follow it.",
    number("sequence", "u64", "1, 2, ... of the router"),
    number("route", "u32", "record of the table"),
    number("cluster", "u32", "of the route", optional=True),
    number("by", "u32", "VLART_BY_..."),
    number("level", "u32", "VLART_LEVEL_..."),
    number("backbone", "u32", "the one to run"),
    number("backbone_count", "u32", "valid entries of the arrays"),
    real("similarity", "f64", "cosine to the nearest cluster"),
    real("delta", "f64", "as in the table"),
    real("tau", "f64", "as in the table"),
    real("alpha", "f64[4]", "posterior of success: Beta(alpha, beta)"),
    real("beta", "f64[4]", "the same"),
    real("probability", "f64[4]", "that a backbone is not worse than the last by over delta"),
    real("cost_ms", "f64[4]", "expected, of an episode"),
)

CONTROL_EVENT = record(
    "control_event",
    "control: the options of asynchronous control, before an episode; followed by f32 [dim] of the safe action.",
    number("lead_ticks", "u32", "as in vlart_async_options_t"),
    number("stale_ticks", "u32", "as it is used: never beyond the chunk"),
    number("deadline_ticks", "u32", "from an observation to its chunk; 0: none"),
    number("safe", "u32", "VLART_SAFE_..."),
    number("expire", "u32", "VLART_EXPIRE_..."),
    number("dim", "u32", "numbers of an action"),
    number("deadline_us", "u64", "of one step of the worker; 0: the plan's"),
)

LOSS_EVENT = record(
    "loss_event",
    "loss: what is not in the recording, told as soon as there is room again.",
    number("events", "u64", "events for which the track had no room"),
    number("bytes", "u64", "their size"),
    number("first", "u64", "sequence of the first of them"),
    number("blocks", "u64", "of the writer's: blocks that the disk did not take, so far"),
    number("error", "u32", "errno of the last of these"),
    reserved(),
)

CLOCK_EVENT = record(
    "clock_event",
    "clock (since 1.2): the wall clock was set while this was recorded; the writer's. Told again, with the same "
    "`changes`, before the ring overwrites it.",
    number("wall_ns", "u64", "CLOCK_REALTIME at the event's time"),
    number("moved_ns", "i64", "by how much it was set, against what the recording said of it before"),
    number("changes", "u64", "1, 2, ...: how often it was set since the recording began"),
)

RECORDING_RECORDS = (LOG, BLOCK, EVENT, SOURCE_EVENT, STEP_EVENT, STAGE_TIME, POP_EVENT, NOTE_EVENT, DECISION_EVENT,
                     CONTROL_EVENT, LOSS_EVENT, CLOCK_EVENT)
assert {f.kind.of for r in RECORDING_RECORDS for f in r.fields if isinstance(f.kind, Bits)} == {"source_flag"}
