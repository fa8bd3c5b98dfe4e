"""Which channels of a value can be scaled individually by changing only the constants that the value is computed from.

Labels are propagated from the value upwards, per element: the channel by whose divisor it is divided, or 0 for none.
Ops that move elements move labels; ops that need equal divisors tie labels together; elements that cannot be divided
are tied to 0. The propagation ends at constants (rows of a weight, an affine norm), which absorb the division. Must not
know how divisors are chosen.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.fx import Node
from torch.fx.node import map_arg

_ATEN = torch.ops.aten
_DEPTH = 64  # ops above a value that are searched


class Ties:
    """Union-find over labels 0..n: tied labels have equal divisors; that of label 0 is 1."""

    def __init__(self, parents: list[int]):
        self.parents = parents

    def root(self, label: int) -> int:
        while self.parents[label] != label:
            label = self.parents[label]
        return label

    def tie(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Ties a and b element by element; shapes broadcast."""
        a, b = torch.broadcast_tensors(a, b)
        differ = a != b
        for pair in torch.unique(a[differ] * len(self.parents) + b[differ]).tolist():
            x, y = (self.root(label) for label in divmod(pair, len(self.parents)))
            self.parents[max(x, y)] = min(x, y)

    def classes(self) -> torch.Tensor:
        """int64[n+1]: the smallest label that each label is tied to."""
        return torch.tensor([self.root(i) for i in range(len(self.parents))])


@dataclass
class Division:
    """Where the divisors of a value are folded.

    ties: of its channels, labels 1..K. edits: {(node, position of a constant argument): labels int64, shaped like the
    constant}: every element is divided by the divisor of its label. A position without a constant gets a new one: the
    weight of a norm that had none. why: reasons for channels that keep their scale.
    """

    ties: Ties
    edits: dict[tuple[Node, int], torch.Tensor]
    labels: dict[Node, torch.Tensor]
    edges: set[tuple[Node, Node]]
    why: dict[str, None]

    def copy(self) -> Division:
        ties = Ties(list(self.ties.parents))
        return Division(ties, dict(self.edits), dict(self.labels), set(self.edges), dict(self.why))

    def free(self) -> int:
        """Number of channels that can have a divisor."""
        return int((self.ties.classes()[1:] > 0).sum())


def divide(value: Node, readers: frozenset[Node]) -> Division:
    """value: f32[...,K], its last dimension the channels. readers: users that multiply by the divisors again."""
    shape = _shape(value)
    labels = (torch.arange(shape[-1]) + 1).expand(shape).contiguous()
    found = Division(Ties(list(range(shape[-1] + 1))), {}, {}, {(r, value) for r in readers}, {})
    _push(found, value, labels, 0)
    return found


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(int(d) for d in node.meta["val"].shape)


def _push(found: Division, node: Node, labels: torch.Tensor, depth: int) -> None:
    """Divides the value of `node` by the divisors of `labels`, which have its shape."""
    if not labels.any():
        return
    if node in found.labels:
        found.ties.tie(found.labels[node], labels)
        return
    found.labels[node] = labels
    _check_users(found, node, labels)
    rule = None if node.op != "call_function" or depth >= _DEPTH else _RULES.get(getattr(node.target, "overloadpacket",
                                                                                         node.target))
    if rule is None or node.meta["val"].dtype != torch.float32 or not rule(found, node, labels, depth + 1):
        _stop(found, labels, node)


def _stop(found: Division, labels: torch.Tensor, at: Node) -> None:
    found.why[f"%{at.name}"] = None
    found.ties.tie(labels, torch.zeros((), dtype=torch.int64))


def _check_users(found: Division, node: Node, labels: torch.Tensor) -> None:
    """Ties to 0 what other users of the value read: they do not expect it to be divided."""
    for user in node.users:
        if (user, node) in found.edges:
            continue
        if not _moves(user):
            _stop(found, labels, user)
            continue
        indices = _indices(user)
        flat = torch.cat([(labels if n is node else torch.zeros(_shape(n), dtype=torch.int64)).flatten()
                          for n in _tensors(user)])
        moved = {user: indices} if isinstance(indices, torch.Tensor) else {
            item: indices[item.args[1]] for item in user.users if item not in found.labels}
        for result, places in moved.items():
            if flat[places].any():
                _check_users(found, result, flat[places])


# Ops that move elements: each element of the result is an element of an argument

_MOVES = frozenset({
    _ATEN.view, _ATEN.reshape, _ATEN._unsafe_view, _ATEN.flatten, _ATEN.unflatten, _ATEN.permute, _ATEN.transpose,
    _ATEN.t, _ATEN.slice, _ATEN.select, _ATEN.narrow, _ATEN.unsqueeze, _ATEN.squeeze, _ATEN.expand, _ATEN.repeat,
    _ATEN.repeat_interleave, _ATEN.clone, _ATEN.contiguous, _ATEN.alias, _ATEN.detach, _ATEN.cat, _ATEN.stack,
    _ATEN.movedim, _ATEN.flip, _ATEN.roll, _ATEN.unbind, _ATEN.split, _ATEN.split_with_sizes, _ATEN.chunk})
