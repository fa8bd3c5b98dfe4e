"""Partition -> stages: one graph each, with named ports, ready to be emitted.

Owns the names of stages and of the values that cross between them, constant folding, and the ports of loop bodies. Must
not know backends or byte offsets.
"""

from __future__ import annotations

import itertools
import keyword
from collections import Counter
from dataclasses import dataclass, field, replace

import torch
from torch.fx import Graph, Node

from vlacompile.compiler.graph.carried import CarriedSource
from vlacompile.compiler.graph.delay import HISTORY, frame_name, is_delay
from vlacompile.compiler.graph.fold import fold
from vlacompile.compiler.graph.loop_end import LoopEnd
from vlacompile.compiler.graph.ops import flops
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.graph.rolled_loop import FUSED
from vlacompile.compiler.staging.partition import Group, Partition, is_loop, is_loop_result
from vlacompile.policy.policy import TORCH_DTYPES, Source
from vlart.bundle.plan.plan import Precision, Sampling, TensorType


@dataclass(frozen=True)
class Port:
    """An engine input or output. value: name of the plan value bound to it. mode: see vocabulary.BINDING_MODES."""

    name: str
    value: str
    mode: str = "whole"


@dataclass(frozen=True)
class StageCarry:
    """A value carried between iterations. initial, result: value names; input, output: indices of the ports."""

    initial: str
    result: str
    input: int
    output: int


@dataclass(frozen=True)
class StageGraph:
    """graph: placeholders in the order of `inputs`, output args in the order of `outputs`."""

    name: str
    sources: tuple[str, ...]
    graph: Graph
    constants: dict[str, torch.Tensor]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    iterations: int = 1
    carries: tuple[StageCarry, ...] = field(default=())
    sampling: Sampling | None = None
    precisions: tuple[Precision, ...] = field(default=())
    backbones: tuple[str, ...] = field(default=())  # those that need this stage; empty: all
    end: LoopEnd | None = None  # of a loop: `iterations` is the largest number then

    @property
    def flops(self) -> int:
        """FLOPs per iteration."""
        return sum(flops(n) for n in self.graph.nodes)


@dataclass(frozen=True)
class Staged:
    """types: {value name: type} of everything that crosses between stages, sources first.
    constants: {value name: tensor} of values known at compile time (loop tables).
    origin: {value name: node of `program` that computes it}. folded: nodes of `program` evaluated at compile time.
    delays: (value, the value that takes its content when the histories advance), in chain order. What a step takes from
    the one before is among the program's sources: `program.carried`."""

    program: Program
    stages: tuple[StageGraph, ...]
    types: dict[str, TensorType]
    constants: dict[str, torch.Tensor]
    origin: dict[str, str]
    merged: tuple[str, ...] = field(default=())
    folded: frozenset[str] = field(default=frozenset())
    delays: tuple[tuple[str, str], ...] = field(default=())


def tensor_type(val: torch.Tensor) -> TensorType:
    return TensorType(TORCH_DTYPES[val.dtype], tuple(int(d) for d in val.shape))


def stage_names(order: tuple[Group, ...], sources: dict[str, Source], ranks: dict[str, int],
                fused: frozenset[Group] = frozenset()) -> dict[Group, str]:
    """Names that follow from the dependency sets: {task sources} language; {one image} vision.<camera>; {one vector}
    the last part of its own name; unions of sources fusion; loops step, also unrolled ones; stages behind a loop
    decode. Stages that only some backbones need have the backbones' names as a suffix."""

    def base(group: Group) -> str:
        if group.loop is not None:
            return "step"
        if group.after:
            return "decode"
        names = sorted(group.sources - {HISTORY})
        updates = {sources[n].update for n in names}
        if group in fused:
            return "step"
        if updates == {"task"}:
            return "language"
        if len(names) > 1 or HISTORY in group.sources:
            return "fusion"
        last = names[0].split(".")[-1]
        seen = ranks[names[0]] >= 4 and not isinstance(sources[names[0]], CarriedSource)
        return f"vision.{last}" if seen else last

    bases = [".".join([base(g), *sorted(g.backbones)]) for g in order]
    used, total, out = Counter(), Counter(bases), {}
    for group, name in zip(order, bases, strict=True):
        used[name] += 1
        out[group] = name if total[name] == 1 else f"{name}.{used[name]}"
    return out


