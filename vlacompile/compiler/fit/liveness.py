"""Peak bytes of live intermediate values in a stage: an upper bound for the activation memory of its engine."""

from __future__ import annotations

import torch
from torch.fx import Graph, Node

from vlacompile.compiler.graph.ops import is_view

_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def live_peak(graph: Graph, fp16: bool) -> int:
    """Peak over the nodes in order. Inputs, outputs and constants are not counted; a view shares the memory of its
    base. fp16: f32 values will be computed in fp16. Attention is fused in fp16; in fp32 its logits are materialised."""
    outputs = {root(n) for n in graph.output_node().all_input_nodes}
    last: dict[Node, int] = {}
    nodes = list(graph.nodes)
    for i, node in enumerate(nodes):
        for n in node.all_input_nodes:
            last[root(n)] = i
    live, peak, ends = 0, 0, {}
    for node, i in last.items():
        ends.setdefault(i, []).append(node)
    for i, node in enumerate(nodes):
        own = node.op == "call_function" and root(node) is node and node not in outputs
        live += _bytes(node, fp16) if own else 0
        peak = max(peak, live + (0 if fp16 else _scores(node)))
        live -= sum(_bytes(n, fp16) for n in ends.get(i, ()) if n.op == "call_function" and n not in outputs)
    return peak


def root(node: Node) -> Node:
    """The node that owns the memory of this one: the base of a view, or the node itself."""
    while node.op == "call_function" and (is_view(node) or node.target.__name__ == "getitem"):
        node = node.all_input_nodes[0]
    return node


def value_bytes(val, fp16: bool) -> int:
    """Bytes of a tensor or a tuple of tensors."""
    if isinstance(val, (list, tuple)):
        return sum(value_bytes(v, fp16) for v in val)
    if not isinstance(val, torch.Tensor):
        return 0
    return val.numel() * (2 if fp16 and val.dtype == torch.float32 else val.element_size())


def _bytes(node: Node, fp16: bool) -> int:
    return value_bytes(node.meta.get("val"), fp16)


def _scores(node: Node) -> int:
    """Bytes of the logits f32[heads,rows,columns] of an attention without a fused kernel."""
    if node.target is not _ATTENTION or node.meta["val"].dtype != torch.float32:
        return 0
    q, k = (n.meta["val"].shape for n in node.args[:2])
    return q[:-1].numel() * k[-2] * 4
