"""Two Linears with nothing between them become one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.invariants import ENGINE_TYPES
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class CollapseLinearChains(GraphPass):
    """linear(linear(x, a), b) becomes linear(x, b @ a) where that takes no more multiplications and nothing but such
    Linears (heads of one trunk) reads the value between. The product of the weights is taken in float64. Exact but for
    rounding.

    Before:
        %x = source "x" f32[1,3]
        %a = weight "a" f32[5,3]
        %b = weight "b" f32[4,5]
        %linear = linear(%x, %a) f32[1,5]
        %linear_1 = linear(%linear, %b) f32[1,4]
        return action=%linear_1
    After:
        %x = source "x" f32[1,3]
        %b__a = weight "b__a" f32[4,3]
        %linear_1 = linear(%x, %b__a) f32[1,4]
        return action=%linear_1
    """

    requires = frozenset({ENGINE_TYPES})

    def run(self, program: Program) -> PassResult:
        chains = _Chains(program)
        editor, notes = ProgramEditor(program), []
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            chain = chains.of(node)
            if chain is None or chain.length == 1:
                editor.keep(node)
                continue
            operands = [editor.map(chain.x), editor.weight(chain.name, lambda c=chain: c.weight)]
            if chain.bias is not None:
                operands.append(editor.weight(f"{chain.name}__bias", lambda c=chain: c.bias))
            editor.replace(node, editor.emit(node.target, tuple(operands), like=node))
            notes.append(f"{node.name}: {chain.length} Linears, now {list(chain.weight.shape)}")
        return PassResult(editor.finish(), True, tuple(notes)) if notes else PassResult(program, False)


@dataclass(frozen=True)
class _Chain:
    """x: input of the first Linear. weight [out,in], bias [out] or None: of all of them together."""

    x: Node
    name: str
    weight: torch.Tensor
    bias: torch.Tensor | None
    length: int


class _Chains:
    def __init__(self, program: Program):
        self.program = program
        self.found: dict[Node, _Chain | None] = {}
        self.products: dict[str, tuple] = {}  # the same chain stands in every iteration of an unrolled loop

    def of(self, node: Node) -> _Chain | None:
        """The longest chain that ends here and pays; None for what is no Linear over weights."""
        if node not in self.found:
            self.found[node] = self._chain(node)
        return self.found[node]

    def _is_link(self, node: Node) -> bool:
        """Whether it is a Linear over weights."""
        return node.op == "call_function" and node.target is _ATEN.linear.default and all(
            a is None or (a.op == "get_attr" and a.target in self.program.parameters) for a in node.args[1:])

    def _chain(self, node: Node) -> _Chain | None:
        if not self._is_link(node):
            return None
        name, x = node.args[1].target, node.args[0]
        bias = node.args[2].target if len(node.args) > 2 and node.args[2] is not None else None
        outer = self.program.constants[name]
        own = None if bias is None else self.program.constants[bias]
        before = self.of(x) if all(map(self._is_link, x.users)) else None
        if before is None or not _pays(sum(self._outputs(u) for u in x.users), before.weight):
            return _Chain(x, name, outer, own, 1)
        joined = f"{name}__{before.name}"
        if joined not in self.products:
            self.products[joined] = _product(outer, own, before)
        return _Chain(before.x, joined, *self.products[joined], before.length + 1)

    def _outputs(self, node: Node) -> int:
        return self.program.constants[node.args[1].target].shape[0]


def _pays(out: int, inner: torch.Tensor) -> bool:
    """out: numbers that are computed of what the inner ones give."""
    between, wide = inner.shape
    return out * wide <= between * (out + wide)


def _product(outer: torch.Tensor, own: torch.Tensor | None, before: _Chain) -> tuple[torch.Tensor, torch.Tensor | None]:
    weight = (outer.double() @ before.weight.double()).to(outer.dtype)
    if before.bias is None:
        return weight, own
    passed = outer.double() @ before.bias.double()
    return weight, (passed if own is None else passed + own.double()).to(outer.dtype)
