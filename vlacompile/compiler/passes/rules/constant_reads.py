"""Which rows of a dimension an op reads, where the compiler can know it: slices, picks, flips, constant indices.

Must not know what is read: a value of a program, or a value in parts.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch.fx import Node

from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.fold import fold
from vlacompile.compiler.graph.program import Program, ProgramEditor

_ATEN = torch.ops.aten
_MOST_ROWS = 4096  # of an index that is computed to be looked at


@dataclass(frozen=True)
class Read:
    """indices: the rows along `axis` that are read, in the order of the result. picked: one row, without the axis."""

    axis: int
    indices: tuple[int, ...]
    picked: bool = False


@dataclass(frozen=True)
class Piece:
    """Rows `local` of one part, which has `size` of them; number: of the part."""

    number: int
    size: int
    local: tuple[int, ...]

    @property
    def whole(self) -> bool:
        return self.local == tuple(range(self.size))

    def span(self) -> tuple[int, int, int] | None:
        """(begin, end, step) of a slice that reads these rows; None: there is none."""
        step = self.local[1] - self.local[0] if len(self.local) > 1 else 1
        rows = range(self.local[0], self.local[-1] + 1, step) if step > 0 else ()
        return (self.local[0], self.local[-1] + 1, step) if tuple(rows) == self.local else None


class KnownIndices:
    """The numbers of an index that depends on no source: {node of a program: tensor of one dimension}."""

    def __init__(self, program: Program):
        self._program = program
        self._deps: dict[Node, frozenset[str]] | None = None
        self._values: dict[Node, torch.Tensor | None] = {}

    def __call__(self, index: Node) -> torch.Tensor | None:
        """None: the robot computes it, or it is too long to be looked at."""
        if index not in self._values:
            if self._deps is None:
                self._deps = dependencies(self._program)
            val, found = index.meta["val"], None
            if not self._deps[index] and val.dim() == 1 and val.numel() <= _MOST_ROWS:
                found = fold(self._program, frozenset({index}))[index]
            self._values[index] = None if found is None or found.is_meta else found
        return self._values[index]


def reads_rows(target) -> bool:
    """Whether it is an op of a kind that may read some rows of its first operand."""
    return isinstance(target, torch._ops.OpOverload) and target.overloadpacket in _RULES


def read_of(target, args: tuple, shape: tuple[int, ...], known: Callable[[Node], torch.Tensor | None]) -> Read | None:
    """What an op reads of its first operand, which has this shape; None: an op of another kind, or with an index that
    is not known."""
    return _RULES[target.overloadpacket](args, shape, known) if reads_rows(target) and shape else None


def _slice(args: tuple, shape: tuple[int, ...], _) -> Read:
    axis, begin, end, step = (*args[1:], *(0, None, None, 1)[len(args) - 1:])
    axis %= len(shape)
    return Read(axis, tuple(range(*slice(begin, end, step).indices(shape[axis]))))


def _select(args: tuple, shape: tuple[int, ...], _) -> Read:
    axis = args[1] % len(shape)
    return Read(axis, (args[2] % shape[axis],), picked=True)


def _index_select(args: tuple, shape: tuple[int, ...], known) -> Read | None:
    return _rows(args[1] % len(shape), known(args[2]), shape)


def _index(args: tuple, shape: tuple[int, ...], known) -> Read | None:
    axes = [i for i, index in enumerate(args[1]) if index is not None]
    return _rows(axes[0], known(args[1][axes[0]]), shape) if len(axes) == 1 else None


def _rows(axis: int, found: torch.Tensor | None, shape: tuple[int, ...]) -> Read | None:
    if found is None:
        return None
    rows = found.nonzero()[:, 0] if found.dtype in (torch.bool, torch.uint8) else found
    return Read(axis, tuple(i % shape[axis] for i in rows.tolist()))


def _flip(args: tuple, shape: tuple[int, ...], _) -> Read | None:
    dims = {d % len(shape) for d in args[1]}
    return Read(min(dims), tuple(range(shape[min(dims)]))[::-1]) if len(dims) == 1 else None


def _roll(args: tuple, shape: tuple[int, ...], _) -> Read | None:
    if len(args) < 3 or len(args[2]) != 1:
        return None
    axis = args[2][0] % len(shape)
    return Read(axis, tuple((i - args[1][0]) % shape[axis] for i in range(shape[axis])))


_RULES = {_ATEN.slice: _slice, _ATEN.select: _select, _ATEN.index_select: _index_select, _ATEN.index: _index,
          _ATEN.flip: _flip, _ATEN.roll: _roll}


def pieces_of(indices: Sequence[int], sizes: Sequence[int]) -> list[Piece]:
    """Rows of a concatenation of parts with `sizes` rows, as rows of these parts: neighbours of one part together."""
    ends = list(accumulate(sizes))
    owner = [k for k, size in enumerate(sizes) for _ in range(size)]
    found: list[tuple[int, list[int]]] = []
    for i in indices:
        k = owner[i]
        local = i - (ends[k] - sizes[k])
        if not found or found[-1][0] != k:
            found.append((k, []))
        found[-1][1].append(local)
    return [Piece(k, sizes[k], tuple(local)) for k, local in found]


def row_index(editor: ProgramEditor, local: tuple[int, ...]) -> Node:
    """The constant with which rows are read that are no slice."""
    name = "_".join(map(str, local))
    if len(local) > 8:
        name = f"{local[0]}_{local[-1]}_{zlib.crc32(name.encode()):08x}"
    return editor.constant(f"rows_{name}", torch.tensor(local))
