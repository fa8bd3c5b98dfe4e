"""What each operation does with rotated operands: a rule per operation and direction.

A writer's rule says whether the operation can give its result rotated (`ask`), or arranges that it does. A reader's
rule arranges that the operation reads an operand that is rotated, or answers False and reads the original. Must not
know how the search goes (find_places.py), nor matrices.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.fx import Node

from vlacompile.compiler.precision.rotate.channels import Channels, shape_of

if TYPE_CHECKING:
    from vlacompile.compiler.precision.rotate.find_places import _Search

_ATEN = torch.ops.aten


class Conflict(Exception):
    """The group cannot be rotated. Its words say why."""


def item_of(node: Node) -> Node | None:
    """What an item is taken of; None: the node is no item."""
    return node.args[0] if node.target is operator.getitem else None


def _constant(node, *, or_none: bool = False) -> bool:
    return (or_none and node is None) or (isinstance(node, Node) and node.op == "get_attr"
                                          and node.meta["val"].dtype == torch.float32)


def _argument(node: Node, position: int):
    return node.args[position] if len(node.args) > position else None


def _alike(node, channels: Channels) -> bool:
    """A number, or a value that is the same for all channels."""
    if not isinstance(node, Node):
        return isinstance(node, (int, float))
    shape = shape_of(node)
    return all(-a > len(shape) or shape[a] == 1 for a in channels.axes)


def _vector(node, channels: Channels) -> bool:
    """A constant with a number per channel, of channels that are one vector in order."""
    if not _constant(node) or not channels.last or channels.size != channels.place.shape[-1]:
        return False
    shape = shape_of(node)
    return (torch.equal(channels.place.flatten(), torch.arange(channels.size)) and bool(shape)
            and shape[-1] == channels.size == torch.Size(shape).numel())


# Writers: (search, node, channels of its result, whether it is only asked)

Writer = Callable[["_Search", Node, Channels, bool], bool]


def _layer(search: _Search, node: Node, channels: Channels, ask: bool) -> bool:
    conv = node.target is not _ATEN.linear.default
    weight, bias = node.args[1], _argument(node, 2)
    if node.kwargs or not _constant(weight) or not _constant(bias, or_none=True):
        return False
    if conv and _argument(node, 6) not in (None, 1):  # groups
        return False
    axis = 1 - len(shape_of(node)) if conv else -1
    if channels.axes != (axis,):
        return False
    if not ask:
        search.found.writes[node] = channels
    return True


def _embedding(search: _Search, node: Node, channels: Channels, ask: bool) -> bool:
    if node.kwargs or not _constant(node.args[0]) or not channels.last:
        return False
    if not ask:
        search.found.writes[node] = channels
    return True


def _sum(search: _Search, node: Node, channels: Channels, ask: bool) -> bool:
    if node.kwargs or len(node.args) > 2:
        return False
    if not ask:
        if not channels.pure:  # a shift behind a gain: what is added is in the channels already
            return True
        for argument in node.args:
            search.operand(node, argument, channels)
    return True


def _product(search: _Search, node: Node, channels: Channels, ask: bool) -> bool:
    """x * c and x / c, c equal for all channels; or the result of a linear by a constant per channel."""
    if node.kwargs or len(node.args) > 2:
        return False
    x, c = node.args
    if node.target.overloadpacket is _ATEN.mul and _alike(x, channels) and isinstance(c, Node):
        x, c = c, x
    if not isinstance(x, Node):
        return False
    if _alike(c, channels) and not _alike(x, channels):
        if not ask:
            if isinstance(c, Node):
                search.plain.add((node, c))
            search.require(node, x, channels.aligned(len(shape_of(x))))
        return True
    if node.target.overloadpacket is not _ATEN.mul:
        return False
    x, c = (c, x) if _constant(x) else (x, c)
    if not ask and not channels.pure:
        return (node, c) in search.found.neutral
    linear = isinstance(x, Node) and x.target is _ATEN.linear.default and set(x.users) == {node}
    if not linear or not _vector(c, channels) or not _layer(search, x, channels.aligned(len(shape_of(x))), True):
        return False
    if not ask:
        search.found.scaled[x], search.found.neutral[node, c] = c, 1.0
        search.require(node, x, channels.aligned(len(shape_of(x))))
    return True


def _first(search: _Search, node: Node, channels: Channels, ask: bool) -> bool:
    """neg, and picks of rows: what is rotated is the first operand."""
    if not isinstance(node.args[0], Node) or (node.target is not _ATEN.neg.default and not _picks_rows(node, channels)):
        return False
    if not ask:
        dims = len(shape_of(node.args[0]))
        search.require(node, node.args[0], over_rows(channels, dims))
    return True


def over_rows(channels: Channels, dims: int) -> Channels:
    """The same channels over the last dimension of a value with that many dimensions."""
    shape = (1,) * (dims - 1) + (channels.place.shape[-1],)
    return replace(channels, place=channels.place.reshape(shape), vector=channels.vector.reshape(shape))


def _picks_rows(node: Node, channels: Channels) -> bool:
    dims, packet = len(shape_of(node.args[0])), node.target.overloadpacket
    if not channels.last or shape_of(node)[-1] != shape_of(node.args[0])[-1]:
        return False
    if packet is _ATEN.index_select:
        return node.args[1] % dims != dims - 1
    if packet is _ATEN.index:
        return len(node.args[1]) < dims or node.args[1][-1] is None
    if packet is _ATEN.constant_pad_nd:
        return all(n == 0 for n in node.args[1][:2]) and _argument(node, 2) in (None, 0, 0.0)
    return packet in (_ATEN.mean, _ATEN.sum) and _reduces(node) and dims - 1 not in _dims(node)


def _where(search: _Search, node: Node, channels: Channels, ask: bool) -> bool:
    if len(node.args) != 3 or not _alike(node.args[0], channels):
        return False
    if not ask:
        for argument in node.args[1:]:
            search.operand(node, argument, channels)
    return True


def _attended(search: _Search, node: Node, channels: Channels, ask: bool) -> bool:
    """softmax(q k) v, and a @ b: the last operand's features."""
    position = 2 if node.target is _ATEN.scaled_dot_product_attention.default else 1
    value = _argument(node, position)
    if not isinstance(value, Node) or not channels.last or value in node.args[:position]:
        return False
    if len(shape_of(value)) < 2 or shape_of(value)[-1] != channels.place.shape[-1]:
        return False
    if not ask:
        search.require(node, value, over_rows(channels, len(shape_of(value))))
    return True


