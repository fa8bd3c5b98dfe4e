"""The one definition of the binary layout that the compiler writes and libvlart reads.

Owns: sections, enumerations, magic numbers, format version; the fields of the records are in `records_*.py`, a file per
kind of file. The C header `runtime_c/include/vlart/vlart_layout.h` is generated from here (`python -m
vlacompile.bundle.header`) and a test says that it is current. Knows nothing of plans.

Evolution: fields are only added at the tail of a record (readers honour the stored
stride), section and enumeration ids are never reused, a change of meaning raises
FORMAT_MAJOR, an addition raises FORMAT_MINOR.
"""

from __future__ import annotations

from vlacompile.bundle.record import Record, record
from vlacompile.bundle.records_frames import FRAME, REFERENCE, TENSOR
from vlacompile.bundle.records_plan import (BINDING, BOARD, BUILD, CARRY, CHUNK, CONSUMPTION, DECODE, DELAY, FILE,
                                          GUARD, HISTORY, INITIALIZER, INSTRUCTION, LANE, POLICY, PRECISION,
                                          SAMPLING, SOURCE, STAGE, STORED, TEXT, VALUE, WEIGHT)
from vlacompile.bundle.records_routing import BACKBONE, EVIDENCE, ROUTE, ROUTER
from vlacompile.bundle.records_tokenizer import ADDED, COMPOSITION, SPAN, STEP, TOKENIZER

FORMAT_MAJOR = 1
FORMAT_MINOR = 6

PLAN_MAGIC = b"VLABPLAN"
FRAMES_MAGIC = b"VLABFRAM"
ROUTING_MAGIC = b"VLABROUT"
TOKENIZER_MAGIC = b"VLABTOKN"

ALIGN = 64  # bytes; sections, arena values and weights start at multiples of this
MAX_RANK = 8
NONE = 0xFFFFFFFF  # an absent index

HEADER = record(
    "header",
    "First record of plan.bin and of a frames file.",
    ("magic", "u32[2]", "PLAN_MAGIC or FRAMES_MAGIC"),
    ("version_major", "u32", "a reader refuses another major version"),
    ("version_minor", "u32", "a reader accepts any minor version"),
    ("file_bytes", "u64", "size of the whole file"),
    ("section_count", "u32", "section records follow the header directly"),
    ("payload_crc32", "u32", "CRC-32 (IEEE 802.3) of every byte after the header"),
    ("reserved", "u32[7]", "zero"),
    ("header_crc32", "u32", "CRC-32 of the bytes of the header before this field"),
)

SECTION = record(
    "section",
    "Where the records of one kind are.",
    ("id", "u32", "a section id"),
    ("stride", "u32", "bytes from one record to the next; at least the size known to the reader"),
    ("count", "u32", "number of records (bytes for stride 1)"),
    ("reserved", "u32", "zero"),
    ("offset", "u64", "from the start of the file, a multiple of ALIGN"),
    ("bytes", "u64", "stride * count"),
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
    60: ("guards", GUARD, 0),
    61: ("chunks", CHUNK, 0),
}
SECTION_ID = {name: sid for sid, (name, _, _) in SECTIONS.items()}

PLAN_SECTIONS = ("strings", "indices", "floats", "policy", "files", "values", "sources", "weights",
                 "stages", "bindings", "initializers", "carries", "delays", "histories", "samplings",
                 "precisions", "builds", "board", "decodes", "consumption", "texts", "instructions",
                 "stored", "lanes", "guards", "chunks")
TOKENIZER_SECTIONS = ("indices", "blob", "tokenizer", "steps", "spans", "added", "compositions", "entry_begins",
                      "entry_ids", "merge_rows", "merge_rights", "merge_ranks", "merge_ids")
FRAMES_SECTIONS = ("strings", "frames", "tensors", "references", "blob")
ROUTING_SECTIONS = ("strings", "floats", "router", "backbones", "routes", "evidence")

# Element types carry ONNX's numbers (onnx.proto3, TensorProto.DataType).
DTYPES = {"f32": 1, "u8": 2, "i8": 3, "i32": 6, "i64": 7, "bool": 9, "f16": 10, "f64": 11, "bf16": 16}
NUMPY_DTYPES = {"f32": "<f4", "u8": "|u1", "i8": "|i1", "i32": "<i4", "i64": "<i8", "bool": "|b1", "f16": "<f2",
                "f64": "<f8"}  # NumPy has no bf16
DTYPE_BYTES = {"f32": 4, "u8": 1, "i8": 1, "i32": 4, "i64": 8, "bool": 1, "f16": 2, "f64": 8, "bf16": 2}

