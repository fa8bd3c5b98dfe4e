"""Values between stages in fp16, where that changes no number."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch.fx import Graph, Node

from vlacompile.compiler.staging.stages import Staged, StageGraph

_COPY = torch.ops.aten._to_copy.default
F16, F32 = torch.float16, torch.float32


@dataclass(frozen=True)
class Boundary:
    """An edge between stages that was in f32. bytes: in f32, of one iteration's value. casts: conversions that left, on
    either side; added: those that a reader in f32 needs now. why: empty if it is narrow; else why it stays in f32."""

    value: str
    producer: str
    readers: tuple[str, ...]
    bytes: int
    casts: int = 0
    added: int = 0
    why: str = ""

    @property
    def line(self) -> str:
        edge = f"{self.value}, {self.producer} to {', '.join(self.readers)}"
        if self.why:
            return f"{edge}: f32, {self.bytes} bytes: {self.why}"
        return f"{edge}: fp16, {self.bytes} bytes become {self.bytes // 2}, {self.casts} casts less, {self.added} more"


@dataclass(frozen=True)
class Narrowed:
    """boundaries: every edge that was in f32, in the order of the plan's values."""

    staged: Staged
    boundaries: tuple[Boundary, ...] = field(default=())


def narrow_values(staged: Staged) -> Narrowed:
    """A value crosses in fp16 if the stage that computes it computes it in fp16, or if each of its readers rounds it
    to fp16 first; a table of constants likewise. Then f32 between them is a conversion up and one down that change
    nothing. Sources, outputs of the policy, values that loops carry and values that histories keep stay in f32.

    Before:
        stage a: ... %y f16; %wide = _to_copy(%y, f32); return %wide
        value "a.0" f32
        stage b: %a_0 f32; %half = _to_copy(%a_0, f16); ...
    After:
        stage a: ... %y f16; return %y
        value "a.0" f16
        stage b: %a_0 f16; ...
    """
    found = [b for name in staged.types if (b := _boundary(staged, name)) is not None]
    narrow = {b.value for b in found if not b.why}
    if not narrow:
        return Narrowed(staged, tuple(found))
    types = {n: replace(t, dtype="f16") if n in narrow else t for n, t in staged.types.items()}
    constants = {n: t.to(F16) if n in narrow else t for n, t in staged.constants.items()}
    stages = tuple(_rewritten(s, narrow) for s in staged.stages)
    return Narrowed(replace(staged, stages=stages, types=types, constants=constants), tuple(found))


def _boundary(staged: Staged, name: str) -> Boundary | None:
    """None: it is no edge between stages, or not in f32."""
    readers = [(s, p) for s in staged.stages for p in s.inputs if p.value == name]
    if staged.types[name].dtype != "f32" or not readers or name in staged.program.sources:
        return None
    producer = next((s for s in staged.stages if any(p.value == name for p in s.outputs)), None)
    made = "the compiler" if producer is None else producer.name
    edge = Boundary(name, made, tuple(dict.fromkeys(s.name for s, _ in readers)), staged.types[name].bytes)
    carried = {v for s in staged.stages for c in s.carries for v in (c.initial, c.result)}
    kept = {v for pair in staged.delays for v in pair}
    if name in staged.program.outputs or name in carried or name in kept:
        return replace(edge, why="the policy gives it, a loop carries it, or a history keeps it")
    placeholders = [_placeholder(s, p.name) for s, p in readers]
    down = sum(_rounds(u) for n in placeholders for u in n.users)
    others = [u for n in placeholders for u in n.users if not _rounds(u)]
    wide = producer is not None and _narrow_twin(producer, name) is not None
    if not wide and (others or not down):
        return replace(edge, why=f"it is computed in f32, and {edge.readers[0]} reads it in f32")
    if producer is None and name not in staged.constants:
        return replace(edge, why="no stage computes it")
    return replace(edge, casts=down + wide, added=(not wide and producer is not None) + bool(others))


def _placeholder(stage: StageGraph, name: str) -> Node:
    return next(n for n in stage.graph.nodes if n.op == "placeholder" and n.name == name)


def _rounds(node: Node) -> bool:
    return node.target is _COPY and dict(node.kwargs) == {"dtype": F16}


def _narrow_twin(stage: StageGraph, value: str) -> Node | None:
    """The fp16 number that an output in f32 was widened from."""
    results = stage.graph.output_node().args[0]
    node = next(n for n, p in zip(results, stage.outputs, strict=True) if p.value == value)
    if node.target is not _COPY or dict(node.kwargs) != {"dtype": F32}:
        return None
    twin = node.args[0]
    plain = twin.op == "call_function" and twin.meta["val"].dtype == F16
    return twin if plain and twin not in results else None


def _rewritten(stage: StageGraph, narrow: set[str]) -> StageGraph:
    ports = {p.name: p.value for p in stage.inputs}
    if not narrow & {p.value for p in (*stage.inputs, *stage.outputs)}:
        return stage
    graph, new = Graph(), {}
    results = stage.graph.output_node().args[0]
    wanted = {n: (_narrow_twin(stage, p.value) or n) for n, p in zip(results, stage.outputs, strict=True)
              if p.value in narrow}
    for node in stage.graph.nodes:
        if node.op == "output":
            graph.output(tuple(_as_fp16(graph, new[wanted[n]], n) if n in wanted else new[n] for n in results))
        elif node.op == "placeholder" and ports[node.name] in narrow:
            new[node] = _port(graph, node, new)
        elif not (_rounds(node) and node in new):
            new[node] = graph.node_copy(node, new.__getitem__)
    graph.eliminate_dead_code()
    return replace(stage, graph=graph)


def _port(graph: Graph, node: Node, new: dict[Node, Node]) -> Node:
    """A port in fp16. Who rounds it reads it as it is, others in f32. Returns what the others read."""
    port = graph.placeholder(node.name)
    port.meta = dict(node.meta) | {"val": node.meta["val"].to(F16)}
    new.update({u: port for u in node.users if _rounds(u)})
    return port if all(map(_rounds, node.users)) else _cast(graph, port, F32, f"{node.name}_f32")


def _as_fp16(graph: Graph, node: Node, old: Node) -> Node:
    return node if node.meta["val"].dtype == F16 else _cast(graph, node, F16, f"{old.name}_f16")


def _cast(graph: Graph, node: Node, dtype: torch.dtype, name: str) -> Node:
    made = graph.create_node("call_function", _COPY, (node,), {"dtype": dtype}, name=name)
    made.meta["val"] = torch.empty(node.meta["val"].shape, dtype=dtype, device="meta")
    return made
