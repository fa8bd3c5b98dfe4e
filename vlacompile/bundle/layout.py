"""The one definition of the binary layout that the compiler writes and libvlart reads.

Owns: record fields, enumerations, magic numbers, format version. The C header
`runtime_c/include/vlart/vlart_layout.h` is generated from this file (`python -m
vlacompile.bundle.header`) and a test says that it is current. Knows nothing of plans.

Evolution: fields are only added at the tail of a record (readers honour the stored
stride), section and enumeration ids are never reused, a change of meaning raises
FORMAT_MAJOR, an addition raises FORMAT_MINOR.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

FORMAT_MAJOR = 1
FORMAT_MINOR = 1

PLAN_MAGIC = b"VLABPLAN"
FRAMES_MAGIC = b"VLABFRAM"

ALIGN = 64  # bytes; sections, arena values and weights start at multiples of this
MAX_RANK = 8
NONE = 0xFFFFFFFF  # an absent index

# The struct code of each field type. Everything is little-endian.
_CODES = {"u32": "I", "u64": "Q", "i64": "q", "f32": "f"}
_C_TYPES = {"u32": "uint32_t", "u64": "uint64_t", "i64": "int64_t", "f32": "float"}


@dataclass(frozen=True)
class Field:
    name: str
    type: str  # u32, u64, i64, f32, or one of them with [n]
    doc: str

    @property
    def base(self) -> str:
        return self.type.split("[")[0]

    @property
    def count(self) -> int:
        return int(self.type.split("[")[1][:-1]) if "[" in self.type else 1


@dataclass(frozen=True)
class Record:
    name: str
    doc: str
    fields: tuple[Field, ...]

    @property
    def format(self) -> str:
        """The `struct` format: little-endian without padding (a test checks that C agrees)."""
        return "<" + "".join(f"{f.count}{_CODES[f.base]}" for f in self.fields)

    @property
    def size(self) -> int:
        return struct.calcsize(self.format)

    def pack(self, **values) -> bytes:
        flat: list = []
        for field in self.fields:
            value = values.pop(field.name)
            flat.extend(value) if field.count > 1 else flat.append(value)
        assert not values, f"{self.name} has no fields {sorted(values)}"
        return struct.pack(self.format, *flat)

    def unpack(self, data: bytes, offset: int = 0) -> dict:
        flat = list(struct.unpack_from(self.format, data, offset))
        out = {}
        for field in self.fields:
            out[field.name] = tuple(flat[: field.count]) if field.count > 1 else flat[0]
            del flat[: field.count]
        return out


def _record(name: str, doc: str, *rows: tuple[str, str, str]) -> Record:
    return Record(name, doc, tuple(Field(n, t, d) for n, t, d in rows))


def _range(what: str, into: str) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    return (
        (f"{what}_begin", "u32", f"first {what} record in {into}"),
        (f"{what}_count", "u32", f"number of {what} records"),
    )


HEADER = _record(
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

SECTION = _record(
    "section",
    "Where the records of one kind are.",
    ("id", "u32", "a section id"),
    ("stride", "u32", "bytes from one record to the next; at least the size known to the reader"),
    ("count", "u32", "number of records (bytes for stride 1)"),
    ("reserved", "u32", "zero"),
    ("offset", "u64", "from the start of the file, a multiple of ALIGN"),
    ("bytes", "u64", "stride * count"),
)

POLICY = _record(
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
    *_range("low", "floats: lower bound per action dimension (count 0 or action_dim)"),
    *_range("high", "floats: upper bound per action dimension (count 0 or action_dim)"),
    ("deadline_us", "u64", "time that one step may take, microseconds; 0 = none"),
    ("arena_bytes", "u64", "size of the arena that holds every ARENA value"),
)

FILE = _record(
    "file",
    "One other file of the bundle.",
    ("path", "u32", "string: relative, '/'-separated, no '..'"),
    ("kind", "u32", "file_kind"),
    ("crc32", "u32", "CRC-32 of the file"),
    ("reserved", "u32", "zero"),
    ("bytes", "u64", "size of the file"),
)

VALUE = _record(
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

SOURCE = _record(
    "source",
    "A value that the caller writes.",
    ("value", "u32", "value"),
    ("update", "u32", "update class: how often it is expected to change"),
    ("clock_hz", "f32", "nominal rate; 0 = not stated"),
    ("reserved", "u32", "zero"),
)

WEIGHT = _record(
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

STAGE = _record(
    "stage",
    "Values with one dependency set, computed by one engine. Records are in execution order.",
    ("name", "u32", "string, unique"),
    ("backend", "u32", "backend"),
    ("artefact", "u32", "file that the backend loads"),
    ("iterations", "u32", "1, or K for a loop body"),
    *_range("dep", "indices: source records that this stage depends on"),
    *_range("input", "bindings"),
    *_range("output", "bindings"),
    *_range("initializer", "initializers"),
    *_range("carry", "carries; empty unless a loop body"),
    ("flops", "u64", "floating-point operations per iteration (matmul, convolution, attention; 2 per MAC)"),
    ("weight_bytes", "u64", "bytes of weights that one iteration reads"),
)

BINDING = _record(
    "binding",
    "A port of a stage's engine and the value behind it.",
    ("port", "u32", "string: name of the engine's input or output"),
    ("value", "u32", "value"),
    ("mode", "u32", "binding_mode"),
    ("reserved", "u32", "zero"),
)

INITIALIZER = _record(
    "initializer",
    "A weight handed to a stage's engine under the name that its artefact uses.",
    ("port", "u32", "string: name of the initializer in the artefact"),
    ("weight", "u32", "weight"),
)

CARRY = _record(
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

SAMPLING = _record(
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

DECODE = _record(
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
    *_range("float", "floats: AFFINE: scale[D], then offset[D]"),
    *_range("index", "indices: LOOKUP: first[D], then rows in use[D]; PIECES: first; DELTA: element of the source per "
            "dimension, or NONE"),
    ("direction", "i64", "LOOKUP, PIECES: 1 or -1"),
    ("offset", "i64", "PIECES: added to every symbol"),
    ("stop", "i64", "PIECES: token that ends the sequence; negative: none"),
)

CONSUMPTION = _record(
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

DELAY = _record(
    "delay",
    "A value of the observation before. When the history advances, `output` takes what `input` holds; the first "
    "observation fills it. Chains: `input` may be the output of an earlier record.",
    ("input", "u32", "value: a history source, what a stage computes from history sources alone, or a delay's output"),
    ("output", "u32", "value of the same shape and dtype that nothing else writes"),
)

HISTORY = _record(
    "history",
    "A source of which the policy sees several observations. The caller writes the newest alone.",
    ("source", "u32", "source"),
    ("frames", "u32", "observations that the policy sees, the newest among them; at least 2"),
)

FRAME = _record(
    "frame",
    "One replay step: write these tensors, step, then compare those.",
    ("label", "u32", "string for a person"),
    ("reserved", "u32", "zero"),
    *_range("write", "tensors"),
    *_range("expect", "tensors"),
)

TENSOR = _record(
    "tensor",
    "A named tensor of a frames file; it binds to a plan's source or value by name.",
    ("name", "u32", "string"),
    ("dtype", "u32", "dtype"),
    ("rank", "u32", "0..MAX_RANK"),
    ("reserved", "u32", "zero"),
    ("dims", "u64[8]", "dims[0..rank); the rest is 1"),
    ("offset", "u64", "byte offset in the blob section, a multiple of ALIGN"),
    ("bytes", "u64", "size of the tensor"),
    ("max_abs", "f32", "expect: largest allowed absolute difference"),
    ("rel_l2", "f32", "expect: largest allowed ||got - want|| / ||want||"),
    ("cosine", "f32", "expect: smallest allowed cosine"),
    ("reserved2", "f32", "zero"),
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
    16: ("samplings", SAMPLING, 0),
    20: ("frames", FRAME, 0),
    21: ("tensors", TENSOR, 0),
    22: ("blob", None, 1),
    30: ("decodes", DECODE, 0),
    31: ("consumption", CONSUMPTION, 0),
}
SECTION_ID = {name: sid for sid, (name, _, _) in SECTIONS.items()}

PLAN_SECTIONS = ("strings", "indices", "floats", "policy", "files", "values", "sources", "weights",
                 "stages", "bindings", "initializers", "carries", "delays", "histories", "samplings", "decodes",
                 "consumption")
FRAMES_SECTIONS = ("strings", "frames", "tensors", "blob")

# Element types carry ONNX's numbers (onnx.proto3, TensorProto.DataType).
DTYPES = {"f32": 1, "u8": 2, "i8": 3, "i32": 6, "i64": 7, "bool": 9, "f16": 10, "f64": 11, "bf16": 16}
NUMPY_DTYPES = {"f32": "<f4", "u8": "|u1", "i8": "|i1", "i32": "<i4", "i64": "<i8", "bool": "|b1", "f16": "<f2",
                "f64": "<f8"}  # NumPy has no bf16
DTYPE_BYTES = {"f32": 4, "u8": 1, "i8": 1, "i32": 4, "i64": 8, "bool": 1, "f16": 2, "f64": 8, "bf16": 2}

UPDATES = {"static": 0, "task": 1, "observation": 2, "step": 3, "tick": 4}
BACKENDS = {"onnxruntime": 1, "tensorrt": 2, "tvm": 3}
STORAGES = {"arena": 0, "weight": 1}
# whole: the value; row: row k of its leading dimension in iteration k; carry: see CARRY.
BINDING_MODES = {"whole": 0, "row": 1, "carry": 2}
# steps: one engine run per iteration; fused: all iterations in one engine.
LOOP_FORMS = {"steps": 1, "fused": 2}
FILE_KINDS = {"stage": 1, "weights": 2, "golden": 3}
# lookup: a number per token; pieces: a run of symbols per token; basis: a matrix over the steps of the
# chunk; affine: per dimension; delta: plus an element of a source.
DECODE_KINDS = {"lookup": 1, "pieces": 2, "basis": 3, "affine": 4, "delta": 5}
# clip: the nearest row; zero: the number 0; refuse: no action; skip: as if the token were not there.
OUTSIDES = {"clip": 0, "zero": 1, "refuse": 2, "skip": 3}
SYMBOLS = {"integers": 0, "utf8": 1}  # utf8: bytes whose code points are the integers
LENGTHS = {"exact": 0, "fit": 1}  # exact: another length is refused; fit: zeros are added, the rest is dropped
CONSUMES = {"queue": 0, "ensemble": 1, "realtime": 2}
SCHEDULES = {"zeros": 0, "ones": 1, "linear": 2, "exp": 3}

ENUMS = {
    "dtype": DTYPES,
    "update": UPDATES,
    "backend": BACKENDS,
    "storage": STORAGES,
    "binding_mode": BINDING_MODES,
    "loop_form": LOOP_FORMS,
    "file_kind": FILE_KINDS,
    "decode_kind": DECODE_KINDS,
    "outside": OUTSIDES,
    "symbols": SYMBOLS,
    "length": LENGTHS,
    "consume": CONSUMES,
    "schedule": SCHEDULES,
}
RECORDS = (HEADER, SECTION, POLICY, FILE, VALUE, SOURCE, WEIGHT, STAGE, BINDING, INITIALIZER, CARRY, DELAY, HISTORY,
           SAMPLING, FRAME, TENSOR, DECODE, CONSUMPTION)

assert HEADER.size == 64 and all(r.size % 8 == 0 for r in RECORDS)


def dtype_name(numpy_code: str) -> str | None:
    """The name of a NumPy type (`array.dtype.str`), or None where a bundle cannot hold it."""
    return next((name for name, code in NUMPY_DTYPES.items() if code == numpy_code), None)


def align_up(offset: int, to: int = ALIGN) -> int:
    return (offset + to - 1) // to * to


def c_type(field: Field) -> str:
    return _C_TYPES[field.base]
