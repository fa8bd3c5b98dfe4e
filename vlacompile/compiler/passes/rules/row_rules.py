"""Which ops act on every row of a dimension independently, and where the rows of the result are.

Owns one rule per kind of op: given an op on parts along an axis, the same op on each part. Must not know why or where
ops are split.
"""

from __future__ import annotations

import math
import operator
import string
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.ops import is_random
from vlacompile.compiler.passes.rules.parts import Op, Parts, parted_alike, parts_along, rank_of, shape_of

_ATEN = torch.ops.aten


def _ops(names: str) -> frozenset:
    return frozenset(getattr(_ATEN, name) for name in names.split())


_SAME = _ops("_to_copy clone contiguous")
_VIEWS = _ops("view reshape _unsafe_view")
# Images [N,C,...] of this rank: the rows are those of dimension 0 alone.
_CONVOLUTIONS = {p: rank for rank, names in {
    3: "conv1d conv_transpose1d", 4: "conv2d conv_transpose2d", 5: "conv3d conv_transpose3d"}.items()
    for p in _ops(names)}
# ... of any rank: instances are normalised by weights per channel, groups are groups of channels.
_PER_IMAGE = _ops("group_norm instance_norm batch_norm _native_batch_norm_legit_no_training channel_shuffle")
# {op: how many of the last dimensions it acts on}: every channel, and all before it, are rows.
_PER_CHANNEL = {p: dims for dims, names in {
    1: "max_pool1d max_pool1d_with_indices avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d upsample_linear1d "
       "upsample_nearest1d _upsample_nearest_exact1d reflection_pad1d replication_pad1d",
    2: "max_pool2d max_pool2d_with_indices avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d "
       "upsample_bilinear2d upsample_nearest2d upsample_bicubic2d _upsample_nearest_exact2d _upsample_bilinear2d_aa "
       "_upsample_bicubic2d_aa reflection_pad2d replication_pad2d pixel_unshuffle im2col tril triu",
    3: "max_pool3d max_pool3d_with_indices avg_pool3d adaptive_avg_pool3d _adaptive_avg_pool3d adaptive_max_pool3d "
       "upsample_nearest3d upsample_trilinear3d _upsample_nearest_exact3d reflection_pad3d replication_pad3d "
       "pixel_shuffle"}.items() for p in _ops(names)}
# Along the dimension that they are given, which stays.
_ALONG = _ops("softmax _softmax log_softmax _log_softmax cumsum cumprod logcumsumexp cummax cummin sort argsort topk "
              "glu index_select slice flip roll repeat_interleave")
# Over the dimensions that they are given, which leave unless keepdim is set.
_REDUCTIONS = _ops("mean sum amax amin prod std var std_mean var_mean any all argmax argmin max min median nanmedian "
                   "nansum nanmean logsumexp kthvalue mode linalg_vector_norm norm count_nonzero")
_GRIDS = _ops("grid_sampler grid_sampler_2d grid_sampler_3d")
LISTED = {_ATEN.cat: 0, _ATEN.stack: 0, _ATEN.einsum: 1}  # ops whose operands are a list, and where that is


@dataclass(frozen=True)
class Rule:
    """operands: {value: its axis} of the values that are divided; the others are read whole. result: axis of the
    parts of the result. args: from (divided operands, size of the part) the arguments of one part."""

    operands: dict[int, int]
    result: int
    args: Callable[[dict, int], tuple]


def rule_of(op: Op, axis: int) -> Rule | None:
    """How `op` acts on parts of its first divided operand along `axis`; None where parts are mixed, or where the op is
    not known."""
    if op.target is operator.getitem:
        return Rule({0: axis}, axis, lambda at, size: (at[0], *op.args[1:]))
    if op.packet in _SAME or (_is_pointwise(op) and not is_random(op.like)):
        return _elementwise(op, axis)
    rule = _RULES.get(op.packet)
    return None if rule is None else rule(op, axis)


def _is_pointwise(op: Op) -> bool:
    return isinstance(op.target, torch._ops.OpOverload) and torch.Tag.pointwise in op.target.tags


def _first(op: Op, axis: int, result: int | None = None, rest=None) -> Rule | None:
    """Only the first operand is divided. rest: size -> the arguments after it, where they change."""
    if not isinstance(op.args[0], Parts):
        return None
    after = (lambda size: op.args[1:]) if rest is None else rest
    return Rule({0: axis}, axis if result is None else result, lambda at, size: (at[0], *after(size)))


