"""A part of a value that depends on fewer sources than all of it is computed from what it depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlacompile.compiler.passes.rules.regions import Region, Regions, operands_of, whole_of

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class SliceBeforePointwise(GraphPass):
    """slice(f(x, y)) becomes f(slice(x), slice(y)) where f acts on each element alone, or is a cumulative sum of which
    the beginning is read, and the result then depends on fewer sources: the mask and the positions among tokens of a
    fixed text do not depend on the padding of what follows it, so that its keys and values are constants.

    Before:
        %words = source "words" bool[1,3]
        %fixed = weight "fixed" bool[1,2]
        %causal = weight "causal" bool[5,5]
        %cat = cat([%fixed, %words], 1) bool[1,5]
        %and_1 = bitwise_and.Tensor(%causal, %cat) bool[5,5]
        %slice_1 = slice.Tensor(%and_1, 1, 0, 2) bool[5,2]
        return action=%slice_1
    After:
        %words = source "words" bool[1,3]
        %fixed = weight "fixed" bool[1,2]
        %causal = weight "causal" bool[5,5]
        %slice_1 = slice.Tensor(%causal, 1, 0, 2) bool[5,2]
        %bitwise_and = bitwise_and.Tensor(%slice_1, %fixed) bool[5,2]
        return action=%bitwise_and
    """

    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    def run(self, program: Program) -> PassResult:
        parts = Regions(program)
        reads = [n for n in program.graph.nodes if n.target is _ATEN.slice.Tensor and parts.depend_on_less(n)]
        if not reads:
            return PassResult(program, False)
        chosen, editor = set(reads), ProgramEditor(program)
        made: dict[tuple[Node, Region], Node] = {}
        for node in program.graph.nodes:
            if node in chosen:
                editor.replace(node, _computed(editor, parts, made, node, whole_of(node)))
            elif node.op != "output":
                editor.keep(node)
        return PassResult(editor.finish(), True, (f"{len(reads)} slices depend on fewer sources",))


def _computed(editor: ProgramEditor, parts: Regions, made: dict[tuple[Node, Region], Node], node: Node,
              region: Region) -> Node:
    """A new node for this part of the value."""
    key = node, region
    if key not in made:
        operands = operands_of(node, region)
        fewer = parts.sources(node, region) < parts.of[node]
        made[key] = _cut(editor, node, region) if operands is None or not fewer else _emitted(
            editor, node, region, {o: _computed(editor, parts, made, o, own) for o, own in operands}
            if node.target is not _ATEN.cat.default else
            [_computed(editor, parts, made, o, own) for o, own in operands])
    return made[key]


def _cut(editor: ProgramEditor, node: Node, region: Region) -> Node:
    new = editor.map(node)
    for axis, ((begin, end), (_, size)) in enumerate(zip(region, whole_of(node), strict=True)):
        if (begin, end) != (0, size):
            new = editor.emit(_ATEN.slice.Tensor, (new, axis, begin, end), like=node)
    return new


def _emitted(editor: ProgramEditor, node: Node, region: Region, operands: Mapping[Node, Node] | list[Node]) -> Node:
    if isinstance(operands, list):
        if len(operands) > 1:
            return editor.emit(node.target, (operands, *node.args[1:]), like=node)
        same = operands[0].meta["val"].dtype == node.meta["val"].dtype
        return operands[0] if same else editor.emit(_ATEN._to_copy.default, (operands[0],),
                                                    {"dtype": node.meta["val"].dtype}, like=node)
    if node.target is _ATEN.slice.Tensor:
        return operands[node.args[0]]
    if node.target is _ATEN.select.int:
        return editor.emit(node.target, (operands[node.args[0]], node.args[1], 0), like=node)
    if node.target is _ATEN.expand.default:
        sizes = [end - begin for begin, end in region]
        return editor.emit(node.target, (operands[node.args[0]], sizes), like=node)
    args, kwargs = (map_arg(a, operands.__getitem__) for a in (node.args, dict(node.kwargs)))
    return editor.emit(node.target, args, kwargs, like=node)
