"""Converts clients' messages to a session's inputs, and checks names, shapes, dtypes and finiteness.

Owns the rules by which a client's array is accepted as a source's content. Must not know protocols or sessions. Nothing
is reordered or guessed, and resized only where the operator declared how: what does not fit is refused, with a message
about what would fit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlart.bundle.plan.action import Realtime
from vlart.bundle.plan.plan import Plan
from vlart.errors import ConfigError, nearest
from vlart.serve.refusal import Refusal
from vlart.serve.resize import can_resize, resizer
from vlart.vocabulary import NUMPY_DTYPES

MAX_DEPTH = 4  # of nested dictionaries
INSTRUCTION = ("prompt", "task")  # the keys of the text in openpi's and LeRobot's messages
MAX_TEXT = 4096  # characters


@dataclass(frozen=True)
class Input:
    """A source as seen by clients. dims: including the leading 1 that a client may omit."""

    name: str
    update: str  # a key of vocabulary.UPDATES
    dtype: str  # a key of vocabulary.DTYPES
    dims: tuple[int, ...]

    def text(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"

    def is_image(self) -> bool:
        """[1,H,W,C] of uint8: a camera frame."""
        return self.dtype == "u8" and len(self.dims) == 4 and self.dims[3] in (1, 3, 4)


def inputs_of(plan: Plan) -> dict[str, Input]:
    """{name: Input} of every source that a client may write: all except those that the runtime fills itself."""
    consume = plan.action.consume if plan.action else None
    filled = {consume.previous, consume.weights} if isinstance(consume, Realtime) else set()
    values = [(plan.values[s.value], s) for s in plan.sources if s.value not in filled and s.update != "static"]
    return {v.name: Input(v.name, s.update, v.type.dtype, tuple(v.type.dims)) for v, s in values}


class Intake:
    """names: {client's key: source}, besides the sources' own names. ignored: keys that clients send and the policy
    does not use. instructions: text -> {source: array} (tokenized_texts.py: the bundle's own tokenizer); None: clients
    send the tokens. resize: a method of resize.py for frames of another size; None: they are refused. Raises
    ConfigError if `names` names no source."""

    def __init__(self, plan: Plan, names: Mapping[str, str] | None = None, ignored: Collection[str] = (),
                 instructions: Callable[[str], dict[str, np.ndarray]] | None = None, resize: str | None = None):
        self.inputs, self.instructions = inputs_of(plan), instructions
        self.resize, self._resizer = resize, None if resize is None else resizer(resize)
        self.names, self.ignored = dict(names or {}), frozenset(ignored)
        for name in sorted(n for n in self.ignored & self.inputs.keys() if self.inputs[n].update != "step"):
            raise ConfigError(f'"{name}" is ignored, and the policy needs it', where="--ignore",
                              why="every message without it is refused", fix="ignore what the policy does not take")
        for key, source in self.names.items():
            if source not in self.inputs:
                raise ConfigError(f'"{key}" is mapped to a source that the bundle does not have', where="names",
                                  why=nearest(source, self.inputs), fix="map it to one of the policy's sources")

    def read(self, message: Any) -> dict[str, np.ndarray]:
        """message: {key: array, number, list of numbers, or nested dictionary}; nested keys are joined by "/".
        Returns {source: array for the session}; missing sources are not reported here. Raises Refusal."""
        found: dict[str, np.ndarray] = {}
        for key, value in _flat(message, "", 0):
            if key in self.ignored:
                continue
            if key in INSTRUCTION and key not in self.names and key not in self.inputs:
                sent = self._tokens(key, value)
            else:
                name = self.source_of(key)
                sent = {name: fit(self.inputs[name], key, self._in_size(self.inputs[name], value))}
            if found.keys() & sent:
                raise Refusal(f'"{min(found.keys() & sent)}" was sent twice', where=f'key "{key}"',
                              why="two keys of the message map to this source", fix="send one of them")
            found |= sent
        return found

    def _in_size(self, wanted: Input, value: Any) -> Any:
        """A frame in the policy's size, if frames are resized; anything else as it is."""
        if self._resizer is None or not wanted.is_image() or not isinstance(value, np.ndarray):
            return value
        frame = value[0] if value.ndim == 4 and len(value) == 1 else value
        if not can_resize(frame) or frame.shape[2] != wanted.dims[3] or frame.shape[:2] == wanted.dims[1:3]:
            return value
        return self._resizer(frame, wanted.dims[1:3])

    def described(self) -> dict:
        """What a client is told of it, besides the policy."""
        return {} if self.resize is None else {"resize": self.resize}

    def _tokens(self, key: str, text: Any) -> dict[str, np.ndarray]:
        if self.instructions is None:
            tokens = [i.text() + f' "{i.name}"' for i in self.inputs.values() if i.update == "task"]
            raise Refusal(f'"{key}": this server accepts no text', where=f'key "{key}"',
                          why="it has no tokenizer; the policy expects " + (", ".join(tokens) or "no instruction"),
                          fix="send those, or have the operator add --instructions CHECKPOINT or --ignore " + key)
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise Refusal(f'"{key}" is not an instruction', where=f'key "{key}"',
                          why=f"it is a {type(text).__name__}" if not isinstance(text, str) else
                          f"it has {len(text)} characters", fix=f"send a text of at most {MAX_TEXT} characters")
        return self.instructions(text)

    def source_of(self, key: str) -> str:
        """Raises Refusal."""
        for name in (self.names.get(key, key), key.replace("/", ".")):
            if name in self.inputs:
                return name
        raise Refusal(f'the policy has no input "{key}"', where=f'key "{key}"',
                      why=nearest(key, [*self.inputs, *self.names]),
                      fix="send the policy's inputs; the operator can rename keys (--map) or ignore them (--ignore)")


def _flat(message: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    if not isinstance(message, Mapping) or depth > MAX_DEPTH:
        raise Refusal("the message is not an observation", where=f'key "{prefix}"' if prefix else "the message",
                      why=f"it is a {type(message).__name__}" if depth <= MAX_DEPTH else "it is nested too deeply",
                      fix="send a dictionary of named arrays", kind="malformed")
    for key, value in message.items():
        if not isinstance(key, str):
            raise Refusal("the message has a key that is not a string", where="the message",
                          why=f"it is a {type(key).__name__}", fix="name every array with a string", kind="malformed")
        path = f"{prefix}/{key}" if prefix else key
        if isinstance(value, Mapping):
            yield from _flat(value, path, depth + 1)
        else:
            yield path, value


def fit(wanted: Input, key: str, value: Any) -> np.ndarray:
    """`value` as `wanted`'s dtype and shape. The leading 1 may be missing; numbers are converted only if nothing but
    the
    last digits of f64 is lost. Raises Refusal."""
    array = _array(wanted, key, value)
    array = _shaped(wanted, key, array)
    target = np.dtype(NUMPY_DTYPES[wanted.dtype])
    kinds = array.dtype.kind + target.kind
    if array.dtype != target and not np.can_cast(array.dtype, target, "safe") and kinds != "ff":
        fix = f"send {target.name}"
        if target == np.uint8 and array.dtype.kind == "f":
            fix += ": frames are bytes 0..255, before any scaling"
        raise Refusal(f'"{key}" has the wrong dtype', where=f'source "{wanted.name}"',
                      why=f"it is {array.dtype.name}, the policy expects {wanted.text()}", fix=fix)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Refusal(f'"{key}" holds NaN or infinity', where=f'source "{wanted.name}"',
                      why=f"{int((~np.isfinite(array)).sum())} of {array.size} numbers are not finite",
                      fix="send measured values; skip the observation while the sensor has none")
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=target)
    if target.kind == "f" and not np.isfinite(converted).all():
        raise Refusal(f'"{key}" is out of range', where=f'source "{wanted.name}"',
                      why=f"a number is too large for {target.name}", fix="check the units")
    return converted


def _array(wanted: Input, key: str, value: Any) -> np.ndarray:
    if isinstance(value, (list, tuple, int, float)):
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise Refusal(f'"{key}" is not an array', where=f'source "{wanted.name}"', why=str(error),
                          fix="send an array of numbers") from error
        if value.dtype == np.int64 and wanted.dtype.startswith("f"):
            value = value.astype(np.float64)  # for example a list [0, 1]
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise Refusal(f'"{key}" is not an array of numbers', where=f'source "{wanted.name}"', why=f"it is {kind}",
                      fix=f"send {wanted.text()}")
    return value


def _shaped(wanted: Input, key: str, array: np.ndarray) -> np.ndarray:
    dims = wanted.dims
    if array.shape == dims:
        return array
    if dims[:1] == (1,) and array.shape == dims[1:]:
        return array[None]
    fix = f"send {wanted.text()}, the leading 1 may be omitted"
    if wanted.is_image():
        fix = (f"resize the frame to {dims[1]} x {dims[2]} (height x width) before sending it, or have the operator "
               "declare how the server does it (--resize)")
        if array.shape[-3:] == (dims[3], dims[1], dims[2]):
            fix = "send the frame with its channels last, [H,W,C]"
    raise Refusal(f'"{key}" has the wrong shape', where=f'source "{wanted.name}"',
                  why=f"it is {list(array.shape)}, the policy expects {wanted.text()}", fix=fix)
