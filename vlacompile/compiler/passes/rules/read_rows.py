"""Which rows of its operands an op needs, of whose result only some rows are read, and how it is emitted on these.

Owns one rule per kind of op. More rows than are read may be computed; fewer never. Must not know why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from vlacompile.compiler.graph.ops import is_pointwise, is_random
from vlacompile.compiler.graph.program import ProgramEditor
from vlacompile.compiler.graph.rolled_loop import FUSED
from vlacompile.compiler.passes.rules.constant_reads import read_of, reads_rows, row_index
from vlacompile.compiler.passes.rules.visible_keys import Known, may_be_true, may_see

_ATEN = torch.ops.aten
Rows = Mapping[int, tuple[int, ...]]  # {axis: rows that are read, rising}; other axes are read whole


@dataclass(frozen=True)
class Need:
    """result: the rows that are computed. operands: what of each is needed. emit: (editor, operands) -> the op on
    these."""

    result: Rows
    operands: tuple[tuple[Node, Rows], ...]
    emit: Callable[[ProgramEditor, list[Node]], Node]


def need_of(node: Node, rows: Rows, known: Known) -> Need:
    """Of a node of which these rows are read."""
    plain = isinstance(node.target, torch._ops.OpOverload) and FUSED not in node.meta and not is_random(node)
    if not plain or not isinstance(node.meta["val"], torch.Tensor):
        return _same(node, {}, lambda n: {})
    if reads_rows(node.target):
        found = _read(node, rows, known)
    elif node.target.overloadpacket in _RULES:
        found = _RULES[node.target.overloadpacket](node, rows, known)
    else:
        found = _pointwise(node, rows) if is_pointwise(node) else None
    return _same(node, {}, lambda n: {}) if found is None else found


def narrowed(editor: ProgramEditor, value: Node, axis: int, positions: list[int]) -> Node:
    """These rows of a node of the new graph."""
    size = value.meta["val"].shape[axis]
    if positions == list(range(size)):
        return value
    first = positions[0]
    if positions == list(range(first, first + len(positions))):
        return editor.emit(_ATEN.slice.Tensor, (value, axis, first, first + len(positions)))
    return editor.emit(_ATEN.index_select.default, (value, axis, row_index(editor, tuple(positions))))


def fewer(rows: Rows, shape: tuple[int, ...]) -> Rows:
    """Without axes of which every row is read."""
    return {a: r for a, r in rows.items() if len(r) < shape[a]}


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _same(node: Node, rows: Rows, of: Callable[[Node], Rows]) -> Need:
    """The op as it is on what is read of its operands. of: operand -> its rows."""
    inputs = node.all_input_nodes
    return Need(rows, tuple((n, of(n)) for n in inputs), lambda editor, new: editor.emit(
        node.target, *_mapped(node, dict(zip(inputs, new, strict=True))), like=node))


def _mapped(node: Node, new: Mapping[Node, Node]) -> tuple[tuple, dict]:
    return map_arg(node.args, new.__getitem__), map_arg(dict(node.kwargs), new.__getitem__)


def _pointwise(node: Node, rows: Rows) -> Need:
    """Operands are aligned at their last dimension; one of size 1 there is the same for all rows."""
    rank = node.meta["val"].dim()

    def of(operand: Node) -> Rows:
        shape = _shape(operand)
        behind = rank - len(shape)
        return {a - behind: r for a, r in rows.items() if a >= behind and shape[a - behind] > 1}

    return _same(node, rows, of)


def _rowwise(inner: Callable[[Node], int]):
    """Acts on the last `inner` dimensions of its first operand, and on every row before them alike."""

    def rule(node: Node, rows: Rows, _: Known) -> Need | None:
        first = node.args[0]
        if node.all_input_nodes.count(first) != 1 or any(n is first for n in node.args[1:] if isinstance(n, Node)):
            return None
        outer = node.meta["val"].dim() - inner(node)
        rows = {a: r for a, r in rows.items() if a < outer}
        return _same(node, rows, lambda n: rows if n is first else {})

    return rule


def _softmax(node: Node, rows: Rows, _: Known) -> Need:
    dim = node.args[1] % node.meta["val"].dim()
    rows = {a: r for a, r in rows.items() if a != dim}
    return _same(node, rows, lambda n: rows)


def _matmul(node: Node, rows: Rows, _: Known) -> Need | None:
    a, b = node.args
    rank = node.meta["val"].dim()
    if a is b or not a.meta["val"].dim() == b.meta["val"].dim() == rank:
        return None
    outer = {d: r for d, r in rows.items() if d < rank - 2}
    left = {d: r for d, r in outer.items() if _shape(a)[d] > 1} | {d: r for d, r in rows.items() if d == rank - 2}
    right = {d: r for d, r in outer.items() if _shape(b)[d] > 1} | {d: r for d, r in rows.items() if d == rank - 1}
    return _same(node, rows, lambda n: left if n is a else right)


def _read(node: Node, rows: Rows, known: Known) -> Need | None:
    source = node.args[0]
    index = [n for n in node.all_input_nodes if n is not source]
    read = read_of(node.target, node.args, _shape(source), lambda i: known(i) if i.meta["val"].dim() == 1 else None)
    if read is None or not read.indices or node.kwargs:
        return None
    after = {a + (read.picked and a >= read.axis): r for a, r in rows.items()}
    wanted = [read.indices[i] for i in after.pop(read.axis, range(len(read.indices)))]
    kept = tuple(sorted(set(wanted)))
    positions = [kept.index(i) for i in wanted]

    def emit(editor: ProgramEditor, new: list[Node]) -> Node:
        if read.picked:
            return editor.emit(_ATEN.select.int, (new[0], read.axis, positions[0]), like=node)
        return narrowed(editor, new[0], read.axis, positions)

    operands = ((source, fewer({**after, read.axis: kept}, _shape(source))), *((n, {}) for n in index))
    return Need(rows, operands, emit)


def _cat(node: Node, rows: Rows, _: Known) -> Need | None:
    parts = node.args[0]
    rank = node.meta["val"].dim()
    axis = (node.args[1] if len(node.args) > 1 else 0) % rank
    if any(p.meta["val"].dim() != rank or p.meta["val"].dtype != node.meta["val"].dtype for p in parts):
        return None
    others = {a: r for a, r in rows.items() if a != axis}
    read, begin = [], 0
    for part in parts:
        size = _shape(part)[axis]
        own = rows.get(axis)
        local = tuple(range(size)) if own is None else tuple(i - begin for i in own if begin <= i < begin + size)
        if local:
            read.append((part, fewer({**others, axis: local}, _shape(part))))
        begin += size
    return Need(rows, tuple(read), lambda editor, new: new[0] if len(new) == 1 else editor.emit(
        _ATEN.cat.default, (new, axis), like=node))


def _permute(node: Node, rows: Rows, _: Known) -> Need:
    rank = node.meta["val"].dim()
    order = list(range(rank))
    if node.target is _ATEN.permute.default:
        order = [d % rank for d in node.args[1]]
    else:
        a, b = (d % rank for d in node.args[1:3])
        order[a], order[b] = order[b], order[a]
    return _same(node, rows, lambda n: {order[a]: r for a, r in rows.items()})


def _unsqueeze(node: Node, rows: Rows, _: Known) -> Need:
    axis = node.args[1] % node.meta["val"].dim()
    return _same(node, rows, lambda n: {a - (a > axis): r for a, r in rows.items()})


def _expand(node: Node, rows: Rows, _: Known) -> Need:
    source, shape = node.args[0], list(_shape(node))
    behind = len(shape) - source.meta["val"].dim()
    for a, r in rows.items():
        shape[a] = len(r)
    own = {a - behind: r for a, r in rows.items() if a >= behind and _shape(source)[a - behind] > 1}
    return Need(rows, ((source, own),), lambda editor, new: editor.emit(
        node.target, (new[0], shape, *node.args[2:]), like=node))


def _view(node: Node, rows: Rows, _: Known) -> Need | None:
    """Within a group of neighbouring dimensions that become others, rows are numbered through."""
    source = node.args[0]
    if 0 in _shape(source):
        return None
    own: dict[int, tuple[int, ...]] = {}
    result: dict[int, tuple[int, ...]] = {}
    for inner, outer in _groups(_shape(source), _shape(node)):
        if not any(a in rows for a in outer) or (len(inner) > 1 and len(outer) > 1) or not inner or not outer:
            continue
        sizes = [_shape(node)[a] for a in outer]
        flat = [_number(at, sizes) for at in product(*(rows.get(a, range(s)) for a, s in zip(outer, sizes,
                                                                                             strict=True)))]
        if len(inner) == 1:
            own[inner[0]] = tuple(flat)
            result |= {a: rows[a] for a in outer if a in rows}
            continue
        split = [_shape(source)[a] for a in inner]
        places = [_place(i, split) for i in flat]
        box = [tuple(sorted({p[k] for p in places})) for k in range(len(inner))]
        own |= dict(zip(inner, box, strict=True))
        result[outer[0]] = tuple(_number(at, split) for at in product(*box))
    shape = [len(result[a]) if a in result else s for a, s in enumerate(_shape(node))]
    return Need(fewer(result, _shape(node)), ((source, fewer(own, _shape(source))),), lambda editor, new: editor.emit(
        _ATEN.reshape.default, (new[0], shape), like=node))


def _groups(one: tuple[int, ...], other: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Dimensions of `one` and those of `other` with as many elements, in order; ones of size 1 where they fit."""
    found, i, j = [], 0, 0
    while i < len(one) and j < len(other):
        a, b = [i], [j]
        while (x := math.prod(one[k] for k in a)) != (y := math.prod(other[k] for k in b)):
            if x < y:
                i += 1
                a.append(i)
            else:
                j += 1
                b.append(j)
        found.append((a, b))
        i, j = i + 1, j + 1
    return found


