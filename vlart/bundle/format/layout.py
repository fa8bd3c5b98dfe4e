"""The one definition of the binary layout that the compiler writes and libvlart reads.

Owns: sections, magic numbers, format version (enumerations: `vocabulary.py`); the fields of the records are in
`records_*.py`, the lines of plan.txt in `plan_lines.py`. From here follow Python's readers and writers (`bundle/plan`)
and what is generated for C (`python -m vlart.bundle.format.generate runtime_c`; a test says that it is current).
Knows nothing of plans.

A new field is by hand: its row and its place in the text of its record, the attribute of its class in `bundle/plan`,
FORMAT_MINOR, and what sets it; where it means something to libvlart, a check in `runtime_c/src/plan` and a case in
`runtime_c/tests/plan_damage.py`. Then what is generated for C and the golden texts (`--update-golden`) are written
anew.

Evolution: fields are only added at the tail of a record (readers honour the stored
stride), section and enumeration ids are never reused, a change of meaning raises
FORMAT_MAJOR, an addition raises FORMAT_MINOR.
"""

from __future__ import annotations

from vlart import vocabulary
from vlart.bundle.format.record import (
    ABSENT,
    Bits,
    Enum,
    Index,
    Record,
    Span,
    checksum,
    number,
    record,
    reserved,
)
from vlart.bundle.format.records_action import CONSUMPTION, DECODE, RATE_LIMIT
from vlart.bundle.format.records_engines import ENGINE, LOCK
from vlart.bundle.format.records_frames import FRAME, LIMIT, REFERENCE, TENSOR
from vlart.bundle.format.records_plan import (
    BOARD,
    BUCKET,
    CARRIED,
    CHUNK,
    CONCURRENCY,
    DELAY,
    FILE,
    GUARD,
    HISTORY,
    INSTRUCTION,
    LANE,
    POLICY,
    SOURCE,
    STORED,
    TEXT,
    TOKEN_RANGE,
    VALUE,
    WEIGHT,
)
from vlart.bundle.format.records_recording import RECORDING_RECORDS
from vlart.bundle.format.records_routing import BACKBONE, EVIDENCE, ROUTE, ROUTER
from vlart.bundle.format.records_stage import (
    BINDING,
    BUILD,
    CARRY,
    INITIALIZER,
    LOOP_END,
    PRECISION,
    SAMPLING,
    STAGE,
)
from vlart.bundle.format.records_tokenizer import ADDED, COMPOSITION, SPAN, STEP, TOKENIZER

FORMAT_MAJOR = 1
FORMAT_MINOR = 13
RECORDING_MAJOR, RECORDING_MINOR = 1, 2  # of recordings, which evolve by themselves

PLAN_MAGIC = b"VLABPLAN"
FRAMES_MAGIC = b"VLABFRAM"
ROUTING_MAGIC = b"VLABROUT"
TOKENIZER_MAGIC = b"VLABTOKN"
LOCK_MAGIC = b"VLABLOCK"
RECORDING_MAGIC = b"VLABRECD"

ALIGN = 64  # bytes; sections, arena values and weights start at multiples of this
MAX_RANK = 8
NONE = ABSENT

HEADER = record(
    "header",
    "First record of every binary file of a bundle.",
    number("magic", "u32[2]", "what kind of file it is, PLAN_MAGIC say"),
    number("version_major", "u32", "a reader refuses another major version"),
    number("version_minor", "u32", "a reader accepts any minor version"),
    number("file_bytes", "u64", "size of the whole file"),
    number("section_count", "u32", "section records follow the header directly"),
    checksum("payload_crc32", "CRC-32 (IEEE 802.3) of every byte after the header"),
    reserved(type="u32[7]"),
    checksum("header_crc32", "CRC-32 of the bytes of the header before this field"),
)

SECTION = record(
    "section",
    "Where the records of one kind are.",
    number("id", "u32", "a section id"),
    number("stride", "u32", "bytes from one record to the next; at least the size known to the reader"),
    number("count", "u32", "number of records (bytes for stride 1)"),
    reserved(),
    number("offset", "u64", "from the start of the file, a multiple of ALIGN"),
    number("bytes", "u64", "stride * count"),
)

