"""Layers that can be stored and computed with fewer bits: where they are in a stage's graph, and what they become.

A layer is a node with a fixed weight: linear, convolution, embedding. Attention products, norms and activations have
none and stay as they are. Must not know how a scheme is chosen or rendered.
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
# Stored values of a scheme lie in -limit..limit, and of int4 also at -8, where a block reaches further below zero.
LIMITS = {"int8": 127, "int4": 7}


@dataclass(frozen=True)
class Layer:
    """stage: its name. node: of the stage's graph. weight: name of the constant [N,K], [N,C,kernel...] or
    [vocabulary,K]. group: what is decided as one, "<stage>/<path up to the last index>". rows: of the output, all
    iterations together; flops: per iteration. depthwise: a convolution of each channel by itself."""

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
        """How many numbers the weight is."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class QuantisedLayer:
    """What a layer is computed from instead: y = x @ (q * scale).T + bias.

    scheme: a key of LIMITS. q: int8, as the weight is laid out. block: 0: one scale per row of the weight, scale
    f32[N]; else one per `block` numbers along K, scale f32[N,ceil(K/block)].
    bias: f32[N], with what the quantisation moved on average taken out; None: as it was.
    low, high: what x was on calibration observations, clipped as the calibrator says.
    """

    scheme: str
    q: torch.Tensor
    scale: torch.Tensor
    block: int = 0
    bias: torch.Tensor | None = None
    low: float = 0.0
    high: float = 0.0

    def dequantised(self) -> torch.Tensor:
        """The weight, f32, as it was laid out."""
        return dequantise(self.q, self.scale, self.block)


def dequantise(q: torch.Tensor, scale: torch.Tensor, block: int = 0) -> torch.Tensor:
    if block == 0:
        return q.float() * scale.reshape(-1, *[1] * (q.dim() - 1))
    return q.float() * scale.repeat_interleave(block, 1)[:, : q.shape[1]]


def layers_of(stage: StageGraph) -> tuple[Layer, ...]:
    """In the order of the graph. A convolution whose weight is computed, or a product of two values, is none."""
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
    """"encoder__layers__3__attention__query__weight" -> "encoder.layers.3": what one block of a network shares; a
    weight without an index is a group with those beside it."""
    found = _INDEX.match(weight)
    path = found.group(1) if found else weight.rsplit("__", 2)[0]
    return path.replace("__", ".")
