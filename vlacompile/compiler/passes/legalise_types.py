"""Computes in the types that engines have what the policy computes in others."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch.fx import Node
from torch.fx.node import map_aggregate, map_arg

from vlacompile.compiler.graph.fold import fold
from vlacompile.compiler.graph.invariants import ENGINE_TYPE_OF, ENGINE_TYPES, REAL_NUMBERS, tensors_of
from vlacompile.compiler.graph.loop_end import is_variable
from vlacompile.compiler.graph.program import Program, ProgramEditor, op_name, same_program
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlacompile.files.mapped import mapped_as
from vlacompile.policy.policy import TAKEN_AS, as_taken

_ATEN = torch.ops.aten
_CASTS = frozenset({_ATEN._to_copy.default, _ATEN.to.dtype})
_MOVES = frozenset({_ATEN._to_copy.default, _ATEN.clone.default, _ATEN.reshape.default, _ATEN.permute.default,
                    _ATEN.transpose.int, _ATEN.t.default, _ATEN.unsqueeze.default, _ATEN.detach.default,
                    _ATEN.alias.default})
_NARROW, _WIDE = (torch.bfloat16, torch.float16), (torch.float32, torch.float64)


@dataclass(frozen=True)
class LegaliseTypes(GraphPass):
    """bf16, fp16 and f64 become f32, and i8, i16 and u16 become i32: engines for the host have few kernels of them,
    boards have no f64, and what may be computed in fewer bits is a recipe's to say. Weights keep their numbers. What no
    source reaches is computed in the type that it was written in, and becomes f32 where it is read; results of f64 are
    rounded, and those of 16 bits differ from the policy's own by the roundings that it makes and f32 does not, but for
    outputs and for what is cast there and back, which are rounded as it does. A source in such a
    type is one in f32 or i32; in fp16 it stays one.

    Before:
        %x = source "x" bf16[1,4]
        %w = weight "w" bf16[4]
        %mul = mul.Tensor(%x, %w) bf16[1,4]
        %_to_copy = _to_copy(%mul, dtype=float32) f32[1,4]
        return action=%_to_copy
    After:
        %x = source "x" f32[1,4]
        %w = weight "w" f32[4]
        %mul = mul.Tensor(%x, %w) f32[1,4]
        return action=%mul
    """

    requires = frozenset({REAL_NUMBERS})
    ensures = frozenset({ENGINE_TYPES})
    may_change = frozenset({Effect.SOURCE_TYPES, Effect.OUTPUT_TYPES})

    def run(self, program: Program) -> PassResult:
        if not any(_others(n.meta.get("val")) for n in program.graph.nodes if not _rounds(n)):
            return PassResult(program, False)
        widened = _Widener(program)
        for node in program.graph.nodes:
            if node.op != "output":
                widened.copy(node)
        result = widened.finish()
        if same_program(program, result):  # what no source reaches, and sources in fp16, keep their types
            return PassResult(program, False)
        return PassResult(result, True, (f"computed in types of engines: {', '.join(widened.kinds)}",))


def _rounds(node: Node) -> bool:
    """Whether it is a rounding: a cast of f32 to 16 bits of which nothing is made but f32."""
    return (node.target in _CASTS and bool(node.users) and node.meta["val"].dtype in (torch.bfloat16, torch.float16)
            and node.args[0].meta["val"].dtype is torch.float32
            and all(u.target in _CASTS and u.meta["val"].dtype is torch.float32 for u in node.users))


def coarsest(program: Program) -> str:
    """The type with the fewest digits that the policy computes in, a key of the tolerance table: bf16, f16 or f32."""
    kinds = {v.dtype for n in program.graph.nodes for v in tensors_of(n.meta.get("val"))}
    return "bf16" if torch.bfloat16 in kinds else "f16" if torch.float16 in kinds else "f32"


def _others(val) -> bool:
    return any(v.dtype in ENGINE_TYPE_OF for v in tensors_of(val))


class _Widener:
    """Two maps of the old nodes: in f32 (the editor's), and, for what no source reaches, as they were written."""

    def __init__(self, program: Program):
        self.program, self.editor = program, ProgramEditor(program)
        self.live: set[Node] = set()
        for n in program.graph.nodes:
            if is_variable(n, self.live):
                self.live.add(n)
        self.written: dict[Node, Node] = {}
        self.wide: dict[Node, Node] = {}
        self.kinds = sorted({str(n.meta["val"].dtype).removeprefix("torch.") for n in program.graph.nodes
                             if isinstance(n.meta.get("val"), torch.Tensor) and n.meta["val"].dtype in ENGINE_TYPE_OF})

    def copy(self, node: Node) -> None:
        if node.op == "placeholder":
            self._source(node)
        elif node not in self.live:
            self._constant(node)
        else:
            self._call(node)

    def _source(self, node: Node) -> None:
        new, dtype = self.editor.copy(node), node.meta["val"].dtype
        if dtype in TAKEN_AS:
            new.meta = {**new.meta, "val": as_taken(node.meta["val"])}
        elif dtype in ENGINE_TYPE_OF:
            self.editor.replace(node, self._cast(new, node))

    def _constant(self, node: Node) -> None:
        """Copied as it is; `_read` says what stands for it where a source's value meets it."""
        if node.op != "get_attr":
            self.written[node] = self.editor.graph.node_copy(node, self.written.__getitem__)
        elif not (_others(node.meta["val"]) and self._is_read_by_live(node)):
            self.written[node] = self.editor.constant(node.target, self.program.constants[node.target])

    def _is_read_by_live(self, node: Node) -> bool:
        """And by nothing else: then it is needed in another type alone, and that one has its name."""
        return all(u in self.live for u in node.users)

    def _read(self, node: Node) -> Node:
        """What is in f32 where `node` was."""
        if node in self.live:
            return self.editor.map(node)
        if not _others(node.meta["val"]):
            return self.written[node]
        if node not in self.wide:
            self.wide[node] = self._widened(node)
        return self.wide[node]

    def _widened(self, node: Node) -> Node:
        weight, way = node, []
        while weight.op == "call_function" and weight.target in _MOVES:
            way.append(f"{op_name(weight.target)}{weight.args[1:]}{weight.kwargs}")
            weight = weight.args[0]
        # A weight, or one in another type or shape: its own numbers, once for all iterations.
        if weight.op == "get_attr":
            own = node.op == "get_attr" and self._is_read_by_live(node)
            name = node.target if own else f"{weight.target}__{zlib.crc32(' '.join(way).encode()):08x}__wide"
            return self.editor.weight(name, lambda: self._numbers(node))
        return self._cast(self.written[node], node)

    def _numbers(self, node: Node) -> torch.Tensor:
        if node.op == "get_attr":
            return mapped_as(self.program.constants[node.target], ENGINE_TYPE_OF[node.meta["val"].dtype])
        return fold(self.program, frozenset({node}))[node].to(ENGINE_TYPE_OF[node.meta["val"].dtype])

    def _call(self, node: Node) -> None:
        if not any(_others(n.meta["val"]) for n in (node, *node.all_input_nodes)):
            self.editor.replace(node, self.editor.graph.node_copy(node, self._read))
            return
        read = lambda args: map_aggregate(map_arg(args, self._read), _wide_dtype)
        args, kwargs = read(node.args), dict(read(node.kwargs))
        if self._rounds(node, args):
            new = self.editor.emit(node.target, (args[0], *node.args[1:]), dict(node.kwargs), like=node)
            self.editor.replace(node, new)
            return
        wanted = node.meta["val"].dtype if isinstance(node.meta["val"], torch.Tensor) else None
        if node.target in _CASTS and args[0].meta["val"].dtype is ENGINE_TYPE_OF.get(wanted, wanted):
            self.editor.replace(node, args[0])
            return
        self.editor.replace(node, self.editor.emit(node.target, args, kwargs, like=node))

    @staticmethod
    def _rounds(node: Node, args: tuple) -> bool:
        """A cast of f32 to 16 bits of which nothing is made but a cast back: the policy rounds on purpose."""
        back = node.users and all(u.target in _CASTS and u.meta["val"].dtype in _WIDE for u in node.users)
        return bool(back and node.target in _CASTS and node.meta["val"].dtype in _NARROW
                    and args[0].meta["val"].dtype is torch.float32 and node.args[0].meta["val"].dtype not in _NARROW)

    def _cast(self, new: Node, like: Node) -> Node:
        wanted = ENGINE_TYPE_OF[like.meta["val"].dtype]
        return self.editor.emit(_ATEN._to_copy.default, (new,), {"dtype": wanted}, like=like)

    def finish(self) -> Program:
        outputs = []
        for node in self.program.output_nodes():
            new, dtype = self._read(node), node.meta["val"].dtype
            if dtype in (torch.bfloat16, torch.float16):
                rounded = self.editor.emit(_ATEN._to_copy.default, (new,), {"dtype": dtype}, like=node)
                new = self._cast(rounded, node)
            outputs.append(new)
        return self.editor.finish(tuple(outputs))


def _wide_dtype(a):
    return ENGINE_TYPE_OF.get(a, a) if isinstance(a, torch.dtype) else a
