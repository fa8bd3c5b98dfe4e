"""Whether a program is one: uses in order, names that exist, types that are what the ops give.

Must not know passes. `fault_of` walks over the nodes and computes nothing; with `full` it asks PyTorch for the type of
every value again, which takes as long as the passes themselves.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import Program, infer_val, program_text, type_text

_KINDS = frozenset({"placeholder", "get_attr", "call_function", "output"})


def fault_of(program: Program, full: bool = False) -> str | None:
    """What is wrong with a program, in a line; None: it is in order."""
    faults = (*_FAULTS, _types_again, _lint) if full else _FAULTS
    return next((fault for find in faults for fault in find(program)), None)


def _uses(program: Program) -> Iterator[str]:
    seen: set[Node] = set()
    names: set[str] = set()
    for node in program.graph.nodes:
        if node.op not in _KINDS:
            yield f"%{node.name} is a {node.op}"
        for i in node.all_input_nodes:
            if i not in seen:
                yield f"%{node.name} reads %{i.name}, which is not computed before it"
        if node.name in names:
            yield f"two values are named %{node.name}"
        seen.add(node)
        names.add(node.name)


def _names(program: Program) -> Iterator[str]:
    for node in program.graph.nodes:
        if node.op == "placeholder" and program.inputs.get(node.name) not in program.sources:
            yield f"%{node.name} is the value of no source"
        if node.op == "get_attr" and node.target not in program.constants:
            yield f'%{node.name} reads the constant "{node.target}", which there is not'
    for name in program.parameters - program.constants.keys():
        yield f'the weight "{name}" is no constant'
    if len(program.output_nodes()) != len(program.outputs):
        yield f"{len(program.outputs)} outputs are named, {len(program.output_nodes())} are returned"


def _types(program: Program) -> Iterator[str]:
    """What can be known of a value without asking the op."""
    for node in program.graph.nodes:
        if node.op == "output":
            continue
        if "val" not in node.meta:
            yield f"%{node.name} has no type"
            continue
        if node.op == "get_attr":
            found = program.constants[node.target]
        elif node.target is operator.getitem:
            found = node.args[0].meta["val"][node.args[1]]
        else:
            continue
        if not _alike(node.meta["val"], found):
            yield f"%{node.name} is said to be {type_text(node.meta['val'])} and is {type_text(found)}"


_FAULTS = (_uses, _names, _types)


def _alike(one, other) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape
    return type_text(one) == type_text(other)


def _types_again(program: Program) -> Iterator[str]:
    known: dict[str, object] = {}  # by what an op reads: iterations of a loop are alike
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        key = f"{id(node.target)} {_typed(node.args)} {_typed(node.kwargs)}"
        if key not in known:
            known[key] = infer_val(node)
        said, found = _read(node, node.meta["val"]), _read(node, known[key])
        if said != found:
            yield f"%{node.name} is said to be {said} and is {found}"


def _read(node: Node, val) -> str:
    """The type of what is read of a value: of several results, those that are unread differ between devices."""
    if isinstance(val, torch.Tensor):
        return type_text(val)
    picked = {u.args[1] for u in node.users if u.target is operator.getitem}
    return ", ".join(f"{i}: {type_text(val[i])}" for i in sorted(picked))


def _typed(arg) -> str:
    if isinstance(arg, Node):
        val = arg.meta["val"]
        return f"{type_text(val)}{tuple(val.stride())}" if isinstance(val, torch.Tensor) else type_text(val)
    if isinstance(arg, dict):
        return str({k: _typed(v) for k, v in arg.items()})
    return f"[{', '.join(map(_typed, arg))}]" if isinstance(arg, (list, tuple)) else repr(arg)


def _lint(program: Program) -> Iterator[str]:
    """FX's own."""
    program_text(program)  # every value can be printed
    try:
        program.graph.lint()
    except RuntimeError as error:
        yield str(error)
