"""Where a policy's weights and FLOPs went: into which stage, into folded values, or dropped.

Owns the arithmetic of `vlacompile plan`. Works on shapes alone, so weights need no content.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import nn
from torch.fx import Node

from vlacompile.compiler.capture.modules import modules_of
from vlacompile.compiler.capture.to_program import constant_name
from vlacompile.compiler.graph.ops import flops, node_bytes
from vlacompile.compiler.graph.program import Program, type_text
from vlacompile.compiler.graph.shortened_loops import times
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlart.vocabulary import CARRIED


@dataclass(frozen=True)
class StageRow:
    """flops: of all iterations. parameters: number of weight elements that it reads (stages may share them);
    constant_bytes: of values precomputed at compile time. reads: {value: "f32[1,50,7]"} that other stages provide;
    gives: of its own; inputs: sources that it reads itself. ended_by_data: fewer iterations may run."""

    stage: str
    sources: tuple[str, ...]
    iterations: int
    flops: int
    flops_share: float
    parameters: int
    weight_bytes: int
    weight_share: float
    constant_bytes: int
    reads: Mapping[str, str]
    gives: Mapping[str, str]
    inputs: tuple[str, ...]
    ended_by_data: bool = False

    @property
    def iterations_text(self) -> str:
        return f"up to {self.iterations}" if self.ended_by_data else str(self.iterations)


@dataclass(frozen=True)
class Folded:
    """A value that is folded at compile time and replaces `weights` ({weight: elements}), `numbers` elements."""

    value: str
    type: str
    numbers: int
    bytes: int
    weights: Mapping[str, int]


@dataclass(frozen=True)
class Account:
    """parameters: elements of the policy's weights: all; not read by the function; read by stages; folded (read by no
    stage); dropped by passes. flops: traced; in stages; folded at compile time; the rest was redundant or dead code.
    unread: {weight: elements}. origin: what a person should know about how the policy was read."""

    policy: str
    sources: Mapping[str, str]
    parameters: Mapping[str, int]
    flops: Mapping[str, int]
    stages: tuple[StageRow, ...]
    folded: tuple[Folded, ...]
    folded_without_weights: Mapping[str, int]
    unread: Mapping[str, int]
    notes: tuple[str, ...]
    origin: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict:
        return asdict(self)


def account(functions: tuple[Callable | None, ...], traced: Program, staged: Staged, notes: tuple[str, ...]) -> Account:
    """functions: the traced ones; the weights of their modules are the policy's. traced: the program as captured."""
    everything, unread = _unread(functions, traced)
    weights = staged.program.parameters - _buffers(functions)
    kept = {n: t.numel() for s in staged.stages for n, t in s.constants.items() if n in weights}
    folded, plain = _folded(staged, weights)
    gone = {n: size for f in folded for n, size in f.weights.items() if n not in kept}
    read = everything - sum(unread.values())
    parameters = {"all": everything, "unread": sum(unread.values()), "in_stages": sum(kept.values()),
                  "folded": sum(gone.values()), "dropped": read - sum(kept.values()) - sum(gone.values())}
    sources = {n: CARRIED if n in traced.carried else s.update for n, s in traced.sources.items()}
    return Account(traced.name, sources, parameters, _work(traced, staged), _rows(staged), tuple(folded), plain, unread,
                   notes)


def _unread(functions: tuple[Callable | None, ...], traced: Program) -> tuple[int, dict[str, int]]:
    """(elements of all weights, {weight that the traced function does not read: elements}); a shared weight counts
    once."""
    names: dict[int, list[str]] = {}
    weights: dict[int, nn.Parameter] = {}
    for top, module in modules_of(*functions).items():
        for name, weight in module.named_parameters(remove_duplicate=False):
            names.setdefault(id(weight), []).append(constant_name(f"{top}.{name}"))
            weights[id(weight)] = weight
    unread = {names[i][0]: w.numel() for i, w in weights.items() if traced.parameters.isdisjoint(names[i])}
    return sum(w.numel() for w in weights.values()), unread


def _buffers(functions: tuple[Callable | None, ...]) -> frozenset[str]:
    return frozenset(constant_name(f"{top}.{name}") for top, module in modules_of(*functions).items()
                     for name, _ in module.named_buffers(remove_duplicate=False))


def _folded(staged: Staged, weights: frozenset[str]) -> tuple[list[Folded], dict[str, int]]:
    """Folded values that depend on weights, and count and bytes of the others."""
    program, behind = staged.program, {}
    for node in program.graph.nodes:
        if node.op == "get_attr":
            behind[node] = {node.target: program.constants[node.target].numel()} if node.target in weights else {}
        elif node.name in staged.folded or any(behind.get(i) for i in node.all_input_nodes):
            behind[node] = {n: size for i in node.all_input_nodes for n, size in behind.get(i, {}).items()}
    values = [n for n in program.graph.nodes if n.name in staged.folded]
    rows = [Folded(n.name, type_text(n.meta["val"]), _numbers(n), node_bytes(n), behind[n]) for n in values
            if behind[n]]
    plain = [n for n in values if not behind[n]]
    return rows, {"values": len(plain), "bytes": sum(node_bytes(n) for n in plain)}


def _numbers(node: Node) -> int:
    return math.prod(int(d) for d in node.meta["val"].shape)


def _work(traced: Program, staged: Staged) -> dict[str, int]:
    after = sum(s.flops * s.iterations for s in staged.stages)
    now = sum(flops(n) for n in _constant_nodes(staged.program))
    before = sum(flops(n) * times(traced, n) for n in traced.graph.nodes)
    return {"traced": before, "in_stages": after, "folded": now, "saved": before - after - now}


def _constant_nodes(program: Program) -> list[Node]:
    known: dict[Node, bool] = {}
    for node in program.graph.nodes:
        known[node] = node.op == "get_attr" or (node.op == "call_function"
                                                and all(known[i] for i in node.all_input_nodes))
    return [n for n, constant in known.items() if constant and n.op == "call_function"]


def _rows(staged: Staged) -> tuple[StageRow, ...]:
    def weights(s: StageGraph) -> list[torch.Tensor]:
        return [t for n, t in s.constants.items() if n in staged.program.parameters]

    def size(tensors) -> int:
        return sum(t.numel() * t.element_size() for t in tensors)

    made = {p.value for s in staged.stages for p in s.outputs} | set(staged.constants)
    work = sum(s.flops * s.iterations for s in staged.stages) or 1
    stored = sum(size(weights(s)) for s in staged.stages) or 1
    rows = []
    for s in staged.stages:
        reads = _reads(s, staged)
        own, tables = size(weights(s)), [staged.constants[p.value] for p in s.inputs if p.value in staged.constants]
        rows.append(StageRow(
            s.name, s.sources, s.iterations, s.flops * s.iterations, s.flops * s.iterations / work,
            sum(t.numel() for t in weights(s)), own, own / stored, size(s.constants.values()) - own + size(tables),
            {v: str(staged.types[v]) for v in reads if v in made},
            {p.value: str(staged.types[p.value]) for p in s.outputs},
            tuple(v for v in reads if v in staged.program.sources), s.end is not None))
    return tuple(rows)


def _reads(stage: StageGraph, staged: Staged) -> list[str]:
    """Values that a stage reads: of a history, what its newest frame is; what a loop starts from too."""
    roots = {later: earlier for earlier, later in staged.delays}
    found = []
    for value in [*(p.value for p in stage.inputs), *(c.initial for c in stage.carries)]:
        while value in roots:
            value = roots[value]
        found.append(value)
    return list(dict.fromkeys(found))