_TUPLES = frozenset({_ATEN.unbind, _ATEN.split, _ATEN.split_with_sizes, _ATEN.chunk})


def _moves(node: Node) -> bool:
    if getattr(node.target, "overloadpacket", None) not in _MOVES:
        return False
    return all(n.meta["val"].dtype == torch.float32 for n in _tensors(node))


def _tensors(node: Node) -> list[Node]:
    """Tensor arguments, repeated as often as they occur."""
    found: list[Node] = []
    map_arg((node.args, node.kwargs), found.append)
    return found


def _indices(node: Node):
    """For every element of the result (or results) its index among the elements of all arguments, concatenated."""
    start = 0

    def numbered(n: Node) -> torch.Tensor:
        nonlocal start
        shape = _shape(n)
        count = torch.Size(shape).numel()
        start += count
        return torch.arange(start - count, start).reshape(shape)

    return node.target(*map_arg(node.args, numbered), **map_arg(node.kwargs, numbered))


def _moved(found: Division, node: Node, labels: torch.Tensor, depth: int, indices=None,
           source: Node | None = None) -> bool:
    source = source or node
    indices = (_indices(source) if indices is None else indices).flatten()
    tensors = _tensors(source)
    sizes = [torch.Size(_shape(n)).numel() for n in tensors]
    above = torch.zeros(sum(sizes), dtype=torch.int64)
    above[indices] = labels.flatten()
    found.ties.tie(above[indices], labels.flatten())  # an element that is copied several times gets one label
    found.edges |= {(source, n) for n in tensors}
    for n, piece in zip(tensors, above.split(sizes), strict=True):
        if _leaf(found, source, n, piece.reshape(_shape(n))):
            continue
        _push(found, n, piece.reshape(_shape(n)), depth)
    return True


def _leaf(found: Division, user: Node, constant: Node, labels: torch.Tensor) -> bool:
    """Divides a constant for this reader only; False unless it is a direct argument, used once."""
    if constant.op != "get_attr" or user.target is operator.getitem or constant not in user.args:
        return False
    if constant.meta["val"].dtype != torch.float32 or sum(a is constant for a in _tensors(user)) > 1:
        return False
    _edit(found, user, user.args.index(constant), labels)
    return True


def _edit(found: Division, node: Node, position: int, labels: torch.Tensor) -> None:
    if labels.any():
        found.edits[node, position] = labels.clone()


def _item(found: Division, node: Node, labels: torch.Tensor, depth: int) -> bool:
    source, i = node.args
    kind = getattr(source.target, "overloadpacket", None)
    if kind in _TUPLES and _moves(source):
        return _moved(found, node, labels, depth, _indices(source)[i], source)
    if source.target is _ATEN._native_batch_norm_legit_no_training.default and i == 0:
        return _affine(found, source, _along(found, labels, 1), (1, 2))
    return False


# Ops that are linear in an argument, or homogeneous for positive factors


def _along(found: Division, labels: torch.Tensor, *dims: int) -> torch.Tensor:
    """Labels along these dimensions; over all other dimensions they are tied together."""
    dims = tuple(d % labels.dim() for d in dims)
    moved = labels.permute(*dims, *(d for d in range(labels.dim()) if d not in dims))
    flat = moved.reshape(*moved.shape[:len(dims)], math.prod(moved.shape[len(dims):]))  # [...,1] if there are no others
    found.ties.tie(flat, flat[..., :1])
    return flat[..., 0]


