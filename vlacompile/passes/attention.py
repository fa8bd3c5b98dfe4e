"""An attention as a pattern of ops, and which keys its mask hides whatever the inputs are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from vlacompile.capture.ops import is_pointwise, is_random
from vlacompile.capture.program import Program, ProgramEditor
from vlacompile.staging.stages import fold

_ATEN = torch.ops.aten
_SCALES = frozenset({_ATEN.mul.Tensor, _ATEN.div.Tensor, _ATEN.mul.Scalar, _ATEN.div.Scalar})
_CASTS = frozenset({_ATEN._to_copy.default, _ATEN.clone.default})
_SOFTMAX = frozenset({_ATEN.softmax.int, _ATEN._softmax.default})
_ANDS = frozenset({_ATEN.logical_and.default, _ATEN.bitwise_and.Tensor, _ATEN.__and__.Tensor})
_WHERES = frozenset({_ATEN.where.self, _ATEN.where.ScalarOther, _ATEN.where.ScalarSelf, _ATEN.where.Scalar})
HIDDEN = -1e30  # a score of this or less has the probability 0 beside any other


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
            operand = lambda n: new[n] if n in new else editor.map(n)  # noqa: E731
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
        node = node.args[0]
    return node.op == "call_function" and node.target is _ATEN.matmul.default


def visible_keys(program: Program, mask: Node | None, rows: tuple[int, int], sizes: list[int]) -> list[int]:
    """Of key parts of these sizes, those that some query of `rows` may see. All, where that is not certain."""
    if mask is None:
        return list(range(len(sizes)))
    begin, seen = 0, []
    for j, size in enumerate(sizes):
        block = known_block(program, mask, rows, (begin, begin + size))
        hidden = block is not None and (not bool(block.any()) if block.dtype == torch.bool else bool((block <= HIDDEN).all()))
        if not hidden:
            seen.append(j)
        begin += size
    return seen or list(range(len(sizes)))  # a row that sees nothing at all keeps what it has


def known_block(program: Program, node: Node, rows: tuple[int, int], columns: tuple[int, int]) -> torch.Tensor | None:
    """Rows and columns (of the last two dimensions; one of size 1 is read whole) of a value, where no input decides
    them."""
    value = node.meta["val"]
    if _depends_on_nothing(node):
        whole = program.constants[node.target] if node.op == "get_attr" else fold(program, frozenset({node}))[node]
        return _cut(whole, rows, columns)
    if node.op != "call_function":
        return None
    rank = value.dim()
    if node.target is _ATEN.cat.default:
        return _of_concatenation(program, node, rows, columns)
    if node.target is _ATEN.unsqueeze.default and node.args[1] % rank < rank - 2:
        return known_block(program, node.args[0], rows, columns)
    if node.target is _ATEN.slice.Tensor:
        return _of_slice(program, node, rows, columns)
    if node.target is _ATEN.expand.default or node.target in _CASTS:
        block = known_block(program, node.args[0], rows, columns)
        if block is None or node.target is _ATEN.expand.default:
            return block
        return node.target(block, **node.kwargs)
    elementwise = (is_pointwise(node) and not is_random(node)) or node.target in _ANDS | _WHERES
    return _of_elementwise(program, node, rows, columns) if elementwise else None


def _depends_on_nothing(node: Node) -> bool:
    stack, seen = [node], set()
    while stack:
        n = stack.pop()
        if n.op == "placeholder":
            return False
        if n not in seen:
            seen.add(n)
            stack.extend(n.all_input_nodes)
    return True


def _cut(tensor: torch.Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> torch.Tensor:
    for axis, (begin, end) in ((-1, columns), (-2, rows)):
        if tensor.dim() >= -axis and tensor.shape[axis] > 1:
            tensor = tensor.narrow(axis, begin, end - begin)
    return tensor


def _of_concatenation(program: Program, node: Node, rows: tuple[int, int], columns: tuple[int, int]) -> torch.Tensor | None:
    rank = node.meta["val"].dim()
    axis, begin = (node.args[1] if len(node.args) > 1 else 0) % rank - rank, 0
    if axis < -2:
        return None
    wanted = columns if axis == -1 else rows
    for part in node.args[0]:
        end = begin + part.meta["val"].shape[axis]
        if begin <= wanted[0] and wanted[1] <= end:
            inside = (wanted[0] - begin, wanted[1] - begin)
            return known_block(program, part, *((rows, inside) if axis == -1 else (inside, columns)))
        begin = end
    return None  # it lies across parts


def _of_slice(program: Program, node: Node, rows: tuple[int, int], columns: tuple[int, int]) -> torch.Tensor | None:
    source = node.args[0]
    rank = source.meta["val"].dim()
    axis, start, end, step = (*node.args[1:], *(0, None, None, 1)[len(node.args) - 1:])
    first, _, step = slice(start, end, step).indices(source.meta["val"].shape[axis % rank])
    if step != 1:
        return None
    axis = axis % rank - rank
    move = lambda span: (span[0] + first, span[1] + first)  # noqa: E731
    if axis == -1:
        return known_block(program, source, rows, move(columns))
    return known_block(program, source, move(rows) if axis == -2 else rows, columns)


def _of_elementwise(program: Program, node: Node, rows: tuple[int, int], columns: tuple[int, int]) -> torch.Tensor | None:
    """Of an op on blocks; what is false stays so whatever it is combined with by `and`, and where() may need one side."""
    blocks = {n: known_block(program, n, rows, columns) for n in node.all_input_nodes}
    if node.target in _ANDS or (
            node.target is _ATEN.mul.Tensor and node.meta["val"].dtype == torch.bool):
        false = next((b for b in blocks.values() if b is not None and not bool(b.any())), None)
        if false is not None:
            return false.to(torch.bool)
    if node.target in _WHERES:
        condition = blocks[node.args[0]]
        if condition is not None and (bool(condition.all()) or not bool(condition.any())):
            side = node.args[1] if bool(condition.all()) else node.args[2]
            block = blocks[side] if isinstance(side, Node) else torch.tensor(float(side))
            return None if block is None else block.expand(torch.broadcast_shapes(block.shape, condition.shape))
    if any(b is None for b in blocks.values()):
        return None
    with torch.no_grad():
        return node.target(*map_arg(node.args, blocks.__getitem__), **map_arg(node.kwargs, blocks.__getitem__))
