"""Pickles of LeRobot's asynchronous inference, parsed as data and written without LeRobot's classes.

The client sends `TimedObservation` and `RemotePolicyConfig` as pickles. Unpickling data from a network executes code of
the sender's choice, so nothing is unpickled here: the opcodes are interpreted over plain values, no name is imported,
and the few calls that construct an array or a tensor are done by functions of this file. Everything else is refused.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlart.serve.refusal import Refusal

HELPERS = "lerobot.async_inference.helpers"  # LeRobot 0.4.4
RECORDS = {(HELPERS, "TimedObservation"), (HELPERS, "RemotePolicyConfig")}
MAX_OPCODES, MAX_DEPTH, MAX_RANK, MAX_KEY = 50_000, 32, 8, 2**31
_MARK = object()


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names; it is never looked up."""

    module: str
    name: str


@dataclass
class Record:
    """An object of one of `RECORDS`: its class and its attributes."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Array:
    """An array whose content follows (BUILD)."""

    content: np.ndarray | None = None


@dataclass
class _Dtype:
    code: str
    order: str = "<"

    def numpy(self) -> np.dtype:
        return np.dtype((self.order if self.code[1:] != "1" else "|") + self.code)


class _Wrong(ValueError):
    pass


def read_pickle(data: bytes) -> Any:
    """Plain values, `Record`s and NumPy arrays (tensors are returned as arrays). Raises Refusal of kind "malformed"."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pickletools warns of escapes in texts of protocol 0
            return _Plain().of(_Machine().run(data))
    except (ValueError, IndexError, TypeError, KeyError, OverflowError, struct.error, RecursionError) as error:
        why = str(error) if isinstance(error, _Wrong) else f"{type(error).__name__}: {error}"
        raise Refusal("the pickle cannot be read as data", where=f"{len(data)} bytes", why=why[:300],
                      fix="send what LeRobot 0.4.4's robot_client.py sends: numbers, text, arrays",
                      kind="malformed") from error


