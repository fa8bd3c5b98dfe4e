"""Classes of ops by what they do to precision: moving data, long sums of products, normalisation, decisions. Constants
of fp16. Must not know ranges, nor what stays FP32.
"""

from __future__ import annotations

import operator

import torch
from torch.fx import Node

from vlacompile.compiler.graph.ops import flops, is_pointwise, is_view
from vlacompile.compiler.precision.quantise.ops import OPS

LARGEST = 65504.0  # largest finite fp16 value
ROUNDOFF = 2.0 ** -11  # largest relative error of rounding to fp16, above SMALLEST_NORMAL
SMALLEST_NORMAL = 2.0 ** -14
# Value of a masked logit in fp16. The sum of three is still finite, and exp(MASKED - logit) is 0 for every logit that
# is not kept in FP32.
MASKED = -(2.0 ** 14)

_ATEN = torch.ops.aten
_MOVES = frozenset({
    _ATEN.clone, _ATEN.cat, _ATEN.stack, _ATEN.contiguous, _ATEN.reshape, _ATEN._unsafe_view, _ATEN.repeat,
    _ATEN.flatten, _ATEN.pad, _ATEN.constant_pad_nd, _ATEN.copy, _ATEN.index_select, _ATEN.gather, _ATEN.index,
    _ATEN.flip, _ATEN.roll, _ATEN.embedding, _ATEN.split, _ATEN.split_with_sizes, _ATEN.chunk, _ATEN.unbind,
    _ATEN.tile, _ATEN.repeat_interleave})
# Batch norm is not among them: its scale is a constant.
_NORMS = frozenset({
    _ATEN.layer_norm, _ATEN.native_layer_norm, _ATEN.group_norm, _ATEN.native_group_norm, _ATEN.instance_norm,
    _ATEN.rms_norm, _ATEN.linalg_vector_norm, _ATEN.norm,
    _ATEN.cosine_similarity, _ATEN.var, _ATEN.std, _ATEN.var_mean, _ATEN.std_mean})
_REDUCTIONS = frozenset({
    _ATEN.sum, _ATEN.mean, _ATEN.cumsum, _ATEN.avg_pool1d, _ATEN.avg_pool2d, _ATEN.adaptive_avg_pool1d,
    _ATEN.adaptive_avg_pool2d, _ATEN._adaptive_avg_pool2d, _ATEN.prod, _ATEN.cumprod, _ATEN.logsumexp})
_ADDS_AT_INDICES = frozenset({_ATEN.index_add, _ATEN.scatter_add, _ATEN.scatter_reduce})
_ROUNDING = frozenset({
    _ATEN.floor, _ATEN.ceil, _ATEN.round, _ATEN.trunc, _ATEN.frac, _ATEN.remainder, _ATEN.fmod, _ATEN.sign,
    _ATEN.floor_divide, _ATEN.bucketize, _ATEN.searchsorted})
_CHOOSES = {_ATEN.argmax: 1.0, _ATEN.max: 1.0, _ATEN.topk: 1.0, _ATEN.argmin: -1.0, _ATEN.min: -1.0}
_PERIODIC = frozenset({_ATEN.sin, _ATEN.cos, _ATEN.tan})
_SOFTMAX = frozenset({_ATEN.softmax, _ATEN._softmax, _ATEN.log_softmax, _ATEN._log_softmax})
_SQUARES = frozenset({_ATEN.square, _ATEN.pow, _ATEN.mul})
_ROOTS = frozenset({_ATEN.rsqrt, _ATEN.sqrt, _ATEN.pow, _ATEN.reciprocal})


def packet(node: Node):
    return node.target.overloadpacket if isinstance(node.target, torch._ops.OpOverload) else None


def tensors(val) -> tuple[torch.Tensor, ...]:
    """The tensors of a value that may be one or a tuple of them."""
    if isinstance(val, torch.Tensor):
        return (val,)
    return tuple(v for v in val if isinstance(v, torch.Tensor)) if isinstance(val, (list, tuple)) else ()


def is_f32(node: Node) -> bool:
    """Whether all results of the node are f32: such a node can be computed in fp16."""
    vals = tensors(node.meta.get("val"))
    return bool(vals) and all(v.dtype == torch.float32 for v in vals)


