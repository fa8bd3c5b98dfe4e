"""Rewrites a stage to fp16: every value has one dtype, and every conversion is an explicit cast node.

Nodes in `kept_fp32` and the stage's ports stay FP32; all others are computed in fp16 from fp16 constants. Must not know
why a node is kept.
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
from vlacompile.compiler.precision.fp16.fp16_kernels import fp16_arguments, has_fp16_kernel
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
from vlacompile.files.mapped import mapped

_ATEN = torch.ops.aten
F16, F32 = torch.float16, torch.float32


def to_fp16(stage: StageGraph, kept_fp32: Collection[str], masked: Collection[str] | None = None) -> StageGraph:
    """The stage with every f32 node converted to fp16, except those whose names are in `kept_fp32`.

    masked: nodes whose values only mask logits (see `masks`); None: those that the stage itself reveals. Nodes keep
    their names. A constant that is read in both dtypes is stored twice, in fp16 as "<name>__f16".
    """
    return _Fp16Rewriter(stage, frozenset(kept_fp32), frozenset(masks(stage) if masked is None else masked)).run()


class _Fp16Rewriter:
    def __init__(self, stage: StageGraph, kept_fp32: frozenset[str], masked: frozenset[str]):
        self.stage, self.kept_fp32, self.masked = stage, kept_fp32, masked
        self.graph = Graph()
        self.made: dict[Node, Node] = {}  # old node -> new node, in either dtype
        self.cast: dict[tuple[Node, torch.dtype], Node] = {}  # (old node, dtype) -> new node with that dtype
        self.empty: dict[Node, Node] = {}  # mask -> bool: rows in which it masks every logit
        self.hidden: dict[Node, Node] = {}  # mask in fp16 -> bool: masked positions
        self.constants: dict[str, torch.Tensor] = {}
        self.wide = _read_in_f32(stage, self._in_fp16)

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

    def _in_fp16(self, node: Node) -> bool:
        return node.op == "call_function" and is_f32(node) and node.name not in self.kept_fp32 and has_fp16_kernel(node)

    def _call(self, node: Node) -> None:
        if node.target is operator.getitem:  # one of several results: has the dtype of its producer
            source = self.made[node.args[0]]
            self._make(node, (source, node.args[1]), {}, source.meta["val"][node.args[1]])
            return
        fp16 = self._in_fp16(node)
        read = lambda n: self._read(n, F16 if fp16 else F32)
        args, kwargs = map_arg(node.args, read), dict(map_arg(node.kwargs, read))
        if fp16 and is_cast(node) and is_f32(node.args[0]) and set(node.kwargs) <= {"dtype"}:
            self.made[node] = args[0]  # a cast of a value that is in fp16 already
            return
        if fp16:
            args, kwargs = fp16_arguments(node, args, kwargs, node.name in self.masked)
            args = self._even_rows(node, args)
        self._make(node, args, kwargs, _typed(node.meta["val"], F16) if fp16 else node.meta["val"])
        if fp16 and packet(node) is _ATEN.add and node.name in self.masked:
            self._hide(node, args)

    def _hide(self, node: Node, args: tuple) -> None:
        """Sets masked logits to exactly MASKED after the mask was added. A fully masked row is then uniform, as in f32,
        whatever the dtype in which an engine adds: fp16 sums round to that number, f32 sums would keep differences
        between logits that are masked."""
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
        """Zeroes the queries of fully masked rows. In f32 the mask is so large that logits beside it are rounded away
        and such a row is uniform; in fp16 a query of zeros makes it uniform for any mask."""
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
        """The new node of an old one, in `dtype` if the old one is f32."""
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
            self.constants[name] = mapped(tensor)
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


def _read_in_f32(stage: StageGraph, in_fp16) -> frozenset[str]:
    """Constants that are read by an FP32 node or by the output."""
    return frozenset(n.target for n in stage.graph.nodes if n.op == "get_attr"
                     and any(not in_fp16(u) for u in n.users))


@dataclass(frozen=True)
class Conversion:
    """nodes: number computed in fp16. weights: bytes of all constants. twice: constants stored in both dtypes."""

    nodes: int
    weights: int
    twice: tuple[str, ...]


def conversion(stage: StageGraph) -> Conversion:
    """Summary of a stage that `to_fp16` returned."""
    nodes = sum(n.op == "call_function" and not is_cast(n) and all(v.dtype == F16 for v in tensors(n.meta["val"]))
                for n in stage.graph.nodes)
    twice = tuple(n[: -len("__f16")] for n in stage.constants if n.endswith("__f16"))
    return Conversion(nodes, sum(t.numel() * t.element_size() for t in stage.constants.values()), twice)


def with_f32_sums(stage: StageGraph) -> StageGraph:
    """The same numerics with f32 kernels: ops with sums of products read fp16 values, accumulate in f32 and round the
    result to fp16, like tensor cores. PyTorch's own fp16 CPU kernels do the same up to a hundred times slower."""
    graph, new, constants = Graph(), {}, dict(stage.constants)
    several: set[Node] = set()  # nodes with several results, which are rounded at their getitem
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
    """The node's result, rounded to fp16."""
    new = graph.call_function(_ATEN._to_copy.default, (node,), {"dtype": F16})
    new.meta["val"] = val
    return new
