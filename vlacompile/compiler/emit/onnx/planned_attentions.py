"""Which attentions of a stage TensorRT will fuse, from shapes alone: before a graph is written, and without weights."""

from __future__ import annotations

import torch
from torch.fx import Node

from vlacompile.compiler.emit.onnx.attention_list import AttentionFact, fact_of
from vlacompile.compiler.emit.onnx.fused_attention import obstacles_of_shape
from vlacompile.compiler.emit.onnx.fusible_attentions import numbers_saved
from vlacompile.compiler.staging.stages import StageGraph

_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def planned_attentions(stage: StageGraph, half: bool, rewritten: bool) -> tuple[AttentionFact, ...]:
    """The attentions of one iteration, in graph order: those that PyTorch calls by this name. half: the stage is
    computed in fp16. rewritten: attentions in another form are written in one that is fused, where that pays
    (tensorrt.fusible_attentions).

    What only the written graph shows is not known: operands that a transpose feeds, and constant queries that several
    attentions share."""
    return tuple(_fact(n, half, rewritten) for n in stage.graph.nodes if n.target is _ATTENTION)


def _fact(node: Node, half: bool, rewritten: bool) -> AttentionFact:
    q, k, v = (n.meta["val"].shape for n in node.args[:3])
    heads, queries, depth = q[:-2].numel(), int(q[-2]), int(q[-1])
    keys, width = int(k[-2]), int(v[-1])
    why = obstacles_of_shape(heads, keys, (width, depth), half)
    operands = heads * (queries * (depth + width) + keys * (depth + width))
    if rewritten and numbers_saved(heads * queries * keys, operands, depth) > 0 and (
            why == {"head too narrow"} or (why == {"one head"} and queries % 2 == 0 and not _masks_by_query(node))):
        why = frozenset()
    return fact_of(node.name, (heads, queries, keys, depth), why, copied=False, half=half)


def _masks_by_query(node: Node) -> bool:
    mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    causal = node.args[5] if len(node.args) > 5 else node.kwargs.get("is_causal", False)
    shape = mask.meta["val"].shape if isinstance(mask, Node) else ()
    return bool(causal) or (len(shape) > 1 and shape[-2] != 1)