def _given(op: Op, *names: str):
    """The first of these arguments that the op has, as it is given or by default."""
    for i, argument in enumerate(op.target._schema.arguments):
        if argument.name in names:
            given = op.args[i] if i < len(op.args) else op.kwargs.get(argument.name)
            return argument.default_value if given is None and argument.has_default_value() else given
    return None


def _dims(op: Op) -> frozenset[int] | None:
    """The dimensions that the op is told; None: it is told none, and takes all."""
    given = _given(op, "dim", "dims", "dimension", "dim0")
    if given is None or given == []:
        return None
    return frozenset(d % rank_of(op.args[0]) for d in (given if isinstance(given, (list, tuple)) else [given]))


def _elementwise(op: Op, axis: int) -> Rule | None:
    """Operands are aligned at their last dimension; one of size 1 there is the same for all rows, unless it has the
    same parts."""
    tensors = {i: a for i, a in enumerate(op.args) if isinstance(a, (Node, Parts))}
    rank = max(map(rank_of, tensors.values()))
    first = next(i for i, a in tensors.items() if isinstance(a, Parts))
    axis += rank - rank_of(tensors[first])
    own = {i: axis - rank + rank_of(a) for i, a in tensors.items()}
    divided = {i: d for i, d in own.items() if i == first or (d >= 0 and (
        shape_of(tensors[i])[d] > 1 or parted_alike(tensors[i], d, tensors[first], own[first])))}
    return Rule(divided, axis, lambda at, size: tuple(at.get(i, a) for i, a in enumerate(op.args)))


def _convolution(op: Op, axis: int) -> Rule | None:
    return _first(op, axis) if axis == 0 and rank_of(op.args[0]) == _CONVOLUTIONS[op.packet] else None


def _per_image(op: Op, axis: int) -> Rule | None:
    """With the statistics of a batch, rows would be mixed."""
    mixed = op.packet is _ATEN.batch_norm and _given(op, "training")
    alone = op.packet is _ATEN.instance_norm and not any(isinstance(a, (Node, Parts)) for a in op.args[1:])
    return _first(op, axis) if axis <= alone and not mixed else None


def _per_channel(op: Op, axis: int) -> Rule | None:
    return _first(op, axis) if axis < rank_of(op.args[0]) - _PER_CHANNEL[op.packet] else None


def _grid(op: Op, axis: int) -> Rule | None:
    if axis == 1:  # channels are sampled alike
        return _first(op, axis)
    return None if axis else Rule({0: 0, 1: 0}, 0, lambda at, size: (at[0], at[1], *op.args[2:]))


def _linear(op: Op, axis: int) -> Rule | None:
    return _first(op, axis) if axis < rank_of(op.args[0]) - 1 and isinstance(op.args[1], Node) else None


def _layer_norm(op: Op, axis: int) -> Rule | None:
    return _first(op, axis) if axis < rank_of(op.args[0]) - len(op.args[1]) else None


def _along(op: Op, axis: int) -> Rule | None:
    dims = _dims(op)
    return _first(op, axis) if dims is not None and axis not in dims else None


def _reduction(op: Op, axis: int) -> Rule | None:
    dims = _dims(op)
    if dims is None or axis in dims:
        return None
    return _first(op, axis, axis if _given(op, "keepdim") else axis - sum(d < axis for d in dims))


def _matmul(op: Op, axis: int) -> Rule | None:
    a, b = op.args[:2]
    if not isinstance(a, Parts):
        return None
    rank, other = rank_of(a), rank_of(b)
    if axis == rank - 2 or (axis < rank - 2 and other <= 2):
        return _first(op, axis) if isinstance(b, Node) else None
    if axis < rank - 2 and other == rank:
        shared = shape_of(b)[axis] == 1
        return Rule({0: axis} if shared else {0: axis, 1: axis}, axis, lambda at, size: (at[0], at.get(1, b)))
    return None


def _addmm(op: Op, axis: int) -> Rule | None:
    bias, x, w = op.args[:3]
    if axis or not isinstance(x, Parts) or not isinstance(w, Node) or not isinstance(bias, Node) or rank_of(bias) > 1:
        return None
    return Rule({1: 0}, 0, lambda at, size: (bias, at[1], *op.args[2:]))


