"""A stage and its schemes -> the stage quantised: treated first (rotated, rescaled), calibrated, rounded.

Owns treatments: which one a stage has, and the caches that make trying several of them cheap. Must not know budgets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from vlacompile.compiler.graph.node_by_node import NodeByNode
from vlacompile.compiler.precision.assign.sensitivity import Rewrite, in_fp16
from vlacompile.compiler.precision.quantise.calibrate import Call, StageSamples, collect
from vlacompile.compiler.precision.quantise.histogram import Histogram
from vlacompile.compiler.precision.quantise.insert_quantised_ops import Ranges, insert_quantised_ops, values_to_range
from vlacompile.compiler.precision.quantise.layers import KINDS, LIMITS, QuantisedLayer, layers_of
from vlacompile.compiler.precision.quantise.quantise import Method, held_range, quantise_stage
from vlacompile.compiler.precision.quantise.smoothing import smooth_activations
from vlacompile.compiler.precision.rotate.groups import Group, rotated
from vlacompile.compiler.staging.identical_stages import with_graph_of
from vlacompile.compiler.staging.run_stages import stage_module
from vlacompile.compiler.staging.stages import StageGraph
from vlart.verify.metrics import compare

Quantised = tuple[StageGraph, dict[str, QuantisedLayer], Ranges]


@dataclass(frozen=True)
class Treatment:
    """What is done to a stage before it is quantised; its function stays. groups: rotated, in this order. smoothing:
    how channels are rescaled after that; None: not at all."""

    groups: tuple[Group, ...] = field(default=())
    smoothing: Method | None = None


class Quantiser:
    """(stage, {node: "int8" | "int4"}) -> the stage, treated; its quantised layers; ranges of values between
    convolutions. Results are cached, also across identical stages.

    method.alpha: of smoothing, 0 or None: none is considered. rotate_seed: of rotations."""

    def __init__(self, firsts: Mapping[str, StageGraph], owners: Mapping[str, str], calls: Mapping[str, Sequence[Call]],
                 edges: Mapping[str, Sequence[Call]], method: Method, progress: Callable[[str], None],
                 rotate_seed: int = 0):
        self.firsts, self.owners, self.calls, self.method, self.progress = firsts, owners, calls, method, progress
        self.edges, self.rotate_seed = edges, rotate_seed
        self._turned: dict[tuple[str, tuple[Group, ...]], tuple[StageGraph, StageSamples]] = {}
        self._treatments: dict[str, Treatment] = {}
        self._done: dict[tuple, tuple[Quantised, tuple[str, ...]]] = {}

    def __call__(self, stage: StageGraph, schemes: Mapping[str, str]) -> Quantised:
        return self.treated(stage, schemes, self.treatment(self.owners[stage.name]))

    def treatment(self, first: str) -> Treatment:
        """Of a stage that is the first of its kind: the one that was set, or the smoothing that is best for it."""
        if first not in self._treatments:
            self._treatments[first] = Treatment(smoothing=self.best_smoothing(self.firsts[first]))
        return self._treatments[first]

    def settle(self, first: str, treatment: Treatment) -> None:
        """Chooses a treatment, and forgets what was tried for that stage."""
        self._treatments[first] = treatment
        self._done = {k: v for k, v in self._done.items() if k[0] != first or k[1] == treatment}
        self._turned = {k: v for k, v in self._turned.items() if k[0] != first or k[1] in ((), treatment.groups)}

    def treated(self, stage: StageGraph, schemes: Mapping[str, str], treatment: Treatment) -> Quantised:
        first = self.firsts[self.owners[stage.name]]
        key = first.name, treatment, tuple(sorted(schemes.items()))
        if key not in self._done:
            self._done[key] = self._quantised(first, schemes, treatment)
        written, layers, ranges = self._done[key][0]
        return with_graph_of(written, stage), layers, ranges

    def turned(self, first: StageGraph, groups: tuple[Group, ...]) -> tuple[StageGraph, StageSamples]:
        """The stage with these groups rotated, and what its layers read then."""
        key = first.name, groups
        if key not in self._turned:
            stage = rotated(first, groups, self.rotate_seed)
            self._turned[key] = stage, collect(stage, self.calls[first.name], edges=self.edges[first.name])
        return self._turned[key]

    def _quantised(self, first: StageGraph, schemes: Mapping[str, str], treatment: Treatment) \
            -> tuple[Quantised, tuple[str, ...]]:
        (stage, samples), notes = self.turned(first, treatment.groups), ()
        if treatment.smoothing is not None:
            smoothed = smooth_activations(stage, samples, schemes, treatment.smoothing, self.progress)
            notes = tuple(f"{stage.name}: {line}" for line in smoothed.notes)
            if smoothed.stage is not stage:
                stage, samples = smoothed.stage, collect(smoothed.stage, self.calls[stage.name], layers=schemes,
                                                         edges=self.edges[stage.name])
        layers = quantise_stage(stage, samples, schemes, self.method, self.progress)
        return (stage, layers, self._ranges(stage, layers)), notes

    def best_smoothing(self, stage: StageGraph, groups: tuple[Group, ...] = ()) -> Method | None:
        """None (no smoothing), the recipe's alpha, or the best alpha per value: whichever causes the least error in the
        stage's outputs if all its layers are int8. Smoothing trades rounding errors of activations for those of
        weights, and single layers do not show which of the two matters."""
        schemes = {x.node: "int8" for x in layers_of(stage) if x.kind == "linear"}
        if not self.method.alpha or not schemes:
            return None
        want = run_calls(stage, self.calls[stage.name])
        errors = {}
        for smoothing in (None, self.method, replace(self.method, alpha=None)):
            written, layers, ranges = self._quantised(stage, schemes, Treatment(groups, smoothing))[0]
            got = run_calls(insert_quantised_ops(written, layers, "onnxruntime", ranges), self.calls[stage.name])
            errors[smoothing] = max(compare(a.numpy(), b.numpy()).rel_l2 for a, b in zip(got, want, strict=True))
        return min(errors, key=errors.__getitem__)

    def said(self, schemes: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
        """Notes on these stages only."""
        keys = dict.fromkeys((self.owners[s], self._treatments.get(self.owners[s]), tuple(sorted(integer(of).items())))
                             for s, of in schemes.items())
        return tuple(line for key in keys if key in self._done for line in self._done[key][1])

    def _ranges(self, stage: StageGraph, layers: Mapping[str, QuantisedLayer]) -> Ranges:
        """Ranges of the results of quantised convolutions, and of sums between them, over all calls."""
        kinds = {n.name: KINDS[n.target][0] for n in stage.graph.nodes if n.target in KINDS}
        between = values_to_range(stage, frozenset(n for n in layers if kinds[n] == "conv"))
        if not between:
            return {}
        seen, edges = (self._watched(stage, between, calls[stage.name]) for calls in (self.calls, self.edges))
        return {n: held_range(seen[n], edges.get(n), self.method) for n in between}

    def _watched(self, stage: StageGraph, nodes: frozenset[str], calls: Sequence[Call]) -> dict[str, Histogram]:
        found = {n: Histogram() for n in nodes} if calls else {}
        runner = NodeByNode(stage.graph, stage.constants)
        with torch.no_grad():
            for args in calls:
                runner.run(args, lambda node, result: found[node.name].add(result) if node.name in found else None)
        return found


def run_calls(stage: StageGraph, calls: Sequence[Call]) -> list[torch.Tensor]:
    """Per output, its values over all calls, concatenated."""
    module = stage_module(stage)
    with torch.no_grad():
        results = [module(*args) for args in calls]
    return [torch.stack(values).flatten() for values in zip(*results, strict=True)]


def integer(schemes: Mapping[str, str]) -> dict[str, str]:
    return {n: s for n, s in schemes.items() if s in LIMITS}


def rewriter(quantise: Quantiser, dialect: str, treatments: Mapping[str, Treatment] | None = None) -> Rewrite:
    """(stage, {node: scheme}) -> the stage as that engine computes it. treatments: {first of identical stages: what is
    tried}, in the place of those that are settled."""

    def rewrite(stage: StageGraph, schemes: Mapping[str, str]) -> StageGraph:
        fp16 = frozenset(n for n, s in schemes.items() if s == "fp16")
        wanted = integer(schemes)
        if wanted:
            tried = (treatments or {}).get(quantise.owners[stage.name])
            written, layers, ranges = quantise(stage, wanted) if tried is None else quantise.treated(stage, wanted,
                                                                                                     tried)
            stage = insert_quantised_ops(written, layers, dialect, ranges)
        return in_fp16(stage, fp16) if fp16 else stage

    return rewrite
