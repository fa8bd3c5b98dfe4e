"""An attention as a pattern of ops."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.graph.work_bound import spend

_ATEN = torch.ops.aten
_SCALES = frozenset({_ATEN.mul.Tensor, _ATEN.div.Tensor, _ATEN.mul.Scalar, _ATEN.div.Scalar})
_CASTS = frozenset({_ATEN._to_copy.default, _ATEN.clone.default})
_SOFTMAX = frozenset({_ATEN.softmax.int, _ATEN._softmax.default})


@dataclass(frozen=True)
class Attention:
    """out: its last node. query [...,q,d], values [...,k,v]; keys with the tokens along `key_axis`. mask: what is added
    to the scores, broadcast to [...,q,k], or None. inner: the ops before `out`, in order; their results are read by
    this attention alone."""

    out: Node
    query: Node
    keys: Node
    values: Node
    key_axis: int
    mask: Node | None
    inner: tuple[Node, ...] = ()

    def emit(self, editor: ProgramEditor, query: Node, keys: Node, values: Node, mask: Node | None) -> Node:
        """The same with other operands."""
        new = {self.query: query, self.keys: keys, self.values: values}
        if self.mask is not None and mask is not None:
            new[self.mask] = mask
        for node in (*self.inner, self.out):
            operand = lambda n: new[n] if n in new else editor.map(n)
            new[node] = editor.emit(node.target, map_arg(node.args, operand), map_arg(node.kwargs, operand), like=node)
        return new[self.out]


def attentions_of(program: Program) -> dict[Node, Attention]:
    """{last node: attention} for scaled_dot_product_attention, and for its parts written out."""
    found = {}
    for node in program.graph.nodes:
        attention = _fused(node) or _written_out(node)
        if attention is not None:
            found[node] = attention
    return found


def _fused(node: Node) -> Attention | None:
    if node.op != "call_function" or node.target is not _ATEN.scaled_dot_product_attention.default:
        return None
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    if given.get("is_causal") or given.get("dropout_p") or given["query"] in (given["key"], given["value"]):
        return None
    mask = given.get("attn_mask")
    return Attention(node, given["query"], given["key"], given["value"], -2, mask)


def _written_out(out: Node) -> Attention | None:
    """softmax(query @ keys * scale + mask) @ values."""
    if out.op != "call_function" or out.target is not _ATEN.matmul.default:
        return None
    inner: list[Node] = []
    node, mask, seen_softmax = out.args[0], None, False
    while node.op == "call_function" and len(node.users) == 1:
        spend()
        inner.insert(0, node)
        if node.target is _ATEN.matmul.default:
            if not seen_softmax:
                return None
            return Attention(out, node.args[0], node.args[1], out.args[1], -1, mask, tuple(inner))
        if node.target in _SOFTMAX:
            if seen_softmax or node.args[1] % node.meta["val"].dim() != node.meta["val"].dim() - 1:
                return None
            seen_softmax = True
        elif node.target is _ATEN.add.Tensor and seen_softmax and mask is None and not node.kwargs:
            sides = [a for a in node.args if isinstance(a, Node)]
            if len(sides) != 2:
                return None
            scores = next((a for a in sides if _leads_to_product(a)), None)
            mask = next((a for a in sides if a is not scores), None)
            if scores is None or mask is None:
                return None
            node = scores
            continue
        elif node.target not in _CASTS and not (node.target in _SCALES and seen_softmax
                                                and not isinstance(node.args[1], Node)):
            return None
        node = node.args[0]
    return None


def _leads_to_product(node: Node) -> bool:
    while node.op == "call_function" and (node.target in _CASTS or node.target in _SCALES):
        spend()
        node = node.args[0]
    return node.op == "call_function" and node.target is _ATEN.matmul.default
