"""Writes complex numbers as real ones, which is what engines have."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.invariants import REAL_NUMBERS, is_complex
from vlacompile.compiler.graph.program import Program, ProgramEditor, op_name
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlacompile.compiler.passes.rules.complex_numbers import BOTH, RULES, Emitter, Pair, both
from vlacompile.compiler.passes.rules.fourier_transforms import FOURIER
from vlacompile.policy.source_lines import lines_of_trace
from vlart.errors import StagingError


@dataclass(frozen=True)
class LowerComplex(GraphPass):
    """A complex value becomes two real ones, and what is done to it becomes what that does to its parts; a Fourier
    transform becomes products with constant matrices. Raises StagingError for an op that has no rule, with its line.

    Before:
        %x = source "x" f32[1,2,2]
        %turns = weight "turns" c64[2]
        %view_as_complex = view_as_complex(%x) c64[1,2]
        %mul = mul.Tensor(%view_as_complex, %turns) c64[1,2]
        %view_as_real = view_as_real(%mul) f32[1,2,2]
        return action=%view_as_real
    After:
        %x = source "x" f32[1,2,2]
        %turns__re = weight "turns__re" f32[2]
        %turns__im = weight "turns__im" f32[2]
        %select = select.int(%x, -1, 0) f32[1,2]
        %select_1 = select.int(%x, -1, 1) f32[1,2]
        %mul = mul.Tensor(%select, %turns__re) f32[1,2]
        %mul_1 = mul.Tensor(%select_1, %turns__im) f32[1,2]
        %sub = sub.Tensor(%mul, %mul_1) f32[1,2]
        %mul_2 = mul.Tensor(%select, %turns__im) f32[1,2]
        %mul_3 = mul.Tensor(%select_1, %turns__re) f32[1,2]
        %add = add.Tensor(%mul_2, %mul_3) f32[1,2]
        %stack = stack([%sub, %add], -1) f32[1,2,2]
        return action=%stack
    """

    ensures = frozenset({REAL_NUMBERS})
    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    def run(self, program: Program) -> PassResult:
        if not any(is_complex(n) or n.target in FOURIER for n in program.graph.nodes):
            return PassResult(program, False)
        editor, pairs, count = ProgramEditor(program), {}, 0
        for node in program.graph.nodes:
            if node.op == "output":
                for name, n in zip(program.outputs, program.output_nodes(), strict=True):
                    if n in pairs:
                        raise _refused(n, f'the output "{name}" is complex', "return its parts: torch.view_as_real")
            elif node.op == "get_attr" and is_complex(node):
                weight = node.target in program.parameters
                pairs[node] = _constant(editor, node.target, program.constants[node.target], weight)
            elif not (is_complex(node) or node.target in FOURIER or any(n in pairs for n in node.all_input_nodes)):
                editor.keep(node)
            else:
                result = _rewritten(editor, node, pairs)
                count += 1
                if isinstance(result, Pair):
                    pairs[node] = result
                else:
                    editor.replace(node, result)
        return PassResult(editor.finish(), True, (f"wrote {count} ops of complex numbers",))


def _constant(editor: ProgramEditor, name: str, tensor: torch.Tensor, weight: bool) -> Pair:
    parts = {f"{name}__re": tensor.real.contiguous, f"{name}__im": tensor.imag.contiguous}
    return Pair(*(editor.weight(n, f) if weight else editor.constant(n, f()) for n, f in parts.items()))


def _rewritten(editor: ProgramEditor, node: Node, pairs: dict[Node, Pair]):
    """A node, or a Pair."""
    if node.op != "call_function":
        raise _refused(node, "an input is complex",
                       "make its parts the input, and torch.view_as_complex(them) in the policy")
    if not node.all_input_nodes:  # known now
        with torch.no_grad():
            return _constant(editor, node.name, node.target(*node.args, **node.kwargs), False)
    mapped = lambda a: _map(a, lambda n: pairs[n] if n in pairs else editor.map(n))
    args, kwargs = mapped(node.args), mapped(node.kwargs)
    emitter = Emitter(editor, node)
    packet = getattr(node.target, "overloadpacket", None)
    try:
        if node.target is operator.getitem or packet in BOTH:
            return both(emitter, args, {k: v for k, v in kwargs.items() if k not in ("dtype", "memory_format")})
        rule = RULES.get(node.target) or FOURIER.get(node.target)
        if rule is None:
            raise NotImplementedError(f'"{op_name(node.target)}" of complex numbers has no rule')
        return rule(emitter, *args, **kwargs)
    except NotImplementedError as error:
        raise _refused(node, str(error), "write it with sums, products, abs(), exp() and torch.view_as_real of complex "
                       "numbers, or with real ones") from error


def _map(a, function):
    """Like map_arg, but what `function` gives may be a Pair, which is a tuple itself."""
    if isinstance(a, Node):
        return function(a)
    if isinstance(a, (list, tuple)):
        return type(a)(_map(x, function) for x in a)
    if isinstance(a, dict):
        return {k: _map(v, function) for k, v in a.items()}
    return a


def _refused(node: Node, why: str, fix: str) -> StagingError:
    line = lines_of_trace(node.meta.get("stack_trace") or "")
    return StagingError("complex numbers cannot be written as real ones here", where=line or f'"{node.name}"',
                        why=why, fix=fix)
