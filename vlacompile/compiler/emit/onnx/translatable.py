"""Which ATen ops have an ONNX translation, checked before anything is emitted."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch.fx import Node

from vlacompile.compiler.emit.onnx.functions import decompositions_beside, table
from vlacompile.compiler.graph.ops import is_random
from vlacompile.compiler.graph.program import op_name
from vlacompile.compiler.passes.rules.inline_graph import signature, trace
from vlacompile.compiler.passes.rules.linalg_decompositions import ROWS
from vlacompile.compiler.staging.stages import Staged
from vlacompile.policy.source_lines import lines_of_trace
from vlart.errors import EmitError

# The lowest opset of any dialect: it selects the table of translations in torch 2.13.
_OPSET = 20
# Ops whose translation cancels the accuracy that the op exists for: erfcx(5) becomes exp(25) * (1 - erf(5)).
_INEXACT = frozenset({torch.ops.aten.special_erfcx.default})


def is_translated(target) -> bool:
    """Whether the op has a direct translation. Targets that are not library ops are the compiler's own, and count."""
    return not isinstance(target,
                          torch._ops.OpOverload) or (target not in _INEXACT and table(_OPSET).is_registered(target))


@functools.cache
def decompositions() -> dict[torch._ops.OpOverload, Callable]:
    """{op: PyTorch's decomposition into other ops}, which torch.onnx applies to ops without a translation."""
    return {target: function for target, function in decompositions_beside(_OPSET).items()
            if not is_translated(target) and target not in _INEXACT}


def require_translatable(staged: Staged) -> None:
    """Raises EmitError for the first op without an ONNX translation, with the policy's line that it comes from."""
    seen: set[str] = set()
    for stage in staged.stages:
        for node in stage.graph.nodes:
            if node.op != "call_function":
                continue
            if is_random(node):
                raise _refusal(stage.name, node, op_name(node.target))
            if is_translated(node.target) or signature(node) in seen:
                continue
            seen.add(signature(node))
            graph = trace(node, decompositions().get(node.target, node.target), decompositions())
            inside = [node] if graph is None else [n for n in graph.nodes if n.op == "call_function"]
            lost = [n for n in inside if not is_translated(n.target)]
            if lost:
                raise _refusal(stage.name, node, op_name(lost[0].target))


_OUTSIDE = "compute it outside the policy and make the result an input"
_FIXES = {
    "svd": f"of constant matrices it is folded at compile time; of others, {_OUTSIDE}",
    "eig": f"of constant matrices it is folded at compile time; of others, {_OUTSIDE}",
    "linalg": f"inverse, solve, determinant, Cholesky factor and QR are supported up to {ROWS} rows; of larger ones, "
              f"{_OUTSIDE}",
}


def _refusal(stage: str, node: Node, lost: str) -> EmitError:
    line = lines_of_trace(node.meta.get("stack_trace") or "")
    name = op_name(node.target)
    fix = next((f for word, f in _FIXES.items() if word in lost or word in name), "rewrite that line with other ops")
    why = f'there is no ONNX translation of "{lost}"' + ("" if lost == name else f', a part of "{name}"')
    if is_random(node):
        why, fix = f'"{name}" draws random numbers', "make the random numbers an input of the policy"
    return EmitError(f'no engine computes "{name}"', where=f'stage "{stage}"' + (f", {line}" if line else ""),
                     why=why, fix=fix)
