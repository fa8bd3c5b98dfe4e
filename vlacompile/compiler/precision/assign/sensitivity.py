"""Measures the action error of a precision: stages are rewritten, run, and compared with fp32.

Owns the trial: observations, their fp32 values, and running only the stages that a change affects. Must not know how a
scheme quantises or how ops are inserted (both are parameters), nor what is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch.fx import Graph, Node

from vlacompile.compiler.precision.assign.chunk_jerk import Measured, times_as_jerky
from vlacompile.compiler.precision.quantise.layers import KINDS, QuantisedLayer
from vlacompile.compiler.staging.action_scale import ActionScale
from vlacompile.compiler.staging.run_stages import StageRunner, Values
from vlacompile.compiler.staging.stages import Staged, StageGraph

Inputs = Mapping[str, torch.Tensor]
Schemes = Mapping[str, Mapping[str, str]]  # {stage: {node: scheme}}; layers that are not named stay fp32
Quantise = Callable[[StageGraph, Mapping[str, str]], Mapping[str, QuantisedLayer]]  # {node: "int8" | "int4"} -> layers
Lower = Callable[[StageGraph, Mapping[str, QuantisedLayer]], StageGraph]


Rewrite = Callable[[StageGraph, Mapping[str, str]], StageGraph]  # a stage with its layers in these schemes


@dataclass(frozen=True)
class Numerics:
    """A Rewrite of two parts. quantise: quantises integer layers, with its own calibration. lower: inserts these layers
    into a stage, runnable in PyTorch. fp16 is rounded here."""

    quantise: Quantise
    lower: Lower

    def __call__(self, stage: StageGraph, schemes: Mapping[str, str]) -> StageGraph:
        integer = {node: s for node, s in schemes.items() if s not in ("fp32", "fp16")}
        fp16 = frozenset(node for node, s in schemes.items() if s == "fp16")
        layers = self.quantise(stage, integer) if integer else {}
        stage = in_fp16(stage, fp16) if fp16 else stage
        return self.lower(stage, layers) if layers else stage


def remembered(quantise: Quantise) -> Quantise:
    """The same, with the result per (stage, node, scheme) cached: for slow methods that treat every layer
    independently."""
    found: dict[tuple[str, str, str], QuantisedLayer] = {}

    def once(stage: StageGraph, schemes: Mapping[str, str]) -> dict[str, QuantisedLayer]:
        missing = {node: s for node, s in schemes.items() if (stage.name, node, s) not in found}
        new = quantise(stage, missing) if missing else {}
        found.update({(stage.name, node, s): new[node] for node, s in missing.items()})
        return {node: found[stage.name, node, s] for node, s in schemes.items()}

    return once


class Trial:
    """fp32 values of the observations; measures the action error of other choices.

    observations: inputs of one replan each, whose results are f32 chunks [1,H,D]. scale: the unit; None: that of these
    observations. Equal arguments give equal errors.
    """

    def __init__(self, staged: Staged, observations: Sequence[Inputs], rewrite: Rewrite,
                 scale: ActionScale | None = None):
        self.staged, self.observations, self.rewrite = staged, tuple(observations), rewrite
        self.action = staged.program.action_in
        self.alike = {s.name: _first_alike(s.sources, self.observations) for s in staged.stages}
        self.values = self._run(staged, frozenset(s.name for s in staged.stages), [{} for _ in self.observations])
        self.want = [self.action(v) for v in self.values]
        self.scale = scale or ActionScale.of(self.want)

    def errors(self, schemes: Schemes) -> torch.Tensor:
        """f64[D], action error per dimension with all these layers together; see ActionScale.errors."""
        return self.measure(schemes).error

    def measure(self, schemes: Schemes) -> Measured:
        """Of all these layers together."""
        changed = {s.name: self.rewrite(s, schemes[s.name]) for s in self.staged.stages
                   if any(x != "fp32" for x in schemes.get(s.name, {}).values())}
        again = reached(self.staged, frozenset(changed))
        if not any(p.value in self.staged.program.actions for s in self.staged.stages if s.name in again
                   for p in s.outputs):
            return self._measured(self.want)
        mixed = replace(self.staged, stages=tuple(changed.get(s.name, s) for s in self.staged.stages))
        fresh = {p.value for s in self.staged.stages if s.name in again for p in s.outputs}
        known = [{n: t for n, t in values.items() if n not in fresh} for values in self.values]
        return self._measured([self.action(v) for v in self._run(mixed, again, known)])

    def _measured(self, got: Sequence[torch.Tensor]) -> Measured:
        return Measured(self.scale.errors(got, self.want), times_as_jerky(got, self.want, self.scale.spread))

    def _run(self, staged: Staged, again: frozenset[str], known: Sequence[Values]) -> list[Values]:
        """Runs the stages `again` on every observation, each once for observations with equal inputs of the stage."""
        runner, done = StageRunner(staged), []
        for i, inputs in enumerate(self.observations):
            before = dict(known[i])
            for s in staged.stages:
                if s.name in again and (first := self.alike[s.name][i]) < i:
                    before |= {p.value: done[first][p.value] for p in s.outputs}
            done.append(runner.run(inputs, known=before))
        return done


def _first_alike(sources: Sequence[str], observations: Sequence[Inputs]) -> list[int]:
    """Per observation the index of the first one with the same content in these sources."""
    return [next(j for j in range(i + 1) if all(torch.equal(inputs[n], observations[j][n]) for n in sources))
            for i, inputs in enumerate(observations)]


def reached(staged: Staged, stages: frozenset[str]) -> frozenset[str]:
    """These stages and all stages that depend on them, directly or indirectly."""
    names, values = set(stages), {p.value for s in staged.stages if s.name in stages for p in s.outputs}
    size = -1
    while size != (size := len(names) + len(values)):
        values |= {after for before, after in staged.delays if before in values}
        for s in staged.stages:
            if s.name not in names and values & ({p.value for p in s.inputs} | {c.initial for c in s.carries}):
                names.add(s.name)
            values |= {p.value for p in s.outputs} if s.name in names else set()
    return frozenset(names)


def in_fp16(stage: StageGraph, nodes: frozenset[str]) -> StageGraph:
    """The stage with these layers in fp16: operands and results are rounded. Products are accumulated in f32, as tensor
    cores and fp16 CPU kernels do."""
    graph, copied = Graph(), {}

    def rounded(value: Node) -> Node:
        half = graph.call_function(torch.ops.aten._to_copy.default, (value,), {"dtype": torch.float16})
        back = graph.call_function(torch.ops.aten._to_copy.default, (half,), {"dtype": torch.float32})
        half.meta["val"], back.meta["val"] = value.meta["val"].half(), value.meta["val"]
        return back

    for node in stage.graph.nodes:
        if node.op == "output":
            graph.output(tuple(copied[n] for n in node.args[0]))
            continue
        if node.name not in nodes:
            copied[node] = graph.node_copy(node, lambda n: copied[n])
            continue
        position = KINDS[node.target][1]
        operands = {n: rounded(copied[n]) for i, n in enumerate(node.args)
                    if isinstance(n, Node) and n.meta["val"].is_floating_point() and i <= position + 1}
        copied[node] = rounded(graph.node_copy(node, lambda n, o=operands: o.get(n, copied[n])))
    return replace(stage, graph=graph)