class _Machine:
    """The pickle virtual machine of protocols 2 to 5, without imports, calls, extensions or persistent ids."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            name = opcode.name
            if count >= MAX_OPCODES:
                raise _Wrong(f"more than {MAX_OPCODES} opcodes")
            if name == "STOP":
                if len(self.stack) != 1:
                    raise _Wrong("the stack does not hold one value at the end")
                return self.stack[0]
            if name in _PUSH:
                self.stack.append(argument)
            elif name in _DO:
                _DO[name](self, argument)
            elif name not in ("PROTO", "FRAME"):
                raise _Wrong(f"the opcode {name} is not accepted")
        raise _Wrong("it ends too early")

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise _Wrong("a mark where a value should be")
        return value

    def items(self) -> list[Any]:
        """The stack items above the last mark."""
        place = next((i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is _MARK), None)
        if place is None:
            raise _Wrong("no mark where one should be")
        items = self.stack[place + 1:]
        del self.stack[place:]
        return items

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise _Wrong(f"a {type(self.stack[-1]).__name__} where a {kind.__name__} should be")
        return self.stack[-1]

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)][::-1]
        self.stack.append(tuple(items))

    def append(self, items: Sequence[Any]) -> None:
        self.top(list).extend(items)

    def set_items(self, items: Sequence[Any]) -> None:
        found = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise _Wrong(f"a key that is a {type(key).__name__}")
            if isinstance(key, int) and abs(key) > MAX_KEY:  # whose hashes can be chosen to be all the same
                raise _Wrong("a key that is a large number")
            found[key] = value

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise _Wrong("a name that is not a string")
        if (module, name) not in RECORDS and (module, name) not in _CALLS and (module, name) not in _VALUES:
            raise _Wrong(f"it names {module}.{name}"[:120])
        self.stack.append(Name(module, name))

    def reduce(self) -> None:
        arguments, callee = self.pop(), self.pop()
        call = _CALLS.get((callee.module, callee.name)) if isinstance(callee, Name) else None
        if call is None or not isinstance(arguments, tuple):
            raise _Wrong("it calls something that is not callable")
        self.stack.append(call(*arguments))

    def new(self) -> None:
        arguments, kind = self.pop(), self.pop()
        if not isinstance(kind, Name) or (kind.module, kind.name) not in RECORDS or arguments != ():
            raise _Wrong("it constructs an object of a class that is not accepted")
        self.stack.append(Record(kind.name))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, Record) and isinstance(state, dict):
            target.fields.update(state)
        elif isinstance(target, _Array) and isinstance(state, tuple):
            _set_array(target, *state)
        elif isinstance(target, _Dtype) and isinstance(state, tuple) and state[1:2] in (("<",), (">",), ("|",)):
            target.order = state[1]
        else:
            raise _Wrong("it sets the state of an object without state")


_PUSH = frozenset(("BININT BININT1 BININT2 LONG1 BINFLOAT SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES "
                   "BINBYTES BINBYTES8 BYTEARRAY8").split())
_DO: dict[str, Callable[[_Machine, Any], Any]] = {
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "MARK": lambda m, _: m.stack.append(_MARK),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.items())),
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.items()),
    "SETITEM": lambda m, _: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.items()),
    "MEMOIZE": lambda m, _: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    "BINPUT": lambda m, n: m.memo.__setitem__(n, m.stack[-1]),
    "LONG_BINPUT": lambda m, n: m.memo.__setitem__(n, m.stack[-1]),
    "BINGET": lambda m, n: m.stack.append(m.memo[n]),
    "LONG_BINGET": lambda m, n: m.stack.append(m.memo[n]),
    "GLOBAL": lambda m, text: m.name(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*[m.pop(), m.pop()][::-1]),
    "REDUCE": lambda m, _: m.reduce(),
    "NEWOBJ": lambda m, _: m.new(),
    "BUILD": lambda m, _: m.build(),
}


# ---- the calls that construct arrays and tensors

def _numbers(data: Any, dtype: _Dtype, shape: Any, fortran: bool) -> np.ndarray:
    kind = dtype.numpy()
    if isinstance(shape, int):
        shape = (shape,)
    if not isinstance(data, (bytes, bytearray)) or not isinstance(shape, tuple) or len(shape) > MAX_RANK or not all(
            isinstance(n, int) and n >= 0 for n in shape):
        raise _Wrong("an array without bytes or shape")
    if math.prod(shape) * kind.itemsize != len(data):
        raise _Wrong(f"an array of {kind.name} and shape {list(shape)} with {len(data)} bytes")
    return np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")


def _set_array(target: _Array, version: Any, shape: Any, dtype: Any, fortran: Any, data: Any) -> None:
    if not isinstance(dtype, _Dtype):
        raise _Wrong("an array without a dtype")
    target.content = _numbers(data, dtype, shape, fortran is True)


def _dtype(code: Any, *_flags: Any) -> _Dtype:
    code = code[1:] if isinstance(code, str) and code[:1] in "<>|=" else code
    if not isinstance(code, str) or len(code) != 2 or code[0] not in "fiub" or code[1] not in "1248":
        raise _Wrong(f"an array of {str(code)[:20]!r}, which is not a numeric dtype")
    found = _Dtype(code)
    found.numpy()  # raises for b2 and the like
    return found


def _empty_array(kind: Any, *_rest: Any) -> _Array:
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, *_axis_order: Any) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or order not in ("C", "F"):
        raise _Wrong("an array without a dtype or order")
    return _numbers(data, dtype, shape, order == "F")


def _scalar(dtype: Any, data: Any) -> np.generic:
    if not isinstance(dtype, _Dtype):
        raise _Wrong("a number without a dtype")
    return _numbers(data, dtype, (), False)[()]


def _storage(data: Any) -> np.ndarray:
    """The bytes of a tensor's storage, parsed by torch.load with weights_only, which executes no code."""
    import torch

    if not isinstance(data, bytes):
        raise _Wrong("a tensor without bytes")
    if zipfile.is_zipfile(io.BytesIO(data)):  # torch inflates it, a thousandfold
        raise _Wrong("a tensor in an archive, which torch does not pickle")
    try:
        found = torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:  # torch raises many kinds of errors
        raise _Wrong(f"a tensor that torch cannot read: {type(error).__name__}") from error
    if not isinstance(found, torch.storage.TypedStorage):
        raise _Wrong("a tensor without a storage")
    tensor = torch.empty(0, dtype=found.dtype).set_(found)
    if tensor.dtype == torch.bfloat16 or tensor.is_complex() or tensor.is_quantized:
        raise _Wrong(f"a tensor of {tensor.dtype}")
    return tensor.numpy()


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_grad_and_hooks: Any) -> np.ndarray:
    numbers = (offset, *size, *stride)
    if not isinstance(storage, np.ndarray) or len(size) != len(stride) or len(size) > MAX_RANK or not all(
            isinstance(n, int) and n >= 0 for n in numbers):
        raise _Wrong("a tensor without a shape")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if 0 not in size else -1
    if last >= storage.size or math.prod(size) > storage.size:
        raise _Wrong("a tensor that is larger than its storage")
    view = np.lib.stride_tricks.as_strided(storage[offset:] if 0 not in size else storage[:0], size,
                                           [s * storage.itemsize for s in stride], writeable=False)
    return np.ascontiguousarray(view)


