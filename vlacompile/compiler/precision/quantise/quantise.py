"""Layers and samples of their inputs -> quantised layers: INT8 (W8A8) and INT4 (weights only, block-wise).

Owns the choice of scales, rounding and bias correction. Must not know how a scheme is chosen per layer or emitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch.fx import Node

from vlacompile.compiler.precision.quantise.blocks import block_scales, round_blocks, searched_scales
from vlacompile.compiler.precision.quantise.calibrate import InputSamples, StageSamples
from vlacompile.compiler.precision.quantise.gptq import gptq, spread_of
from vlacompile.compiler.precision.quantise.histogram import Histogram
from vlacompile.compiler.precision.quantise.layers import KINDS, LIMITS, Layer, QuantisedLayer, layers_of
from vlacompile.compiler.staging.stages import StageGraph
from vlacompile.files.mapped import mapped
from vlacompile.recipe.quantisation_methods import BLOCKS, CALIBRATORS, ROUNDINGS, is_alpha, is_percentile
from vlart.errors import ConfigError, nearest

# Edge cases widen a range at most by this factor: beyond it they saturate, so typical values lose at most two bits.
REACH = 4.0
_SMALLEST = torch.finfo(torch.float32).tiny * 256


@dataclass(frozen=True)
class Method:
    """How layers are quantised; the same for all layers of a policy.

    calibrator: chooses the range of an activation (see Histogram.threshold); percentile: for the calibrator
    "percentile". correct_bias: compensate in the bias the mean error of the output that rounding the weights causes
    (Nagel et al.
        2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2, measured).
    int4: "rtn": round to nearest, without clipping; "awq": round to nearest with scales searched for the least error,
        weighted by the magnitude of the inputs, after rescaling the stage (smoothing.py); "gptq": column by column,
        later columns compensating the errors of earlier ones (Frantar et al. 2022), with scales searched in the same
        way.
    block: elements along K that share an INT4 scale.
    margin: factor by which the range of activations exceeds the observed one.
    alpha: how much of the quantisation difficulty of INT8 activations smoothing.py moves into the weights, 0..1 (Xiao
    et
        al. 2022, "SmoothQuant", equation 4); None: per value, the alpha with the least error on the samples.
    """

    calibrator: str = "minmax"
    percentile: float = 99.99
    correct_bias: bool = True
    int4: str = "rtn"
    block: int = 64
    alpha: float | None = 0.5
    margin: float = 1.0

    def __post_init__(self) -> None:
        for name, known in (("calibrator", CALIBRATORS), ("int4", ROUNDINGS)):
            if getattr(self, name) not in known:
                raise ConfigError(f'"{getattr(self, name)}" is not a valid {name}', where=f"Method({name}=...)",
                                  why=nearest(str(getattr(self, name)), known), fix="choose one of them")
        if self.block not in BLOCKS:
            raise ConfigError(f"a block of {self.block} elements", where="Method(block=...)",
                              why=f"kernels exist for {', '.join(map(str, BLOCKS))}", fix="choose one of them")
        if not is_percentile(self.percentile):
            raise ConfigError(f"a percentile of {self.percentile}", where="Method(percentile=...)",
                              why="it is the percentage of the magnitudes that are not clipped", fix="99.9 to 100")
        if self.alpha is not None and not is_alpha(self.alpha):
            raise ConfigError(f"an alpha of {self.alpha}", where="Method(alpha=...)",
                              why="0 leaves activations unchanged, 1 makes their channels equal", fix="0.5, or None")


def quantise_stage(stage: StageGraph, samples: StageSamples, schemes: Mapping[str, str], method: Method,
                   progress: Callable[[str], None] = lambda what: None) -> dict[str, QuantisedLayer]:
    """{node name: quantised layer}, for the nodes for which `schemes` says "int8" or "int4". Deterministic.

    Embeddings are rounded to nearest, with one scale per row or per block of a row. Raises ConfigError for a node that
    is not a layer of the stage, an unknown scheme, an INT4 convolution, or a layer without samples.
    """
    layers = {x.node: x for x in layers_of(stage)}
    nodes = {n.name: n for n in stage.graph.nodes}
    for name, scheme in schemes.items():
        _check(stage, layers.get(name), name, scheme, samples)
    done: dict[str, QuantisedLayer] = {}
    spread: tuple[InputSamples | None, torch.Tensor | None] = (None, None)  # cached: q, k and v read the same value
    for name, layer in layers.items():
        if name in schemes:
            progress(f"{stage.name}: {name} in {schemes[name]}")
            weight, bias, read = stage.constants[layer.weight], _bias(stage, nodes[name]), samples.inputs.get(name)
            if read is not None and schemes[name] == "int4" and method.int4 == "gptq" and spread[0] is not read:
                spread = (read, spread_of(read.rows))
            done[name] = quantise_layer(layer, weight, bias, read, schemes[name], method, spread[1])
    return done


def _check(stage: StageGraph, layer: Layer | None, name: str, scheme: str, samples: StageSamples) -> None:
    where = f'stage "{stage.name}", %{name}'
    if layer is None:
        raise ConfigError("not a layer", where=where, why=nearest(name, (x.node for x in layers_of(stage))),
                          fix="name linears, convolutions and embeddings with a constant weight")
    if scheme not in LIMITS:
        raise ConfigError(f'"{scheme}" is not a scheme of quantised layers', where=where, why=nearest(scheme, LIMITS),
                          fix="leave out layers that stay in floating point")
    if scheme == "int4" and layer.kind == "conv":
        raise ConfigError("a convolution in int4", where=where, why="no engine has a kernel for it", fix='use "int8"')
    if layer.kind != "embedding" and name not in samples.inputs:
        raise ConfigError("no samples of the input of this layer", where=where,
                          why=f'{len(samples.inputs)} layers of stage "{samples.stage}" were calibrated',
                          fix="collect(stage, calls) for the graph that is quantised")


def _bias(stage: StageGraph, node: Node) -> torch.Tensor | Node | None:
    """The layer's bias; None: it has none; a node: it is computed, and left unchanged."""
    if KINDS[node.target][0] == "embedding":
        return None
    bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    return stage.constants[bias.target] if isinstance(bias, Node) and bias.op == "get_attr" else bias


