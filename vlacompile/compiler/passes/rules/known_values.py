"""The content of values that no source reaches."""

from __future__ import annotations

import torch
from torch.fx import Node

from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.fold import fold
from vlacompile.compiler.graph.program import Program

_MOST = 1 << 24  # elements of a constant that is looked at


class KnownValues:
    """Called with a node of `program`; computed when it is first asked for."""

    def __init__(self, program: Program):
        self._program, self._deps = program, dependencies(program)
        self._found: dict[Node, torch.Tensor | None] = {}

    def __call__(self, node: Node) -> torch.Tensor | None:
        """None: a source reaches it, or it is too large, or its content is not there."""
        if node not in self._found:
            self._found[node] = None
            if not self._deps[node] and node.meta["val"].numel() <= _MOST:
                held = node.op == "get_attr"
                value = self._program.constants[node.target] if held else fold(self._program, frozenset({node}))[node]
                self._found[node] = None if value.is_meta else value
        return self._found[node]