UPDATES = {"static": 0, "task": 1, "observation": 2, "step": 3, "tick": 4}
# tvm: on the processor; tvm_cuda: on the GPU. library: no engine; only what the stage makes of the instructions compiled in
# advance is there.
BACKENDS = {"onnxruntime": 1, "tensorrt": 2, "tvm": 3, "library": 4, "tvm_cuda": 5}
COMPILED = frozenset({"tvm", "tvm_cuda"})  # their artefact is a shared object with its weights inside
STORAGES = {"arena": 0, "weight": 1}
# whole: the value; row: row k of its leading dimension in iteration k; carry: see CARRY.
BINDING_MODES = {"whole": 0, "row": 1, "carry": 2}
# steps: one engine run per iteration; fused: all iterations in one engine.
LOOP_FORMS = {"steps": 1, "fused": 2}
# What a layer's weight is stored as and computed in; int8: activations too; int4: the weight alone, in blocks.
SCHEMES = {"fp32": 1, "fp16": 2, "int8": 3, "int4": 4}
# rule, default: of the recipe; optimiser: chosen against the recipe's budgets.
DECIDERS = {"default": 1, "rule": 2, "optimiser": 3}
# strongly_typed: every layer computes in the types of its tensors; no_tf32: f32 products are not rounded to TF32.
BUILD_FLAGS = {"strongly_typed": 1, "no_tf32": 2}
FILE_KINDS = {"stage": 1, "weights": 2, "golden": 3, "tokenizer": 4}
# lookup: a number per token; pieces: a run of symbols per token; basis: a matrix over the steps of the
# chunk; affine: per dimension; delta: plus an element of a source.
DECODE_KINDS = {"lookup": 1, "pieces": 2, "basis": 3, "affine": 4, "delta": 5}
# clip: the nearest row; zero: the number 0; refuse: no action; skip: as if the token were not there.
OUTSIDES = {"clip": 0, "zero": 1, "refuse": 2, "skip": 3}
SYMBOLS = {"integers": 0, "utf8": 1}  # utf8: bytes whose code points are the integers
LENGTHS = {"exact": 0, "fit": 1}  # exact: another length is refused; fit: zeros are added, the rest is dropped
CONSUMES = {"queue": 0, "ensemble": 1, "realtime": 2}
SCHEDULES = {"zeros": 0, "ones": 1, "linear": 2, "exp": 3}
# wordpiece: the longest pieces of a vocabulary; bpe: pairs merged by rank.
TOKEN_MODELS = {"wordpiece": 1, "bpe": 2}
# map: every code point by itself; order: combining marks in canonical order; compose: canonical composition; replace,
# prepend: a string. cut_...: what words are, by character classes; cut: at a string.
TEXT_STEPS = {"map": 1, "order": 2, "compose": 3, "replace": 4, "prepend": 5, "cut": 10, "cut_bert": 11,
              "cut_digits": 12, "cut_words": 13}
SPAN_ACTIONS = {"delete": 1, "shift": 2, "sequence": 3, "space": 4, "hangul": 5}  # space: blanks are put around it
PREPEND_RULES = {"always": 0, "missing": 1, "missing_first": 2}  # missing: where the piece does not begin with it
# removed: the string separates; alone, previous, next: it is a word, or belongs to the word before or after.
CUT_RULES = {"removed": 0, "alone": 1, "previous": 2, "next": 3}
# The splitting expressions of GPT-2, of Qwen 2 and of Llama 3 (Qwen's with numbers of up to three digits).
WORD_RULES = {"gpt2": 1, "qwen2": 2, "llama3": 3}
CHAR_CLASSES = {"space": 1, "letter": 2, "number": 4, "punctuation": 8}
TEXT_SIDES = {"right": 0, "left": 1}
GUARD_RULES = {"count": 0, "refuse": 1}  # count: the content is taken; refuse: the source keeps what it had

ENUMS = {
    "dtype": DTYPES,
    "update": UPDATES,
    "backend": BACKENDS,
    "storage": STORAGES,
    "binding_mode": BINDING_MODES,
    "loop_form": LOOP_FORMS,
    "scheme": SCHEMES,
    "decider": DECIDERS,
    "build_flag": BUILD_FLAGS,
    "file_kind": FILE_KINDS,
    "decode_kind": DECODE_KINDS,
    "outside": OUTSIDES,
    "symbols": SYMBOLS,
    "length": LENGTHS,
    "consume": CONSUMES,
    "schedule": SCHEDULES,
    "token_model": TOKEN_MODELS,
    "text_step": TEXT_STEPS,
    "span_action": SPAN_ACTIONS,
    "prepend_rule": PREPEND_RULES,
    "cut_rule": CUT_RULES,
    "word_rule": WORD_RULES,
    "char_class": CHAR_CLASSES,
    "text_side": TEXT_SIDES,
    "guard_rule": GUARD_RULES,
}
RECORDS = (HEADER, SECTION, POLICY, FILE, VALUE, SOURCE, WEIGHT, STAGE, BINDING, INITIALIZER, CARRY, DELAY, HISTORY,
           SAMPLING, PRECISION, BUILD, BOARD, FRAME, TENSOR, REFERENCE, DECODE, CONSUMPTION, ROUTER, BACKBONE, ROUTE, EVIDENCE,
           TOKENIZER, STEP, SPAN, ADDED, COMPOSITION, TEXT, INSTRUCTION, STORED, LANE, GUARD, CHUNK)

assert HEADER.size == 64 and all(r.size % 8 == 0 for r in RECORDS)


def dtype_name(numpy_code: str) -> str | None:
    """The name of a NumPy type (`array.dtype.str`), or None where a bundle cannot hold it."""
    return next((name for name, code in NUMPY_DTYPES.items() if code == numpy_code), None)


def align_up(offset: int, to: int = ALIGN) -> int:
    return (offset + to - 1) // to * to
