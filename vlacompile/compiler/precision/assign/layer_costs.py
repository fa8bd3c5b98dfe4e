"""Cost of a layer under a scheme on a target: latency per run and bytes of its weight.

A roofline with launch overhead: time = iterations * (call + max(operations / rate, bytes / bandwidth)), by the target's
measured [rates]. Must not know errors or choices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch.fx import Node

from vlacompile.compiler.precision.quantise.layers import Layer
from vlacompile.compiler.staging.stages import StageGraph
from vlacompile.hardware.cost_model import SchemeRates
from vlacompile.hardware.target import Target
from vlacompile.policy.policy import Source

SCALE_BYTES = 4  # f32
REPLANS_PER_TASK = 100  # assumed number of replans per instruction: 20 s at one replan per 200 ms


@dataclass(frozen=True)
class Cost:
    """time_us: of all iterations of one run of the stage; None: the target has no rate for it. bytes: of the stored
    weight."""

    time_us: float | None
    bytes: int


def weight_bytes(layer: Layer, scheme: str, block: int) -> int:
    """Bytes of a stored weight with its scales: one per row; for int4 one per `block` elements of a row, the last block
    padded."""
    if scheme in ("fp32", "fp16"):
        return layer.weights * (4 if scheme == "fp32" else 2)
    rows = layer.shape[0]
    columns = layer.weights // rows
    if scheme == "int8":
        return rows * (columns + SCALE_BYTES)
    return rows * math.ceil(columns / block) * (block // 2 + SCALE_BYTES)


def runs_per_replan(stage: StageGraph, sources: Mapping[str, Source]) -> float:
    """Average runs of a stage per replan: 1, or 1 / REPLANS_PER_TASK for a stage that depends on the task alone and is
    cached between replans."""
    changing = {sources[n].update for n in stage.sources} - {"static", "task"}
    return 1.0 if changing else 1 / REPLANS_PER_TASK


def cost(stage: StageGraph, layer: Layer, scheme: str, target: Target, block: int = 32) -> Cost:
    stored = weight_bytes(layer, scheme, block)
    rates: SchemeRates | None = getattr(target.rates, scheme, None)
    if rates is None:
        return Cost(None, stored)
    if layer.kind == "embedding":  # only copies a few rows
        read = stored * min(1.0, layer.rows / layer.iterations / layer.shape[0])
        return Cost(layer.iterations * (rates.call_us + read / rates.gbps / 1e3), stored)
    node = next(n for n in stage.graph.nodes if n.name == layer.node)
    rate = rates.linear_gflops if layer.kind == "linear" else _conv_rate(node, layer, rates)
    if rate is None:
        return Cost(None, stored)
    once = rates.once_us(layer.flops, stored, rate)
    if layer.kind == "conv" and rates.edge_geps is not None:
        once += (_numbers(node.args[0]) + _numbers(node)) / rates.edge_geps / 1e3
    return Cost(layer.iterations * once, stored)


def _conv_rate(node: Node, layer: Layer, rates: SchemeRates) -> float | None:
    channels = node.args[0].meta["val"].shape[1]
    depthwise = layer.shape[1] == 1 and channels > 1
    return rates.depthwise_gflops if depthwise else rates.conv_gflops


def _numbers(node: Node) -> int:
    return node.meta["val"].numel()