def _spread(found: Division, labels: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Labels of a result, reduced to the shape of an argument that broadcasts to it."""
    wide = (1,) * (labels.dim() - len(shape)) + shape
    for d, size in enumerate(wide):
        if size == 1 and labels.shape[d] > 1:
            found.ties.tie(labels, labels.narrow(d, 0, 1))
            labels = labels.narrow(d, 0, 1)
    return labels.reshape(shape)


def _into(found: Division, node: Node, operand: Node, labels: torch.Tensor, depth: int) -> None:
    """Continues with an operand; `labels` have its shape."""
    found.edges.add((node, operand))
    if not _leaf(found, node, operand, labels):
        _push(found, operand, labels, depth)


def _best(found: Division, ways: list[Callable[[Division], None]]) -> bool:
    """Takes the alternative that leaves most channels free; the first one if equal."""
    before, best = found.free(), None
    for way in ways:
        tried = found.copy()
        way(tried)
        if best is None or tried.free() > best.free():
            best = tried
        if best.free() == before:
            break
    if best is None:
        return False
    found.ties, found.edits, found.labels, found.edges, found.why = (
        best.ties, best.edits, best.labels, best.edges, best.why)
    return True


def _factor(found: Division, node: Node, labels: torch.Tensor, depth: int) -> bool:
    """mul: divides one factor; div: divides the numerator."""
    operands = [a for a in node.args[:2] if isinstance(a, Node)]
    if (len(operands) == 2 and operands[0] is operands[1]) or len(node.args) > 2 or node.kwargs:
        return False
    if node.target in (_ATEN.div.Tensor, _ATEN.div.Scalar):
        operands = [node.args[0]] if isinstance(node.args[0], Node) else []
    operands.sort(key=lambda n: n.op != "get_attr")

    def way(operand: Node) -> Callable[[Division], None]:
        return lambda state: _into(state, node, operand, _spread(state, labels, _shape(operand)), depth)

    return _best(found, [way(n) for n in operands if n.meta["val"].dtype == torch.float32])


def _sum(found: Division, node: Node, labels: torch.Tensor, depth: int) -> bool:
    """add, sub: divides all terms."""
    if not all(isinstance(a, Node) for a in node.args[:2]):
        return False
    for operand in node.args[:2]:
        _into(found, node, operand, _spread(found, labels, _shape(operand)), depth)
    return True


def _homogeneous(found: Division, node: Node, labels: torch.Tensor, depth: int) -> bool:
    _into(found, node, node.args[0], labels, depth)
    return True


def _rows(found: Division, node: Node, labels: torch.Tensor, depth: int) -> bool:
    """linear, convolution: divides rows of the weight and of the bias."""
    weight, bias = node.args[1], node.args[2] if len(node.args) > 2 else None
    if node.kwargs or any(isinstance(c, Node) and c.op != "get_attr" for c in (weight, bias)):
        return False
    channels = _along(found, labels, -1 if node.target is _ATEN.linear.default else 1)
    wide = channels.reshape(-1, *[1] * (len(_shape(weight)) - 1)).expand(_shape(weight))
    _edit(found, node, 1, wide)
    if bias is not None:
        _edit(found, node, 2, channels)
    return True


def _norm(found: Division, node: Node, labels: torch.Tensor, depth: int) -> bool:
    """layer_norm(x, shape, weight, bias), rms_norm(x, shape, weight)."""
    dims = range(-len(node.args[1]), 0)
    positions = (2, 3) if node.target is _ATEN.layer_norm.default else (2,)
    return not node.kwargs and _affine(found, node, _along(found, labels, *dims), positions)


def _affine(found: Division, node: Node, labels: torch.Tensor, positions: tuple[int, ...]) -> bool:
    constants = [node.args[p] if p < len(node.args) else None for p in positions]
    if any(c is not None and (c.op != "get_attr" or _shape(c) != tuple(labels.shape)) for c in constants):
        return False
    if constants[0] is None and any(c is not None for c in constants[1:]):
        return False
    for position, constant in zip(positions, constants, strict=True):
        if constant is not None or position == positions[0]:
            _edit(found, node, position, labels)
    return True


def _attention(found: Division, node: Node, labels: torch.Tensor, depth: int) -> bool:
    """softmax(q k) v: divides the columns of v, shared by the heads that read them."""
    query, key, value = node.args[:3]
    if value in (query, key):
        return False
    per_head = _along(found, labels, *(d for d in range(labels.dim()) if d != labels.dim() - 2)).unsqueeze(-2)
    heads, shape = per_head.shape[-3] if per_head.dim() > 2 else 1, _shape(value)
    if len(shape) != labels.dim():
        return False
    if len(shape) > 2 and shape[-3] not in (1, heads):  # grouped queries
        grouped = per_head.unflatten(-3, (shape[-3], -1))
        found.ties.tie(grouped, grouped.narrow(-3, 0, 1))
        per_head = grouped.select(-3, 0)
    _into(found, node, value, _spread(found, per_head, (*shape[:-2], 1, shape[-1])).expand(shape), depth)
    return True


def _product(found: Division, node: Node, labels: torch.Tensor, depth: int) -> bool:
    """a @ b: divides the columns of b or the rows of a."""
    a, b = node.args
    if a is b or min(len(_shape(a)), len(_shape(b))) < 2:
        return False

    def columns(state: Division) -> None:
        shape = _shape(b)
        part = _spread(state, labels, (*labels.shape[:-2], 1, shape[-1]))
        _into(state, node, b, _spread(state, part, (*shape[:-2], 1, shape[-1])).expand(shape), depth)

    def rows(state: Division) -> None:
        shape = _shape(a)
        part = _spread(state, labels, (*labels.shape[:-1], 1))
        _into(state, node, a, _spread(state, part, (*shape[:-1], 1)).expand(shape), depth)

    return _best(found, [columns, rows])


_RULES = dict.fromkeys(_MOVES - _TUPLES, lambda f, n, labels, d: _moves(n) and _moved(f, n, labels, d)) | {
    operator.getitem: _item, _ATEN.mul: _factor, _ATEN.div: _factor, _ATEN.add: _sum, _ATEN.sub: _sum,
    _ATEN.relu: _homogeneous, _ATEN.neg: _homogeneous, _ATEN.linear: _rows, _ATEN.conv1d: _rows, _ATEN.conv2d: _rows,
    _ATEN.layer_norm: _norm, _ATEN.rms_norm: _norm, _ATEN.scaled_dot_product_attention: _attention,
    _ATEN.matmul: _product, _ATEN.bmm: _product}
