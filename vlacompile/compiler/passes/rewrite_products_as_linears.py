"""A matrix product with a weight is a Linear, however it was written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch.fx import Node

from vlacompile.compiler.graph.fold import fold
from vlacompile.compiler.graph.ops import is_random
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.graph.rolled_loop import RolledLoop
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult

_ATEN = torch.ops.aten
_PRODUCTS = (_ATEN.matmul.default, _ATEN.mm.default, _ATEN.bmm.default)
_TURNED = (_ATEN.t.default, _ATEN.transpose.int, _ATEN.permute.default)


@dataclass(frozen=True)
class RewriteProductsAsLinears(GraphPass):
    """matmul(x, w) + b becomes linear(x, w turned, b) where w and b follow from weights alone, as the weights of one of
    several robots do: what other passes and the quantisation do with a Linear, they then do here too. Only where no
    batch of w is multiplied, and where w is not needed as it was beside. The order of sums is the engine's.

    Before:
        %x = source "x" f32[1,3,4]
        %w = weight "w" f32[4,5]
        %b = weight "b" f32[5]
        %matmul = matmul(%x, %w) f32[1,3,5]
        %add = add.Tensor(%matmul, %b) f32[1,3,5]
        return action=%add
    After:
        %x = source "x" f32[1,3,4]
        %b = weight "b" f32[5]
        %w__turned = weight "w__turned" f32[5,4]
        %linear = linear(%x, %w__turned, %b) f32[1,3,5]
        return action=%linear
    """

    def run(self, program: Program) -> PassResult:
        weights = _of_weights(program)
        products = {n: found for n in program.graph.nodes if (found := _Product.of(n, weights, program)) is not None}
        products = {n: p for n, p in products.items() if _leaves(p.weight, products)}
        if not products:
            return PassResult(program, False)
        editor, known = ProgramEditor(program), _Known(program, products.values())
        added = {p.sum: n for n, p in products.items() if p.sum is not None}
        notes = []
        for node in program.graph.nodes:
            product = products.get(added.get(node, node))
            if node.op == "output" or (node in products and product.sum is not None):
                continue
            if product is None:
                editor.keep(node)
                continue
            editor.replace(node, editor.emit(_ATEN.linear.default, known.operands(editor, product), like=node))
            notes.append(f"{node.name}: a Linear, {list(product.weight.meta['val'].shape[-2:])}")
        return PassResult(editor.finish(), True, tuple(notes))


@dataclass(frozen=True)
class _Product:
    """x times weight, and the sum with bias, where that is all that is done with the product."""

    x: Node
    weight: Node
    bias: Node | None
    sum: Node | None

    @classmethod
    def of(cls, node: Node, weights: set[Node], program: Program) -> _Product | None:
        if node.op != "call_function" or node.target not in _PRODUCTS:
            return None
        x, weight = node.args
        given, kept = x.meta["val"], weight.meta["val"]
        if weight not in weights or x in weights or not given.is_floating_point():
            return None
        if kept.dim() < 2 or kept.shape[:-2].numel() != 1 or not 2 <= kept.dim() <= max(2, given.dim()):
            return None
        if given.dim() < 2:
            return None
        sums = [u for u in node.users if u.target is _ATEN.add.Tensor and len(u.args) == 2 and not u.kwargs]
        bias = sums[0].args[1] if len(node.users) == 1 and sums and sums[0].args[0] is node else None
        if bias in weights and _is_row(bias, kept.shape[-1]) and bias.meta["val"].dim() <= given.dim():
            return cls(x, weight, bias, sums[0])
        return cls(x, weight, None, None)


def _is_row(node: Node, width: int) -> bool:
    shape = node.meta["val"].shape
    return len(shape) > 0 and shape[-1] == width == shape.numel()


def _of_weights(program: Program) -> set[Node]:
    """Tensors that follow from weights, or parts of them, and constants alone."""
    constant: set[Node] = set()
    found: set[Node] = set()
    for n in program.graph.nodes:
        computed = n.op == "call_function" and not is_random(n) and not isinstance(n.target, RolledLoop)
        if n.op == "get_attr" or (computed and n.all_input_nodes and all(i in constant for i in n.all_input_nodes)):
            constant.add(n)
            weight = n.op == "get_attr" and n.target in program.parameters
            if (weight or any(i in found for i in n.all_input_nodes)) and isinstance(n.meta["val"], torch.Tensor):
                found.add(n)
    return found


def _leaves(weight: Node, products: dict[Node, _Product]) -> bool:
    """Whether a weight in its present form is needed no more, or is the turned form of one that a Linear can read."""
    return _turned(weight) is not None or all(u in products and products[u].weight is weight for u in weight.users)


def _turned(node: Node) -> Node | None:
    """The weight [out,in] of which this is the transpose, and nothing else."""
    if node.op != "call_function" or node.target not in _TURNED or node.args[0].op != "get_attr":
        return None
    inner, rank = node.args[0], node.meta["val"].dim()
    if rank != 2 or (node.target is _ATEN.permute.default and [a % 2 for a in node.args[1]] != [1, 0]):
        return None
    return None if node.target is _ATEN.transpose.int and (node.args[1] - node.args[2]) % 2 == 0 else inner


class _Known:
    """Contents of weights and biases that are computed."""

    def __init__(self, program: Program, products: Iterable[_Product]):
        wanted = {n for p in products for n in (p.weight, p.bias)
                  if n is not None and n.op != "get_attr" and _turned(n) is None}
        self.program, self.values = program, fold(program, frozenset(wanted))

    def operands(self, editor: ProgramEditor, product: _Product) -> tuple[Node, ...]:
        weight, bias = product.weight, product.bias
        inner = _turned(weight)
        made = [editor.map(product.x), editor.map(inner) if inner is not None else editor.weight(
            f"{_name(weight)}__turned", partial(_turned_matrix, self._tensor(weight)))]
        if bias is not None:
            plain = bias.op == "get_attr" and bias.meta["val"].dim() == 1
            made.append(editor.map(bias) if plain else
                        editor.weight(f"{_name(bias)}__flat", partial(torch.flatten, self._tensor(bias))))
        return tuple(made)

    def _tensor(self, node: Node) -> torch.Tensor:
        return self.program.constants[node.target] if node.op == "get_attr" else self.values[node]


def _turned_matrix(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten(0, -2).T.contiguous()


def _name(node: Node) -> str:
    return str(node.target) if node.op == "get_attr" else node.name
