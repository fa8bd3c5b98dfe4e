"""Computes with integers of 8 and 16 bits in 32, wrapped around as their own type wraps."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch.fx import Node
from torch.fx.node import map_aggregate, map_arg

from vlacompile.compiler.graph.invariants import tensors_of
from vlacompile.compiler.graph.loop_end import is_variable
from vlacompile.compiler.graph.ops import is_move
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult

_ATEN = torch.ops.aten
_NARROW = frozenset({torch.uint8, torch.int8, torch.int16, torch.uint16})
_WHOLE = _NARROW | {torch.int32, torch.int64, torch.bool}
_CASTS = frozenset({_ATEN._to_copy.default, _ATEN.to.dtype})
# Ops that only move elements and read no number beside them, among those that are no views.
_MOVES = frozenset({_ATEN.flip, _ATEN.roll, _ATEN.index, _ATEN.index_select, _ATEN.gather, _ATEN.repeat, _ATEN.tile,
                    _ATEN.repeat_interleave, _ATEN.pixel_shuffle, _ATEN.pixel_unshuffle, _ATEN.rot90,
                    _ATEN.embedding, _ATEN.upsample_nearest2d, _ATEN._upsample_nearest_exact2d})
# Of bytes they are rewritten as PyTorch computes them (LowerResizes).
_RESIZES = frozenset({_ATEN._upsample_bilinear2d_aa, _ATEN._upsample_bicubic2d_aa, _ATEN.upsample_bilinear2d,
                      _ATEN.upsample_bicubic2d})
# Ops whose result lies between their operands, or in the range of the type whatever they are.
_INSIDE = frozenset({_ATEN.clamp, _ATEN.clamp_min, _ATEN.clamp_max, _ATEN.maximum, _ATEN.minimum, _ATEN.max, _ATEN.min,
                     _ATEN.amax, _ATEN.amin, _ATEN.aminmax, _ATEN.where, _ATEN.sort, _ATEN.topk, _ATEN.cummax,
                     _ATEN.cummin, _ATEN.median, _ATEN.kthvalue, _ATEN.bitwise_and, _ATEN.bitwise_or,
                     _ATEN.bitwise_xor, _ATEN.remainder, _ATEN.fmod,
                     _ATEN.sign, _ATEN.slice_scatter, _ATEN.select_scatter, _ATEN.tril, _ATEN.triu, _ATEN.relu,
                     _ATEN.max_pool2d, _ATEN.index_put, _ATEN.index_copy, _ATEN.scatter,
                     _ATEN.constant_pad_nd, _ATEN.masked_fill, _ATEN.fill})
# Ops that give elements of what they read; the numbers beside it are places and sizes.
_CHOICES = frozenset({_ATEN.max, _ATEN.min, _ATEN.amax, _ATEN.amin, _ATEN.aminmax, _ATEN.sort, _ATEN.topk,
                      _ATEN.cummax, _ATEN.cummin, _ATEN.median, _ATEN.kthvalue, _ATEN.max_pool2d})
# Ops with a number whose bits beyond the type matter.
_WITH_NUMBER = frozenset({_ATEN.remainder, _ATEN.fmod, _ATEN.floor_divide, _ATEN.div, _ATEN.bitwise_and,
                          _ATEN.bitwise_or, _ATEN.bitwise_xor})
_FILLED = frozenset({_ATEN.full_like, _ATEN.new_full})  # with a number that is not of their operand


@dataclass(frozen=True)
class LegaliseIntegers(GraphPass):
    """Engines have few kernels for u8, i8, i16 and u16, and TensorRT has u8 at the ends of a stage alone. Numbers that
    are computed in such a type are computed in i32 instead, and wrapped around wherever the type could not hold them.
    What only moves their elements stays in the type, so that a frame is read as bytes. What no source reaches is left
    to PyTorch.

    Before:
        %x = source "x" u8[1,4]
        %add = add.Tensor(%x, 200) u8[1,4]
        %_to_copy = _to_copy(%add, dtype=float32) f32[1,4]
        return action=%_to_copy
    After:
        %x = source "x" u8[1,4]
        %_to_copy = _to_copy(%x, dtype=int32) i32[1,4]
        %add = add.Tensor(%_to_copy, 200) i32[1,4]
        %remainder = remainder.Scalar(%add, 256) i32[1,4]
        %_to_copy_1 = _to_copy(%remainder, dtype=float32) f32[1,4]
        return action=%_to_copy_1
    """

    def run(self, program: Program) -> PassResult:
        wide = _Wide(program)
        for node in program.graph.nodes:
            if node.op != "output":
                wide.copy(node)
        if not wide.count:
            return PassResult(program, False)
        return PassResult(wide.finish(), True, (f"computed {wide.count} values in 32 bits",))


def _narrow(node: Node) -> bool:
    return any(t.dtype in _NARROW for t in tensors_of(node.meta.get("val")))


def _packet(node: Node):
    return getattr(node.target, "overloadpacket", None)


class _Wide:
    """wide: {old node: its number in i32}; those that have none are in their own type, as the editor's map says."""

    def __init__(self, program: Program):
        self.program, self.editor = program, ProgramEditor(program)
        self.live: set[Node] = set()
        self.wide: dict[Node, Node] = {}
        self.casts: dict[Node, Node] = {}
        self.held: dict[Node, frozenset[torch.dtype]] = {}  # narrow types that hold every number of a value
        self.count = 0

    def copy(self, node: Node) -> None:
        if is_variable(node, self.live):
            self.live.add(node)
        self.held[node] = self._held(node)
        if node.target is operator.getitem:
            self._element(node)
        elif node not in self.live or node.op == "placeholder" or not any(map(_narrow, (node, *node.all_input_nodes))):
            self.editor.keep(node)
        elif node.target in _CASTS:
            self._cast(node)
        elif _packet(node) in _RESIZES:
            self._as_written(node)
        elif is_move(node) or _packet(node) in _MOVES:
            self._move(node)
        else:
            self._compute(node)

    def _held(self, node: Node) -> frozenset[torch.dtype]:
        value, packet = node.meta.get("val"), _packet(node)
        tensor = isinstance(value, torch.Tensor)
        if tensor and value.dtype in _NARROW | {torch.bool}:
            return frozenset(d for d in _NARROW if _holds(d, value.dtype))
        places = node.target is operator.getitem and tensor and value.dtype is torch.int64
        if node.op != "call_function" or packet in _FILLED or places or (tensor and value.dtype not in _WHOLE):
            return frozenset()
        if node.target is _ATEN.remainder.Scalar:
            return _held_from(node, 0)
        if packet is _ATEN.add and isinstance(node.args[1], int) and not node.kwargs:
            return _held_from(node.args[0], node.args[1])
        if not (is_move(node) or packet in _MOVES | _CHOICES | _INSIDE or node.target in _CASTS):
            return frozenset()
        read = node.args[:1] if packet in _MOVES else node.all_input_nodes
        if not read or any(t.dtype not in _WHOLE for i in read for t in tensors_of(i.meta.get("val"))):
            return frozenset()
        numbers = [] if packet not in _INSIDE or packet in _CHOICES else [
            a for a in (*node.args, *node.kwargs.values()) if isinstance(a, (int, float))]
        return frozenset(d for d in _NARROW.intersection(*(self.held[i] for i in read))
                         if all(torch.iinfo(d).min <= a <= torch.iinfo(d).max for a in numbers))

    def _element(self, node: Node) -> None:
        of = node.args[0]
        if of not in self.wide:
            self.editor.keep(node)
            return
        new = self.editor.emit(operator.getitem, (self.wide[of], node.args[1]), like=node)
        self._result(node, new)

    def _result(self, node: Node, new: Node) -> None:
        if isinstance(node.meta["val"], torch.Tensor) and not _narrow(node):
            self.editor.replace(node, new)
        else:
            self.wide[node] = new

    def _move(self, node: Node) -> None:
        if not any(i in self.wide for i in node.all_input_nodes):
            self.editor.keep(node)
            return
        self._result(node, self._in_32_bits(node))

    def _as_written(self, node: Node) -> None:
        for i in node.all_input_nodes:
            if i in self.wide:
                self.editor.replace(i, self._cast_to(self.wide[i], i.meta["val"].dtype, node))
        self.editor.keep(node)

    def _cast(self, node: Node) -> None:
        x, dtype = node.args[0], node.meta["val"].dtype
        value = self.wide.get(x)
        if dtype not in _NARROW:
            if value is None:
                self.editor.keep(node)
            else:
                self.editor.replace(node, value if dtype is torch.int32 else self._cast_to(value, dtype, node))
            return
        was = x.meta["val"].dtype
        if value is None and dtype in self.held[x] and all(u.op == "output" for u in node.users):
            self.editor.keep(node)  # the end of what was computed in 32 bits
            return
        if was is dtype:
            if value is None:
                self.editor.keep(node)
            else:
                self.wide[node] = value
            return
        value = self._number(x) if was in _NARROW else self.editor.map(x)
        if was is torch.int64:
            value = self._wrapped(value, dtype, node)
        if value.meta["val"].dtype is not torch.int32:
            value = self._cast_to(value, torch.int32, node)
        if was not in (torch.bool, torch.int64) and not _holds(dtype, was):
            value = self._wrapped(value, dtype, node)
        self.wide[node] = value
        self.count += 1

    def _compute(self, node: Node) -> None:
        new = self._in_32_bits(node)
        if isinstance(node.meta["val"], torch.Tensor) and _narrow(node) and _packet(node) not in _INSIDE:
            new = self._wrapped(new, node.meta["val"].dtype, node)
        self._result(node, new)
        self.count += 1

    def _in_32_bits(self, node: Node) -> Node:
        read = lambda args: map_aggregate(map_arg(args, self._number), _wide_dtype)
        if _packet(node) in _WITH_NUMBER and _narrow(node) and len(node.args) == 2 and isinstance(node.args[1], int):
            number = int(torch.tensor(node.args[1]).to(node.meta["val"].dtype))  # PyTorch takes it in the type
            return self.editor.emit(node.target, (self._number(node.args[0]), number), dict(read(node.kwargs)),
                                    like=node)
        return self.editor.emit(node.target, read(node.args), dict(read(node.kwargs)), like=node)

    def _number(self, node: Node) -> Node:
        """What stands for `node` where it is computed with."""
        if not _narrow(node):
            return self.editor.map(node)
        if node not in self.wide and node not in self.casts:
            self.casts[node] = self._cast_to(self.editor.map(node), torch.int32, node)
        return self.wide.get(node) or self.casts[node]

    def _cast_to(self, value: Node, dtype: torch.dtype, like: Node) -> Node:
        return self.editor.emit(_ATEN._to_copy.default, (value,), {"dtype": dtype}, like=like)

    def _wrapped(self, value: Node, dtype: torch.dtype, like: Node) -> Node:
        info = torch.iinfo(dtype)
        emit = lambda op, number: self.editor.emit(op, (value, number), like=like)
        if info.min:
            value = emit(_ATEN.sub.Tensor, info.min)
        value = emit(_ATEN.remainder.Scalar, info.max - info.min + 1)
        return emit(_ATEN.add.Tensor, info.min) if info.min else value

    def finish(self) -> Program:
        outputs = []
        for node in self.program.output_nodes():
            in_own = node not in self.wide
            outputs.append(self.editor.map(node) if in_own else
                           self._cast_to(self.wide[node], node.meta["val"].dtype, node))
        return self.editor.finish(tuple(outputs))


def _holds(dtype: torch.dtype, other: torch.dtype) -> bool:
    """Whether every number of `other` is one of `dtype`."""
    if other.is_floating_point or other is torch.bool:
        return other is torch.bool
    return torch.iinfo(dtype).min <= torch.iinfo(other).min and torch.iinfo(other).max <= torch.iinfo(dtype).max


def _held_from(x, least: int) -> frozenset[torch.dtype]:
    """The types that hold x + least, where x was wrapped around."""
    span = x.args[1] if isinstance(x, Node) and x.target is _ATEN.remainder.Scalar else None
    if not isinstance(span, int) or span < 1:
        return frozenset()
    return frozenset(d for d in _NARROW if torch.iinfo(d).min <= least and least + span - 1 <= torch.iinfo(d).max)


def _wide_dtype(a):
    return torch.int32 if isinstance(a, torch.dtype) and a in _NARROW else a
