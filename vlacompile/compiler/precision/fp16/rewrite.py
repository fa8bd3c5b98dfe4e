"""A stage in fp16: every value has one dtype, and every change of dtype is a node.

What is pinned stays FP32, and so do the ports; the rest is computed in fp16 from fp16 constants. Must not know why a
node is pinned.
"""

from __future__ import annotations

import operator
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from vlacompile.compiler.graph.program import infer_val
from vlacompile.compiler.precision.fp16.attention_masks import masks, saturated
from vlacompile.compiler.precision.fp16.fp16_kernels import can_be_half, half_arguments
from vlacompile.compiler.precision.fp16.op_kinds import (
    MASKED,
    is_attention,
    is_cast,
    is_f32,
    multiplies,
    packet,
    tensors,
)
from vlacompile.compiler.staging.stages import StageGraph

_ATEN = torch.ops.aten
F16, F32 = torch.float16, torch.float32


def to_half(stage: StageGraph, pins: Collection[str], masked: Collection[str] | None = None) -> StageGraph:
    """The stage with every f32 node in fp16 whose name is not among `pins`.

    masked: nodes of which only what they mask matters (`masks`); None: those that the stage shows by itself. Nodes keep
    their names. A constant that both read is stored in both, the fp16 one as "<name>__f16".
    """
    return _Halver(stage, frozenset(pins), frozenset(masks(stage) if masked is None else masked)).run()


