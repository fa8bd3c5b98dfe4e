"""The result of `torch.export` -> Program: no strides, no symbols, constants by name.

Owns the reading of the exported signature. Must not know how the policy was traced.
"""

from __future__ import annotations

import itertools
import keyword
from collections.abc import Mapping

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Graph, Node

from vlacompile.compiler.capture.buffer_state import require_no_state
from vlacompile.compiler.capture.chosen_rows import ChosenRows, RowsMixed
from vlacompile.compiler.capture.functionalise import Trace
from vlacompile.compiler.capture.robot_numbers import RobotNumbers, UnknownNumber, idle_nodes
from vlacompile.compiler.capture.strides import ByShape
from vlacompile.compiler.capture.symbols import decided_by_data, is_symbolic, type_of
from vlacompile.compiler.capture.weightless import without_content
from vlacompile.compiler.graph.carried import CarriedSource
from vlacompile.compiler.graph.program import KEPT, Program, prune, to_meta
from vlacompile.policy.policy import Policy
from vlacompile.policy.source_lines import line_of
from vlart.errors import CaptureError

_RETURNED = (OutputKind.USER_OUTPUT,)


def to_program(policy: Policy, trace: Trace, plain: Mapping[str, torch.Tensor],
               static: Mapping[str, torch.Tensor]) -> Program:
    """plain: {name: tensor} of buffers that were constants while tracing; static: the same of inputs. Raises
    CaptureError if a call leaves state for the next one, or if the policy contains a tensor that is not dense."""
    graph, mapping = Graph(), {}  # mapping: exported node -> node of `graph`, or the number that replaces it
    constants: dict[str, torch.Tensor] = {}
    parameters: set[str] = set()
    inputs: dict[str, str] = {}
    named = {**plain, **{f"static__{_identifier(n)}": t for n, t in static.items()}}
    held, weights = _held_tensors(policy, trace, {_place(t): name for name, t in named.items() if t.numel()})
    weights -= set(named) - set(plain)
    require_no_state(policy.name, trace, {n: t for n, (_, t) in held.items()})
    kinds = {s.arg.name: s.kind for s in trace.signature.input_specs}
    names, copier, numbers = iter(policy.inputs), ByShape(graph, constants), RobotNumbers(graph, constants)
    chosen, idle = ChosenRows(graph, constants, numbers), idle_nodes(trace.graph)
    for node in trace.graph.nodes:
        source = next(names) if node.op == "placeholder" and kinds[node.name] is InputKind.USER_INPUT else None
        if node in held:
            name, tensor = held[node]
            constants[name] = tensor
            if name in weights:
                parameters.add(name)
            new = graph.get_attr(name)
            new.meta["val"] = to_meta(tensor)
        elif node.op == "get_attr" or (node.op == "placeholder" and (source is None or source in static)):
            # a branch of torch.cond or a torch.Generator: the nodes that read it are refused; nothing reads what is
            # static here
            new = None
        elif node.op == "placeholder":
            name = _identifier(source)
            new = graph.placeholder(next(n for k in itertools.count()
                                         if (n := f"{name}_{k}" if k else name) not in inputs))
            inputs[new.name] = source
            new.meta["val"] = to_meta(node.meta["val"])
        elif node.op == "output":
            for n in _returned(trace, node):
                if n in chosen.rows:
                    raise decided_by_data(n, policy.name)
            graph.output(tuple(mapping[n] for n in _returned(trace, node)))
            continue
        elif node in idle:  # an assertion
            continue
        else:
            _require_plain_op(policy.name, node)
            try:
                found = chosen.follow(node, mapping.__getitem__)
                if found is NotImplemented:
                    found = numbers.follow(node, mapping.__getitem__)
                if found is not NotImplemented:
                    mapping[node] = found
                    continue
                new = copier.copy(node, mapping.__getitem__)
            except (RowsMixed, UnknownNumber, RuntimeError):  # an op on all rows whose shapes do not fit
                raise decided_by_data(node, policy.name) from None
            new.meta = {k: v for k, v in {**node.meta, **node.meta.get("custom", {})}.items() if k in KEPT}
            val = node.meta.get("val")
            new.meta["val"] = type_of(new, node, policy.name) if is_symbolic(val) else to_meta(val)
        mapping[node] = new
    live = {name: s for name, s in policy.sources.items() if s.update != "static"}
    live |= {name: CarriedSource(next=c.next, initial=c.initial, until=c.until)
             for name, c in policy.carried_inputs.items()}
    return prune(Program(policy.name, graph, constants, live, inputs, policy.returned, frozenset(parameters),
                         backbones=dict(policy.backbones)))