def _normed(search: _Search, node: Node, channels: Channels, ask: bool) -> bool:
    """A norm's result, as its reader's rule has arranged it."""
    if ask:
        return False
    search.require(node, node.args[0], replace(channels, gain=None, shift=None))
    return True


# Readers: (search, user, what it reads, channels of that)

Reader = Callable[["_Search", Node, Node, Channels], bool]


def _read_by_linear(search: _Search, user: Node, node: Node, channels: Channels) -> bool:
    weight, bias = user.args[1], _argument(user, 2)
    if user.args[0] is not node or user.kwargs or not channels.last or not _constant(weight):
        return False
    if not _constant(bias, or_none=True) and (bias is node or channels.shift is not None):
        return False
    if (channels.gain is not None or channels.shift is not None) and channels.size != shape_of(node)[-1]:
        return False
    search.found.reads[user] = channels
    return True


def _added(search: _Search, user: Node, node: Node, channels: Channels) -> bool:
    if user.kwargs or len(user.args) > 2:
        return False
    other = user.args[1] if user.args[0] is node else user.args[0]
    if channels.pure:
        if isinstance(other, Node) and not _alike(other, channels) and not _full(other, channels):
            return False
        search.set(user, channels.aligned(len(shape_of(user))))
        return True
    if user.target.overloadpacket is not _ATEN.add or not _vector(other, channels):
        return False
    constant = search.stage.constants[other.target].double().flatten()
    shift = constant if channels.shift is None else channels.shift + constant
    search.found.neutral[user, other] = 0.0
    search.set(user, replace(channels.aligned(len(shape_of(user))), shift=shift))
    return True