class _Halver:
    def __init__(self, stage: StageGraph, pins: frozenset[str], masked: frozenset[str]):
        self.stage, self.pins, self.masked = stage, pins, masked
        self.graph = Graph()
        self.made: dict[Node, Node] = {}  # old node -> the new one, whatever its dtype
        self.cast: dict[tuple[Node, torch.dtype], Node] = {}  # old node, dtype -> the new one of that dtype
        self.empty: dict[Node, Node] = {}  # a mask -> rows of which it hides all
        self.hidden: dict[Node, Node] = {}  # a mask in fp16 -> where it hides
        self.constants: dict[str, torch.Tensor] = {}
        self.wide = _read_in_f32(stage, self._halves)

    def run(self) -> StageGraph:
        for node in self.stage.graph.nodes:
            if node.op == "placeholder":
                self.made[node] = self.graph.node_copy(node)
            elif node.op == "call_function":
                self._call(node)
        outputs = self.stage.graph.output_node().args[0]
        self.graph.output(tuple(self._read(n, n.meta["val"].dtype) for n in outputs))
        for node in reversed(list(self.graph.nodes)):
            if node.op in ("call_function", "get_attr") and not node.users:
                self.graph.erase_node(node)
        live = {n.target for n in self.graph.nodes if n.op == "get_attr"}
        constants = {name: t for name, t in self.constants.items() if name in live}
        return replace(self.stage, graph=self.graph, constants=constants)

    def _halves(self, node: Node) -> bool:
        return node.op == "call_function" and is_f32(node) and node.name not in self.pins and can_be_half(node)

    def _call(self, node: Node) -> None:
        if node.target is operator.getitem:  # a part of several: it is what they are
            source = self.made[node.args[0]]
            self._make(node, (source, node.args[1]), {}, source.meta["val"][node.args[1]])
            return
        half = self._halves(node)
        read = lambda n: self._read(n, F16 if half else F32)
        args, kwargs = map_arg(node.args, read), dict(map_arg(node.kwargs, read))
        if half and is_cast(node) and is_f32(node.args[0]) and set(node.kwargs) <= {"dtype"}:
            self.made[node] = args[0]  # it is in fp16 already
            return
        if half:
            args, kwargs = half_arguments(node, args, kwargs, node.name in self.masked)
            args = self._even_rows(node, args)
        self._make(node, args, kwargs, _typed(node.meta["val"], F16) if half else node.meta["val"])
        if half and packet(node) is _ATEN.add and node.name in self.masked:
            self._hide(node, args)

    def _hide(self, node: Node, args: tuple) -> None:
        """Logits that a mask was added to are the mask's number where they do not count, not near it: a row of nothing
        but such logits is one of equal ones, as f32 has it, in whatever type an engine adds. fp16 rounds them to that;
        sums in f32 keep the difference of numbers that are not meant to be read."""
        masks = [new for old, new in zip(node.args, args, strict=False) if isinstance(old, Node)
                 and old.name in self.masked]
        if len(masks) != 1 or len(args) != 2:
            return
        mask = masks[0]
        if mask not in self.hidden:
            self.hidden[mask] = self.graph.create_node("call_function", _ATEN.le.Scalar, (mask, MASKED / 2),
                                                        name=f"{mask.name}_hides")
            self.hidden[mask].meta["val"] = _typed(mask.meta["val"], torch.bool)
        whole = self.made[node]
        kept = self.graph.create_node("call_function", _ATEN.masked_fill.Scalar, (whole, self.hidden[mask], MASKED),
                                      name=f"{node.name}_hidden")
        kept.meta = dict(whole.meta)
        self.made[node] = kept

    def _even_rows(self, node: Node, args: tuple) -> tuple:
        """A row of nothing but masked logits is one of equal ones in f32, whose mask is so large that nothing is left
        of a logit beside it: in fp16 its query is zero, which makes them equal beside any mask."""
        mask = node.args[3] if is_attention(node) and len(node.args) > 3 else None
        if not isinstance(mask, Node) or mask.name not in self.masked:
            return args
        if mask.op == "get_attr" and bool((self.stage.constants[mask.target] > MASKED / 2).any(-1).all()):
            return args
        if mask not in self.empty:
            shown = self._bool(_ATEN.gt.Scalar, (args[3], MASKED / 2), f"{mask.name}_shows")
            some = self._bool(_ATEN.any.dim, (shown, -1, True), f"{mask.name}_rows")
            self.empty[mask] = self._bool(_ATEN.logical_not.default, (some,), f"{mask.name}_empty")
        query = self.graph.create_node("call_function", _ATEN.masked_fill.Scalar, (args[0], self.empty[mask], 0.0),
                                       name=f"{node.name}_query")
        query.meta = {"val": args[0].meta["val"]}
        return (query, *args[1:])

    def _bool(self, target, args: tuple, name: str) -> Node:
        new = self.graph.create_node("call_function", target, args, name=name)
        new.meta["val"] = infer_val(new)
        return new

    def _make(self, node: Node, args: tuple, kwargs: dict, val) -> None:
        new = self.graph.create_node("call_function", node.target, args, kwargs, name=node.name)
        new.meta = {k: v for k, v in node.meta.items() if k != "flops"} | {"val": val}
        self.made[node] = new

    def _read(self, node: Node, dtype: torch.dtype) -> Node:
        """The new node of an old one, in `dtype` where it is f32 as written."""
        if node.op == "get_attr":
            return self._constant(node, dtype if node.meta["val"].dtype == F32 else node.meta["val"].dtype)
        new = self.made[node]
        if not is_f32(node) or new.meta["val"].dtype == dtype:
            return new
        if (node, dtype) not in self.cast:
            if dtype == F16 and node.name in self.masked:
                new = self._emit(_ATEN.clamp.default, new, f"{node.name}_kept", min=saturated(float("-inf")))
            suffix = "f16" if dtype == F16 else "f32"
            self.cast[node, dtype] = self._emit(_ATEN._to_copy.default, new, f"{node.name}_{suffix}", dtype=dtype)
        return self.cast[node, dtype]

    def _emit(self, target, source: Node, name: str, **kwargs) -> Node:
        new = self.graph.create_node("call_function", target, (source,), kwargs, name=name)
        new.meta["val"] = _typed(source.meta["val"], kwargs.get("dtype", source.meta["val"].dtype))
        return new

    def _constant(self, node: Node, dtype: torch.dtype) -> Node:
        if (node, dtype) not in self.cast:
            tensor, name = self.stage.constants[node.target], node.target
            if dtype == F16:
                tensor = (saturated(tensor) if node.name in self.masked else tensor).to(F16)
                name = f"{name}__f16" if node.target in self.wide else name
            self.constants[name] = tensor
            suffix = "" if name == node.target else "_f16"
            new = self.graph.create_node("get_attr", name, name=f"{node.name}{suffix}")
            new.meta["val"] = torch.empty_like(tensor, device="meta")
            self.cast[node, dtype] = new
        return self.cast[node, dtype]