def quantise_layer(layer: Layer, weight: torch.Tensor, bias: torch.Tensor | Node | None, samples: InputSamples | None,
                   scheme: str, method: Method, spread: torch.Tensor | None = None) -> QuantisedLayer:
    """samples: None only for an embedding. bias: a node if it is not constant; then it is not corrected. spread: for
    GPTQ, spread_of these samples."""
    if scheme == "int8":
        scale = row_scales(weight)
        found = QuantisedLayer("int8", round_rows(weight, scale), scale)
    else:
        found = _int4(weight, samples, method, spread)
    found = replace(found, q=mapped(found.q))
    if samples is None:
        return found
    corrected = None
    if method.correct_bias and not isinstance(bias, Node):
        moved = mean_output(layer.kind, weight - found.dequantised(), samples)
        corrected = moved if bias is None else bias + moved
    return QuantisedLayer(scheme, found.q, found.scale, found.block, corrected,
                          *held_range(samples.magnitudes, samples.edges, method))


def held_range(seen: Histogram, edges: Histogram | None, method: Method) -> tuple[float, float]:
    """(low, high) of 8 bits: the observed range, clipped by the calibrator and widened by the margin, extended to the
    range of the edge cases as far as typical values keep their resolution (REACH)."""
    low, high = (x * method.margin for x in _clipped(seen, method))
    if edges is None:
        return low, high
    least, most = _clipped(edges, method)
    reach = REACH * max(-low, high) or math.inf
    return min(low, max(least, -reach)), max(high, min(most, reach))


def _clipped(seen: Histogram, method: Method) -> tuple[float, float]:
    peak = seen.threshold(method.calibrator, method.percentile)
    return max(seen.low, -peak), min(seen.high, peak)


def _int4(weight: torch.Tensor, samples: InputSamples | None, method: Method, spread: torch.Tensor | None) \
        -> QuantisedLayer:
    block = method.block
    if samples is None or method.int4 == "rtn":
        scale = block_scales(weight, block)
        return QuantisedLayer("int4", round_blocks(weight, scale, block), scale, block)
    if method.int4 == "gptq":
        return QuantisedLayer("int4", *gptq(weight, spread, samples.mean_square, block), block)
    scale = searched_scales(weight, block, samples.mean_square)
    return QuantisedLayer("int4", round_blocks(weight, scale, block), scale, block)


def row_scales(weight: torch.Tensor) -> torch.Tensor:
    """f32[N]: per row (output channel, vocabulary entry) its largest magnitude over 127."""
    scale = weight.flatten(1).abs().amax(1) / LIMITS["int8"]
    return torch.where(scale > 0, scale.clamp(min=_SMALLEST), 1.0)


def round_rows(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """int8, -127..127, rounded to nearest."""
    limit = LIMITS["int8"]
    return (weight / scale.reshape(-1, *[1] * (weight.dim() - 1))).round_().clamp_(-limit, limit).to(torch.int8)


def mean_output(kind: str, weight: torch.Tensor, samples: InputSamples) -> torch.Tensor:
    """f32[N]: the mean output over all samples of a layer with this weight, without bias."""
    if kind == "linear":
        return (weight.double() @ samples.mean.double()).float()
    groups = samples.taps.shape[0] // weight.shape[1]
    taps = samples.taps.reshape(groups, 1, *weight.shape[1:]).double()
    return (weight.double().unflatten(0, (groups, -1)) * taps).flatten(2).sum(-1).flatten().float()
