"""A call of the function with every iteration of its loops, which decides whether the traced ones stand for all.

Compares, op by op, what an iteration computes with what follows from the second and the third: the same ops on values
of the same places, and integers that go on as they began. Follows as well what a loop with a declared end computes: it
leaves the loop through its state alone. Must not know graphs.
"""

from __future__ import annotations

import contextlib
import linecache
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from vlacompile.compiler.capture.uncompiled_graphs import uncompiled_graphs
from vlacompile.compiler.graph.loop_end import BEGUN, FINISHED
from vlacompile.policy.iterations import TRACED, traced
from vlacompile.policy.policy import Policy
from vlacompile.policy.source_lines import call_line
from vlart.errors import CaptureError

_NOT_THE_POLICYS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]), "<")
_Frames = tuple[tuple[str, int], ...]
LEFT = "a value from inside a loop is read after its end"
_SMALL = 4096  # elements of a constant that the function may write into between two iterations


def differing_iteration(policy: Policy) -> str:
    """What is different in an iteration that would not be traced, with its line; "" if the traced ones stand for all.
    Raises CaptureError for a value that leaves a loop with a declared end beside its state."""
    watched, lengths = _Watched(policy.name), []
    inputs = {n: t.detach().clone() for n, t in policy.example_inputs.items()}
    with torch.no_grad(), uncompiled_graphs(), traced(lengths, watched.iteration, every=True):
        with watched:
            found = policy.infer(**inputs)
        for name in policy.returned:
            watched.require_given(found[name])
    short = next((i for i, count in enumerate(lengths) if watched.completed.get(i) != count), None)
    if short is not None and not watched.unlike:
        return f"a loop is left before its {lengths[short]} iterations are over: all of them are traced"
    return watched.unlike


class _Watched(TorchDispatchMode):
    """made: {result of an op: (loop, iteration, op, which of its results); loop None outside of such}.
    typical: {loop: ops of its second and third iteration}. inside: {memory: the loop with a declared end of whose state
    it holds something}. open: such loops that run, the innermost last."""

    def __init__(self, policy: str):
        super().__init__()
        self.policy = policy
        self.made = WeakTensorKeyDictionary()
        self.at: tuple[int | None, int] = (None, 0)
        self.count = 0
        self.typical: dict[int, tuple[list[tuple], list[tuple]]] = {}
        self.completed: dict[int, int] = {}
        self.unlike = ""
        self.inside: dict[int, tuple[StorageWeakRef, int, _Frames]] = {}
        self.open: list[int] = []
        self.closing = False

    @contextlib.contextmanager
    def iteration(self, loop: int, k: int) -> Iterator[None]:
        outer, self.at = (self.at, self.count), (loop, k)
        self.count = 0
        self.typical.setdefault(loop, ([], []))
        try:
            yield
            if k >= TRACED and self.count != len(self.typical[loop][1]):
                self._differs("computes less")
            self.completed[loop] = self.completed.get(loop, 0) + 1
        finally:
            self.at, self.count = outer

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        self._compare(func, leaves)
        loop = self._loop_of(func, args, leaves)
        result = func(*args, **kwargs)
        results = [r for r in tree_leaves(result) if isinstance(r, torch.Tensor)]
        for i, r in enumerate(results):
            self.made[r] = (*self.at, self.count, i)
        self.count += 1
        if loop is not None:
            changed = [t for t in leaves if isinstance(t, torch.Tensor)] if func._schema.is_mutable else []
            written = changed[:1] if not func._schema.name.startswith("aten::_foreach") else changed
            for t in (*results, *written):
                self._mark(t, loop)
        return result

    # --- whether iterations are alike

    def _compare(self, func, leaves: list) -> None:
        loop, k = self.at
        if loop is None or k == 0 or self.unlike:
            return
        second, third = self.typical[loop]
        if k < TRACED:
            kept = [self._described(v, keep=True) for v in leaves]
            (second, third)[k - 1].append((func, kept))
            return
        if self.count >= len(third) or self.count >= len(second):
            self._differs("computes more")
            return
        (one, a), (other, b) = second[self.count], third[self.count]
        if not (one is other is func) or not len(a) == len(b) == len(leaves):
            self._differs("computes something else")
        elif not all(_follows(x, y, self._described(v), k - TRACED + 1)
                     for x, y, v in zip(a, b, leaves, strict=True)):
            self._differs("reads something else")

    def _described(self, value, keep: bool = False):
        if not isinstance(value, torch.Tensor):
            return value
        place = self.made.get(value)
        if place is None:
            value = value.clone() if keep and value.numel() <= _SMALL else value
            place = value, value
        return _Operand((value.dtype, value.device), tuple(value.shape), place)

    def _differs(self, how: str) -> None:
        if not self.unlike:
            self.unlike = (f"iteration {self.at[1] + 1} of a loop {how} than follows from its first {TRACED}, "
                           f"{_policys_line() or 'at its end'}: all are traced")

    # --- what leaves a loop with a declared end

    def _loop_of(self, func, args: tuple, leaves: list) -> int | None:
        """The loop of whose state the op's result holds something. Raises CaptureError where that loop is over."""
        if func is BEGUN:
            self._close()
            if args[1] not in self.open:
                self.open.append(args[1])
            return args[1]
        if func is FINISHED:
            self.closing = True
            outer = self.open[:-1]
            return outer[-1] if outer else None
        self._close()
        found = [loop for t in leaves if isinstance(t, torch.Tensor) and (loop := self._held_by(t)) is not None]
        return found[-1] if found else None

    def _close(self) -> None:
        if self.closing:
            self.open.pop()
            self.closing = False

    def _held_by(self, tensor: torch.Tensor) -> int | None:
        entry = self.inside.get(tensor.untyped_storage()._cdata)
        if entry is None:
            return None
        if entry[1] not in self.open:
            raise self._leaves(_text(entry[2]) or _policys_line())
        return entry[1]

    def require_given(self, output: object) -> None:
        """Raises CaptureError if an output of the function is a value from inside such a loop."""
        self._close()
        for t in tree_leaves(output):
            if isinstance(t, torch.Tensor):
                self._held_by(t)

    def _mark(self, tensor: torch.Tensor, loop: int) -> None:
        storage = tensor.untyped_storage()
        self.inside[storage._cdata] = StorageWeakRef(storage), loop, _frames()

    def _leaves(self, line: str) -> CaptureError:
        return CaptureError(
            LEFT, where=f'Policy "{self.policy}", {line}',
            why="which iteration is the last is known on the robot alone, and only the state is kept from it",
            fix="make it a part of the state that vlacompile.iterate's step is given and returns")


