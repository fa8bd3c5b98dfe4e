"""The words that everything shares: element types, update classes, backends, schemes, and the kinds of records in a
bundle.

Each is {word: number}. The numbers are those of the binary formats (`bundle/format/`), so none is ever used again for
another meaning. Must not import anything of the package.
"""

from __future__ import annotations

# Element types carry ONNX's numbers (onnx.proto3, TensorProto.DataType).
DTYPES = {"f32": 1, "u8": 2, "i8": 3, "i32": 6, "i64": 7, "bool": 9, "f16": 10, "f64": 11, "bf16": 16}
NUMPY_DTYPES = {"f32": "<f4", "u8": "|u1", "i8": "|i1", "i32": "<i4", "i64": "<i8", "bool": "|b1", "f16": "<f2",
                "f64": "<f8"}  # NumPy has no bf16
DTYPE_BYTES = {"f32": 4, "u8": 1, "i8": 1, "i32": 4, "i64": 8, "bool": 1, "f16": 2, "f64": 8, "bf16": 2}

UPDATES = {"static": 0, "task": 1, "observation": 2, "step": 3, "tick": 4}
# tvm: on the processor; tvm_cuda: on the GPU. library: no engine; only what the stage makes of the instructions
# compiled in advance is there.
BACKENDS = {"onnxruntime": 1, "tensorrt": 2, "tvm": 3, "library": 4, "tvm_cuda": 5, "openvino": 6}
COMPILED = frozenset({"tvm", "tvm_cuda"})  # their artefact is a shared object with its weights inside
STORAGES = {"arena": 0, "weight": 1}
# whole: the value; row: row k of its leading dimension in iteration k; carry: see CARRY.
BINDING_MODES = {"whole": 0, "row": 1, "carry": 2}
# How long what a step hands to the next one lives: until an episode ends, or a task.
LIFETIMES = {"episode": 0, "task": 1}
CARRIED = "carried"  # in the place of an update class
NOT_ENDED = "LOOP_NOT_ENDED"  # status of a replan whose loop must end and does not
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
# Of engines, by golden frames: none where the bundle has none, unsupported where the policy has no whole tick.
PROOFS = {"none": 0, "pending": 1, "passed": 2, "failed": 3, "unsupported": 4}
RATE_RULES = {"clip": 0, "refuse": 1}  # clip: the action goes as far as it may; refuse: the chunk ends
GUARD_RULES = {"count": 0, "refuse": 1}  # count: the content is taken; refuse: the source keeps what it had

# Of recordings. source: content; keyframe: the content of all sources follows; take, handover: of the worker and of a
# lane; control: how asynchronous control runs; loss: what is missing; clock: the wall clock was set.
EVENT_KINDS = {"source": 1, "step": 2, "pop": 3, "select": 4, "reset": 5, "invalidate": 6, "observe": 7, "text": 8,
               "refused": 9, "keyframe": 10, "request": 11, "take": 12, "result": 13, "cancel": 14, "handover": 15,
               "decision": 16, "outcome": 17, "control": 18, "loss": 19, "clock": 20}
EVENT_ROLES = {"session": 1, "control": 2, "router": 3, "writer": 4}  # control: the thread of asynchronous control
SOURCE_FLAGS = {"full": 1, "same": 2, "keyframe": 4}  # full: with its bytes; same: they lay there already


def dtype_name(numpy_code: str) -> str | None:
    """The name of a NumPy type (`array.dtype.str`), or None where a bundle cannot hold it."""
    return next((name for name, code in NUMPY_DTYPES.items() if code == numpy_code), None)