def _number(at: tuple[int, ...], sizes: list[int]) -> int:
    number = 0
    for i, size in zip(at, sizes, strict=True):
        number = number * size + i
    return number


def _place(number: int, sizes: list[int]) -> list[int]:
    at = []
    for size in reversed(sizes):
        number, i = divmod(number, size)
        at.insert(0, i)
    return at


def _attention(node: Node, rows: Rows, known: Known) -> Need | None:
    """Keys that no query that is computed sees have the probability 0: what is read is exact."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    rank, mask = node.meta["val"].dim(), given.get("attn_mask")
    q, k, v = given["query"], given["key"], given["value"]
    if given.get("is_causal") or any(n.meta["val"].dim() != rank for n in (q, k, v)):
        return None
    rows = {a: r for a, r in rows.items() if a < rank - 1}
    outer = {a: r for a, r in rows.items() if a < rank - 2}
    if any(_shape(n)[a] != _shape(node)[a] for a in outer for n in (q, k, v)):
        return None
    seen = None if mask is None else _visible(may_see(node, mask, known), rows.get(rank - 2))
    keys = outer if seen is None else fewer({**outer, rank - 2: seen}, _shape(k))
    operands = [(q, rows), (k, keys), (v, keys)]
    if mask is not None:
        of = dict(rows) | ({rank - 1: keys[rank - 2]} if rank - 2 in keys else {})
        shape, behind = _shape(mask), rank - mask.meta["val"].dim()
        operands.append((mask, {a - behind: r for a, r in of.items() if a >= behind and shape[a - behind] > 1}))
    rest = {n: value for n, value in given.items() if n not in names[:4]}
    return Need(rows, tuple(operands), lambda editor, new: editor.emit(node.target, tuple(new), rest, like=node))


def _any(node: Node, rows: Rows, known: Known) -> Need | None:
    """Over the last dimension; what is false whatever the inputs are makes none true."""
    source, rank = node.args[0], node.meta["val"].dim()
    if len(node.args) < 3 or not node.args[2] or node.args[1] % rank != rank - 1:
        return None
    rows = {a: r for a, r in rows.items() if a < rank - 1}
    seen = _visible(may_be_true(source, known), rows.get(rank - 2))
    of = rows if seen is None else fewer({**rows, rank - 1: seen}, _shape(source))
    return _same(node, rows, lambda n: of)


def _visible(seen: torch.Tensor | None, rows: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Keys that some of these queries may see; None: all, or it is not known."""
    if seen is None or seen.dim() < 2 or seen.shape[-1] == 1:
        return None
    if rows is not None and seen.shape[-2] > 1:
        seen = seen[..., list(rows), :]
    if not bool(seen.any(-1).all()):
        return None  # a row that sees nothing at all keeps what it has
    found = seen.flatten(0, -2).any(0)
    return None if bool(found.all()) else tuple(found.nonzero()[:, 0].tolist())


_RULES: dict[object, Callable[[Node, Rows, Known], Need | None]] = {
    **dict.fromkeys((_ATEN.clone, _ATEN._to_copy), lambda node, rows, known: _pointwise(node, rows)),
    _ATEN.linear: _rowwise(lambda node: 1),
    **dict.fromkeys((_ATEN.layer_norm, _ATEN.rms_norm), _rowwise(lambda node: len(node.args[1]))),
    **dict.fromkeys((_ATEN.softmax, _ATEN._softmax), _softmax),
    _ATEN.any: _any, _ATEN.matmul: _matmul, _ATEN.cat: _cat, _ATEN.transpose: _permute, _ATEN.permute: _permute,
    _ATEN.unsqueeze: _unsqueeze, _ATEN.expand: _expand,
    **dict.fromkeys((_ATEN.view, _ATEN.reshape, _ATEN._unsafe_view), _view),
    _ATEN.scaled_dot_product_attention: _attention,
}