def moves(node: Node) -> bool:
    """Whether the op only moves the elements that it reads."""
    if node.target is operator.getitem:
        return True
    return node.op == "call_function" and (packet(node) in _MOVES or is_view(node))


def known(node: Node) -> bool:
    """Whether the numerics of the op are known: PyTorch's own ops only."""
    target = node.target
    return target is operator.getitem or (isinstance(target, torch._ops.OpOverload) and target.namespace == "aten")


def multiplies(node: Node) -> bool:
    """Whether the op sums many products: such ops are faster in fp16."""
    return node.op == "call_function" and not moves(node) and flops(node) > 0


def rounds_to_int8(node: Node) -> bool:
    """Whether the op rounds activations to 8 bits."""
    return packet(node) in (OPS.quantise_dequantise, OPS.linear_int8, OPS.conv_int8, OPS.add_int8)


def is_attention(node: Node) -> bool:
    return packet(node) is _ATEN.scaled_dot_product_attention


def is_softmax(node: Node) -> bool:
    return packet(node) in _SOFTMAX


def is_norm(node: Node) -> bool:
    return packet(node) in _NORMS


def is_reduction(node: Node) -> bool:
    return packet(node) in _REDUCTIONS


def adds_at_indices(node: Node) -> bool:
    """Results of several indices may be added to one place."""
    accumulates = packet(node) is _ATEN.index_put and (node.args[3] if len(node.args) > 3 else
                                                       node.kwargs.get("accumulate", False))
    return packet(node) in _ADDS_AT_INDICES or bool(accumulates)


def is_periodic(node: Node) -> bool:
    return packet(node) in _PERIODIC


def is_cast(node: Node) -> bool:
    return packet(node) in (_ATEN._to_copy, _ATEN.to)


def counts_from_integers(node: Node) -> bool:
    """A cast of indices or positions (images are bytes, which are exact in fp16), or an arange."""
    if packet(node) is _ATEN.arange:
        return True
    return is_cast(node) and node.args[0].meta["val"].dtype in (torch.int32, torch.int64)


def decides(node: Node) -> bool:
    """Whether a float becomes an integer, a boolean or a whole number: a small error has no effect there, or a large
    one."""
    if node.op != "call_function" or moves(node):
        return False
    reads = any(v.dtype == torch.float32 for n in node.all_input_nodes for v in tensors(n.meta["val"]))
    return reads and (packet(node) in _ROUNDING or not is_f32(node))


def chooses(node: Node) -> bool:
    """Whether the op finds where the largest or smallest elements of its operand are."""
    return packet(node) in _CHOOSES and not is_f32(node) and is_f32(node.args[0])


def lead(node: Node, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """By how much the elements that this node chooses of `x` lead the next one, and the larger magnitude of those two,
    both per row."""
    args = dict(zip((a.name for a in node.target._schema.arguments), node.args, strict=False)) | node.kwargs
    dim, taken = args.get("dim", -1), args.get("k", 1)
    smallest = args.get("largest") is False or _CHOOSES[packet(node)] < 0
    rows = x.flatten() if dim is None else x.movedim(dim, -1)
    if rows.shape[-1] <= taken:
        return rows.new_zeros(0), rows.new_zeros(0)
    pair = (-rows if smallest else rows).topk(taken + 1, -1).values[..., -2:]
    return pair[..., 0] - pair[..., 1], pair.abs().amax(-1)


def squares(node: Node) -> bool:
    if packet(node) not in _SQUARES:
        return False
    if packet(node) is _ATEN.pow:
        return node.args[1] == 2
    return packet(node) is _ATEN.square or (len(node.args) == 2 and node.args[0] is node.args[1])


def is_root(node: Node) -> bool:
    return packet(node) in _ROOTS and (packet(node) is not _ATEN.pow or node.args[1] in (0.5, -0.5))


def behind(starts, into) -> list[Node]:
    """`starts` and their ancestors, as far as `into(node)` holds."""
    found: dict[Node, None] = {}
    stack = list(starts)
    while stack:
        node = stack.pop()
        if node not in found and into(node):
            found[node] = None
            stack.extend(node.all_input_nodes)
    return list(found)


def is_glue(node: Node) -> bool:
    """Element-wise ops, moves and casts: they cost only memory traffic, and pass errors on unchanged."""
    return node.op == "call_function" and is_f32(node) and (moves(node) or is_pointwise(node) or is_cast(node))