class _Operand:
    """A tensor that an op reads. kind: its dtype and device. place: as `_Watched.made`, or the tensor itself, twice."""

    def __init__(self, kind: tuple, shape: tuple[int, ...], place: tuple):
        self.kind, self.shape, self.place = kind, shape, place


def _follows(a: object, b: object, c: object, ahead: int) -> bool:
    """Whether `c` is what is read `ahead` iterations after `b`, where `a` is read one before `b`."""
    if isinstance(a, _Operand) and isinstance(b, _Operand) and isinstance(c, _Operand):
        if b.kind != c.kind or not len(a.shape) == len(b.shape) == len(c.shape):
            return False
        sizes = zip(a.shape, b.shape, c.shape, strict=True)
        return all(_follows(*s, ahead) for s in sizes) and _same_place(a.place, b.place, c.place, ahead)
    if type(b) is int and type(a) is int and type(c) is int:
        return c == b + (b - a) * ahead
    return type(b) is type(c) and repr(b) == repr(c) if not isinstance(b, torch.Tensor) else False


def _same_place(a: tuple, b: tuple, c: tuple, ahead: int) -> bool:
    if len(b) == 2 and len(c) == 2:
        return _equal(b[0], c[0])
    if len(b) != len(c) or b[0] != c[0] or b[2:] != c[2:]:
        return False
    if b[0] is None:
        return b == c
    step = b[1] - a[1] if len(a) == 4 and a[0] == b[0] else 1
    return c[1] == b[1] + step * ahead


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a is b:
        return True
    if a.layout is not torch.strided or b.layout is not torch.strided or a.is_quantized or a.shape != b.shape:
        return False
    return (a.data_ptr() == b.data_ptr() and a.stride() == b.stride()) or torch.equal(
        a.detach().contiguous().view(-1).view(torch.uint8), b.detach().contiguous().view(-1).view(torch.uint8))


def _policys_line() -> str:
    """The line of the policy that runs."""
    return _text(_frames())


def _frames() -> _Frames:
    """The policy's (file, line) at this moment, the innermost first."""
    frame, frames = sys._getframe(1), []
    while frame is not None and frame.f_code is not differing_iteration.__code__:
        if not frame.f_code.co_filename.startswith(_NOT_THE_POLICYS):
            frames.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return tuple(frames)


def _text(frames: _Frames) -> str:
    return call_line([(*f, linecache.getline(*f)) for f in reversed(frames)])
