"""Layers that can be stored and computed with fewer bits: which nodes of a stage's graph they are, and the result.

A layer is a node with a constant weight: linear, convolution, embedding. Attention products, norms and activations have
none and are not quantised. Must not know how a scheme is chosen or emitted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.ops import flops
from vlacompile.compiler.staging.stages import StageGraph

_ATEN = torch.ops.aten
# op -> (kind, position of the weight among its arguments)
KINDS = {
    _ATEN.linear.default: ("linear", 1),
    _ATEN.conv1d.default: ("conv", 1),
    _ATEN.conv2d.default: ("conv", 1),
    _ATEN.embedding.default: ("embedding", 0),
}
# Stored values lie in -limit..limit; int4 also uses -8, in blocks whose smallest weight needs it.
LIMITS = {"int8": 127, "int4": 7}


@dataclass(frozen=True)
class Layer:
    """stage: its name. node: of the stage's graph. weight: name of the constant [N,K], [N,C,kernel...] or
    [vocabulary,K]. group: the block that is decided as one, "<stage>/<path up to the last index>". rows: of the output,
    over all iterations; flops: per iteration. depthwise: a convolution of each channel by itself."""

    stage: str
    node: str
    kind: str
    weight: str
    group: str
    shape: tuple[int, ...]
    rows: int
    flops: int
    iterations: int
    depthwise: bool = False

    @property
    def weights(self) -> int:
        """Number of elements of the weight."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class QuantisedLayer:
    """What replaces a layer: y = x @ (q * scale).T + bias.

    scheme: a key of LIMITS. q: int8, in the weight's layout. block: 0: one scale per row of the weight, scale f32[N];
    otherwise one per `block` elements along K, scale f32[N,ceil(K/block)].
    bias: f32[N], corrected by the mean error of the quantisation; None: unchanged.
    low, high: range of x on calibration observations, clipped as the calibrator says.
    """

    scheme: str
    q: torch.Tensor
    scale: torch.Tensor
    block: int = 0
    bias: torch.Tensor | None = None
    low: float = 0.0
    high: float = 0.0

    def dequantised(self) -> torch.Tensor:
        """The weight in f32, in its original layout."""
        return dequantise(self.q, self.scale, self.block)


def dequantise(q: torch.Tensor, scale: torch.Tensor, block: int = 0) -> torch.Tensor:
    if block == 0:
        return q.float() * scale.reshape(-1, *[1] * (q.dim() - 1))
    return q.float() * scale.repeat_interleave(block, 1)[:, : q.shape[1]]


def layers_of(stage: StageGraph) -> tuple[Layer, ...]:
    """The layers in graph order. Convolutions with a computed weight and products of two activations are not layers."""
    found = []
    for node in stage.graph.nodes:
        kind, position = KINDS.get(node.target, (None, 0))
        weight = node.args[position] if kind else None
        if not isinstance(weight, Node) or weight.op != "get_attr":
            continue
        tensor = stage.constants[weight.target]
        if tensor.dtype != torch.float32:
            continue
        out = node.meta["val"].shape
        rows = out.numel() // out[-1] if kind != "conv" else out.numel() // out[1]
        found.append(Layer(stage.name, node.name, kind, weight.target, f"{stage.name}/{group_of(weight.target)}",
                           tuple(tensor.shape), rows * stage.iterations, flops(node), stage.iterations,
                           kind == "conv" and tensor.shape[1] == 1 and node.args[0].meta["val"].shape[1] > 1))
    return tuple(found)


_INDEX = re.compile(r"^(.*?__\d+)(?=__|$)")


def group_of(weight: str) -> str:
    """"encoder__layers__3__attention__query__weight" -> "encoder.layers.3": the block of the network that a weight
    belongs to; a weight whose path has no index is grouped with its siblings."""
    found = _INDEX.match(weight)
    path = found.group(1) if found else weight.rsplit("__", 2)[0]
    return path.replace("__", ".")