_CALLS: dict[tuple[str, str], Callable] = {("numpy", "dtype"): _dtype, ("torch.storage", "_load_from_bytes"): _storage,
                                           ("torch._utils", "_rebuild_tensor_v2"): _tensor,
                                           ("collections", "OrderedDict"): lambda: {}}  # noqa: PIE807  without arguments
for _core in ("numpy._core", "numpy.core"):  # NumPy 2 and 1
    _CALLS |= {(f"{_core}.multiarray", "_reconstruct"): _empty_array, (f"{_core}.multiarray", "scalar"): _scalar,
               (f"{_core}.numeric", "_frombuffer"): _from_buffer}
_VALUES = {("numpy", "ndarray")}


class _Plain:
    """Converts to values that a message may hold, with complete arrays. Repeated references are copied, up to a
    limit."""

    def __init__(self) -> None:
        self.left = MAX_OPCODES

    def of(self, value: Any, depth: int = 0) -> Any:
        self.left -= 1
        if depth > MAX_DEPTH or self.left < 0:
            raise _Wrong("it is nested too deeply or refers to itself")
        if isinstance(value, dict):
            return {k: self.of(v, depth + 1) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.of(v, depth + 1) for v in value]
        if isinstance(value, Record):
            return Record(value.kind, self.of(value.fields, depth + 1))
        if isinstance(value, _Array) and value.content is not None:
            return value.content
        if value is None or isinstance(value, (bool, int, float, str, np.ndarray, np.generic)):
            return value
        raise _Wrong(f"it holds a {type(value).__name__}")


# ---- writing

def timed_actions(chunk: np.ndarray, timestamp: float, timestep: int, period_s: float) -> bytes:
    """The pickle of LeRobot's list of `TimedAction`, one per row of chunk [h,action_dim], f32: protocol 5, with tensors
    constructed by torch.from_numpy(numpy.frombuffer(...)). Neither LeRobot nor torch is needed to write it. timestamp,
    timestep: of the observation, which every action also carries as they are."""
    out = bytearray(b"\x80\x05](")
    for i, row in enumerate(np.ascontiguousarray(chunk, "<f4")):
        content = b"\x96" + struct.pack("<Q", row.nbytes) + row.tobytes()  # BYTEARRAY8: torch writes in place
        array = _global("numpy", "frombuffer") + content + _text("<f4") + b"\x86R"  # called with a tuple of two
        tensor = _global("torch", "from_numpy") + array + b"\x85R"  # called with a tuple of one
        fields = {"timestamp": b"G" + struct.pack(">d", timestamp + i * period_s),
                  "timestep": b"J" + struct.pack("<i", timestep + i), "action": tensor,
                  "observation_timestamp": b"G" + struct.pack(">d", timestamp),
                  "observation_timestep": b"J" + struct.pack("<i", timestep)}
        out += _global(HELPERS, "TimedAction") + b")\x81}("
        for key, value in fields.items():
            out += _text(key) + value
        out += b"ub"
    return bytes(out + b"e.")


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    data = text.encode()
    return b"\x8c" + bytes([len(data)]) + data