def _full(node: Node, channels: Channels) -> bool:
    shape = shape_of(node)
    return all(-a <= len(shape) and shape[a] == channels.place.shape[a] for a in channels.axes)


def _multiplied(search: _Search, user: Node, node: Node, channels: Channels) -> bool:
    if user.kwargs or len(user.args) > 2:
        return False
    if user.args[0] is node and user.args[1] is node:
        return user.target.overloadpacket is _ATEN.mul and _squared(search, user, node, channels)
    divides = user.target.overloadpacket is _ATEN.div
    if divides and user.args[0] is not node:
        return False
    other = user.args[1] if user.args[0] is node else user.args[0]
    if node in search.found.scaled:  # the product whose constant is folded into this linear
        return True
    if _alike(other, channels):
        if channels.shift is not None:
            return False
        search.set(user, channels.aligned(len(shape_of(user))))
        return True
    if divides or not _vector(other, channels) or not _only_linears(user):
        return False
    constant = search.stage.constants[other.target].double().flatten()
    gain = constant if channels.gain is None else channels.gain * constant
    shift = None if channels.shift is None else channels.shift * constant
    search.found.neutral[user, other] = 1.0
    search.set(user, replace(channels.aligned(len(shape_of(user))), gain=gain, shift=shift))
    return True


def _only_linears(node: Node) -> bool:
    """Whether the value is read by linears, or by a sum with a constant (the shift of a norm)."""
    return all(u.target is _ATEN.linear.default or (u.target is _ATEN.add.Tensor and any(map(_constant, u.args)))
               for u in node.users)


def _squared(search: _Search, user: Node, node: Node, channels: Channels) -> bool:
    """Sums of squares over whole vectors stay as they are."""
    if user.target.overloadpacket is _ATEN.pow and user.args[1] != 2:
        return False
    sums = [u for u in user.users if getattr(u.target, "overloadpacket", None) in (_ATEN.mean, _ATEN.sum)]
    return (channels.pure and _complete(channels) and len(sums) == len(user.users)
            and all(_reduces(u) and _over(u, user, channels) for u in sums))


def _complete(channels: Channels) -> bool:
    return bool((channels.place >= 0).all())


def _reduces(node: Node) -> bool:
    return len(node.args) > 1 and bool(node.args[1]) and "dtype" not in node.kwargs


def _dims(node: Node) -> tuple[int, ...]:
    dims, over = len(shape_of(node.args[0])), node.args[1]
    return tuple(d % dims for d in (over if isinstance(over, (list, tuple)) else [over]))


def _over(node: Node, value: Node, channels: Channels) -> bool:
    """Whether a reduction runs over all dimensions of the vectors."""
    dims = len(shape_of(value))
    return {a % dims for a in channels.axes} <= set(_dims(node))


def _averaged(search: _Search, user: Node, node: Node, channels: Channels) -> bool:
    if not _reduces(user):
        return False
    if _over(user, node, channels):
        search.found.keeps_mean = True
        return channels.pure and _complete(channels)
    if not channels.last or not _picks_rows(user, channels):
        return False
    if channels.shift is not None and user.target.overloadpacket is _ATEN.sum:
        return False
    search.set(user, over_rows(channels, len(shape_of(user))))
    return True


def _varied(search: _Search, user: Node, node: Node, channels: Channels) -> bool:
    if not channels.pure or not _complete(channels) or not _reduces(user):
        return False
    search.found.keeps_mean = True
    return set(_dims(user)) == {a % len(shape_of(node)) for a in channels.axes}


def _norm_of(search: _Search, user: Node, node: Node, channels: Channels) -> bool:
    """linalg.vector_norm(x, 2, dims)."""
    return (channels.pure and _complete(channels) and len(user.args) > 2 and user.args[1] == 2 and bool(user.args[2])
            and {d % len(shape_of(node)) for d in user.args[2]} >= {a % len(shape_of(node)) for a in channels.axes})