def _einsum(op: Op, axis: int) -> Rule | None:
    """A letter of the result that every operand has once, or not at all; one of size 1 there is the same for all
    rows."""
    operands = op.args[1]
    inputs, arrow, output = _without_ellipsis(op.args[0].replace(" ", ""), operands).partition("->")
    terms = inputs.split(",")
    if not arrow or any(len(set(t)) != len(t) for t in terms):
        return None
    first = next(i for i, v in enumerate(operands) if isinstance(v, Parts))
    letter = terms[first][axis]
    if output.count(letter) != 1:
        return None
    places = {i: t.index(letter) for i, t in enumerate(terms) if letter in t}
    return Rule({i: d for i, d in places.items() if i == first or shape_of(operands[i])[d] > 1}, output.index(letter),
                lambda at, size: (op.args[0], [at.get(i, v) for i, v in enumerate(operands)], *op.args[2:]))


def _without_ellipsis(equation: str, operands: list) -> str:
    """Dots as letters: they are aligned at the last of the dimensions that they stand for."""
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    dots = [rank_of(v) - len(t) + 3 if "..." in t else 0 for t, v in zip(terms, operands, strict=True)]
    free = [c for c in string.ascii_letters if c not in equation][:max(dots)]
    terms = [t.replace("...", "".join(free[len(free) - n:])) for t, n in zip(terms, dots, strict=True)]
    return ",".join(terms) + arrow + output.replace("...", "".join(free))


def _attention(op: Op, axis: int) -> Rule | None:
    """Query, key and value [N,heads,tokens,d] (and a mask that has rows of its own) are divided together."""
    if axis >= rank_of(op.args[0]) - 2:
        return None
    divided = dict.fromkeys(range(3), axis)
    if len(op.args) > 3 and isinstance(op.args[3], (Node, Parts)):
        own = axis - rank_of(op.args[0]) + rank_of(op.args[3])
        divided |= {3: own} if own >= 0 and shape_of(op.args[3])[own] > 1 else {}
    if isinstance(op.kwargs.get("attn_mask"), Node) and math.prod(shape_of(op.kwargs["attn_mask"])[:-2]) > 1:
        return None
    return Rule(divided, axis, lambda at, size: tuple(at.get(i, a) for i, a in enumerate(op.args)))


def _permute(op: Op, axis: int) -> Rule | None:
    rank = rank_of(op.args[0])
    return _first(op, axis, [d % rank for d in op.args[1]].index(axis))


def _transpose(op: Op, axis: int) -> Rule | None:
    a, b = (d % rank_of(op.args[0]) for d in op.args[1:3])
    return _first(op, axis, {a: b, b: a}.get(axis, axis))


def _unsqueeze(op: Op, axis: int) -> Rule | None:
    return _first(op, axis, axis + (op.args[1] % (rank_of(op.args[0]) + 1) <= axis))


def _squeeze(op: Op, axis: int) -> Rule | None:
    shape = shape_of(op.args[0])
    given = op.args[1] if len(op.args) > 1 else None
    if given is None:
        return None
    dims = {d % len(shape) for d in (given if isinstance(given, (list, tuple)) else [given])}
    gone = {d for d in dims if shape[d] == 1}
    return None if axis in dims else _first(op, axis, axis - sum(d < axis for d in gone))