def build_stages(parts: Partition) -> Staged:
    """One StageGraph per group. Values between stages are named `<stage>.<n>`, outputs of the policy by their name."""
    program = parts.program
    named: dict[Node, str] = {}
    for name, node in zip(program.outputs, program.output_nodes(), strict=True):
        assert named.setdefault(node, name) == name, "InsertOutputCopies gives every output a value of its own"
    ranks = {name: p.meta["val"].dim() for name, p in program.placeholders().items()}
    fused = frozenset(g for g in parts.order if any(FUSED in n.meta for n in parts.members(g)))
    names = stage_names(parts.order, dict(program.sources), ranks, fused)
    crossing = _crossing(parts)
    value_of = _value_names(parts, names, crossing)
    table_nodes = {n for n in crossing if n in parts.folded or n.op == "get_attr"}
    folded = fold(program, parts.folded)
    builder = _Builder(parts, value_of, folded, table_nodes)
    stages = tuple(builder.build(g, names[g]) for g in parts.order)

    types = {program.inputs[p.name]: tensor_type(p.meta["val"]) for p in program.graph.nodes if p.op == "placeholder"}
    constants = {value_of[n]: folded[n] if n in folded else program.constants[n.target] for n in crossing
                 if n in table_nodes}
    types |= {value_of[n]: tensor_type(n.meta["val"]) for n in crossing} | builder.unread
    origin = {value_of[n]: n.name for n in crossing if n not in table_nodes}
    delays = tuple((value_of[n.args[0]], value_of[n]) for n in crossing if is_delay(n))
    return Staged(program, stages, types, constants, origin, parts.merged,
                  frozenset(n.name for n in parts.folded), delays)


def _crossing(parts: Partition) -> list[Node]:
    """Values computed by one stage (or constant tables) and bound by another, in graph order."""
    program, crossing = parts.program, set()
    for node in program.output_nodes():
        crossing.add(node)
    for group in parts.order:
        for value in parts.reads(group):
            if parts.homes.get(value):
                crossing.add(value)
            while is_delay(value) and (value not in crossing or value.args[0] not in crossing):  # with its whole chain
                crossing.add(value)
                value = value.args[0]
                if value.op != "placeholder":
                    crossing.add(value)
        if group.loop is not None:
            carried, tables, _ = group.loop.args
            crossing |= {n for n in (*carried, *tables) if n.op != "placeholder"}
            crossing |= {m for m in parts.members(group) if is_loop_result(m)}
    return [n for n in program.graph.nodes if n in crossing]


def _value_names(parts: Partition, names: dict[Group, str], crossing: list[Node]) -> dict[Node, str]:
    program, count = parts.program, Counter()
    value_of = {p: program.inputs[p.name] for p in program.graph.nodes if p.op == "placeholder"}
    outputs = dict(zip(program.output_nodes(), program.outputs, strict=True))
    for node in crossing:
        if node in outputs:
            value_of[node] = outputs[node]
            continue
        if is_delay(node):
            age, before = 1, node.args[0]
            while is_delay(before):
                age, before = age + 1, before.args[0]
            value_of[node] = frame_name(value_of[before], age)
            continue
        homes = parts.homes.get(node)
        stage = names[min(homes, key=parts.rank.__getitem__)] if homes else "constant"
        value_of[node] = f"{stage}.{count[stage]}"
        count[stage] += 1
    return value_of


