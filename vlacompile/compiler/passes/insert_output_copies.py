"""Gives every output of the policy a value that a stage computes for it alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.invariants import DISTINCT_OUTPUTS
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlart.errors import StagingError

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class InsertOutputCopies(GraphPass):
    """An output that is a source, or the same value as another output, is copied. One that depends on no source is
    handed out by the stage of a source: it reads the shape of that source, and nothing else of it. So is what the next
    step takes where it depends on nothing that is carried: it is made anew by every step. A number without dimensions
    is handed out as [1]. The last pass: others would take the copies away again.

    Before:
        %x = source "x" f32[1,4]
        return action=%x
    After:
        %x = source "x" f32[1,4]
        %clone = clone(%x) f32[1,4]
        return action=%clone
    """

    ensures = frozenset({DISTINCT_OUTPUTS})
    may_change = frozenset({Effect.OUTPUT_TYPES, Effect.MORE_DEPENDENCIES})

    def run(self, program: Program) -> PassResult:
        outputs, depends = program.output_nodes(), dependencies(program)
        self._require_own_backbones(program)
        again = [n for i, n in enumerate(outputs) if n in outputs[:i]]
        still = self._not_made_by_every_step(program, depends)
        if not again and not still and all(n.op == "call_function" and depends[n] and n.meta["val"].dim()
                                           for n in outputs):
            return PassResult(program, False)
        editor, own = ProgramEditor(program), {}
        for node in program.graph.nodes:
            if node.op != "output":
                editor.keep(node)
        for i, node in enumerate(outputs):
            if i in still:
                own[i] = self._handed_out(editor, node, still[i])
            elif not depends[node]:
                own[i] = self._handed_out(editor, node, self._fastest(program))
            elif node.op == "placeholder" or node in outputs[:i]:
                own[i] = editor.emit(_ATEN.clone.default, (editor.map(node),), like=node)
            if not node.meta["val"].dim():
                own[i] = editor.emit(_ATEN.reshape.default, (own.get(i) or editor.map(node), [1]), like=node)
        return PassResult(self._finish(editor, own), True, (f"copied {len(own)} outputs",))

    def _require_own_backbones(self, program: Program) -> None:
        of: dict[Node, str] = {}
        for name, node in zip(program.outputs, program.output_nodes(), strict=True):
            if name in program.backbones.values() and of.setdefault(node, name) != name:
                raise StagingError(f'"{of[node]}" and "{name}" are the same value', where=f'policy "{program.name}"',
                                   why="all that leads to them is equal: it is one backbone twice",
                                   fix="leave one of them out")

    def _not_made_by_every_step(self, program: Program, depends: Mapping[Node, frozenset[str]]) -> dict[int, Node]:
        """{number of such an output that the next step takes: the input that takes it}"""
        places, carried = program.placeholders(), program.carried
        takes = {s.next: places[name] for name, s in carried.items()}
        outputs = zip(program.outputs, program.output_nodes(), strict=True)
        return {i: takes[name] for i, (name, node) in enumerate(outputs)
                if name in takes and depends[node].isdisjoint(carried)}

    def _fastest(self, program: Program) -> Node:
        sources = [n for n in program.graph.nodes if n.op == "placeholder"]
        observed = (n for n in sources if program.sources[program.inputs[n.name]].update == "observation")
        return next(observed, sources[0])

    def _handed_out(self, editor: ProgramEditor, node: Node, source: Node) -> Node:
        """By a stage of this source."""
        val, new = node.meta["val"], editor.map(node)
        nothing = editor.emit(_ATEN.new_zeros.default, (editor.map(source), list(val.shape)), {"dtype": val.dtype},
                              like=node)
        join = _ATEN.logical_or.default if val.dtype is torch.bool else _ATEN.add.Tensor
        return editor.emit(join, (new, nothing), like=node)

    def _finish(self, editor: ProgramEditor, own: dict[int, Node]) -> Program:
        outputs = [own.get(i) or editor.map(n) for i, n in enumerate(editor.program.output_nodes())]
        return editor.finish(tuple(outputs))
