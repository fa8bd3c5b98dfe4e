"""Unrolls recurrent layers over time."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.invariants import RECURRENCES_UNROLLED, RECURRENT_CELLS, is_unrollable
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlacompile.compiler.passes.rules.inline_graph import Parts

_ATEN = torch.ops.aten
_KINDS = {_ATEN.lstm.input: "lstm", _ATEN.lstm_cell.default: "lstm",
          _ATEN.gru.input: "gru", _ATEN.gru_cell.default: "gru",
          _ATEN.rnn_tanh.input: "tanh", _ATEN.rnn_tanh_cell.default: "tanh",
          _ATEN.rnn_relu.input: "relu", _ATEN.rnn_relu_cell.default: "relu"}


@dataclass(frozen=True)
class UnrollRecurrences(GraphPass):
    """A recurrent layer or cell (LSTM, GRU, RNN) becomes products, sums and activations per time step, all of which
    read the same weights; the products with the inputs are one for all steps. So whatever is done to linear layers is
    done to it.

    Before:
        %x = source "x" f32[1,2]
        %h = source "h" f32[1,3]
        %w_ih = weight "w_ih" f32[3,2]
        %w_hh = weight "w_hh" f32[3,3]
        %rnn_tanh_cell = rnn_tanh_cell(%x, %h, %w_ih, %w_hh) f32[1,3]
        return action=%rnn_tanh_cell
    After:
        %x = source "x" f32[1,2]
        %h = source "h" f32[1,3]
        %w_ih = weight "w_ih" f32[3,2]
        %w_hh = weight "w_hh" f32[3,3]
        %linear = linear(%x, %w_ih, None) f32[1,3]
        %linear_1 = linear(%h, %w_hh, None) f32[1,3]
        %add = add.Tensor(%linear, %linear_1) f32[1,3]
        %tanh = tanh(%add) f32[1,3]
        return action=%tanh
    """

    ensures = frozenset({RECURRENCES_UNROLLED})
    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    def run(self, program: Program) -> PassResult:
        editor, count = ProgramEditor(program), 0
        parts = Parts(editor)
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            if parts.is_part(node):
                parts.take(node)
            elif not is_unrollable(node):
                editor.keep(node)
            else:
                unrolled = _Unroller(editor, node)
                parts.replace(node, unrolled.cell() if node.target in RECURRENT_CELLS else unrolled.layers())
                count += 1
        if not count:
            return PassResult(program, False)
        return PassResult(editor.finish(), True, (f"unrolled {count} recurrences",))


class _Unroller:
    """Emits what `node` does. Of an LSTM a state is (h [b,p], c [b,n]), of others (h [b,n],)."""

    def __init__(self, editor: ProgramEditor, node: Node):
        self.editor, self.node, self.kind = editor, node, _KINDS[node.target]

    def do(self, target, *args) -> Node:
        return self.editor.emit(target, args, like=self.node)

    def cell(self):
        """gru_cell(x, h, w_ih, w_hh, b_ih, b_hh), and lstm_cell with [h, c] in the place of h."""
        x, state, w_ih, w_hh, *biases = self.editor.map_args(self.node.args)
        b_ih, b_hh = (*biases, None, None)[:2]
        state = tuple(state) if self.kind == "lstm" else (state,)
        new = self.step(self.do(_ATEN.linear.default, x, w_ih, b_ih), state, (w_hh, b_hh, None))
        return new if self.kind == "lstm" else new[0]

    def layers(self):
        """lstm.input(x, [h, c], weights, has_biases, layers, dropout, train, bidirectional, batch_first), others with h
        in the place of [h, c]. Returns (the outputs of all steps, the last states)."""
        x, states, weights, has_biases, layers, _, _, both, batch_first = self.editor.map_args(self.node.args)
        states = list(states) if self.kind == "lstm" else [states]
        time, ways = (1 if batch_first else 0), (2 if both else 1)
        per_way = len(weights) // (layers * ways)  # w_ih, w_hh, b_ih, b_hh, w_hr: those that there are
        last: list[tuple[Node, ...]] = []
        for layer in range(layers):
            outputs = []
            for way in range(ways):
                i = layer * ways + way
                held = weights[i * per_way:(i + 1) * per_way]
                b_ih, b_hh = held[2:4] if has_biases else (None, None)
                w_hr = held[-1] if per_way in (3, 5) else None
                state = tuple(self.do(_ATEN.select.int, s, 0, i) for s in states)
                every = self.do(_ATEN.linear.default, x, held[0], b_ih)  # [t,b,gates n] or [b,t,gates n]
                steps = list(range(every.meta["val"].shape[time]))
                hidden = {}
                for t in reversed(steps) if way else steps:
                    state = self.step(self.do(_ATEN.select.int, every, time, t), state, (held[1], b_hh, w_hr))
                    hidden[t] = state[0]
                outputs.append(self.do(_ATEN.stack.default, [hidden[t] for t in steps], time))
                last.append(state)
            x = self.do(_ATEN.cat.default, outputs, -1) if both else outputs[0]
        ends = [self.do(_ATEN.stack.default, list(s), 0) for s in zip(*last, strict=True)]
        return (x, *ends)

    def step(self, gates: Node, state: tuple[Node, ...], weights: tuple) -> tuple[Node, ...]:
        """gates: what the input gives, [b,gates n]. weights: w_hh, b_hh, w_hr (which projects the output), or None."""
        w_hh, b_hh, w_hr = weights
        told = self.do(_ATEN.linear.default, state[0], w_hh, b_hh)
        if self.kind == "gru":
            return (self._gru(gates, told, state[0]),)
        gates = self.do(_ATEN.add.Tensor, gates, told)
        if self.kind != "lstm":
            return (self.do(_ATEN.tanh.default if self.kind == "tanh" else _ATEN.relu.default, gates),)
        enter, forget, new, leave = self._split(gates, 4)
        kept = self.do(_ATEN.mul.Tensor, self._sigmoid(forget), state[1])
        entered = self.do(_ATEN.mul.Tensor, self._sigmoid(enter), self.do(_ATEN.tanh.default, new))
        c = self.do(_ATEN.add.Tensor, kept, entered)
        h = self.do(_ATEN.mul.Tensor, self._sigmoid(leave), self.do(_ATEN.tanh.default, c))
        return (h if w_hr is None else self.do(_ATEN.linear.default, h, w_hr, None), c)

    def _gru(self, gates: Node, told: Node, h: Node) -> Node:
        (x_reset, x_keep, x_new), (h_reset, h_keep, h_new) = self._split(gates, 3), self._split(told, 3)
        reset = self._sigmoid(self.do(_ATEN.add.Tensor, x_reset, h_reset))
        keep = self._sigmoid(self.do(_ATEN.add.Tensor, x_keep, h_keep))
        new = self.do(_ATEN.tanh.default, self.do(_ATEN.add.Tensor, x_new, self.do(_ATEN.mul.Tensor, reset, h_new)))
        moved = self.do(_ATEN.mul.Tensor, keep, self.do(_ATEN.sub.Tensor, h, new))
        return self.do(_ATEN.add.Tensor, new, moved)

    def _sigmoid(self, x: Node) -> Node:
        return self.do(_ATEN.sigmoid.default, x)

    def _split(self, x: Node, parts: int) -> list[Node]:
        size = x.meta["val"].shape[-1] // parts
        split = self.do(_ATEN.split.Tensor, x, size, -1)
        return [self.do(operator.getitem, split, i) for i in range(parts)]