class _Builder:
    """Builds the graph of one group at a time."""

    def __init__(self, parts: Partition, value_of: dict[Node, str], folded: dict[Node, torch.Tensor],
                 tables: set[Node]):
        self.parts, self.value_of, self.folded, self.tables = parts, value_of, folded, tables
        self.crossing = set(value_of)
        self.unread: dict[str, TensorType] = {}  # carried values that are not read after the loop

    def build(self, group: Group, name: str) -> StageGraph:
        self.graph, self.nodes, self.constants = Graph(), {}, {}
        self.inputs: list[Port] = []
        self.names: set[str] = set()
        members = self.parts.members(group)
        loop = group.loop
        reads = self.parts.reads(group)
        special = {n for operands in loop.args[:2] for n in operands} if loop is not None else set()
        carried_ports = self._loop_ports(loop) if loop is not None else ([], [])
        for value in reads:
            if value not in special:
                self._read(value)
        for value in reads:  # constants after the ports: get_attr nodes need no order
            if value not in special and value not in self.nodes:
                self._constant(value)
        for node in members:
            if node is loop:
                next_values = self._inline(node, carried_ports)
            elif not (is_loop_result(node) and node.args[0] is loop):
                self.nodes[node] = self.graph.node_copy(node, lambda n: self.nodes[n])
        if loop is not None:
            return self._finish_loop(group, name, loop, members, next_values)
        outs = [n for n in members if n in self.crossing and self._is_first_home(n, group)]
        self.graph.output(tuple(self.nodes[n] for n in outs))
        taken: set[str] = set()
        outputs = tuple(Port(_free(_port(self.value_of[n]), taken), self.value_of[n]) for n in outs)
        sampling = next((n.meta[FUSED] for n in members if FUSED in n.meta), None)
        return StageGraph(name, _sources(group), self.graph, self.constants, tuple(self.inputs), outputs,
                          sampling=sampling,
                          backbones=tuple(sorted(group.backbones)))

    def _is_first_home(self, node: Node, group: Group) -> bool:
        """Whether this group outputs the value: of several groups that recompute it, only the first does."""
        homes = self.parts.homes[node]
        return min(homes, key=self.parts.rank.__getitem__) == group

    def _placeholder(self, port: Port, val: torch.Tensor) -> Node:
        """The port has the name of the placeholder: sources whose names map to the same identifier get a number."""
        node = self.graph.placeholder(_free(port.name, self.names))
        node.meta["val"] = val
        self.inputs.append(replace(port, name=node.name))
        return node

    def _read(self, value: Node) -> None:
        if value in self.value_of and value not in self.tables:
            name = self.value_of[value]
            self.nodes[value] = self._placeholder(Port(_port(name), name), value.meta["val"])

    def _constant(self, value: Node) -> None:
        name = value.target if value.op == "get_attr" else f"folded_{value.name}"
        tensor = self.parts.program.constants[name] if value.op == "get_attr" else self.folded[value]
        self.constants[name] = tensor
        self.nodes[value] = self.graph.get_attr(name)
        self.nodes[value].meta["val"] = value.meta["val"]

    def _loop_ports(self, loop: Node) -> tuple[list[Node], list[Node]]:
        carried, tables, _ = loop.args
        body = loop.target.placeholders()
        c = [self._placeholder(Port(f"carry_{i}", self.value_of[n], "carry"), body[i].meta["val"])
             for i, n in enumerate(carried)]
        t = [self._placeholder(Port(f"row_{i}", self.value_of[n], "row"), body[len(carried) + i].meta["val"])
             for i, n in enumerate(tables)]
        return c, t

    def _inline(self, loop: Node, ports: tuple[list[Node], list[Node]]) -> tuple[Node, ...]:
        """Inlines the loop's body into the stage's graph; returns the nodes of the next carried values."""
        _carried, _tables, invariants = loop.args
        stand_ins = [*ports[0], *ports[1], *(self.nodes[n] for n in invariants)]
        inner = dict(zip(loop.target.placeholders(), stand_ins, strict=True))
        for node in loop.target.body.nodes:
            if node.op == "call_function":
                inner[node] = self.graph.node_copy(node, lambda n: inner[n])
        return tuple(inner[n] for n in loop.target.next_values())

    def _finish_loop(self, group: Group, name: str, loop: Node, members: list[Node],
                     next_values: tuple[Node, ...]) -> StageGraph:
        assert is_loop(loop)
        read = {n.args[1]: self.value_of[n] for n in members if is_loop_result(n)}
        names = [read.get(i, f"{name}.carried_{i}") for i in range(len(next_values))]
        self.unread |= {n: tensor_type(v.meta["val"]) for n, v in zip(names, next_values, strict=True)
                        if n not in read.values()}
        self.graph.output(next_values)
        outputs = tuple(Port(f"next_{i}", n, "carry") for i, n in enumerate(names))
        carries = tuple(StageCarry(self.value_of[n], names[i], i, i) for i, n in enumerate(loop.args[0]))
        return StageGraph(name, _sources(group), self.graph, self.constants, tuple(self.inputs), outputs,
                          loop.target.iterations, carries, loop.target.how(), backbones=tuple(sorted(group.backbones)),
                          end=loop.target.end)


def _sources(group: Group) -> tuple[str, ...]:
    return tuple(sorted(group.sources - {HISTORY}))


def _free(name: str, taken: set[str]) -> str:
    """`name`, with a number if it is taken; added to `taken`."""
    found = next(n for k in itertools.count() if (n := f"{name}_{k}" if k else name) not in taken)
    taken.add(found)
    return found


def _port(value: str) -> str:
    """The value's name as an identifier."""
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in value.replace("@", "__ago_"))
    return plain if plain.isidentifier() and not keyword.iskeyword(plain) else f"value_{plain}"
