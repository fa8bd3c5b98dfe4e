"""The plainest numerics that an assignment can be tested with: weights rounded to the nearest, activations of int8
layers quantised by the range that they have. Independent of the product's quantisers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch.fx import Graph

from vlacompile.compiler.precision.assign.sensitivity import Numerics
from vlacompile.compiler.precision.quantise.layers import KINDS, LIMITS, QuantisedLayer
from vlacompile.compiler.staging.stages import StageGraph

BLOCK = 32


def round_to_nearest(stage: StageGraph, schemes: Mapping[str, str]) -> dict[str, QuantisedLayer]:
    found = {}
    for node in stage.graph.nodes:
        if node.name not in schemes:
            continue
        scheme, kind = schemes[node.name], KINDS[node.target]
        weight = stage.constants[node.args[kind[1]].target]
        rows = weight.flatten(1)
        if scheme == "int4":
            short = -rows.shape[1] % BLOCK
            blocks = torch.nn.functional.pad(rows, (0, short)).unflatten(1, (-1, BLOCK))
            scale = blocks.abs().amax(2).clamp(min=1e-9) / LIMITS[scheme]
            q = (blocks / scale[..., None]).round().flatten(1)[:, : rows.shape[1]]
            found[node.name] = QuantisedLayer(scheme, q.to(torch.int8).view(weight.shape), scale, BLOCK)
        else:
            scale = rows.abs().amax(1).clamp(min=1e-9) / LIMITS[scheme]
            q = (rows / scale[:, None]).round().to(torch.int8).view(weight.shape)
            found[node.name] = QuantisedLayer(scheme, q, scale)
    return found


def quantised_by_range(x: torch.Tensor) -> torch.Tensor:
    """To 8 bits without a sign and back, per tensor, as ONNX's DynamicQuantizeLinear."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = ((high - low) / 255).clamp(min=1e-12)
    zero = (-low / scale).round().clamp(0, 255)
    return ((x / scale).round() + zero).clamp(0, 255).sub(zero) * scale


def insert_quantised_ops(stage: StageGraph, layers: Mapping[str, QuantisedLayer]) -> StageGraph:
    graph, copied, constants = Graph(), {}, dict(stage.constants)
    for node in stage.graph.nodes:
        if node.op == "output":
            graph.output(tuple(copied[n] for n in node.args[0]))
            continue
        layer = layers.get(node.name)
        if layer is not None:
            kind, position = KINDS[node.target]
            name = f"{node.name}_dequantised"
            constants[name] = layer.dequantised()
            swapped = {node.args[position]: graph.get_attr(name)}
            if layer.scheme == "int8" and kind != "embedding":
                x = node.args[0]
                swapped[x] = graph.call_function(quantised_by_range, (copied[x],))
                swapped[x].meta["val"] = x.meta["val"]
            copied[node] = graph.node_copy(node, lambda n, s=swapped: s.get(n, copied[n]))
            continue
        copied[node] = graph.node_copy(node, lambda n: copied[n])
    return replace(stage, graph=graph, constants=constants)


NUMERICS = Numerics(round_to_nearest, insert_quantised_ops)
