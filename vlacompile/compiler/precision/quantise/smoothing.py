"""Scales down the outlier channels of activations before quantisation, without changing the stage's function.
Linears read x / d instead of x and have the weight W * d; the division is folded into the constants that x is computed
from (scale_propagation.py), so no op is added. Channels that cannot be divided there keep their scale, with a note.
Owns the choice of the divisors d: SmoothQuant's for INT8, AWQ's for INT4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch.fx import Graph, Node

from vlacompile.compiler.precision.quantise.blocks import block_scales, round_blocks, searched_scales
from vlacompile.compiler.precision.quantise.calibrate import InputSamples, StageSamples
from vlacompile.compiler.precision.quantise.histogram import LEVELS, Histogram
from vlacompile.compiler.precision.quantise.layers import dequantise, layers_of
from vlacompile.compiler.precision.quantise.quantise import Method, round_rows, row_scales
from vlacompile.compiler.precision.quantise.scale_propagation import divide
from vlacompile.compiler.staging.stages import StageGraph
from vlacompile.files.mapped import mapped

ROWS = 512  # sample rows on which a candidate is evaluated
SMOOTH_ALPHAS = tuple(i / 10 for i in range(1, 10))
AWQ_ALPHAS = tuple(i / 20 for i in range(1, 13))  # the part of AWQ's 0..1 (Lin et al. 2023, section 3.2) ever chosen
_EXTREME = 1e4  # largest divisor, and inverse of the smallest
Factors = dict[tuple[Node, int], torch.Tensor]  # {(node, position of a constant argument): f64 factor}


@dataclass(frozen=True)
class Smoothed:
    """stage: same function, inputs, outputs and node names; samples of the original stage are invalid for it.
    notes: one per value that was rescaled, or that could not be."""

    stage: StageGraph
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Readers:
    """Linears that read one value: all of them, and those that will be quantised, with their schemes."""

    every: tuple[Node, ...]
    weights: tuple[torch.Tensor, ...]  # of the linears that will be quantised
    schemes: tuple[str, ...]
    samples: InputSamples


def smooth_activations(stage: StageGraph, samples: StageSamples, schemes: Mapping[str, str], method: Method,
            progress: Callable[[str], None] = lambda what: None) -> Smoothed:
    """Rescales every value that linears with a scheme read: by SmoothQuant's divisors for INT8, by AWQ's for INT4 if
    the method says "awq". Deterministic. The constants of `stage` are not modified; nodes that absorb a factor get new
    ones. Recorded calls of the stage stay valid, but samples must be collected again before quantising."""
    factors: Factors = {}
    notes = []
    for value, readers in _readers(stage, samples, schemes, method).items():
        division = divide(value, frozenset(readers.every))
        classes = division.ties.classes()
        where = f"%{value.name} for {', '.join('%' + n.name for n in readers.every)}"
        if division.free() == 0:
            notes.append(f"{where}: not rescaled, {', '.join(division.why)} cannot be divided")
            continue
        progress(f"{stage.name}: rescale %{value.name}")
        alpha, divisors, before, after = _choose(readers, classes[1:], method)
        if alpha == 0:
            notes.append(f"{where}: not rescaled, no divisors reduce the error of {before:.3g}")
            continue
        notes.append(f"{where}: {division.free()} of {len(divisors)} channels rescaled, alpha {alpha:g}, "
                     f"error {before:.3g} -> {after:.3g}")
        add_factors(factors, readers.every, division.edits, divisors)
    return Smoothed(rescaled(stage, factors) if factors else stage, tuple(notes))


def _readers(stage: StageGraph, samples: StageSamples, schemes: Mapping[str, str], method: Method) \
        -> dict[Node, _Readers]:
    linears = {x.node for x in layers_of(stage) if x.kind == "linear"}
    moved = {"int8"} | ({"int4"} if method.int4 == "awq" else set())
    of: dict[Node, list[Node]] = {}
    for node in stage.graph.nodes:
        if node.name in linears:
            of.setdefault(node.args[0], []).append(node)
    found = {}
    for value, nodes in of.items():
        chosen = [n for n in nodes if schemes.get(n.name) in moved]
        if chosen:
            found[value] = _Readers(tuple(nodes), tuple(stage.constants[n.args[1].target] for n in chosen),
                                    tuple(schemes[n.name] for n in chosen), samples.inputs[chosen[0].name])
    return found


def _choose(readers: _Readers, classes: torch.Tensor, method: Method) -> tuple[float, torch.Tensor, float, float]:
    """(alpha, f32[K] divisors, error without them, error with them); alpha 0 and ones if nothing is better."""
    smooth = "int8" in readers.schemes
    ones = torch.ones(len(classes))
    before = _error(readers, ones, method)
    alphas = ((method.alpha,) if method.alpha is not None else SMOOTH_ALPHAS) if smooth else AWQ_ALPHAS
    best, found, least = 0.0, ones, before
    for alpha in alphas:
        divisors = tied(_smooth(readers, alpha) if smooth else _awq(readers.samples, alpha), classes)
        error = _error(readers, divisors, method)
        if error < least or (smooth and method.alpha is not None):
            best, found, least = alpha, divisors, error
    return best, found, before, least


def _smooth(readers: _Readers, alpha: float) -> torch.Tensor:
    """max|X_k|^alpha / max|W_k|^(1-alpha): SmoothQuant, equation 4."""
    x = readers.samples.peak.double()
    w = torch.stack([w.abs().amax(0) for w in readers.weights]).amax(0).double()
    return torch.where((x > 0) & (w > 0), x**alpha / w.clamp(min=1e-30) ** (1 - alpha), 1.0)


def _awq(samples: InputSamples, alpha: float) -> torch.Tensor:
    """magnitude(X_k)^alpha: AWQ, section 3.2, with the root mean square as magnitude; normalised so that the largest
    divisor is the inverse of the smallest."""
    magnitude = samples.mean_square.double().sqrt()
    divisors = torch.where(magnitude > 0, magnitude, magnitude.max().clamp(min=1e-30)) ** alpha
    return divisors / (divisors.max() * divisors.min()).sqrt()


def tied(divisors: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """f32[K]: channels of one class get the geometric mean of their divisors; 1 where the class is 0."""
    logs = divisors.double().clamp(1 / _EXTREME, _EXTREME).log()
    sums = torch.zeros(len(classes) + 1, dtype=torch.float64).index_add(0, classes, logs)
    counts = torch.zeros(len(classes) + 1, dtype=torch.float64).index_add(0, classes, torch.ones_like(logs))
    mean = (sums / counts.clamp(min=1))[classes].exp()
    return torch.where(classes == 0, 1.0, mean).float()


def _error(readers: _Readers, divisors: torch.Tensor, method: Method) -> float:
    """Error of the outputs on sample rows if all readers are quantised: squared, relative, summed over the readers."""
    rows = readers.samples.rows
    rows = rows[:: -(-len(rows) // ROWS)]
    divided, total = rows / divisors, 0.0
    if "int8" in readers.schemes:
        rounded = _round_activation(divided, float((readers.samples.peak / divisors).max()), method)
    for weight, scheme in zip(readers.weights, readers.schemes, strict=True):
        want, scaled = rows @ weight.T, weight * divisors
        if scheme == "int8":
            scale = row_scales(scaled)
            got = rounded @ dequantise(round_rows(scaled, scale), scale).T
        else:
            importance = readers.samples.mean_square / divisors.square()
            scale = (searched_scales(scaled, method.block, importance) if method.int4 == "awq"
                     else block_scales(scaled, method.block))
            got = divided @ dequantise(round_blocks(scaled, scale, method.block), scale, method.block).T
        total += float((got - want).double().square().sum() / want.double().square().sum().clamp(min=1e-30))
    return total


def _round_activation(x: torch.Tensor, peak: float, method: Method) -> torch.Tensor:
    if method.calibrator != "minmax":
        magnitudes = Histogram()
        magnitudes.add(x)
        peak = magnitudes.threshold(method.calibrator, method.percentile)
    scale = peak / LEVELS or 1.0
    return (x / scale).round_().clamp_(-LEVELS, LEVELS).mul_(scale)


def add_factors(factors: Factors, readers: tuple[Node, ...], edits: Mapping[tuple[Node, int], torch.Tensor],
                 divisors: torch.Tensor) -> None:
    inverse = torch.cat([torch.ones(1, dtype=torch.float64), 1 / divisors.double()])
    for place, labels in edits.items():
        factors[place] = factors.get(place, 1.0) * inverse[labels]
    for node in readers:
        factors[node, 1] = factors.get((node, 1), 1.0) * divisors.double()


def rescaled(stage: StageGraph, factors: Factors) -> StageGraph:
    """The stage, with a constant of its own at every argument position that has a factor."""
    graph, copies, constants = Graph(), {}, dict(stage.constants)

    def made(node: Node, position: int, factor: torch.Tensor) -> Node:
        old = node.args[position] if position < len(node.args) else None
        tensor = torch.ones_like(factor, dtype=torch.float32) if old is None else stage.constants[old.target]
        name = _unused(f"{node.name}_weight" if old is None else old.target, constants)
        constants[name] = mapped((tensor.double() * factor).float())
        new = graph.get_attr(name)
        new.meta["val"] = torch.empty_like(constants[name], device="meta")
        return new

    for node in stage.graph.nodes:
        new_args = {p: made(node, p, f) for (n, p), f in factors.items() if n is node}
        copy = copies[node] = graph.node_copy(node, lambda n: copies[n])
        assert copy.name == node.name or node.op in ("get_attr", "output"), f"{node.name} became {copy.name}"
        if new_args:
            args = [*copy.args, *[None] * (max(new_args) + 1 - len(copy.args))]
            copy.args = tuple(new_args.get(i, a) for i, a in enumerate(args))
    for node in [n for n in graph.nodes if n.op == "get_attr" and not n.users]:
        graph.erase_node(node)
    read = {n.target for n in graph.nodes if n.op == "get_attr"}
    return replace(stage, graph=graph, constants={n: t for n, t in constants.items() if n in read})


def _unused(name: str, taken: Mapping[str, object]) -> str:
    base, i = f"{name}_rescaled", 1
    while base + (f"_{i}" if i > 1 else "") in taken:
        i += 1
    return base + (f"_{i}" if i > 1 else "")
