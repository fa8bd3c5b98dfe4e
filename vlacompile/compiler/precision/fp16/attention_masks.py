"""Values that only mask logits: fp16 cannot represent the large numbers that they contain, and need not.

A mask is added to logits, or selected in their place, and ends in a softmax. Its numbers matter only in that exp makes
them 0, so in fp16 they are clamped to MASKED. Must not know what stays FP32.
"""

from __future__ import annotations

import torch
from torch.fx import Node

from vlacompile.compiler.precision.fp16.op_kinds import MASKED, is_attention, is_cast, is_f32, is_softmax, moves, packet
from vlacompile.compiler.staging.stages import Staged, StageGraph

_ATEN = torch.ops.aten
_FLOWS = frozenset({_ATEN.add, _ATEN.where, _ATEN.masked_fill, _ATEN.full, _ATEN.full_like, _ATEN.zeros,
                    _ATEN.zeros_like, _ATEN.scalar_tensor, _ATEN.clamp, _ATEN.triu, _ATEN.tril})
_MASK_OF_ATTENTION = 3


def masks(stage: StageGraph, mask_values: frozenset[str] = frozenset()) -> frozenset[str]:
    """Nodes of the stage whose values end only in a softmax, including logits after the mask is applied. mask_values:
    values between stages that all their readers use in this way."""
    ports = {p.value for p in stage.outputs} & mask_values
    returned = [p.value in ports for p in stage.outputs]
    outputs = stage.graph.output_node().args[0]
    found: set[Node] = set()
    for node in reversed(list(stage.graph.nodes)):
        if not is_f32(node) or node.op == "output":
            continue
        leaves = [i for i, n in enumerate(outputs) if n is node]
        if (node.users and all(u.op == "output" or _to_softmax(node, u, found) for u in node.users)
                and all(returned[i] for i in leaves) and (node.op != "call_function" or _flows(node))):
            found.add(node)
    return frozenset(n.name for n in found)


def mask_values(staged: Staged) -> frozenset[str]:
    """Values between stages that every stage which reads them uses only as masks."""
    kept = {*staged.program.outputs, *staged.program.sources, *(v for pair in staged.delays for v in pair)}
    found: set[str] = set()
    read_as_other: set[str] = set()
    for stage in reversed(staged.stages):
        inside = masks(stage, frozenset(found - read_as_other))
        for port in stage.inputs:
            if port.mode == "carry" or port.name not in inside:
                read_as_other.add(port.value)
            else:
                found.add(port.value)
    return frozenset(found - read_as_other - kept)


def saturated(value: float | torch.Tensor):
    return max(value, MASKED) if isinstance(value, float) else value.clamp(min=MASKED)


def _flows(node: Node) -> bool:
    if packet(node) is _ATEN.mul:  # (1 - kept) * -3.4e38
        return any(isinstance(a, float) and a <= MASKED for a in node.args)
    return moves(node) or is_cast(node) or packet(node) in _FLOWS


def _to_softmax(node: Node, user: Node, found: set[Node]) -> bool:
    if is_softmax(user):
        return True
    if is_attention(user):
        mask = user.args[_MASK_OF_ATTENTION] if len(user.args) > _MASK_OF_ATTENTION else user.kwargs.get("attn_mask")
        return mask is node and node not in user.args[:_MASK_OF_ATTENTION]
    return user in found