def _returned(trace: Trace, output: Node) -> tuple[Node, ...]:
    """The values that the function returns, without the new contents of buffers and inputs that it wrote into."""
    specs = trace.signature.output_specs
    return tuple(n for n, spec in zip(output.args[0], specs, strict=True) if spec.kind in _RETURNED)


def _held_tensors(policy: Policy, trace: Trace,
                  plain: Mapping[tuple, str]) -> tuple[dict[Node, tuple[str, torch.Tensor]], set[str]]:
    """({node: (name, tensor)} of weights, constants and static inputs, names of weights and buffers). plain: {place in
    memory: name} of those that were constants while tracing. Weights without content are on the meta device."""
    kinds = {s.arg.name: s for s in trace.signature.input_specs}
    tensors = {**trace.state_dict, **trace.constants}
    held, weights = {}, set()
    shared: dict[int, str] = {}  # weights without content that two modules have: there is no content to tell it by
    taken = {constant_name(name) for name in (*plain.values(), *trace.state_dict)}
    for node in trace.graph.nodes:
        kind = kinds[node.name].kind if node.op == "placeholder" else None
        if kind is InputKind.USER_INPUT:
            continue
        target = node.target if kind is None else kinds[node.name].target
        if node.op == "get_attr":
            tensor = getattr(trace.owner, target)
        elif kind is not None and kind is not InputKind.CUSTOM_OBJ:
            if target not in tensors:  # of a part of the graph: what runs the part is refused
                continue
            tensor = tensors[target]
        else:
            continue
        if isinstance(tensor, torch.nn.Module):
            continue  # a branch of torch.cond
        original, tensor = tensor, tensor.detach()
        weight = plain.get(_place(tensor)) or (target if kind in (InputKind.PARAMETER, InputKind.BUFFER) else None)
        name = constant_name(weight or target)
        if weight is None:  # the exporter's names: it does not know those of weights that were constants
            name = next(n for k in itertools.count() if (n := f"{name}_{k}" if k else name) not in taken)
        taken.add(name)
        if isinstance(original, FakeTensor):
            name = shared.setdefault(id(original), name)
        held[node] = name, _plain(policy, weight or target, without_content(tensor))
        if weight is not None:
            weights.add(name)
    return held, weights


def _place(tensor: torch.Tensor) -> tuple | None:
    """Where in memory the tensor lies, and how; None for one without memory of its own."""
    if isinstance(tensor, FakeTensor) or tensor.layout is not torch.strided or tensor.is_meta:
        return None
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _plain(policy: Policy, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as a contiguous copy, without views, lazy conjugation or negation. Raises CaptureError if sparse."""
    if tensor.layout is not torch.strided:
        raise CaptureError(
            f'"{name}" is a sparse tensor', where=f'Policy "{policy.name}", {name.removeprefix("policy.")}',
            why=f"its layout is {str(tensor.layout).removeprefix('torch.')}; engines compute with dense tensors only",
            fix="call .to_dense() on it before the policy is built")
    if tensor.is_meta:
        return tensor
    plain = tensor.resolve_conj().resolve_neg().contiguous()
    # axes of one element may have any stride
    return plain if plain.stride() == torch.empty(plain.shape, device="meta").stride() else plain.clone(
        memory_format=torch.contiguous_format)


def _require_plain_op(policy: str, node: Node) -> None:
    """Raises CaptureError for higher-order ops (torch.cond, loops, flex_attention), which no engine can run."""
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        if "flex_attention" in node.target.name():
            raise CaptureError(
                "flex_attention takes functions as operands", where=f'Policy "{policy}", {line_of(node)}',
                why="a compiled stage has ops on tensors; these functions are called for every score",
                fix="call scaled_dot_product_attention with attn_mask: a bool mask for what a block mask hides, or "
                    "numbers for what a score_mod adds")
        raise CaptureError(
            f"torch.{node.target.name()} chooses what is computed by the value of an input",
            where=f'Policy "{policy}", {line_of(node)}',
            why="a compiled stage computes the same ops for every input",
            fix="compute both sides and choose with torch.where(condition, one, other)")


def _identifier(name: str) -> str:
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    return plain if plain.isidentifier() and not keyword.iskeyword(plain) else f"source_{plain}"


def constant_name(target: str) -> str:
    """The name as an attribute of a GraphModule, whose buffers must not contain dots."""
    return target.replace(".", "__")