def _view(op: Op, axis: int) -> Rule | None:
    """A row keeps its place in memory order when the dimensions before `axis` stay as they are."""
    shape, wanted = shape_of(op.args[0]), [int(d) for d in op.args[1]]
    if -1 in wanted:
        wanted[wanted.index(-1)] = math.prod(shape) // -math.prod(wanted)
    before, row = math.prod(shape[:axis]), math.prod(shape[axis + 1:])
    sizes = [shape_of(p)[axis] for p in parts_along(op.args[0], axis) or ()]
    for result in range(len(wanted)):
        inner = math.prod(wanted[result + 1:])
        if math.prod(wanted[:result]) == before and all(s * row % inner == 0 for s in sizes):
            return _first(op, axis, result, lambda size, b=result, i=inner: (
                [*wanted[:b], size * row // i, *wanted[b + 1:]],))
    return None


def _expand(op: Op, axis: int) -> Rule | None:
    result = axis + len(op.args[1]) - rank_of(op.args[0])
    if op.args[1][result] not in (-1, shape_of(op.args[0])[axis]):
        return None
    return _first(op, axis, result, lambda size: ([*op.args[1][:result], size, *op.args[1][result + 1:]], *op.args[2:]))


def _repeat(op: Op, axis: int) -> Rule | None:
    times = [1] * (rank_of(op.args[0]) - len(op.args[1])) + list(op.args[1])
    result = axis + len(times) - rank_of(op.args[0])
    return _first(op, axis, result) if times[result] == 1 else None


def _unfold(op: Op, axis: int) -> Rule | None:
    return _first(op, axis) if op.args[1] % rank_of(op.args[0]) != axis else None


def _diagonal(op: Op, axis: int) -> Rule | None:
    dims = {_given(op, name) % rank_of(op.args[0]) for name in ("dim1", "dim2")}
    return _first(op, axis, axis - sum(d < axis for d in dims)) if axis not in dims else None


def _index(op: Op, axis: int) -> Rule | None:
    """One index, of another dimension."""
    found = [(i, index) for i, index in enumerate(op.args[1]) if index is not None]
    if len(found) != 1 or found[0][0] == axis or not isinstance(found[0][1], Node):
        return None
    (dim, index), = found
    masks = index.meta["val"].dtype in (torch.bool, torch.uint8)
    if masks and rank_of(index) > 1:
        return None
    return _first(op, axis, axis + (0 if dim > axis else rank_of(index) - 1))


def _gather(op: Op, axis: int) -> Rule | None:
    """Of each row its own indices."""
    x, dim, index = op.args[:3]
    if not isinstance(index, (Node, Parts)) or dim % rank_of(x) == axis or shape_of(x)[axis] != shape_of(index)[axis]:
        return None
    return Rule({0: axis, 2: axis}, axis, lambda at, size: (at[0], dim, at[2], *op.args[3:]))


def _cross(op: Op, axis: int) -> Rule | None:
    dims = _dims(op)
    return _elementwise(op, axis) if dims is not None and axis not in dims else None


def _select(op: Op, axis: int) -> Rule | None:
    dim = op.args[1] % rank_of(op.args[0])
    return _first(op, axis, axis - (dim < axis)) if dim != axis else None


def _pad(op: Op, axis: int) -> Rule | None:
    return _first(op, axis) if axis < rank_of(op.args[0]) - len(op.args[1]) // 2 else None


def _join(op: Op, axis: int) -> Rule | None:
    """A concatenation along another axis than that of its operands' parts."""
    operands, stacked = op.args[0], op.packet is _ATEN.stack
    rank = rank_of(operands[0]) + stacked
    dim = (op.args[1] if len(op.args) > 1 else 0) % rank
    if not stacked and dim == axis:
        return None
    return Rule(dict.fromkeys(range(len(operands)), axis), axis + (stacked and dim <= axis),
                lambda at, size: ([at[i] for i in range(len(operands))], dim))


def _embedding(op: Op, axis: int) -> Rule | None:
    return Rule({1: axis}, axis, lambda at, size: (op.args[0], at[1], *op.args[2:]))


_RULES: dict[object, Callable[[Op, int], Rule | None]] = {packet: rule for packets, rule in (
    (_CONVOLUTIONS, _convolution), (_PER_IMAGE, _per_image), (_PER_CHANNEL, _per_channel), (_GRIDS, _grid),
    (_VIEWS, _view), (_ALONG, _along), (_REDUCTIONS, _reduction), (LISTED, _join), (_ops("linear"), _linear),
    (_ops("layer_norm rms_norm"), _layer_norm), (_ops("matmul mm bmm"), _matmul), (_ops("addmm"), _addmm),
    (_ops("einsum"), _einsum), (_ops("scaled_dot_product_attention"), _attention), (_ops("permute"), _permute),
    (_ops("transpose"), _transpose), (_ops("unsqueeze"), _unsqueeze), (_ops("squeeze"), _squeeze),
    (_ops("expand"), _expand), (_ops("repeat tile"), _repeat), (_ops("select"), _select), (_ops("unfold"), _unfold),
    (_ops("diagonal"), _diagonal), (_ops("constant_pad_nd pad"), _pad), (_ops("embedding"), _embedding),
    (_ops("index"), _index), (_ops("gather"), _gather), (_ops("cross linalg_cross"), _cross),
) for packet in packets}
