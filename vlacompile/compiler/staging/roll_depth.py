"""A stage of equal layers as a loop over them: one engine for a layer, whose weights are bound one after the other.

Building and loading then take the memory of one layer; the weights are rows of tables in the bundle's file. Must not
know boards.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from vlacompile.compiler.staging.find_depth import Depth, find_depth
from vlacompile.compiler.staging.roll_loop import body_graph
from vlacompile.compiler.staging.stages import Port, StageCarry, Staged, StageGraph, tensor_type
from vlacompile.files.mapped import mapped_empty
from vlart.bundle.plan.plan import TensorType

_ATEN = torch.ops.aten
_LINEAR, _SELECT = _ATEN.linear.default, _ATEN.select.int


@dataclass(frozen=True)
class RolledDepth:
    """staged: with the loops. layers: {stage: (how many layers, the stages that stand for it)}. rows: {value that was
    one layer's result: (the value with those of all layers, which row)}. notes: per stage what was done, or why not."""

    staged: Staged
    layers: Mapping[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    rows: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def roll_depth(staged: Staged, names: Collection[str]) -> RolledDepth:
    """The stages `names` with their equal layers as loops, in three parts: what comes before the layers, a layer, and
    what comes behind. Every number is computed as before; a stage without such layers stays.

    Before:
        stage a: x -> linear(w1) -> relu -> linear(w2) -> relu -> linear(w3) -> relu -> linear(head)
    After:
        table a.layers.table_0 = [w1, w2, w3]
        stage a.layers, 3 iterations: carry -> linear(row of a.layers.table_0) -> relu
        stage a.after: linear(head)
    """
    stages: list[StageGraph] = []
    layers, rows, notes = {}, {}, []
    for s in staged.stages:
        depth, why = find_depth(s) if s.name in names else (None, "")
        if depth is None:
            stages.append(s)
            notes += [f"{s.name} stays whole: {why}"] if why else []
            continue
        made = _Rolling(staged, s, depth).run()
        stages += made.stages
        staged = replace(staged, types=staged.types | made.types, constants=staged.constants | made.tables)
        rows |= made.rows
        layers[s.name] = depth.layers, tuple(m.name for m in made.stages)
        notes.append(f"{s.name}: {why}, one engine for all of them")
    if not layers:
        return RolledDepth(staged, notes=tuple(notes))
    reading = tuple(_reads_rows(s, rows, staged.types) for s in stages)
    types = {n: t for n, t in staged.types.items() if n not in rows}
    return RolledDepth(replace(staged, stages=reading, types=types), layers, rows, tuple(notes))


@dataclass(frozen=True)
class _Made:
    stages: tuple[StageGraph, ...]
    types: Mapping[str, TensorType]
    tables: Mapping[str, torch.Tensor]
    rows: Mapping[str, tuple[str, int]]


class _Rolling:
    """One stage's. named: the plan's value of a node that crosses between its parts."""

    def __init__(self, staged: Staged, stage: StageGraph, depth: Depth):
        self.staged, self.stage, self.found, self.count = staged, stage, depth.found, depth.layers
        self.place = {n: divmod(i, depth.found.candidate.period) for i, n in enumerate(depth.found.region)}
        results = stage.graph.output_node().args[0]
        ports = {n.name: n for n in stage.graph.nodes if n.op == "placeholder"}
        self.named = {ports[p.name]: p.value for p in stage.inputs}
        self.given = {n: p.value for n, p in zip(results, stage.outputs, strict=True)}
        self.types: dict[str, TensorType] = {}
        self.tables: dict[str, torch.Tensor] = {}
        self.rows: dict[str, tuple[str, int]] = {}

    def run(self) -> _Made:
        behind = self._behind()
        calls = [n for n in self.stage.graph.nodes if n.op == "call_function" and n not in self.place]
        wanted = {*self.found.carried.values(), *self.found.invariants}
        before = self._needed(wanted | {n for n in self.given if n not in behind and n not in self.place})
        first = [n for n in calls if n not in behind and n in before]
        last = [n for n in calls if n not in first]
        self._name_crossing(first, last)
        loop = self._loop()
        kept = {*self.staged.program.outputs, *(v for pair in self.staged.delays for v in pair)}
        own = {n: v for n, v in self.given.items() if n not in self.place or v in kept}
        self.rows |= {v: self._row(n) for n, v in self.given.items() if n in self.place and v not in kept
                      and not self._is_result(n)}
        parts = [self._part("before", first, {n: v for n, v in self.named.items() if n in first}), loop,
                 self._part("after", last, {n: v for n, v in own.items() if n in last or n in self.place})]
        return _Made(tuple(p for p in parts if p is not None), self.types, self.tables, self.rows)

    def _behind(self) -> set[Node]:
        """What depends on a layer, and is none."""
        found: set[Node] = set()
        for n in self.stage.graph.nodes:
            if n.op == "call_function" and n not in self.place and any(
                    i in found or i in self.place for i in n.all_input_nodes):
                found.add(n)
        return found

    def _needed(self, wanted: Iterable[Node]) -> set[Node]:
        found, stack = set(), list(wanted)
        while stack:
            node = stack.pop()
            if node not in found:
                found.add(node)
                stack += node.all_input_nodes
        return found

    def _value(self, name: str, val: torch.Tensor, rows: int = 0) -> str:
        kind = tensor_type(val)
        self.types[name] = replace(kind, dims=(rows, *kind.dims)) if rows else kind
        return name

    def _name_crossing(self, first: list[Node], last: list[Node]) -> None:
        made, users = {*first}, {*last, *self.place}
        for n in first:
            if n in self.given:
                self.named[n] = self.given[n]
            elif any(u in users for u in n.users):
                self.named[n] = self._value(f"{self.stage.name}.before.{len(self.types)}", n.meta["val"])
        for i, (index, initial) in enumerate(self.found.carried.items()):
            final = self.found.region[(self.count - 1) * self.found.candidate.period + index]
            name = self.given.get(final)
            alone = name is not None and name not in self.staged.program.outputs
            self.named[final] = name if alone else self._value(f"{self.stage.name}.layers.carried_{i}",
                                                               final.meta["val"])
            assert initial in self.named or initial.op == "get_attr" or initial in made, initial

    def _is_result(self, node: Node) -> bool:
        """Whether it is what the last layer hands on."""
        return node in self.named

    def _row(self, node: Node) -> tuple[str, int]:
        layer, index = self.place[node]
        return f"{self.stage.name}.layers.rows_{self.found.gathered.index(index)}", layer

    def _loop(self) -> StageGraph:
        name, found = f"{self.stage.name}.layers", self.found
        body = body_graph(found)
        ports = [n for n in body.nodes if n.op == "placeholder"]
        carried, tables = len(found.carried), len(found.tables)
        graph, new, inputs, constants = Graph(), {}, [], {}
        turned = self._turned(ports[carried: carried + tables])
        for i, (port, initial) in enumerate(zip(ports, [*found.carried.values(), *found.tables, *found.invariants],
                                                strict=True)):
            if i < carried:
                new[port] = _placeholder(graph, inputs, Port(port.name, self._initial(initial), "carry"), port)
            elif i < carried + tables:
                value = self._table(f"{name}.table_{i - carried}", initial, port in turned)
                new[port] = _placeholder(graph, inputs, Port(port.name, value, "row"), port)
                if port in turned:
                    new[port].meta["val"] = port.meta["val"].t().contiguous()
            elif initial.op == "get_attr":
                constants[initial.target] = self.stage.constants[initial.target]
                new[port] = graph.get_attr(initial.target)
                new[port].meta["val"] = initial.meta["val"]
            else:
                new[port] = _placeholder(graph, inputs, Port(port.name, self.named[initial]), port)
        for node in body.nodes:
            if node.op == "call_function":
                new[node] = _product(graph, node, new) if node.target is _LINEAR and node.args[1] in turned else \
                    graph.node_copy(node, new.__getitem__)
        graph.output(tuple(new[n] for n in body.output_node().args[0]))
        outputs = self._loop_outputs()
        carries = tuple(StageCarry(inputs[i].value, outputs[i].value, i, i) for i in range(carried))
        return replace(self.stage, name=name, graph=graph, constants=constants, inputs=tuple(inputs), outputs=outputs,
                       iterations=self.count, carries=carries)

    def _loop_outputs(self) -> tuple[Port, ...]:
        found, period = self.found, self.found.candidate.period
        last = (self.count - 1) * period
        outs = [Port(f"next_{i}", self.named[found.region[last + index]], "carry")
                for i, index in enumerate(found.carried)]
        for j, index in enumerate(found.gathered):
            value = self._value(f"{self.stage.name}.layers.rows_{j}", found.region[index].meta["val"], self.count)
            outs.append(Port(f"rows_{j}", value, "row"))
        return tuple(outs)

    def _initial(self, node: Node) -> str:
        if node.op == "get_attr":  # the first layer reads a constant
            name = f"{self.stage.name}.layers.initial_{len(self.tables)}"
            self.tables[name] = self.stage.constants[node.target]
            self.named[node] = self._value(name, node.meta["val"])
        return self.named[node]

    def _turned(self, tables: list[Node]) -> set[Node]:
        """Weights of Linears: stored as the product reads them, so that no layer transposes them anew."""
        return {n for n in tables if n.meta["val"].dim() == 2
                and all(u.target is _LINEAR and u.args[1] is n for u in n.users)}

    def _table(self, name: str, weights: tuple[Node, ...], turned: bool) -> str:
        tensors = [self.stage.constants[n.target] for n in weights]
        tensors = [t.t() for t in tensors] if turned else tensors
        shape, dtype = (len(tensors), *tensors[0].shape), tensors[0].dtype
        if any(t.is_meta for t in tensors):
            made = torch.empty(shape, dtype=dtype, device="meta")
        else:
            made = mapped_empty(shape, dtype)
            with torch.no_grad():
                for row, tensor in zip(made, tensors, strict=True):
                    row.copy_(tensor)
        self.tables[name] = made
        self.types[name] = tensor_type(made)
        return name

    def _part(self, which: str, nodes: list[Node], results: Mapping[Node, str]) -> StageGraph | None:
        """What comes before the layers, or behind them; None: nothing does."""
        if not results:
            return None
        graph, new, inputs, constants = Graph(), {}, [], {}
        computed = {*nodes}
        reads = {i for n in nodes for i in n.all_input_nodes} | {n for n in results if n not in computed}
        for n in (n for n in self.stage.graph.nodes if n in reads and n.op != "get_attr" and n not in computed):
            if n in self.named:
                new[n] = _placeholder(graph, inputs, Port(f"in_{len(inputs)}", self.named[n]), n)
        gathered: dict[str, Node] = {}
        for n in (n for n in self.stage.graph.nodes if n in reads and n in self.place and n not in self.named):
            value, _ = self._row(n)
            if value not in gathered:
                gathered[value] = _placeholder(graph, inputs, Port(f"in_{len(inputs)}", value), n)
                gathered[value].meta["val"] = torch.empty((self.count, *n.meta["val"].shape), device="meta",
                                                          dtype=n.meta["val"].dtype)
        for n in self.stage.graph.nodes:
            if n in reads and n.op == "get_attr":
                constants[n.target] = self.stage.constants[n.target]
                new[n] = graph.get_attr(n.target)
                new[n].meta["val"] = n.meta["val"]
            elif n in reads and n in self.place and n not in self.named:
                value, layer = self._row(n)
                new[n] = _selected(graph, gathered[value], layer, n)
            elif n in computed:
                new[n] = graph.node_copy(n, new.__getitem__)
        made = {n: _own(graph, new[n], n) if n not in computed and new[n].op == "placeholder" else new[n]
                for n in results}
        graph.output(tuple(made[n] for n in results))
        outputs = tuple(Port(f"out_{i}", v) for i, v in enumerate(results.values()))
        return replace(self.stage, name=f"{self.stage.name}.{which}", graph=graph, constants=constants,
                       inputs=tuple(inputs), outputs=outputs, precisions=())


def _placeholder(graph: Graph, inputs: list[Port], port: Port, like: Node) -> Node:
    node = graph.placeholder(port.name)
    node.meta["val"] = like.meta["val"]
    inputs.append(replace(port, name=node.name))
    return node


def _product(graph: Graph, node: Node, new: Mapping[Node, Node]) -> Node:
    """A Linear with the transposed weight."""
    bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    made = graph.create_node("call_function", _ATEN.matmul.default, (new[node.args[0]], new[node.args[1]]),
                             name=node.name)
    made.meta = dict(node.meta)
    if bias is None:
        return made
    whole = graph.create_node("call_function", _ATEN.add.Tensor, (made, new[bias]), name=f"{node.name}_bias")
    whole.meta = dict(node.meta)
    return whole


def _selected(graph: Graph, rows: Node, layer: int, like: Node) -> Node:
    made = graph.create_node("call_function", _SELECT, (rows, 0, layer), name=f"{like.name}_of_layer")
    made.meta = {k: v for k, v in like.meta.items() if k != "flops"}
    return made


def _own(graph: Graph, node: Node, like: Node) -> Node:
    made = graph.create_node("call_function", _ATEN.clone.default, (node,), name=f"{like.name}_handed_out")
    made.meta["val"] = like.meta["val"]
    return made


def _reads_rows(stage: StageGraph, rows: Mapping[str, tuple[str, int]], types: Mapping[str, TensorType]) -> StageGraph:
    """The stage with results of single layers read as rows of all of them."""
    if not any(p.value in rows for p in stage.inputs):
        return stage
    assert all(p.mode == "whole" for p in stage.inputs if p.value in rows), "a gathered value is no loop's table"
    graph, new, whole, inputs = Graph(), {}, {}, []
    ports = {p.name: p for p in stage.inputs}
    for node in stage.graph.nodes:
        if node.op != "placeholder":
            continue
        port = ports[node.name]
        if port.value not in rows:
            new[node] = _placeholder(graph, inputs, port, node)
            continue
        value, _ = rows[port.value]
        if value not in whole:
            whole[value] = _placeholder(graph, inputs, Port(port.name, value), node)
            whole[value].meta["val"] = torch.empty(types[value].dims, dtype=node.meta["val"].dtype, device="meta")
    for node in stage.graph.nodes:
        if node.op == "placeholder" and ports[node.name].value in rows:
            value, layer = rows[ports[node.name].value]
            new[node] = _selected(graph, whole[value], layer, node)
        elif node.op == "output":
            graph.output(map_arg(node.args[0], new.__getitem__))
        elif node.op != "placeholder":
            new[node] = graph.node_copy(node, new.__getitem__)
    order = {p.name: i for i, p in enumerate(inputs)}
    places = [order.get(p.name) for p in stage.inputs]
    carries = tuple(replace(c, input=places[c.input]) for c in stage.carries)
    return replace(stage, graph=graph, inputs=tuple(inputs), carries=carries)
