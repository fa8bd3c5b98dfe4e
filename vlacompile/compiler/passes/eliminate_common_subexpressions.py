"""Computes every distinct value once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.ops import is_random
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import PassResult


def content_key(tensor: torch.Tensor) -> tuple:
    """Equal for tensors of the same dtype, shape and bytes."""
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return str(tensor.dtype), tuple(tensor.shape), hashlib.sha256(raw.data).digest()


def _constant_key(name: str, tensor: torch.Tensor) -> tuple:
    """By content; by name where there is none."""
    return ("name", name) if tensor.is_meta else content_key(tensor)


def _key(arg, rep: dict[Node, Node]):
    if isinstance(arg, Node):
        return "node", rep[arg].name
    if isinstance(arg, (list, tuple)):
        return ("seq", *(_key(a, rep) for a in arg))
    if isinstance(arg, dict):
        return ("map", *((k, _key(v, rep)) for k, v in sorted(arg.items())))
    return type(arg).__name__, repr(arg)


@dataclass(frozen=True)
class EliminateCommonSubexpressions:
    """Give equal ops on equal inputs, and constants of equal content, one node.

    Before:
        %x = source "x" f32[1,4]
        %relu = relu(%x) f32[1,4]
        %relu_1 = relu(%x) f32[1,4]
        %add = add.Tensor(%relu, %relu_1) f32[1,4]
        return action=%add
    After:
        %x = source "x" f32[1,4]
        %relu = relu(%x) f32[1,4]
        %add = add.Tensor(%relu, %relu) f32[1,4]
        return action=%add
    """

    def run(self, program: Program) -> PassResult:
        rep: dict[Node, Node] = {}
        first: dict[tuple, Node] = {}
        for node in program.graph.nodes:
            rep[node] = node
            if node.op == "call_function" and not is_random(node):
                key = (str(node.target), _key(node.args, rep), _key(node.kwargs, rep))
                rep[node] = first.setdefault(key, node)
            elif node.op == "get_attr":
                rep[node] = first.setdefault(_constant_key(node.target, program.constants[node.target]), node)
        merged = [n for n, r in rep.items() if r is not n]
        if not merged:
            return PassResult(program, False)
        editor = ProgramEditor(program)
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            if rep[node] is node:
                editor.copy(node)
            else:
                editor.replace(node, editor.map(rep[node]))
        return PassResult(editor.finish(), True, (f"merged {len(merged)} equal values",))
