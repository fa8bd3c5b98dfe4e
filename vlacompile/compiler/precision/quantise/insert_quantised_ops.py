"""Replaces layers of a stage's graph by ops on stored integers, in the form that the target's engine runs fastest.

TensorRT fuses static, symmetric Q/DQ pairs around a layer. ONNX Runtime on a CPU is fastest, and more accurate, if the
input of a linear is quantised dynamically; its convolutions need unsigned values with static ranges on both sides. Must
not know how scales were found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from vlacompile.compiler.graph.program import infer_val
from vlacompile.compiler.precision.quantise.layers import KINDS, LIMITS, QuantisedLayer
from vlacompile.compiler.precision.quantise.ops import OPS, pack_int4
from vlacompile.compiler.staging.stages import StageGraph
from vlacompile.files.mapped import mapped

_ATEN = torch.ops.aten
# Activations that an engine fuses into the convolution before them, if the result is quantised.
_CLIPS = frozenset({_ATEN.relu.default, _ATEN.relu6.default, _ATEN.hardtanh.default, _ATEN.clamp.default})
DIALECTS = ("onnxruntime", "tensorrt")

Ranges = Mapping[str, tuple[float, float]]


def insert_quantised_ops(stage: StageGraph, layers: Mapping[str, QuantisedLayer], dialect: str,
          ranges: Ranges | None = None) -> StageGraph:
    """layers: {node of the stage's graph: its quantised layer}. ranges: of the nodes in `values_to_range`."""
    if not layers:
        return stage
    return _Lowering(stage, layers, dialect, ranges or {}).run()


def is_static(kind: str, scheme: str, dialect: str) -> bool:
    """Whether the range of a layer's input is fixed at compile time instead of computed at run time."""
    return scheme == "int8" and (kind == "conv" or (kind == "linear" and dialect == "tensorrt"))


def values_to_range(stage: StageGraph, convolutions: frozenset[str]) -> frozenset[str]:
    """Nodes whose ranges `insert_quantised_ops` needs if these convolutions are quantised: their results, and the sums
    between them."""
    nodes = {n.name: n for n in stage.graph.nodes}
    found = {end_of(nodes[c]) for c in convolutions}
    for node in stage.graph.nodes:
        operands = [a for a in node.args if isinstance(a, Node)]
        if (node.target is _ATEN.add.Tensor and len(operands) == 2 and all(a in found for a in operands)
                and any(u.name in convolutions or end_of(u) in found for u in node.users)):
            found.add(end_of(node))
    return frozenset(n.name for n in found)


def end_of(node: Node) -> Node:
    """The last of the clips that follow `node`, as far as each is the only reader of the one before."""
    while len(node.users) == 1 and next(iter(node.users)).target in _CLIPS:
        node = next(iter(node.users))
    return node


def _clips_before(end: Node) -> list[Node]:
    """The clips between a node and `end`, which `end_of` returned for it."""
    found = []
    while end.target in _CLIPS and end_of(end.args[0]) is not end.args[0]:
        found.append(end)
        end = end.args[0]
    return found


def _clip_of(node: Node) -> tuple[float, float]:
    """(low, high) to which all clips behind a node together limit its values."""
    low, high = -math.inf, math.inf
    for clip in _clips_before(end_of(node)):
        if clip.target in (_ATEN.relu.default, _ATEN.relu6.default):
            a, b = 0.0, 6.0 if clip.target is _ATEN.relu6.default else math.inf
        else:
            missing = (-1.0, 1.0) if clip.target is _ATEN.hardtanh.default else (-math.inf, math.inf)
            given = (*clip.args[1:], *missing[len(clip.args) - 1 :])
            a, b = (d if v is None else float(v) for v, d in zip(given, missing, strict=True))
        low, high = min(max(low, a), b), max(min(high, b), a)
    return low, high


def _per_dim(option, dims: int) -> list[int]:
    values = list(option) if isinstance(option, (list, tuple)) else [option]
    return values * dims if len(values) == 1 else values


class _Lowering:
    def __init__(self, stage: StageGraph, layers: Mapping[str, QuantisedLayer], dialect: str, ranges: Ranges):
        self.stage, self.layers, self.dialect = stage, layers, dialect
        self.ranges = ranges if dialect == "onnxruntime" else {}
        self.graph, self.constants = Graph(), dict(stage.constants)
        self.map: dict[Node, Node] = {}
        self.quantised: dict[tuple[Node, float, float], Node] = {}
        self.attributes: dict[str, Node] = {}
        self.grid: dict[Node, tuple[float, int]] = {}  # values stored in 8 bits: {value: (scale, zero point)}
        ends = [n for n in stage.graph.nodes if n.name in self.ranges]
        self.fused = {n for end in ends for n in _clips_before(end)}

    def run(self) -> StageGraph:
        for node in self.stage.graph.nodes:
            if node in self.fused:
                self.map[node] = self.map[node.args[0]]
            elif node.name in self.layers:
                self.map[node] = self._layer(node, self.layers[node.name])
            elif node.target is _ATEN.add.Tensor and end_of(node).name in self.ranges:
                self.map[node] = self._sum(node)
            else:
                self.map[node] = self.graph.node_copy(node, lambda n: self.map[n])
        for node in reversed(list(self.graph.nodes)):
            if node.op in ("call_function", "get_attr") and not node.users:
                self.graph.erase_node(node)
        live = {n.target for n in self.graph.nodes if n.op == "get_attr"}
        return replace(self.stage, graph=self.graph, constants={k: t for k, t in self.constants.items() if k in live})

    def _layer(self, node: Node, layer: QuantisedLayer) -> Node:
        if self.dialect == "tensorrt":
            layer = with_fp16_scales(layer)
        kind, position = KINDS[node.target]
        weight, x = node.args[position].target, self.map[node.args[1 - position]]
        if kind == "embedding":
            return self._embedding(node, weight, layer, x)
        bias = node.args[2] if len(node.args) > 2 else None
        bias = self.map[bias] if layer.bias is None and bias is not None else self._constant(weight, "bias", layer.bias)
        if kind == "conv":
            return self._convolution(node, weight, layer, x, bias)
        if self.dialect == "tensorrt":
            return self._static_linear(node, weight, layer, x, bias)
        if layer.scheme == "int4":
            q = self._constant(weight, "int4", pack_int4(layer.q, layer.block))
            scale = self._constant(weight, "scale", layer.scale)
            return self._emit(OPS.linear_int4.default, (x, q, scale, bias, layer.q.shape[1], layer.block), node)
        q, scale = self._constant(weight, "int8", layer.q.T), self._constant(weight, "scale", layer.scale)
        return self._emit(OPS.linear_int8.default, (x, q, scale, bias), node)

    def _static_linear(self, node: Node, weight: str, layer: QuantisedLayer, x: Node, bias: Node | None) -> Node:
        if layer.scheme == "int8":
            x = self._held(x, layer.low, layer.high)
        q = self._constant(weight, layer.scheme, layer.q.T)
        scale = self._constant(weight, "scale", layer.scale.T if layer.block else layer.scale)
        axis = 0 if layer.block else 1
        w = self._emit(OPS.dequantise.default, (q, scale, axis, layer.block), node)
        y = self._emit(_ATEN.matmul.default, (x, w), node)
        return y if bias is None else self._emit(_ATEN.add.Tensor, (y, bias), node)

    def _convolution(self, node: Node, weight: str, layer: QuantisedLayer, x: Node, bias: Node | None) -> Node:
        assert layer.scheme == "int8", "4-bit convolutions exist in neither engine"
        x, held = self._padded_input(x, layer)
        if self.dialect == "tensorrt":
            q, scale = self._constant(weight, "int8", layer.q), self._constant(weight, "scale", layer.scale)
            w = self._emit(OPS.dequantise.default, (q, scale, 0, 0), node)
            return self._emit(node.target, (x, w, bias, *map_arg(node.args[3:], lambda n: self.map[n])), node)
        step = self.grid[held][0]
        if bias is not None:
            layer, bias = self._integer_bias(weight, bias, layer, step)
        q, scale = self._constant(weight, "int8", layer.q), self._constant(weight, "scale", layer.scale)
        dims = len(layer.q.shape) - 2
        options = (*node.args[3:], *(1, 0, 1, 1)[max(len(node.args) - 3, 0) :])
        geometry = [_per_dim(o, dims) for o in options[:3]]
        y_scale, y_zero = step_of(*self.ranges[end_of(node).name], True)
        new = self._emit(OPS.conv_int8.default, (x, step, q, scale, bias, *geometry, options[3], y_scale, y_zero,
                                                 *_clip_of(node)), node)
        self.grid[new] = y_scale, y_zero
        return new

    def _padded_input(self, x: Node, layer: QuantisedLayer) -> tuple[Node, Node]:
        """(The input in 8 bits, the node that quantises it). It is quantised before zero padding, so that an engine can
        fuse the padding into the convolution. A value in 8 bits already, such as another layer's output, is reused."""
        padding = x if _adds_zeros(x) else None
        held = x if padding is None else padding.args[0]
        if held not in self.grid:
            held = self._held(held, layer.low, layer.high)
        return held if padding is None else self._emit(padding.target, (held, *padding.args[1:]), padding), held

    def _integer_bias(self, weight: str, bias: Node, layer: QuantisedLayer, step: float) -> tuple[QuantisedLayer, Node]:
        """The bias as the int32 that the engine adds to its accumulator; and the layer, with a larger scale if the
        weight is so small compared with the bias that the sum would overflow 32 bits."""
        numbers = self.constants[bias.target]
        least = numbers.abs() / (step * 2**30)
        if bool((least > layer.scale).any()):
            scale = torch.maximum(layer.scale, least)
            q = torch.round(layer.dequantised() / scale.reshape(-1, *[1] * (layer.q.dim() - 1))).to(torch.int8)
            layer = replace(layer, q=q, scale=scale)
        q = torch.round(numbers.double() / (layer.scale.double() * step)).to(torch.int32)
        return layer, self._constant(weight, "bias_int32", q)

    def _sum(self, node: Node) -> Node:
        """The sum of two values that are stored in 8 bits."""
        a, b = (self.map[n] for n in node.args[:2])
        scale, zero = step_of(*self.ranges[end_of(node).name], True)
        new = self._emit(OPS.add_int8.default, (a, b, *self.grid[a], *self.grid[b], scale, zero, *_clip_of(node)), node)
        self.grid[new] = scale, zero
        return new

    def _embedding(self, node: Node, weight: str, layer: QuantisedLayer, ids: Node) -> Node:
        scale = self._constant(weight, "scale", layer.scale)
        if self.dialect == "tensorrt":
            q = self._constant(weight, layer.scheme, layer.q)
            axis = 1 if layer.block else 0
            table = self._emit(OPS.dequantise.default, (q, scale, axis, layer.block), node)
            return self._emit(node.target, (table, ids), node)
        if layer.scheme == "int4":
            packed = pack_int4(layer.q, layer.block).flatten(1)[:, : layer.q.shape[1] // 2]
            return self._emit(OPS.embedding_int4.default,
                              (self._constant(weight, "int4", packed), scale, ids, layer.block), node)
        rows = self._emit(node.target, (self._constant(weight, "int8", layer.q), ids), node)
        steps = self._emit(node.target, (self._constant(weight, "scale", layer.scale[:, None]), ids), node)
        return self._emit(_ATEN.mul.Tensor,
                          (self._emit(_ATEN._to_copy.default, (rows,), node, dtype=torch.float32), steps),
                          node)

    def _held(self, value: Node, low: float, high: float) -> Node:
        """The value, quantised to 8 bits and dequantised."""
        key = (value, low, high)
        if key not in self.quantised:
            unsigned = self.dialect == "onnxruntime"
            scale, zero = step_of(low, high, unsigned)
            scale = scale if unsigned else float(half_steps(torch.tensor(scale)))
            new = self._emit(OPS.quantise_dequantise.default, (value, scale, zero, unsigned), value)
            self.quantised[key], self.grid[new] = new, (scale, zero)
        return self.quantised[key]

    def _emit(self, target, args: tuple, like: Node, **kwargs) -> Node:
        node = self.graph.call_function(target, args, kwargs)
        node.meta = {k: v for k, v in like.meta.items() if k in ("nn_module_stack", "stack_trace")}
        node.meta["val"] = infer_val(node)
        return node

    def _constant(self, weight: str, what: str, tensor: torch.Tensor | None) -> Node | None:
        if tensor is None:
            return None
        name, tensor = f"{weight}__{what}", mapped(tensor.contiguous())
        while name in self.constants and not same(self.constants[name], tensor):
            name += "_"
        if name not in self.attributes:
            self.constants[name] = tensor
            self.attributes[name] = self.graph.get_attr(name)
            self.attributes[name].meta["val"] = torch.empty_like(tensor, device="meta")
        return self.attributes[name]


def _adds_zeros(node: Node) -> bool:
    if node.target is _ATEN.constant_pad_nd.default:
        return node.args[2:] in ((), (0,), (0.0,))
    return node.target is _ATEN.pad.default and node.args[2:] in ((), ("constant",), ("constant", None),
                                                                  ("constant", 0.0))


def half_steps(scale: torch.Tensor) -> torch.Tensor:
    """The scales rounded to fp16, none of them to zero."""
    return scale.half().float().clamp(min=2**-24)


def with_fp16_scales(layer: QuantisedLayer) -> QuantisedLayer:
    """The layer with scales that are exact in fp16, so that TensorRT can dequantise to fp16 within the matrix product:
    it does not fuse a dequantisation to FP32 that is followed by a cast."""
    scale = half_steps(layer.scale)
    ratio = layer.scale / scale
    wide = ratio.repeat_interleave(layer.block, 1)[:, : layer.q.shape[1]] if layer.block else \
        ratio.reshape(-1, *[1] * (layer.q.dim() - 1))
    limit = LIMITS[layer.scheme]
    q = torch.round(layer.q * wide).clamp(-limit - 1, limit).to(torch.int8)
    return replace(layer, q=q, scale=scale)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a, b))


def step_of(low: float, high: float, unsigned: bool) -> tuple[float, int]:
    """(scale, zero point) of 8 bits for the range low..high, extended to contain zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    if not unsigned:
        return max(-low, high, 1e-12) / 127, 0
    scale = max(high - low, 1e-12) / 255
    return scale, round(-low / scale)