# Section ids: id -> (name, record or None for raw bytes / scalars, stride of raw sections).
SECTIONS: dict[int, tuple[str, Record | None, int]] = {
    1: ("strings", None, 1),  # NUL-terminated UTF-8; a string field is a byte offset into it
    2: ("indices", None, 4),  # u32
    3: ("floats", None, 4),  # f32
    4: ("policy", POLICY, 0),
    5: ("files", FILE, 0),
    6: ("values", VALUE, 0),
    7: ("sources", SOURCE, 0),
    8: ("weights", WEIGHT, 0),
    9: ("stages", STAGE, 0),
    10: ("bindings", BINDING, 0),
    11: ("initializers", INITIALIZER, 0),
    12: ("carries", CARRY, 0),
    13: ("delays", DELAY, 0),
    14: ("histories", HISTORY, 0),
    15: ("lanes", LANE, 0),
    16: ("samplings", SAMPLING, 0),
    17: ("precisions", PRECISION, 0),
    18: ("builds", BUILD, 0),
    19: ("board", BOARD, 0),
    20: ("frames", FRAME, 0),
    21: ("tensors", TENSOR, 0),
    22: ("blob", None, 1),
    23: ("references", REFERENCE, 0),
    24: ("limits", LIMIT, 0),
    30: ("decodes", DECODE, 0),
    31: ("consumption", CONSUMPTION, 0),
    34: ("router", ROUTER, 0),
    35: ("backbones", BACKBONE, 0),
    36: ("routes", ROUTE, 0),
    37: ("evidence", EVIDENCE, 0),
    40: ("tokenizer", TOKENIZER, 0),
    41: ("steps", STEP, 0),
    42: ("spans", SPAN, 0),
    43: ("added", ADDED, 0),
    44: ("compositions", COMPOSITION, 0),
    45: ("entry_begins", None, 4),  # u32: entry i is blob bytes [i, i + 1); ascending in every range of entries
    46: ("entry_ids", None, 4),  # u32
    47: ("merge_rows", None, 4),  # u32 [token_count + 1]: the merges of a left token
    48: ("merge_rights", None, 4),  # u32: the right token, ascending in a row
    49: ("merge_ranks", None, 4),  # u32: the lowest is merged first
    50: ("merge_ids", None, 4),  # u32: what the two become
    51: ("texts", TEXT, 0),
    52: ("instructions", INSTRUCTION, 0),
    53: ("stored", STORED, 0),
    54: ("rate_limits", RATE_LIMIT, 0),
    55: ("token_ranges", TOKEN_RANGE, 0),
    56: ("loop_ends", LOOP_END, 0),
    57: ("concurrency", CONCURRENCY, 0),
    58: ("carried", CARRIED, 0),
    59: ("buckets", BUCKET, 0),
    60: ("guards", GUARD, 0),
    61: ("chunks", CHUNK, 0),
    62: ("lock", LOCK, 0),
    63: ("engines", ENGINE, 0),
}
SECTION_ID = {name: sid for sid, (name, _, _) in SECTIONS.items()}

PLAN_SECTIONS = ("strings", "indices", "floats", "policy", "files", "values", "sources", "weights",
                 "stages", "bindings", "initializers", "carries", "delays", "histories", "samplings",
                 "precisions", "builds", "board", "decodes", "consumption", "texts", "instructions",
                 "stored", "lanes", "guards", "chunks", "rate_limits", "token_ranges",
                 "loop_ends", "concurrency", "carried", "buckets")
TOKENIZER_SECTIONS = ("indices", "blob", "tokenizer", "steps", "spans", "added", "compositions", "entry_begins",
                      "entry_ids", "merge_rows", "merge_rights", "merge_ranks", "merge_ids")
FRAMES_SECTIONS = ("strings", "floats", "frames", "tensors", "references", "limits", "blob")
LOCK_SECTIONS = ("strings", "lock", "engines")
ROUTING_SECTIONS = ("strings", "floats", "router", "backbones", "routes", "evidence")

ENUMS = {
    "dtype": vocabulary.DTYPES,
    "update": vocabulary.UPDATES,
    "backend": vocabulary.BACKENDS,
    "storage": vocabulary.STORAGES,
    "binding_mode": vocabulary.BINDING_MODES,
    "lifetime": vocabulary.LIFETIMES,
    "loop_form": vocabulary.LOOP_FORMS,
    "scheme": vocabulary.SCHEMES,
    "decider": vocabulary.DECIDERS,
    "build_flag": vocabulary.BUILD_FLAGS,
    "file_kind": vocabulary.FILE_KINDS,
    "decode_kind": vocabulary.DECODE_KINDS,
    "outside": vocabulary.OUTSIDES,
    "symbols": vocabulary.SYMBOLS,
    "length": vocabulary.LENGTHS,
    "consume": vocabulary.CONSUMES,
    "schedule": vocabulary.SCHEDULES,
    "token_model": vocabulary.TOKEN_MODELS,
    "text_step": vocabulary.TEXT_STEPS,
    "span_action": vocabulary.SPAN_ACTIONS,
    "prepend_rule": vocabulary.PREPEND_RULES,
    "cut_rule": vocabulary.CUT_RULES,
    "word_rule": vocabulary.WORD_RULES,
    "char_class": vocabulary.CHAR_CLASSES,
    "text_side": vocabulary.TEXT_SIDES,
    "guard_rule": vocabulary.GUARD_RULES,
    "proof": vocabulary.PROOFS,
    "rate_rule": vocabulary.RATE_RULES,
    "event_kind": vocabulary.EVENT_KINDS,
    "event_role": vocabulary.EVENT_ROLES,
    "source_flag": vocabulary.SOURCE_FLAGS,
}
RECORDS = (HEADER, SECTION, POLICY, FILE, VALUE, SOURCE, WEIGHT, STAGE, BINDING, INITIALIZER, CARRY, DELAY, HISTORY,
           SAMPLING, PRECISION, BUILD, BOARD, FRAME, TENSOR, REFERENCE, LIMIT, DECODE, CONSUMPTION, ROUTER, BACKBONE,
           ROUTE, EVIDENCE, TOKENIZER, STEP, SPAN, ADDED, COMPOSITION, TEXT, INSTRUCTION, STORED, LANE, GUARD, CHUNK,
           LOCK, ENGINE, RATE_LIMIT, TOKEN_RANGE, LOOP_END, CONCURRENCY, CARRIED, BUCKET, *RECORDING_RECORDS)

assert HEADER.size == 64 and all(r.size % 8 == 0 for r in RECORDS)
assert {k.of for r in RECORDS for f in r.fields if isinstance(k := f.kind, (Index, Span))} <= set(SECTION_ID)
assert {k.of for r in RECORDS for f in r.fields if isinstance(k := f.kind, (Enum, Bits))} <= set(ENUMS)


def align_up(offset: int, to: int = ALIGN) -> int:
    return (offset + to - 1) // to * to
