"""Packed sequences of values of inputs (`torch.nn.utils.rnn.pack_padded_sequence`), as a policy's code makes, reads and
unpacks them while it is traced.

PyTorch keeps the valid steps alone, so that shapes depend on the lengths, which the robot may send. Here the padded
sequence stays, and a recurrent layer runs over all of its steps; at those behind a sequence's length its state stays
what it was. Hidden states and valid outputs are equal; what reads the packed rows themselves is refused. Owns the
functions of PyTorch that see a packed sequence. Must not know graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.functional import pad

_FIX = ("give packed sequences to recurrent layers and pad_packed_sequence alone, and compute the rest on padded ones, "
        "with torch.arange(steps) < lengths as a mask")


class RowsOfInputs(Exception):
    """The rows of a packed sequence were read. fix: what to write instead."""

    def __init__(self, fix: str = _FIX):
        super().__init__("a packed sequence")
        self.fix = fix


class _Unknown(int):
    """The longest length, which the robot knows; as a number: steps of the padded sequence."""


class _OfRows:
    """What PyTorch's functions take for a tensor, and only those of recurrent layers read."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise RowsOfInputs()

    def _read(self, *_):
        raise RowsOfInputs()


for _operator in ("getitem", "len", "iter", "neg", "add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv",
                  "matmul", "pow", "lt", "gt"):
    setattr(_OfRows, f"__{_operator}__", _OfRows._read)


@dataclass(frozen=True)
class BatchSizes(_OfRows):
    """Stands for the count of sequences at each step. longest: how many steps there are."""

    batch: int
    longest: int
    device = torch.device("cpu")

    def __getitem__(self, step: int) -> int:
        if step != 0:
            raise RowsOfInputs()
        return self.batch  # every sequence has one step at least

    def size(self, dim: int) -> int:
        return self.longest


@dataclass(frozen=True)
class PackedRows(_OfRows):
    """Stands for the rows of a packed sequence. padded: [T, B, C]; lengths: [B], of each sequence."""

    padded: Tensor
    lengths: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.padded.dtype

    @property
    def device(self) -> torch.device:
        return self.padded.device

    def dim(self) -> int:
        return 2

    def size(self, dim: int) -> int:
        if dim != -1:
            raise RowsOfInputs()
        return self.padded.shape[-1]

    def __getattr__(self, name: str):
        raise RowsOfInputs()

    def valid(self) -> Tensor:
        """[T, B, 1]: which steps are within the length."""
        return (torch.arange(self.padded.shape[0])[:, None] < self.lengths)[..., None]


def call(func: Callable, args: tuple, kwargs: dict, assertions: list[str]):
    """What func gives of a packed sequence; None where it gets none. assertions: PyTorch's own, which nothing
    computes, are added."""
    if func is torch._VF._pack_padded_sequence and any(isinstance(v, FakeTensor) for v in args[:2]):
        rows, sizes = _packed(*args, **kwargs)
        if isinstance(sizes.longest, _Unknown):
            assertions.append(f"1 <= lengths of a packed sequence <= {sizes.longest}")
        return rows, sizes
    if not args or not isinstance(args[0], PackedRows):
        return None
    if func is torch._VF._pad_packed_sequence:
        return _padded(*args, **kwargs)
    if func in _CELLS:
        return _recurrent(_CELLS[func], *args, **kwargs)
    raise RowsOfInputs()


def _packed(padded: Tensor, lengths: Tensor, batch_first: bool) -> tuple[PackedRows, BatchSizes]:
    padded = padded.transpose(0, 1) if batch_first else padded
    longest = _Unknown(padded.shape[0]) if isinstance(lengths, FakeTensor) else max(lengths.tolist())
    return PackedRows(padded[:longest], lengths), BatchSizes(padded.shape[1], longest)


def _padded(rows: PackedRows, sizes: BatchSizes, batch_first: bool, value: float, steps: int) -> tuple[Tensor, Tensor]:
    if isinstance(steps, _Unknown):
        raise RowsOfInputs("give it the length of what was packed: "
                       "pad_packed_sequence(..., total_length=tokens.shape[1])")
    filled = torch.where(rows.valid(), rows.padded, value)
    filled = pad(filled, (0, 0, 0, 0, 0, steps - filled.shape[0]), value=value)
    return filled.transpose(0, 1) if batch_first else filled, rows.lengths


def _recurrent(cell: Callable, rows: PackedRows, sizes: BatchSizes, hidden, weights: list[Tensor], has_biases: bool,
               layers: int, dropout: float, train: bool, bidirectional: bool) -> tuple:
    """As torch._VF.lstm, gru, rnn_tanh and rnn_relu return it: (rows, h) or (rows, h, c)."""
    states = hidden if isinstance(hidden, tuple) else (hidden,)
    directions = 1 + bidirectional
    each, valid, last = len(weights) // (layers * directions), rows.valid(), []
    for _ in range(layers):
        outputs = []
        for direction in range(directions):
            at = len(last)
            output, state = _run(cell, weights[at * each:(at + 1) * each], list(zip(rows.padded, valid, strict=True)),
                                 tuple(s[at] for s in states), backwards=direction == 1)
            outputs.append(output)
            last.append(state)
        rows = PackedRows(torch.cat(outputs, -1), rows.lengths)
    return rows, *(torch.stack([state[i] for state in last]) for i in range(len(states)))


def _run(cell: Callable, weights: list[Tensor], steps: list[tuple[Tensor, Tensor]], state: tuple, backwards: bool):
    """(outputs [T, B, H], state at the end). steps: of each, what is read and which sequences have that step."""
    outputs = [state[0]] * len(steps)
    for t in reversed(range(len(steps))) if backwards else range(len(steps)):
        x, valid = steps[t]
        new = cell(x, state if len(state) > 1 else state[0], *weights)
        state = tuple(torch.where(valid, n, o) for n, o in
                      zip(new if isinstance(new, tuple) else (new,), state, strict=True))
        outputs[t] = state[0]
    return torch.stack(outputs), state


_CELLS = {torch._VF.lstm: torch._VF.lstm_cell, torch._VF.gru: torch._VF.gru_cell,
          torch._VF.rnn_tanh: torch._VF.rnn_tanh_cell, torch._VF.rnn_relu: torch._VF.rnn_relu_cell}
