"""The batch norm behind a convolution becomes part of its weight."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.invariants import ENGINE_TYPES
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult

_ATEN = torch.ops.aten
_CONVOLUTIONS = frozenset({_ATEN.conv1d.default, _ATEN.conv2d.default})
_NORM = _ATEN._native_batch_norm_legit_no_training.default


@dataclass(frozen=True)
class FoldBatchNorms(GraphPass):
    """norm(conv(x, w, b)) becomes conv(x, w * s, (b - mean) * s + shift) with s = scale / sqrt(variance + eps), where
    nothing else reads the value between: a convolution is quantised as it is computed. The weights are computed in
    float64. Exact but for rounding.

    Before:
        %x = source "x" f32[1,1,2]
        %w = weight "w" f32[1,1,1]
        %norm__weight = weight "norm__weight" f32[1]
        %norm__bias = weight "norm__bias" f32[1]
        %norm__running_mean = weight "norm__running_mean" f32[1]
        %norm__running_var = weight "norm__running_var" f32[1]
        %conv1d = conv1d(%x, %w) f32[1,1,2]
        %_native_batch_norm_legit_no_training = _native_batch_norm_legit_no_training(%conv1d, %norm__weight, %norm__bias, %norm__running_mean, %norm__running_var, 0.1, 1e-05) (f32[1,1,2], f32[0], f32[0])
        %getitem = getitem(%_native_batch_norm_legit_no_training, 0) f32[1,1,2]
        return action=%getitem
    After:
        %x = source "x" f32[1,1,2]
        %w__normed = weight "w__normed" f32[1,1,1]
        %w__normed__bias = weight "w__normed__bias" f32[1]
        %conv1d_1 = conv1d(%x, %w__normed, %w__normed__bias) f32[1,1,2]
        return action=%conv1d_1
    """  # noqa: E501  a line of a program

    requires = frozenset({ENGINE_TYPES})

    def run(self, program: Program) -> PassResult:
        editor, folded = ProgramEditor(program), []
        made: dict[str, tuple] = {}  # the weights and eps that a new weight is computed from
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            conv = _convolution_of(program, node)
            if conv is None:
                editor.keep(node)
                continue
            norm = node.args[0]
            read = (*conv.args[1:3], *norm.args[1:5], norm.args[6])
            name = f"{conv.args[1].target}__normed"
            if made.setdefault(name, read) != read:  # the same weight behind another norm
                name = next((n for n, r in made.items() if r == read), f"{name}__{node.name}")
                made[name] = read
            weight = editor.weight(name, lambda c=conv, n=norm: _folded(program, c, n)[0])
            bias = editor.weight(f"{name}__bias", lambda c=conv, n=norm: _folded(program, c, n)[1])
            rest = editor.map_args(conv.args[3:])
            editor.replace(node, editor.emit(conv.target, (editor.map(conv.args[0]), weight, bias, *rest), like=conv))
            folded.append(conv.args[1].target)
        if not folded:
            return PassResult(program, False)
        more = f" and {len(folded) - 1} more" if len(folded) > 1 else ""
        return PassResult(editor.finish(), True, (f"norms into {folded[0]}{more}",))


def _convolution_of(program: Program, node: Node) -> Node | None:
    """Of the normalised value: the convolution before, if it and the norm have fixed weights and no other reader."""
    norm = node.args[0] if node.target is operator.getitem and node.args[1] == 0 else None
    if norm is None or norm.target is not _NORM or len(norm.users) != 1:
        return None
    conv = norm.args[0]
    if conv.target not in _CONVOLUTIONS or len(conv.users) != 1:
        return None
    constants = [a for a in (*conv.args[1:3], *norm.args[1:5]) if a is not None]
    return conv if all(isinstance(a, Node) and a.op == "get_attr" for a in constants) else None


def _folded(program: Program, conv: Node, norm: Node) -> tuple[torch.Tensor, torch.Tensor]:
    held = [program.constants[n.target] for n in (*conv.args[1:3], *norm.args[1:5]) if n is not None]
    device = "meta" if any(t.is_meta for t in held) else "cpu"  # some of a policy without weights are known
    value = lambda n: program.constants[n.target].to(device, torch.float64)
    weight, bias = value(conv.args[1]), conv.args[2] if len(conv.args) > 2 else None
    scale, shift, mean, variance = (None if n is None else value(n) for n in norm.args[1:5])
    s = 1 / torch.sqrt(variance + norm.args[6])
    s = s if scale is None else s * scale
    b = -mean * s if bias is None else (value(bias) - mean) * s
    b = b if shift is None else b + shift
    dtype = program.constants[conv.args[1].target].dtype
    return (weight * s.reshape(-1, *[1] * (weight.dim() - 1))).to(dtype), b.to(dtype)
