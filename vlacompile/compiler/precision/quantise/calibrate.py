"""Collects what the layers of a stage read on recorded observations.

Owns the validation of the observations, the recorded calls of every stage, and the statistics of the layers' inputs:
exact ranges, means and histograms, and a bounded number of rows. Must not know schemes or methods.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.equal_values import bytes_of
from vlacompile.compiler.graph.node_by_node import NodeByNode
from vlacompile.compiler.precision.quantise.histogram import Histogram
from vlacompile.compiler.precision.quantise.layers import KINDS, layers_of
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlacompile.files.mapped import mapped_empty
from vlacompile.policy.policy import TORCH_DTYPES
from vlart.errors import CalibrationError, nearest

Call = tuple[torch.Tensor, ...]  # arguments of one run of a stage's graph, in the order of its inputs
ROWS = 2048  # rows kept per layer input
BYTES = 2**30  # limit of the rows of all layers of a stage together


@dataclass(frozen=True)
class InputSamples:
    """Statistics of the input x of a layer: [...,K] of a linear (K features) or [n,K,...] of a convolution (K
    channels).

    rows: f32[R,K], sampled without replacement; empty for a convolution. count: rows in all.
    mean, mean_square, peak: f32[K], exact, per feature or channel; peak is the largest magnitude.
    taps: for a convolution f32[K,kernel...]: the mean of the inputs that each weight is multiplied with, padding
    included.
    edges: magnitudes on edge cases (extreme bytes, ids and masks), used for ranges only, because they are possible but
    not typical. None: there were none.
    """

    rows: torch.Tensor
    count: int
    mean: torch.Tensor
    mean_square: torch.Tensor
    peak: torch.Tensor
    magnitudes: Histogram
    taps: torch.Tensor | None = None
    edges: Histogram | None = None


@dataclass(frozen=True)
class StageSamples:
    """inputs: {node of a linear or convolution: samples of its input}; layers that read the same value share one."""

    stage: str
    inputs: Mapping[str, InputSamples]


def record_calls(staged: Staged, observations: Sequence[Mapping[str, torch.Tensor]], *, at_least: int = 2) \
        -> dict[str, tuple[Call, ...]]:
    """{stage: arguments of every run of its graph}, per observation and iteration. Every observation is treated as the
    first one: it fills the histories. A rewrite that preserves a stage's function keeps its calls valid.

    Raises CalibrationError for observations of the wrong shape or dtype, with NaN or infinity, or if fewer than
    `at_least` of them are different.
    """
    check_observations(staged, observations, at_least)
    runner = StageRunner(staged)
    found: dict[str, list[list[torch.Tensor]]] = {s.name: [] for s in staged.stages}

    def record(stage: StageGraph, node: Node, result) -> None:
        if node.op != "placeholder":
            return
        if node.name == stage.inputs[0].name:
            found[stage.name].append([])
        found[stage.name][-1].append(result)

    for inputs in observations:
        runner.run(inputs, observe=record)
    return {name: tuple(tuple(args) for args in calls) for name, calls in found.items()}


def pooled(calls: Mapping[str, Sequence[Call]], owners: Mapping[str, str]) -> dict[str, tuple[Call, ...]]:
    """{first of identical stages: the calls of all stages identical to it}"""
    found: dict[str, tuple[Call, ...]] = {}
    for stage, owner in owners.items():
        found[owner] = found.get(owner, ()) + tuple(calls[stage])
    return found


def check_observations(staged: Staged, observations: Sequence[Mapping[str, torch.Tensor]], at_least: int) -> None:
    program = staged.program
    wanted = {program.inputs[p.name]: p.meta["val"] for p in program.graph.nodes if p.op == "placeholder"}
    for i, inputs in enumerate(observations):
        where = f'calibration observation {i} of policy "{program.name}"'
        for name in inputs:
            if name not in wanted and name not in program.sources:
                raise CalibrationError(f'"{name}" is no input', where=where, why=nearest(name, wanted),
                                       fix="name the inputs as the policy does")
        for name, val in wanted.items():
            _check_input(name, inputs.get(name), val, where)
    loops = {n for n, s in program.sources.items() if s.update == "step"}  # noise differs between equal observations
    different = {_content({n: t for n, t in inputs.items() if n not in loops}) for inputs in observations}
    if len(different) < at_least:
        raise CalibrationError(
            f"{len(different)} different calibration observations",
            where=f'policy "{program.name}", {len(observations)} given',
            why=f"ranges and averages are taken over them, and at least {at_least} are needed",
            fix="record observations of several episodes and give them as Policy(calibration=...)")


def _check_input(name: str, tensor: torch.Tensor | None, val: torch.Tensor, where: str) -> None:
    is_tensor = isinstance(tensor, torch.Tensor)
    if not is_tensor or tensor.shape != val.shape or tensor.dtype != val.dtype:
        got = f"{TORCH_DTYPES.get(tensor.dtype, tensor.dtype)}{list(tensor.shape)}" if is_tensor else \
            "missing" if tensor is None else f"a {type(tensor).__name__}"
        raise CalibrationError(f'"{name}" does not fit', where=where,
                               why=f"it is {got}, the policy takes {TORCH_DTYPES[val.dtype]}{list(val.shape)}",
                               fix="give every input as in example_inputs; for a history only the newest frame")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        odd = int((~torch.isfinite(tensor)).sum())
        raise CalibrationError(f'"{name}" holds NaN or infinity', where=where, why=f"{odd} of {tensor.numel()} numbers",
                               fix="leave out observations with a sensor missing")


def _content(inputs: Mapping[str, torch.Tensor]) -> tuple:
    return tuple((n, bytes_of(inputs[n]).tobytes()) for n in sorted(inputs))


def collect(stage: StageGraph, calls: Iterable[Call], *, layers: Iterable[str] | None = None, rows: int = ROWS,
            seed: int = 0, edges: Iterable[Call] = ()) -> StageSamples:
    """Runs the stage's graph on its calls and collects statistics of the inputs of its layers.

    Equal calls count once: most observations of an episode have the same instruction. layers: node names; None: all
    linears and convolutions. rows: kept at most per layer, fewer if all together would exceed BYTES. edges: calls that
    contribute to ranges only. Deterministic for a given `seed`. Raises CalibrationError if a layer reads NaN or
    infinity.
    """
    calls = tuple({_digest(args): args for args in calls}.values())
    chosen = {x.node for x in layers_of(stage) if x.kind != "embedding"}
    chosen = chosen if layers is None else chosen & set(layers)
    nodes = [n for n in stage.graph.nodes if n.name in chosen]
    features = sum(n.args[0].meta["val"].shape[-1] for n in nodes if _is_linear(n))
    kept = max(1, min(rows, BYTES // (4 * features))) if features else 0
    readers: dict[Node, dict[tuple, _Collector]] = {}
    of: dict[str, _Collector] = {}
    for node in nodes:
        sharing = readers.setdefault(node.args[0], {})
        key = "linear" if _is_linear(node) else (node.args[1].meta["val"].shape[2:], str(node.args[3:]))
        if key not in sharing:
            sharing[key] = _OfLinear(node, len(calls), kept, seed) if _is_linear(node) else _OfConvolution(node)
        of[node.name] = sharing[key]
    runner, watch = NodeByNode(stage.graph, stage.constants), _Watch(readers, stage.name)
    with torch.no_grad():
        for args in calls:
            runner.run(args, watch)
        watch.at_edge = True
        for args in {_digest(args): args for args in edges}.values():
            runner.run(args, watch)
    return StageSamples(stage.name, {name: c.result() for name, c in of.items()})


def _digest(call: Call) -> bytes:
    digest = hashlib.blake2b()
    for tensor in call:
        digest.update(bytes_of(tensor))
    return digest.digest()


def _is_linear(node: Node) -> bool:
    return KINDS[node.target][0] == "linear"


class _Watch:
    """What is told every value of a stage."""

    def __init__(self, readers: Mapping[Node, Mapping[object, _Collector]], stage: str):
        self.readers, self.stage = {n: tuple(c.values()) for n, c in readers.items()}, stage
        self.at_edge = False

    def __call__(self, node: Node, result: torch.Tensor) -> None:
        for collector in self.readers.get(node, ()):
            if not bool(torch.isfinite(result).all()):
                raise CalibrationError("a layer reads NaN or infinity", where=f'stage "{self.stage}", %{node.name}',
                                       why="the policy computes it from one of the calibration observations",
                                       fix="leave out observations that the policy cannot handle")
            if self.at_edge:
                collector.reach(result)
            else:
                collector.add(result)


class _Collector:
    """Running statistics of one value; channel: the axis of its features."""

    def __init__(self, channels: int, channel: int):
        self.channel, self.count, self.magnitudes = channel, 0, Histogram()
        self.sum, self.squares = torch.zeros(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
        self.peak = torch.zeros(channels)
        self.edges: Histogram | None = None
        self._made: InputSamples | None = None

    def add(self, x: torch.Tensor) -> None:
        flat = x.movedim(self.channel, -1).reshape(-1, len(self.peak))
        self.magnitudes.add(flat)
        wide = flat.double()
        self.sum += wide.sum(0)
        self.squares += wide.square().sum(0)
        self.peak = torch.maximum(self.peak, flat.abs().amax(0))
        self.keep(x, flat)
        self.count += len(flat)

    def reach(self, x: torch.Tensor) -> None:
        self.edges = self.edges or Histogram()
        self.edges.add(x)

    def keep(self, x: torch.Tensor, flat: torch.Tensor) -> None:
        raise NotImplementedError

    def result(self) -> InputSamples:
        if self._made is None:
            rows, taps = self.kept()
            self._made = InputSamples(rows, self.count, (self.sum / self.count).float(),
                                      (self.squares / self.count).float(), self.peak, self.magnitudes, taps, self.edges)
        return self._made

    def kept(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        raise NotImplementedError


class _OfLinear(_Collector):
    def __init__(self, node: Node, calls: int, rows: int, seed: int):
        shape = node.args[0].meta["val"].shape
        super().__init__(shape[-1], -1)
        total = calls * math.prod(shape[:-1])
        draw = torch.Generator().manual_seed(seed)
        self.picks = torch.randperm(total, generator=draw)[:rows].sort().values
        self.rows = mapped_empty((len(self.picks), shape[-1]), torch.float32)

    def keep(self, x: torch.Tensor, flat: torch.Tensor) -> None:
        first, last = torch.searchsorted(self.picks, torch.tensor([self.count, self.count + len(flat)]))
        self.rows[first:last] = flat[self.picks[first:last] - self.count]

    def kept(self) -> tuple[torch.Tensor, None]:
        return self.rows, None


class _OfConvolution(_Collector):
    """Means per tap: over all output positions, of the input that this weight of the kernel is multiplied with."""

    def __init__(self, node: Node):
        weight = node.args[1].meta["val"]
        super().__init__(node.args[0].meta["val"].shape[1], 1)
        self.kernel = tuple(weight.shape[2:])
        options = dict(zip(("stride", "padding", "dilation"), node.args[3:6], strict=False)) | node.kwargs
        self.stride, self.padding, self.dilation = (
            _per_dim(options.get(name, default), len(self.kernel))
            for name, default in (("stride", 1), ("padding", 0), ("dilation", 1)))
        self.taps = torch.zeros(len(self.peak), *self.kernel, dtype=torch.float64)
        self.calls = 0

    def keep(self, x: torch.Tensor, flat: torch.Tensor) -> None:
        padded = torch.nn.functional.pad(x, [p for p in reversed(self.padding) for _ in range(2)]).double()
        sizes = [(padded.shape[2 + d] - self.dilation[d] * (k - 1) - 1) // self.stride[d] + 1
                 for d, k in enumerate(self.kernel)]
        places = torch.cartesian_prod(*(torch.arange(k) for k in self.kernel)).reshape(-1, len(self.kernel))
        over = [0, *range(2, x.dim())]
        for place in places.tolist():
            window = [slice(p * d, p * d + (n - 1) * s + 1, s)
                      for p, d, s, n in zip(place, self.dilation, self.stride, sizes, strict=True)]
            self.taps[(slice(None), *place)] += padded[(slice(None), slice(None), *window)].mean(over)
        self.calls += 1

    def kept(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty(0, len(self.peak)), (self.taps / self.calls).float()


def _per_dim(option, dims: int) -> tuple[int, ...]:
    values = tuple(option) if isinstance(option, (list, tuple)) else (option,)
    return values * dims if len(values) == 1 else values