def _typed(val, dtype: torch.dtype):
    """The same shapes in another dtype."""
    if isinstance(val, torch.Tensor):
        return torch.empty(val.shape, dtype=dtype, device="meta")
    return type(val)(_typed(v, dtype) for v in val)


def _read_in_f32(stage: StageGraph, halves) -> frozenset[str]:
    """Constants that an FP32 node or the output reads."""
    return frozenset(n.target for n in stage.graph.nodes if n.op == "get_attr"
                     and any(not halves(u) for u in n.users))


@dataclass(frozen=True)
class Conversion:
    """nodes: computed in fp16. weights: bytes of all constants. twice: constants that are stored in both dtypes."""

    nodes: int
    weights: int
    twice: tuple[str, ...]


def conversion(stage: StageGraph) -> Conversion:
    """What `to_half` made of a stage."""
    nodes = sum(n.op == "call_function" and not is_cast(n) and all(v.dtype == F16 for v in tensors(n.meta["val"]))
                for n in stage.graph.nodes)
    twice = tuple(n[: -len("__f16")] for n in stage.constants if n.endswith("__f16"))
    return Conversion(nodes, sum(t.numel() * t.element_size() for t in stage.constants.values()), twice)


def with_f32_sums(stage: StageGraph) -> StageGraph:
    """The same numbers from f32 kernels: what multiplies reads fp16 values, adds up in f32 and rounds its result to
    fp16, as tensor cores do. PyTorch's own fp16 kernels on a CPU do the same, up to a hundred times slower."""
    graph, new, constants = Graph(), {}, dict(stage.constants)
    several: set[Node] = set()  # with results that are rounded one by one, as they are taken
    for node in stage.graph.nodes:
        copy = graph.node_copy(node, new.__getitem__)
        new[node] = copy
        if node.target is operator.getitem and node.args[0] in several:
            copy.meta = {**copy.meta, "val": _typed(node.meta["val"], F32)}
            new[node] = _rounded(graph, copy, node.meta["val"])
        if not (multiplies(node) and tensors(node.meta["val"])[0].dtype == F16):
            continue
        widened = {}
        for n in node.all_input_nodes:
            if n.meta["val"].dtype == F16:
                with graph.inserting_before(copy):
                    if n.op == "get_attr":
                        constants[f"{n.target}__wide"] = stage.constants[n.target].float()
                        widened[new[n]] = graph.get_attr(f"{n.target}__wide")
                    else:
                        widened[new[n]] = graph.call_function(_ATEN._to_copy.default, (new[n],), {"dtype": F32})
                widened[new[n]].meta["val"] = n.meta["val"].to(F32)
        copy.args = map_arg(copy.args, lambda n, of=widened: of.get(n, n))
        copy.kwargs = map_arg(copy.kwargs, lambda n, of=widened: of.get(n, n))
        copy.meta = {**copy.meta, "val": _typed(node.meta["val"], F32)}
        if isinstance(node.meta["val"], torch.Tensor):
            new[node] = _rounded(graph, copy, node.meta["val"])
        else:
            several.add(node)
    live = {n.target for n in graph.nodes if n.op == "get_attr" and n.users}
    for n in [n for n in graph.nodes if n.op == "get_attr" and not n.users]:
        graph.erase_node(n)
    return replace(stage, graph=graph, constants={k: v for k, v in constants.items() if k in live})


def _rounded(graph: Graph, node: Node, val: torch.Tensor) -> Node:
    """The node's result in fp16."""
    new = graph.call_function(_ATEN._to_copy.default, (node,), {"dtype": F16})
    new.meta["val"] = val
    return new
