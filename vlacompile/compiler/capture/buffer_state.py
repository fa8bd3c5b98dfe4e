"""Refuses buffers through which one call of the inference function influences the next: a compiled policy is stateless.

A buffer that is written and then read within the same call is an ordinary value. A buffer is state if the content that
it had before the call reaches an output.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping

import torch
from torch.export.graph_signature import OutputKind
from torch.fx import Node
from torch.fx.node import map_arg

from vlacompile.compiler.capture.functionalise import Trace
from vlacompile.policy.source_lines import line_of
from vlart.errors import CaptureError

_ATEN = torch.ops.aten
KEEP_NOTHING = ("make the state an input and an output of the function, and say that a step takes it from the one "
                'before: Policy(..., carried={"hidden": vlacompile.Carried("hidden.next", '
                "initial=torch.zeros(1, 64))}); earlier observations are Source(history=n)")
# Ops that only move elements: the position in the operands that each element of the result comes from is known.
_MOVES = frozenset({
    _ATEN.view, _ATEN._unsafe_view, _ATEN.reshape, _ATEN.select, _ATEN.slice, _ATEN.permute, _ATEN.transpose, _ATEN.t,
    _ATEN.unsqueeze, _ATEN.squeeze, _ATEN.expand, _ATEN.clone, _ATEN.alias, _ATEN.detach, _ATEN.cat, _ATEN.stack,
    _ATEN.select_scatter, _ATEN.slice_scatter, _ATEN.diagonal, _ATEN.flip, _ATEN.roll, _ATEN.index_put, _ATEN.index,
    _ATEN.index_select, _ATEN.unbind, _ATEN.split, _ATEN.split_with_sizes, _ATEN.chunk, _ATEN.narrow})
_FRESH = frozenset({_ATEN.zeros_like, _ATEN.ones_like, _ATEN.full_like, _ATEN.empty_like, _ATEN.new_zeros,
                    _ATEN.new_ones,
                    _ATEN.new_full, _ATEN.new_empty, _ATEN.zero})
# Ops that fill known places with one number.
_FILLS_PLACES = frozenset({_ATEN.masked_fill, _ATEN.index_fill})
_INDICES = frozenset({torch.int64, torch.int32})


def require_no_state(policy: str, trace: Trace, held: Mapping[Node, torch.Tensor]) -> None:
    """Raises CaptureError if the content that a buffer had before the call reaches an output."""
    signature, output = trace.signature, trace.graph.output_node()
    written = {s.target: n for n, s in zip(output.args[0], signature.output_specs, strict=True)
               if s.kind is OutputKind.BUFFER_MUTATION}
    if not written:
        return
    returned = [n for n, s in zip(output.args[0], signature.output_specs, strict=True)
                if s.kind is OutputKind.USER_OUTPUT]
    names = {s.arg.name: s.target for s in signature.input_specs if s.target in written}
    for node in [n for n in trace.graph.nodes if n.op == "placeholder" and n.name in names]:
        old = _Old(node, held)
        if any(old.reaches(n) for n in returned):
            buffer = names[node.name]
            raise CaptureError(
                f'the inference function keeps state: buffer "{buffer}" is read before this call writes it',
                where=f'Policy "{policy}", {line_of(written[buffer])}',
                why="what one call leaves in the buffer changes what the next one returns; "
                    "a bundle keeps nothing between calls",
                fix=KEEP_NOTHING)


class _Old:
    """Tracks which elements of each value come from the content that a buffer had before the call."""

    def __init__(self, buffer: Node, held: Mapping[Node, torch.Tensor]):
        self.held, self.found = held, {buffer: torch.ones(tuple(buffer.meta["val"].shape), dtype=torch.bool)}

    def reaches(self, node: Node) -> bool:
        for n in node.graph.nodes:
            if n not in self.found:
                self.found[n] = self._of(n)
        return self._any(self.found[node])

    def _any(self, of) -> bool:
        return any(self._any(x) for x in of) if isinstance(of, (list, tuple)) else bool(of.any())

    def _of(self, node: Node):
        """bool[shape of the value]; a tuple of such masks for an op with several results."""
        val = node.meta.get("val")
        touched = any(self._any(self.found[i]) for i in node.all_input_nodes)
        packet = getattr(node.target, "overloadpacket", None)
        if not touched or packet in _FRESH:
            return _marks(val, False)
        if packet is _ATEN.copy or packet is _ATEN.fill:  # the old content is overwritten
            source = node.args[1]
            return self.found[source].expand(tuple(val.shape)) if isinstance(source, Node) else _marks(val, False)
        if packet in _FILLS_PLACES and node.args[-2] in self.held:
            value = self._any(self.found[node.args[-1]]) if isinstance(node.args[-1], Node) else False
            return node.target(self.found[node.args[0]], *node.args[1:-2], self.held[node.args[-2]],
                               torch.tensor(value) if isinstance(node.args[-1], Node) else value)
        if packet in _MOVES and self._fixed_places(node):
            moved = lambda n: self.held[n] if n in self.held and n.meta["val"].dtype in _INDICES else self.found[n]
            return node.target(*map_arg(node.args, moved))
        if node.target is operator.getitem:
            return self.found[node.args[0]][node.args[1]]
        return _marks(val, True)

    def _fixed_places(self, node: Node) -> bool:
        """Whether the positions of elements are independent of the inputs: all index operands are constants."""
        indexed = getattr(node.target, "overloadpacket", None) in (_ATEN.index, _ATEN.index_put, _ATEN.index_select)
        return not indexed or all(i in self.held or i.meta["val"].dtype not in _INDICES for i in node.all_input_nodes)


def _marks(val, touched: bool):
    if isinstance(val, torch.Tensor):
        return torch.full(tuple(val.shape), touched)
    return tuple(_marks(v, touched) for v in val) if isinstance(val, (list, tuple)) else torch.tensor(touched)
