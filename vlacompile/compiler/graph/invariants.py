"""What can be said of a program as a whole, and whether it is so: what passes need of each other.

Owns the properties that passes establish and require (`GraphPass.requires`, `ensures`, `destroys`). Must not know which
pass does so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch.fx import Node

from vlacompile.compiler.graph.delay import EarlierFrame
from vlacompile.compiler.graph.equal_values import representatives
from vlacompile.compiler.graph.ops import is_move, is_random
from vlacompile.compiler.graph.program import Program, op_name, type_text
from vlacompile.compiler.graph.rolled_loop import RolledLoop
from vlacompile.policy.policy import TAKEN_AS

_ATEN = torch.ops.aten
# Types that stages compute in no value of, and what stands for them.
ENGINE_TYPE_OF = {**TAKEN_AS, torch.float16: torch.float32}
UNINITIALISED = frozenset({_ATEN.empty_like.default, _ATEN.empty.memory_format, _ATEN.new_empty.default})
RECURRENT_LAYERS = frozenset({_ATEN.lstm.input, _ATEN.gru.input, _ATEN.rnn_tanh.input, _ATEN.rnn_relu.input})
RECURRENT_CELLS = frozenset({_ATEN.lstm_cell.default, _ATEN.gru_cell.default, _ATEN.rnn_tanh_cell.default,
                             _ATEN.rnn_relu_cell.default})
ATTENTION = _ATEN.scaled_dot_product_attention.default


@dataclass(frozen=True)
class Invariant:
    """A property of programs.

    breaches: what breaks it in a program, a line each; nothing where it holds.
    costly: it takes more than a walk over the nodes, and is checked in tests alone.
    """

    name: str
    meaning: str
    breaches: Callable[[Program], Iterator[str]] = field(repr=False, compare=False)
    costly: bool = False

    def breach(self, program: Program) -> str | None:
        """The first thing that breaks it; None: it holds."""
        return next(self.breaches(program), None)

    def __str__(self) -> str:
        return f"{self.name} ({self.meaning})"


def _line(node: Node) -> str:
    return f"%{node.name} = {op_name(node.target)}(...) {type_text(node.meta.get('val'))}"


def _of_nodes(name: str, meaning: str, holds: Callable[[Node], bool]) -> Invariant:
    return Invariant(name, meaning, lambda program: (
        _line(n) for n in program.graph.nodes if n.op != "output" and not holds(n)))


def tensors_of(val) -> tuple[torch.Tensor, ...]:
    """The tensors of a value, which may be a tuple of them."""
    if isinstance(val, torch.Tensor):
        return (val,)
    return tuple(t for v in val for t in tensors_of(v)) if isinstance(val, (list, tuple)) else ()


def is_complex(node: Node) -> bool:
    return any(t.is_complex() for t in tensors_of(node.meta.get("val")))


def is_unrollable(node: Node) -> bool:
    """A recurrent layer or cell; not one that draws random numbers between its layers."""
    return node.target in RECURRENT_CELLS or (node.target in RECURRENT_LAYERS and not all(node.args[5:7]))


def _computed_in_other_types(program: Program) -> Iterator[str]:
    live: set[Node] = set()
    for node in program.graph.nodes:
        if node.op == "placeholder" or any(i in live for i in node.all_input_nodes):
            live.add(node)
            if node.op == "call_function" and not is_move(node) and any(
                    t.dtype in ENGINE_TYPE_OF for t in tensors_of(node.meta.get("val"))):
                yield _line(node)


def _shared_outputs(program: Program) -> Iterator[str]:
    seen: dict[Node, str] = {}
    for name, node in zip(program.outputs, program.output_nodes(), strict=True):
        if node in seen:
            yield f'"{seen[node]}" and "{name}" are both %{node.name}'
        elif node.op != "call_function":
            yield f'"{name}" is %{node.name}, which no op computes'
        seen.setdefault(node, name)


def _tuples_of_constants(program: Program) -> Iterator[str]:
    constant: set[Node] = set()
    for node in program.graph.nodes:
        if node.op == "get_attr" or (node.op == "call_function" and not is_random(node)
                                     and not isinstance(node.target, RolledLoop)
                                     and all(i in constant for i in node.all_input_nodes)):
            constant.add(node)
            if node.op == "call_function" and not isinstance(node.meta["val"], torch.Tensor):
                yield _line(node)


def _repeated_values(program: Program) -> Iterator[str]:
    return (f"{_line(node)}, which is %{first.name}" for node, first in representatives(program).items()
            if node is not first)


def _earlier_frames(program: Program) -> Iterator[str]:
    return (f'source "{name}"' for name, source in program.sources.items() if isinstance(source, EarlierFrame))


REAL_NUMBERS = _of_nodes("REAL_NUMBERS", "no value is complex", lambda n: not is_complex(n))
RECURRENCES_UNROLLED = _of_nodes("RECURRENCES_UNROLLED", "no op is a recurrent layer", lambda n: not is_unrollable(n))
INITIALISED = _of_nodes("INITIALISED", "no tensor is without content", lambda n: n.target not in UNINITIALISED)
ATTENTION_4D = _of_nodes("ATTENTION_4D", "attentions have four dimensions",
                         lambda n: n.target is not ATTENTION or n.meta["val"].dim() == 4)
LOOPS_UNROLLED = _of_nodes("LOOPS_UNROLLED", "no op is a loop", lambda n: not isinstance(n.target, RolledLoop))
ENGINE_TYPES = Invariant("ENGINE_TYPES", "what a source reaches is computed in types that engines have",
                         _computed_in_other_types)
DISTINCT_OUTPUTS = Invariant("DISTINCT_OUTPUTS", "every output is computed, and is no other output", _shared_outputs)
TENSOR_CONSTANTS = Invariant("TENSOR_CONSTANTS", "no op of several results reads constants alone", _tuples_of_constants)
NO_EARLIER_FRAMES = Invariant("NO_EARLIER_FRAMES", "earlier frames are delays", _earlier_frames)
NO_COMMON_SUBEXPRESSIONS = Invariant("NO_COMMON_SUBEXPRESSIONS", "every value is computed once", _repeated_values,
                                     costly=True)