def _normalised(search: _Search, user: Node, node: Node, channels: Channels) -> bool:
    """layer_norm(x, shape, gain, shift) and rms_norm(x, shape, gain): the gain moves into what reads the result."""
    mean = user.target is _ATEN.layer_norm.default
    if user.args[0] is not node or user.kwargs or len(user.args[1]) != 1 or not channels.last or not channels.pure:
        return False
    gain, shift = _argument(user, 2), _argument(user, 3) if mean else None
    if not _complete(channels) or not all(c is None or _vector(c, channels) for c in (gain, shift)):
        return False
    constants = search.stage.constants
    for c, neutral in ((gain, 1.0), (shift, 0.0)):
        if c is not None:
            search.found.neutral[user, c] = neutral
    if gain is not None and gain is shift:
        return False
    search.found.keeps_mean |= mean
    search.set(user, replace(channels, gain=None if gain is None else constants[gain.target].double(),
                             shift=None if shift is None else constants[shift.target].double()))
    return True


def _attending(search: _Search, user: Node, node: Node, channels: Channels) -> bool:
    position = 2 if user.target is _ATEN.scaled_dot_product_attention.default else 1
    if any(a is node for i, a in enumerate(user.args) if i != position) or not channels.last or not channels.pure:
        return False
    if user.args[position] is not node or len(shape_of(node)) < 2 or len(shape_of(user)) < 2:
        return False
    search.set(user, over_rows(channels, len(shape_of(user))))
    return True


def _chosen(search: _Search, user: Node, node: Node, channels: Channels) -> bool:
    if len(user.args) != 3 or user.args[0] is node or not channels.pure or not _alike(user.args[0], channels):
        return False
    if not all(not isinstance(a, Node) or _alike(a, channels) or _full(a, channels) for a in user.args[1:]):
        return False
    search.set(user, channels.aligned(len(shape_of(user))))
    return True


def _picked(search: _Search, user: Node, node: Node, channels: Channels) -> bool:
    if user.args[0] is not node or not _picks_rows(user, channels):
        return False
    if not channels.pure and user.target is _ATEN.constant_pad_nd.default:  # zeros have neither gain nor shift
        return False
    search.set(user, over_rows(channels, len(shape_of(user))))
    return True


def _negated(search: _Search, user: Node, node: Node, channels: Channels) -> bool:
    if not channels.pure:
        return False
    search.set(user, channels)
    return True


WRITERS: dict[object, Writer] = {
    _ATEN.linear: _layer, _ATEN.conv1d: _layer, _ATEN.conv2d: _layer, _ATEN.embedding: _embedding, _ATEN.add: _sum,
    _ATEN.sub: _sum, _ATEN.mul: _product, _ATEN.div: _product, _ATEN.neg: _first, _ATEN.index_select: _first,
    _ATEN.index: _first, _ATEN.constant_pad_nd: _first, _ATEN.mean: _first, _ATEN.sum: _first, _ATEN.where: _where,
    _ATEN.scaled_dot_product_attention: _attended, _ATEN.matmul: _attended, _ATEN.bmm: _attended,
    _ATEN.layer_norm: _normed, _ATEN.rms_norm: _normed}

READERS: dict[object, Reader] = {
    _ATEN.linear: _read_by_linear, _ATEN.add: _added, _ATEN.sub: _added, _ATEN.mul: _multiplied,
    _ATEN.div: _multiplied, _ATEN.pow: _squared, _ATEN.square: _squared, _ATEN.mean: _averaged, _ATEN.sum: _averaged,
    _ATEN.var: _varied, _ATEN.std: _varied, _ATEN.linalg_vector_norm: _norm_of, _ATEN.layer_norm: _normalised,
    _ATEN.rms_norm: _normalised, _ATEN.scaled_dot_product_attention: _attending, _ATEN.matmul: _attending,
    _ATEN.bmm: _attending, _ATEN.where: _chosen, _ATEN.neg: _negated, _ATEN.index_select: _picked,
    _ATEN.index: _picked, _ATEN.constant_pad_nd: _picked}
